/* Fused multiply-adds out of registers: what this machine can do at most; and a loop that is perfectly parallel. */
#include <stddef.h>

enum { CHAINS = 12 }; /* independent sums: enough to hide the latency, few enough for 16 registers */

#define PEAK(NAME, TARGET, BYTES, TYPE)                                                                                \
    __attribute__((target(TARGET), noinline)) double NAME(long n_rounds)                                               \
    {                                                                                                                  \
        typedef TYPE vector __attribute__((vector_size(BYTES)));                                                       \
        vector sum[CHAINS], factor, term;                                                                              \
        for (size_t i = 0; i < BYTES / sizeof(TYPE); i++) {                                                            \
            factor[i] = (TYPE)0.999;                                                                                   \
            term[i] = (TYPE)1e-3;                                                                                      \
        }                                                                                                              \
        for (int chain = 0; chain < CHAINS; chain++)                                                                   \
            sum[chain] = term * (TYPE)chain;                                                                           \
        for (long round = 0; round < n_rounds; round++)                                                                \
            _Pragma("GCC unroll 12") for (int chain = 0; chain < CHAINS; chain++) sum[chain] =                         \
                sum[chain] * factor + term;                                                                            \
        for (int chain = 1; chain < CHAINS; chain++)                                                                   \
            sum[0] += sum[chain];                                                                                      \
        return (double)sum[0][0];                                                                                      \
    }

PEAK(avx512_double, "avx512f", 64, double)
PEAK(avx512_float, "avx512f", 64, float)
PEAK(avx2_double, "avx2,fma", 32, double)
PEAK(avx2_float, "avx2,fma", 32, float)

/* The same work, n_rounds in all, divided evenly over threads. */
double parallel_loop(long n_rounds, int n_threads)
{
    double total = 0;
#pragma omp parallel for num_threads(n_threads) schedule(static) reduction(+ : total)
    for (int part = 0; part < n_threads; part++)
        total += avx2_double(n_rounds / n_threads);
    return total;
}
