#include "rows.h"
#include <string.h>

enum { MOST_DIGITS = 19, LARGEST_EXPONENT = 9999 };

static int is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\v' || c == '\f';
}

static int is_digit(char c)
{
    return (unsigned char)(c - '0') < 10;
}

/* Eight digits at once: pairs, fours and all of them by one product each; 0 where they are not all digits. */
static int eight_digits(const char *at, uint64_t *value)
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
    const char *at = rows->at;
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
        const char *const after =
            read_number(powers, at, rows->end, &rows->values[rows->n_rows * rows->n_columns + rows->column]);
        if (after == NULL) {
            rows->word = at;
            while (*at != '\n' && !is_blank(*at))
                at++;
            rows->word_end = at;
            rows->at = at;
            return ROWS_WORD;
        }
        rows->column++;
        at = after;
    }
    rows->at = at;
    return ROWS_END;
}
