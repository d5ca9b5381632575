#include "linear.h"

#include <string.h>

enum { ROWS = 4, COLUMNS = LANES == 8 ? 4 : 2 };

/* Products of some rows with some columns; each is the same sum whatever stands beside it. */
INLINE void tile(const int rows, const int columns, size_t width, size_t n_members, const double *deviations,
                 const double *sums, const double *mean, double *members)
{
    lanes total[2 * ROWS * COLUMNS];
    const size_t whole = width - width % LANES;
    for (int i = 0; i < rows * columns; i++)
        total[i] = (lanes){0};
    for (size_t f = 0; f < whole; f += LANES) {
        lanes sum[COLUMNS];
        for (int s = 0; s < columns; s++)
            memcpy(&sum[s], sums + s * width + f, sizeof *sum);
        for (int k = 0; k < rows; k++) {
            lanes deviation;
            memcpy(&deviation, deviations + k * width + f, sizeof deviation);
            for (int s = 0; s < columns; s++)
                total[k * columns + s] += deviation * sum[s];
        }
    }
    for (int k = 0; k < rows; k++)
        for (int s = 0; s < columns; s++) {
            double energy = 0;
            for (int v = 0; v < LANES; v++)
                energy += total[k * columns + s][v];
            for (size_t f = whole; f < width; f++)
                energy += deviations[k * width + f] * sums[s * width + f];
            members[s * n_members + k] = mean[s] + energy;
        }
}

void linear_members(size_t n_structures, size_t n_members, size_t width, const double *sums, const double *deviations,
                    const double *mean, double *members)
{
    size_t s = 0, k;
#define TILE(rows, columns)                                                                                            \
    tile(rows, columns, width, n_members, deviations + k * width, sums + s * width, mean + s,                          \
         members + s * n_members + k)
    for (; s + COLUMNS <= n_structures; s += COLUMNS) {
        for (k = 0; k + ROWS <= n_members; k += ROWS)
            TILE(ROWS, COLUMNS);
        for (; k < n_members; k++)
            TILE(1, COLUMNS);
    }
    for (; s < n_structures; s++) {
        for (k = 0; k + 2 * ROWS <= n_members; k += 2 * ROWS)
            TILE(2 * ROWS, 1);
        for (; k < n_members; k++)
            TILE(1, 1);
    }
#undef TILE
}

int linear_finite(size_t n, const double *values)
{
    lanes difference = {0}; /* of a number from itself: 0, or not a number */
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        lanes value;
        memcpy(&value, values + i, sizeof value);
        difference += value - value;
    }
    double total = 0;
    for (int v = 0; v < LANES; v++)
        total += difference[v];
    for (; i < n; i++)
        total += values[i] - values[i];
    return total == 0;
}
