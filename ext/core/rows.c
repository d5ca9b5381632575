#include "rows.h"
#ifdef __SSE2__
#include <emmintrin.h>
#endif

enum { MOST_DIGITS = 19, LARGEST_EXPONENT = 9999, SIGNED_8 = 15, SIGNED_16 = 23 };

static int is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\v' || c == '\f';
}

static int is_digit(char c)
{
    return (unsigned char)(c - '0') < 10;
}

/* Eight digits at once: pairs, fours and all of them by one product each; 0 where they are not all digits. */
static inline int eight_digits(const char *at, uint64_t *value)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    const uint64_t highs = 0xF0F0F0F0F0F0F0F0u;
    uint64_t c;
    memcpy(&c, at, sizeof c);
    if (((c & highs) | (((c + 0x0606060606060606u) & highs) >> 4)) != 0x3333333333333333u)
        return 0;
    c = (c & 0x0F0F0F0F0F0F0F0Fu) * (1 + (10u << 8)) >> 8;
    c = (c & 0x00FF00FF00FF00FFu) * (1 + (100u << 16)) >> 16;
    *value = (c & 0x0000FFFF0000FFFFu) * (1 + ((uint64_t)10000 << 32)) >> 32;
    return 1;
#else
    (void)at, (void)value;
    return 0;
#endif
}

static const char *read_digits(const char *at, const char *end, uint64_t *digits)
{
    uint64_t eight;
    while (end - at >= 8 && eight_digits(at, &eight)) {
        *digits = *digits * 100000000 + eight;
        at += 8;
    }
    while (is_digit(*at))
        *digits = *digits * 10 + (uint64_t)(*at++ - '0');
    return at;
}

/* A number in plain decimal notation; where it ends, or NULL if it is anything else. */
static const char *read_number(const decimal_power *powers, const char *at, const char *end, double *number)
{
    const int minus = *at == '-';
    at += minus || *at == '+';
    uint64_t digits = 0;
    const char *const whole = at;
    while (*at == '0')
        at++;
    const char *first = at; /* digit that is not zero */
    at = read_digits(at, end, &digits);
    long n_digits = at - first, exponent = 0;
    long n_seen = at - whole;
    if (*at == '.') {
        const char *const point = ++at;
        if (n_digits == 0)
            while (*at == '0')
                at++;
        first = at;
        at = read_digits(at, end, &digits);
        n_digits += at - first;
        n_seen += at - point;
        exponent = point - at;
    }
    if (n_seen == 0 || n_digits > MOST_DIGITS)
        return NULL;
    if (*at == 'e' || *at == 'E') {
        const int down = *++at == '-';
        at += down || *at == '+';
        if (!is_digit(*at))
            return NULL;
        long power = 0;
        while (is_digit(*at) && power < LARGEST_EXPONENT)
            power = power * 10 + (*at++ - '0');
        exponent += down ? -power : power;
    }
    if (*at != '\n' && !is_blank(*at))
        return NULL;
    if (digits == 0)
        *number = 0;
    else if (exponent < -LARGEST_EXPONENT || exponent > LARGEST_EXPONENT ||
             !decimal_read(powers, digits, (int)exponent, number))
        return NULL;
    if (minus)
        *number = -*number;
    return at;
}

/* Sixteen digits as two numbers of eight, the first one below the other; 0 where they are not all digits. */
static inline int sixteen_digits(const char *at, uint64_t *value)
{
#ifdef __SSE2__
    __m128i c = _mm_sub_epi8(_mm_loadu_si128((const __m128i *)at), _mm_set1_epi8('0'));
    if (_mm_movemask_epi8(_mm_cmpeq_epi8(_mm_subs_epu8(c, _mm_set1_epi8(9)), _mm_setzero_si128())) != 0xFFFF)
        return 0;
    const __m128i firsts = _mm_mullo_epi16(_mm_and_si128(c, _mm_set1_epi16(0xFF)), _mm_set1_epi16(10));
    c = _mm_madd_epi16(_mm_add_epi16(firsts, _mm_srli_epi16(c, 8)), _mm_set1_epi32(1 << 16 | 100));
    c = _mm_madd_epi16(_mm_packs_epi32(c, c), _mm_set1_epi32(1 << 16 | 10000));
    const uint64_t two = (uint64_t)_mm_cvtsi128_si64(c);
    *value = (two & 0xFFFFFFFF) * 100000000 + (two >> 32);
    return 1;
#else
    uint64_t first, second;
    if (!eight_digits(at, &first) || !eight_digits(at + 8, &second))
        return 0;
    *value = first * 100000000 + second;
    return 1;
#endif
}

/* Numbers as `%.8e` or `%.16e` print them into columns of one width: where they lie follows from the one before, and
 * what differs from number to number is computed, not asked for, as the branches could not be foreseen.
 * Returns how many are so; the next one must be read in another way.
 *   after    IN   end of a number in the same line
 *   width    IN   characters from there to the end of the next one
 *   numbers  OUT  [n] */
