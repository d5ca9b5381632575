/* Copies of the atoms in reach of the cell, sorted into bins along the cell vectors. */
#ifndef COMITIA_BINS_H
#define COMITIA_BINS_H

#include <stdlib.h>

#include "lattice.h"
#include "neighbours.h"

/* Bin (a, b, c) has the number (a n[1] + b) n[2] + c; along vector d it is (fraction - origin[d]) scale[d]. */
typedef struct {
    int n[3];
    double origin[3], scale[3];
    double reach[3]; /* the cutoff in units of the cell vectors, rounded up */
    size_t n_copies;
} bins;

/* Never decreasing in `fraction`, so a copy within reach is within the bins in reach, whatever the rounding. */
static inline int bin_along(const bins *bins, int d, double fraction)
{
    double bin = (fraction - bins->origin[d]) * bins->scale[d];
    return bin <= 0 ? 0 : bin >= bins->n[d] ? bins->n[d] - 1 : (int)bin;
}

/* Choose bins for the wrapped atoms of the list, copy the atoms and sort the copies.
 * Returns 0 or a NEIGHBOURS_ERROR_... */
int bins_fill(neighbour_list *list, const lattice *lattice, double cutoff, bins *bins);

/* Make room for `count` elements in an array of `list`, keeping what it holds, or return from the function. */
#define RESERVE(array, count)                                                                                          \
    do {                                                                                                               \
        void *moved_ = realloc((array), (count) * sizeof *(array));                                                    \
        if (moved_ == NULL) {                                                                                          \
            return NEIGHBOURS_ERROR_MEMORY;                                                                            \
        }                                                                                                              \
        (array) = moved_;                                                                                              \
        list->n_allocations++;                                                                                         \
    } while (0)

#endif
