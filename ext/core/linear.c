#include "linear.h"

#include <string.h>

/* Four sums of LANES products side by side hide the latency of the additions. */
INLINE double dot(size_t n, const double *a, const double *b)
{
    lanes sum[4] = {{0}, {0}, {0}, {0}};
    size_t f = 0;
    for (; f + 4 * LANES <= n; f += 4 * LANES)
        for (int part = 0; part < 4; part++) {
            lanes x, y;
            memcpy(&x, a + f + part * LANES, sizeof x);
            memcpy(&y, b + f + part * LANES, sizeof y);
            sum[part] += x * y;
        }
    lanes all = (sum[0] + sum[1]) + (sum[2] + sum[3]);
    double total = 0;
    for (int v = 0; v < LANES; v++)
        total += all[v];
    for (; f < n; f++)
        total += a[f] * b[f];
    return total;
}

void linear_members(size_t n_structures, size_t n_members, size_t width, const double *sums, const double *deviations,
                    const double *mean, double *members)
{
    for (size_t s = 0; s < n_structures; s++)
        for (size_t k = 0; k < n_members; k++)
            members[s * n_members + k] = mean[s] + dot(width, deviations + k * width, sums + s * width);
}