static int64_t read_columns(const decimal_power *powers, const char *after, const char *end, ptrdiff_t width, int64_t n,
                            double *numbers)
{
    const int n_digits = width > SIGNED_16 ? 16 : 8; /* after the point */
    const ptrdiff_t n_blanks = width - (n_digits == 16 ? SIGNED_16 : SIGNED_8);
    if (n_blanks < 1)
        return 0;
    for (int64_t i = 0; i < n; i++, after += width) {
        if (end - after <= width)
            return i;
        for (ptrdiff_t k = 0; k < n_blanks; k++)
            if (after[k] != ' ')
                return i;
        const char *const at = after + n_blanks, *const exponent = at + 3 + n_digits;
        const int minus = at[0] == '-', down = exponent[1] == '-';
        const unsigned first = (unsigned char)(at[1] - '0');
        const unsigned tens = (unsigned char)(exponent[2] - '0'), ones = (unsigned char)(exponent[3] - '0');
        const int odd = (at[0] ^ (minus ? '-' : ' ')) | (at[2] ^ '.') | (exponent[0] ^ 'e') |
                        (exponent[1] ^ (down ? '-' : '+')) | (first > 9) | (tens > 9) | (ones > 9) |
                        ((exponent[4] != ' ') & (exponent[4] != '\n'));
        uint64_t digits;
        if (odd || !(n_digits == 16 ? sixteen_digits(at + 3, &digits) : eight_digits(at + 3, &digits)))
            return i;
        digits += first * (n_digits == 16 ? 10000000000000000u : 100000000u);
        const int power = (int)(10 * tens + ones);
        if (!decimal_read(powers, digits, (down ? -power : power) - n_digits, &numbers[i]))
            return i;
        uint64_t bits;
        memcpy(&bits, &numbers[i], sizeof bits);
        bits |= (uint64_t)minus << 63;
        memcpy(&numbers[i], &bits, sizeof bits);
    }
    return n;
}

/* The step that a comment announces, if it does. */
static rows_status read_step(text_rows *rows, const char *at, const char *line_end)
{
    static const char WORD[] = {'S', 't', 'e', 'p', ':'};
    do {
        at = memchr(at, WORD[0], (size_t)(line_end - at));
        if (at == NULL || line_end - at < (long)sizeof WORD)
            return ROWS_END;
    } while (memcmp(at++, WORD, sizeof WORD) != 0);
    at += sizeof WORD - 1;
    while (is_blank(*at))
        at++;
    const char *const begin = at;
    uint64_t step = 0;
    while (is_digit(*at))
        step = step * 10 + (uint64_t)(*at++ - '0');
    if (at == begin || at - begin > 18)
        return ROWS_DAMAGED_STEP;
    if (rows->step != ROWS_UNKNOWN_STEP)
        return ROWS_NO_NUMBERS;
    rows->step = (int64_t)step;
    return ROWS_END;
}

rows_status rows_read(const decimal_power *powers, text_rows *rows)
{
    const char *at = rows->at, *before = at; /* end of the number before */
    while (at < rows->end) {
        while (is_blank(*at))
            at++;
        if (*at == '\n' || *at == '#') {
            const char *const line_end = *at == '\n' ? at : memchr(at, '\n', (size_t)(rows->end - at));
            if (rows->column > 0) {
                if (rows->column != rows->n_columns)
                    return ROWS_SHORT;
                if (rows->steps != NULL) {
                    rows->steps[rows->n_rows] = rows->step;
                    rows->step = ROWS_UNKNOWN_STEP;
                }
                rows->n_rows++;
                rows->column = 0;
            } else if (rows->steps != NULL && *at == '#') {
                const rows_status status = read_step(rows, at, line_end);
                if (status != ROWS_END)
                    return status;
            }
            at = line_end + 1;
            rows->line++;
            continue;
        }
        if (rows->column == rows->n_columns) {
            rows->at = at;
            return ROWS_LONG;
        }
        if (rows->steps != NULL && rows->step == ROWS_UNKNOWN_STEP)
            return ROWS_NO_STEP;
        if (rows->n_rows == rows->n_room) {
            rows->at = at;
            return ROWS_FULL;
        }
        double *const number = &rows->values[rows->n_rows * rows->n_columns + rows->column];
        const char *after = read_number(powers, at, rows->end, number);
        if (after == NULL) {
            rows->word = at;
            while (*at != '\n' && !is_blank(*at))
                at++;
            rows->word_end = at;
            rows->at = at;
            return ROWS_WORD;
        }
        rows->column++;
        if (rows->column == 2) {
            const ptrdiff_t width = after - before;
            const int64_t n = read_columns(powers, after, rows->end, width, rows->n_columns - 2, number + 1);
            rows->column += n;
            after += n * width;
        }
        before = at = after;
    }
    rows->at = at;
    return ROWS_END;
}
