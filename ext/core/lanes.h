/* What every kernel shares: vectors of the width of the instruction set that it is compiled for.
 *
 * `lanes` holds LANES neighbours, radial functions or centre atoms: the numbers that fit into one register. They are
 * doubles, or floats where COMITIA_SINGLE is defined. Tables
 * that Python fills have rows padded to multiples of PADDING, which is a multiple of LANES for every set.
 * Helpers of several files are INLINE in a header, so that each copy has its own.                            */
#ifndef COMITIA_LANES_H
#define COMITIA_LANES_H

#include <stddef.h>
#include <stdint.h>

#ifdef __AVX__
#include <immintrin.h>
#endif

#include "copies.h"

#define INLINE static inline __attribute__((always_inline))

#ifdef COMITIA_SINGLE
typedef float real; /* half the width of a register of AVX-512 is as fast on many CPUs, and keeps PADDING */
#define SPLINE spline_single
#else
typedef double real;
#define SPLINE spline
#endif

#if defined(__AVX512F__) || (defined(COMITIA_SINGLE) && defined(__AVX__))
#define N_LANES 8
#elif defined(COMITIA_SINGLE) || defined(__AVX__)
#define N_LANES 4
#else
#define N_LANES 2
#endif

#if defined(__AVX512F__) || defined(__aarch64__)
enum { REGISTERS = 32 };
#else
enum { REGISTERS = 16 };
#endif

enum { LANES = N_LANES, PADDING = 8, L_MAX = 8, N_LM_MAX = (L_MAX + 1) * (L_MAX + 1) };
enum { TERMS_MAX = 4 * L_MAX + 1 }; /* of a product of two channels */

typedef real lanes __attribute__((vector_size(LANES * sizeof(real))));

/* a0 b0 a1 b1 ... of the lower and of the upper halves of two vectors */
INLINE void interleave(lanes a, lanes b, lanes *lower, lanes *upper)
{
#if N_LANES == 8
    *lower = __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
    *upper = __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
#elif N_LANES == 4
    *lower = __builtin_shufflevector(a, b, 0, 4, 1, 5);
    *upper = __builtin_shufflevector(a, b, 2, 6, 3, 7);
#else
    *lower = __builtin_shufflevector(a, b, 0, 2);
    *upper = __builtin_shufflevector(a, b, 1, 3);
#endif
}

/* LANES rows to columns. */
INLINE void transpose(lanes *row)
{
    lanes next[LANES];
    for (int round = 1; round < LANES; round *= 2) { /* each interleaves the rows v and v + LANES / 2 */
        for (int v = 0; v < LANES / 2; v++)
            interleave(row[v], row[v + LANES / 2], &next[2 * v], &next[2 * v + 1]);
        for (int v = 0; v < LANES; v++)
            row[v] = next[v];
    }
}

#ifndef COMITIA_SINGLE
/* a b a b ... of two numbers that follow each other: one load, which gcc does not make of shuffles of narrow vectors */
INLINE lanes in_turns(const real *pair)
{
#if N_LANES == 8
    return (lanes)_mm512_broadcast_f64x2(_mm_loadu_pd(pair));
#elif N_LANES == 4
    return (lanes)_mm256_broadcast_pd((const __m128d *)pair);
#else
    return (lanes){pair[0], pair[1]};
#endif
}
#endif

INLINE size_t round_up(size_t n)
{
    return (n + PADDING - 1) / PADDING * PADDING;
}

#endif
