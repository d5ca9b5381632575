/* The little that the C tests need: checks that count, and a generator that gives the same numbers everywhere. */
#ifndef COMITIA_CHECK_H
#define COMITIA_CHECK_H

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "dispatch.h"

static int checks_made, checks_failed;

#define CHECK(condition, ...)                                                                                          \
    do {                                                                                                               \
        checks_made++;                                                                                                 \
        if (!(condition) && checks_failed++ < 20) {                                                                    \
            fprintf(stderr, "%s:%d: %s: ", __FILE__, __LINE__, #condition);                                            \
            fprintf(stderr, __VA_ARGS__);                                                                              \
            fputc('\n', stderr);                                                                                       \
        }                                                                                                              \
    } while (0)

/* |a - b| <= tolerance; false for what is not a number */
#define CHECK_CLOSE(a, b, tolerance)                                                                                   \
    CHECK(fabs((a) - (b)) <= (tolerance), "%.17g against %.17g, allowed %g", (double)(a), (double)(b),                 \
          (double)(tolerance))

/* The kernels of COMITIA_INSTRUCTIONS where it is set; skips the tests where the CPU lacks them. */
static inline void use_requested_instructions(void)
{
    const char *name = getenv("COMITIA_INSTRUCTIONS");
    const int code = name == NULL ? 0 : kernels_use(name);
    if (code != 0) {
        printf("%s: %s\n", name, code == INSTRUCTIONS_MISSING ? "not on this CPU" : "no such instruction set");
        exit(code == INSTRUCTIONS_MISSING ? 77 : 1);
    }
}

static inline int checks_summary(const char *name)
{
    printf("%s: %d checks, %d failed\n", name, checks_made, checks_failed);
    return checks_failed != 0 || checks_made == 0;
}

/* SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) */
static inline uint64_t random_bits(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* uniform in [low, high) */
static inline double random_between(uint64_t *state, double low, double high)
{
    return low + (high - low) * (double)(random_bits(state) >> 11) * 0x1p-53;
}

#endif
