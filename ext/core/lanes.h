/* What every kernel shares: run-time dispatch, and vectors of eight numbers.
 *
 * KERNEL marks a function of which one copy is built per instruction set and chosen when the library is loaded.
 * Helpers that it calls are INLINE in the same file or in a header, so that they are compiled once in each copy.
 * `lanes` holds eight neighbours, eight radial functions or eight centre atoms; the compiler splits it into the
 * registers of each instruction set.                                                                         */
#ifndef COMITIA_LANES_H
#define COMITIA_LANES_H

#include <stddef.h>
#include <stdint.h>

#if defined(COMITIA_DISPATCH) && defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define KERNEL __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define KERNEL
#endif

#define INLINE static inline __attribute__((always_inline))

enum { LANES = 8, L_MAX = 8, N_LM_MAX = (L_MAX + 1) * (L_MAX + 1) };

typedef double lanes __attribute__((vector_size(64)));

INLINE size_t round_up(size_t n)
{
    return (n + LANES - 1) / LANES * LANES;
}

#endif
