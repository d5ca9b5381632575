/* Numbers as text: the shortest decimal that reads back as the same number, as Python's repr writes it; and back. */
#ifndef COMITIA_DECIMAL_H
#define COMITIA_DECIMAL_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef unsigned __int128 wide;

enum {
    DECIMAL_LENGTH = 24,  /* characters of the longest number */
    DECIMAL_LEAST = -292, /* powers of ten that are needed */
    DECIMAL_MOST = 324,
    DECIMAL_POWERS = DECIMAL_MOST - DECIMAL_LEAST + 1
};

enum { FRACTION_BITS = 52, EXPONENT_MAX = 2047, EXPONENT_OFFSET = 1075 }; /* of a double */

/* 10^e as a 128-bit number from 2^127 on, rounded up; its binary exponent follows from e. */
typedef struct {
    uint64_t high, low;
} decimal_power;

/* Write a finite number; returns the number of characters, no zero after them.
 *   powers  IN   [DECIMAL_POWERS], the first of DECIMAL_LEAST
 *   to      OUT  [DECIMAL_LENGTH]                                              */
size_t decimal_write(const decimal_power *powers, double number, char *to);

static inline int log2_of_power10(int e) /* floor, exact for all doubles */
{
    return (e * 1741647) >> 19;
}

/* The number nearest to digits * 10^exponent, as Python's float reads it; 0 where the powers do not settle it (close to
 * halfway between two numbers, subnormal, too large), which happens seldom: let another reader do these.
 *   powers  IN   [DECIMAL_POWERS], the first of DECIMAL_LEAST
 *   number  OUT  what was found where 1 is returned                                                                */
static inline int decimal_read(const decimal_power *powers, uint64_t digits, int exponent, double *number)
{
    static const double TENS[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                  1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    if (digits >> (FRACTION_BITS + 1) == 0 && exponent >= -22 && exponent <= 22) { /* one rounding of exact numbers */
        *number = exponent < 0 ? (double)digits / TENS[-exponent] : (double)digits * TENS[exponent];
        return 1;
    }
    if (digits == 0 || exponent < DECIMAL_LEAST || exponent > DECIMAL_MOST)
        return 0;
    const int zeros = __builtin_clzll(digits);
    const decimal_power power = powers[exponent - DECIMAL_LEAST];
    const uint64_t count = digits << zeros;
    wide product = (wide)count * power.high;
    uint64_t high = (uint64_t)(product >> 64);
    const int large = (int)(high >> 63), n_dropped = 63 - FRACTION_BITS - !large; /* of `high`, and all below it */
    const uint64_t half = (uint64_t)1 << (n_dropped - 1);
    uint64_t beyond = (high & (2 * half - 1)) - half;
    if (beyond + 1 <= 1) { /* what is missing, less than one in `high`, may matter */
        product += (wide)count * power.low >> 64;
        if ((uint64_t)(product >> 127) != (uint64_t)large)
            return 0;
        high = (uint64_t)(product >> 64);
        beyond = (high & (2 * half - 1)) - half;
        if (((wide)beyond << 64 | (uint64_t)product) + 1 <= 2) /* the power was rounded up by less than one */
            return 0;
    }
    const int biased = n_dropped + 1 + log2_of_power10(exponent) - zeros + EXPONENT_OFFSET;
    if (biased < 1 || biased >= EXPONENT_MAX - 1)
        return 0;
    const uint64_t fraction = (high >> n_dropped) + !(beyond >> 63); /* with its leading one */
    const uint64_t bits = ((uint64_t)(biased - 1) << FRACTION_BITS) + fraction;
    memcpy(number, &bits, sizeof bits);
    return 1;
}

#endif
