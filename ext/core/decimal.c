/* R. Giulietti, The Schubfach way to render doubles (2020): all decimals of one length lie 10^k apart; the longest such
 * step of which exactly one multiple, or the nearest of two, lies in the interval that rounds to the number. Everything
 * is decided on products with 128-bit powers of ten whose last bit says whether something was cut off. */
#include "decimal.h"

static const char PAIRS[201] = "00010203040506070809101112131415161718192021222324252627282930313233343536373839"
                               "40414243444546474849505152535455565758596061626364656667686970717273747576777879"
                               "8081828384858687888990919293949596979899";

typedef struct {
    uint64_t digits;
    int exponent; /* of ten */
} decimal;

/* floor(log10(2^q)), of 3/4 2^q where the interval is narrower below; exact for all doubles. */
static int log10_of_power2(int q, int narrow)
{
    return (q * 1262611 - (narrow ? 524031 : 0)) >> 22;
}

/* Integer part of power * count / 2^128, its last bit set where anything was cut off. */
static uint64_t product_to_odd(decimal_power power, uint64_t count)
{
    const wide middle = (wide)power.high * count + ((wide)power.low * count >> 64);
    return (uint64_t)(middle >> 64) | ((uint64_t)middle > 1);
}

static decimal shortest(const decimal_power *powers, uint64_t fraction, int exponent)
{
    const uint64_t c = exponent ? fraction | (uint64_t)1 << FRACTION_BITS : fraction;
    const int q = (exponent ? exponent : 1) - EXPONENT_OFFSET; /* the number is c 2^q */
    if (q <= 0 && q > -53 && (c & (((uint64_t)1 << -q) - 1)) == 0)
        return (decimal){c >> -q, 0};
    const int narrow = fraction == 0 && exponent > 1, odd = (int)(c & 1);
    const int k = log10_of_power2(q, narrow), shift = q + log2_of_power10(-k) + 1;
    const decimal_power power = powers[-k - DECIMAL_LEAST];
    /* four times the number and the ends of its interval, in units of 10^k; an odd number does not own the ends */
    const uint64_t lower = product_to_odd(power, (4 * c - 2 + (uint64_t)narrow) << shift) + (uint64_t)odd;
    const uint64_t middle = product_to_odd(power, (4 * c) << shift);
    const uint64_t upper = product_to_odd(power, (4 * c + 2) << shift) - (uint64_t)odd;
    const uint64_t below = middle / 4, coarse = below / 10;
    if (below >= 10) { /* one digit less? */
        const int down = lower <= 40 * coarse, up = 40 * coarse + 40 <= upper;
        if (down != up)
            return (decimal){coarse + (uint64_t)up, k + 1};
    }
    const int down = lower <= 4 * below, up = 4 * below + 4 <= upper;
    if (down != up)
        return (decimal){below + (uint64_t)up, k};
    const uint64_t half = 4 * below + 2;
    return (decimal){below + (middle > half || (middle == half && (below & 1))), k};
}

/* The digits of a number below 10^17, from the end of `digits` backwards; returns where they begin. */
static char *write_digits(uint64_t value, char *end)
{
    while (value >= 100) {
        end -= 2;
        memcpy(end, PAIRS + 2 * (value % 100), 2);
        value /= 100;
    }
    if (value >= 10) {
        end -= 2;
        memcpy(end, PAIRS + 2 * value, 2);
    } else {
        *--end = (char)('0' + value);
    }
    return end;
}

static char *write_exponent(int exponent, char *to)
{
    const unsigned size = (unsigned)(exponent < 0 ? -exponent : exponent);
    *to++ = 'e';
    *to++ = exponent < 0 ? '-' : '+';
    if (size >= 100)
        *to++ = (char)('0' + size / 100);
    memcpy(to, PAIRS + 2 * (size % 100), 2);
    return to + 2;
}

size_t decimal_write(const decimal_power *powers, double number, char *to)
{
    char *const begin = to, buffer[DECIMAL_LENGTH];
    uint64_t bits;
    memcpy(&bits, &number, sizeof bits);
    if (bits >> 63)
        *to++ = '-';
    const uint64_t fraction = bits & (((uint64_t)1 << FRACTION_BITS) - 1);
    const int exponent = (int)(bits >> FRACTION_BITS) & EXPONENT_MAX;
    if (exponent == 0 && fraction == 0) {
        memcpy(to, "0.0", 3);
        return (size_t)(to + 3 - begin);
    }
    const decimal found = shortest(powers, fraction, exponent);
    char *const end = buffer + DECIMAL_LENGTH, *const digits = write_digits(found.digits, end);
    const int point = (int)(end - digits) + found.exponent; /* digits before the point, or zeros after it if negative */
    size_t n = (size_t)(end - digits);
    while (n > 1 && digits[n - 1] == '0')
        n--;
    if (point > 16 || point < -3) {
        *to++ = digits[0];
        if (n > 1) {
            *to++ = '.';
            memcpy(to, digits + 1, n - 1);
            to += n - 1;
        }
        return (size_t)(write_exponent(point - 1, to) - begin);
    }
    if (point <= 0) {
        memcpy(to, "0.000", 5);
        memcpy(to + 2 - point, digits, n);
        return (size_t)(to + 2 - point - begin) + n;
    }
    const size_t before = (size_t)point, whole = before < n ? before : n;
    memcpy(to, digits, whole);
    memset(to + whole, '0', before - whole);
    to += before;
    *to++ = '.';
    if (n <= before) {
        *to++ = '0';
    } else {
        memcpy(to, digits + before, n - before);
        to += n - before;
    }
    return (size_t)(to - begin);
}
