#include "bins.h"

#include <math.h>
#include <string.h>

#define MAX_COPIES ((size_t)1 << 26)

/* A quarter of headroom: the count changes a little from build to build. */
static int reserve_copies(neighbour_list *list, size_t count)
{
    if (count <= list->copy_capacity) {
        return 0;
    }
    size_t room = count + count / 4 + 16;
    list->copy_capacity = 0;
    RESERVE(list->copy_atom, room);
    RESERVE(list->copy_shift, 3 * room);
    RESERVE(list->copy_bin, room);
    RESERVE(list->bin_x, room);
    RESERVE(list->bin_y, room);
    RESERVE(list->bin_z, room);
    RESERVE(list->bin_key, room);
    RESERVE(list->bin_shift, 3 * room);
    list->copy_capacity = room;
    return 0;
}

/* Bins of half the cutoff, a quarter along the last vector, where they cost nothing; but no more than a few for
 * every copy, however empty the space. */
static int choose_bins(const neighbour_list *list, const lattice *lattice, double cutoff, bins *bins)
{
    double largest = 0, n_copies = (double)list->n_atoms;
    for (size_t k = 0; k < 3 * list->n_atoms; k++) {
        largest = fmax(largest, fabs(list->wrapped[k]));
    }
    for (int d = 0; d < 3; d++) {
        double low = 0, high = 1;
        double rounding = 1e-12 + 1e-15 * lattice->condition * (largest + cutoff) / lattice->height[d];
        bins->reach[d] = cutoff / lattice->height[d] * (1 + 1e-12) + rounding;
        if (lattice->periodic[d]) {
            low = -bins->reach[d];
            high = 1 + bins->reach[d];
            n_copies *= high - low;
        } else if (list->n_atoms > 0) {
            low = high = list->fraction[d];
            for (size_t i = 1; i < list->n_atoms; i++) {
                low = fmin(low, list->fraction[3 * i + d]);
                high = fmax(high, list->fraction[3 * i + d]);
            }
        }
        double width = cutoff / (d == 2 ? 4 : 2);
        const double extent = (high - low) * lattice->height[d];
        bins->n[d] = extent > width ? (int)fmin(1e8, extent / width) : 1;
        bins->origin[d] = low;
        bins->scale[d] = bins->n[d] > 1 ? bins->n[d] / (high - low) : 0;
    }
    if (!(n_copies <= (double)MAX_COPIES)) {
        return NEIGHBOURS_ERROR_TOO_MANY;
    }
    while ((double)bins->n[0] * bins->n[1] * bins->n[2] > 4 * n_copies + 8) {
        int most = bins->n[0] >= bins->n[1] ? 0 : 1;
        most = bins->n[2] > bins->n[most] ? 2 : most;
        int fewer = bins->n[most] / 2;
        bins->scale[most] = fewer > 1 ? bins->scale[most] * fewer / bins->n[most] : 0;
        bins->n[most] = fewer;
    }
    return 0;
}

/* Write down the copies in reach of the cell, atom after atom, and count those of each bin. */
static int copy_atoms(neighbour_list *list, const lattice *lattice, bins *bins)
{
    const size_t n_bins = (size_t)bins->n[0] * (size_t)bins->n[1] * (size_t)bins->n[2];
    if (n_bins + 2 > list->bin_capacity) {
        RESERVE(list->bin_start, n_bins + n_bins / 4 + 2);
        list->bin_capacity = n_bins + n_bins / 4 + 2;
    }
    memset(list->bin_start, 0, (n_bins + 2) * sizeof *list->bin_start);
    int32_t *count = list->bin_start + 2; /* moved by two: counts become ends, then starts */

    size_t n_copies = 0;
    for (size_t i = 0; i < list->n_atoms; i++) {
        const double *s = &list->fraction[3 * i];
        int32_t low[3] = {0, 0, 0}, high[3] = {0, 0, 0};
        size_t room = 1;
        for (int d = 0; d < 3; d++) {
            if (lattice->periodic[d]) {
                low[d] = (int32_t)ceil(-bins->reach[d] - s[d]);
                high[d] = (int32_t)floor(1 + bins->reach[d] - s[d]);
                room *= (size_t)(high[d] - low[d] + 1);
            }
        }
        if (n_copies + room > 2 * MAX_COPIES) {
            return NEIGHBOURS_ERROR_TOO_MANY;
        }
        int code = reserve_copies(list, n_copies + room);
        if (code != 0) {
            return code;
        }
        for (int32_t a = low[0]; a <= high[0]; a++) {
            int row = bin_along(bins, 0, s[0] + a) * bins->n[1];
            for (int32_t b = low[1]; b <= high[1]; b++) {
                int column = (row + bin_along(bins, 1, s[1] + b)) * bins->n[2];
                for (int32_t c = low[2]; c <= high[2]; c++) {
                    int32_t bin = column + bin_along(bins, 2, s[2] + c);
                    list->copy_atom[n_copies] = (int32_t)i;
                    list->copy_shift[3 * n_copies] = a;
                    list->copy_shift[3 * n_copies + 1] = b;
                    list->copy_shift[3 * n_copies + 2] = c;
                    list->copy_bin[n_copies++] = bin;
                    count[bin]++;
                }
            }
        }
    }
    bins->n_copies = n_copies;
    return 0;
}

static void sort_copies(neighbour_list *list, const lattice *lattice, const bins *bins)
{
    const size_t n_bins = (size_t)bins->n[0] * (size_t)bins->n[1] * (size_t)bins->n[2];
    for (size_t bin = 2; bin <= n_bins + 1; bin++) {
        list->bin_start[bin] += list->bin_start[bin - 1];
    }
    for (size_t copy = 0; copy < bins->n_copies; copy++) {
        const int32_t *shift = &list->copy_shift[3 * copy];
        const double *r = &list->wrapped[3 * (size_t)list->copy_atom[copy]];
        const double a = shift[0], b = shift[1], c = shift[2];
        size_t place = (size_t)list->bin_start[list->copy_bin[copy] + 1]++;
        list->bin_x[place] = r[0] + (a * lattice->vector[0][0] + b * lattice->vector[1][0] + c * lattice->vector[2][0]);
        list->bin_y[place] = r[1] + (a * lattice->vector[0][1] + b * lattice->vector[1][1] + c * lattice->vector[2][1]);
        list->bin_z[place] = r[2] + (a * lattice->vector[0][2] + b * lattice->vector[1][2] + c * lattice->vector[2][2]);
        memcpy(&list->bin_shift[3 * place], shift, 3 * sizeof *shift);
        /* even for the copies that an atom may pair with among its own: one of every two opposite ones */
        int positive = a > 0 || (a == 0 && (b > 0 || (b == 0 && c > 0)));
        list->bin_key[place] = 2 * list->copy_atom[copy] + !positive;
    }
}

int bins_fill(neighbour_list *list, const lattice *lattice, double cutoff, bins *bins)
{
    int code = choose_bins(list, lattice, cutoff, bins);
    if (code == 0) {
        code = copy_atoms(list, lattice, bins);
    }
    if (code == 0) {
        sort_copies(list, lattice, bins);
    }
    return code;
}
