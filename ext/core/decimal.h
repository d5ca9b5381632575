/* Numbers as text: the shortest decimal that reads back as the same number, as Python's repr writes it; and back. */
#ifndef COMITIA_DECIMAL_H
#define COMITIA_DECIMAL_H

#include <stddef.h>
#include <stdint.h>

enum {
    DECIMAL_LENGTH = 24,  /* characters of the longest number */
    DECIMAL_LEAST = -292, /* powers of ten that are needed */
    DECIMAL_MOST = 324,
    DECIMAL_POWERS = DECIMAL_MOST - DECIMAL_LEAST + 1
};

/* 10^e as a 128-bit number from 2^127 on, rounded up; its binary exponent follows from e. */
typedef struct {
    uint64_t high, low;
} decimal_power;

/* Write a finite number; returns the number of characters, no zero after them.
 *   powers  IN   [DECIMAL_POWERS], the first of DECIMAL_LEAST
 *   to      OUT  [DECIMAL_LENGTH]                                              */
size_t decimal_write(const decimal_power *powers, double number, char *to);

/* The number nearest to digits * 10^exponent, as Python's float reads it; 0 where the powers do not settle it (close to
 * halfway between two numbers, subnormal, too large), which happens seldom: let another reader do these.
 *   powers  IN   [DECIMAL_POWERS], the first of DECIMAL_LEAST
 *   number  OUT  what was found where 1 is returned                                                                */
int decimal_read(const decimal_power *powers, uint64_t digits, int exponent, double *number);

#endif
