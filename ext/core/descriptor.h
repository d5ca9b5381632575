/* What the kernels know of a model: plain arrays, owned by the caller and filled by Python or by a model reader.
 *
 * The density coefficients of one centre are A[k][lm][n], n padded to a multiple of PADDING (n_stride), with as many
 * l for each channel k as are in use. The correlations read a compact copy of them, `component`, with the m of one
 * channel q l side by side: component `base + m` of a channel comes from A[component_source[base + m]].
 *
 * Features of order
 *   0  are the constant 1
 *   1  are A[base]
 *   2  are A . A / sqrt(2 l + 1), one group per first factor
 *   3  are T . A; where one l is 0 and the others have a feature of order 2, A[scaled_by] (A . A) (-1)^l / sqrt(2 l +
 * 1) 4  are T . T sqrt(2 L + 1) with products T[M] = sum C[m1][m2][M] A[first + m1] A[second + m2] of two channels,
 * coupled to any L, which all features share. Products that follow each other and have the same l1, l2, L form a run.
 * Those of order 4 come first: they have terms of their own, behind the components; the others are made one after the
 * other in the terms behind them. A feature of order 4 is listed under the product that it belongs to, and mirrored
 * under its other product.  */
#ifndef COMITIA_DESCRIPTOR_H
#define COMITIA_DESCRIPTOR_H

#include "harmonics.h"

typedef struct {
    int n_species, n_channels, l_max;
    double cutoff;

    /* radial functions: quintic pieces in powers of the position inside one of n_intervals equal intervals */
    int n_intervals, n_functions; /* n_functions is a multiple of PADDING */
    const double *spline;         /* [n_intervals][6][n_functions], for each species or for all of them */
    const float *spline_single;   /* the same, for kernels in single precision; else NULL */
    const int32_t *spline_start;  /* [n_species]: where those of neighbours of this species begin */
    int n_stride;                 /* padded number of n of each l */
    const int32_t *radial_offset; /* [l_max + 1]: function of n = 0 */
    const int32_t *n_used;        /* [l_max + 1]: radial functions in use at this l, not increasing with l */
    const double *contraction;    /* [n_channels][n_species] */

    /* density: channel k has the harmonics up to its last l with radial functions, n_stride numbers each */
    size_t n_density;               /* numbers of A */
    const int32_t *channel_offset;  /* [n_channels] into A */
    const int32_t *channel_n;       /* [n_channels][l_max + 1]: radial functions in use */
    const int32_t *channel_species; /* [n_channels][2]: the first species that is part of it, and that after the last */

    /* correlations */
    int n_features, n_components;
    const int32_t *feature;          /* [n_features] in the order of the walk: orders 0, 1, 2, scaled, 3, 4 */
    const double *scale;             /* [n_features] of each in that order: 1 / sqrt(2 l + 1), 1 or sqrt(2 L + 1) */
    const int32_t *component_source; /* [n_components] index into A */
    int n_rows;                      /* PADDING numbers of A each, of which one at least is a component */
    const int32_t *row_place;        /* [n_rows] where they are in A */
    const int32_t *row_component;    /* [n_rows][PADDING] which components they are; -1: none */
    const int32_t *component_function, *component_lm, *component_channel; /* its radial function, harmonic and k */
    int n_order0;
    int n_order1;
    const int32_t *order1_base;
    int n_order2;                                          /* groups */
    const int32_t *order2_l, *order2_first, *order2_start; /* start: [n_order2 + 1] */
    const int32_t *order2_second;
    const int32_t *scaled_start, *scaled_by;   /* start: [features of order 2 + 1]; by: a component with l = 0 */
    int n_runs, n_products, n_shared, n_terms; /* n_shared: products of order 4; n_terms: with room for one more */
    const int32_t *run_l;                      /* [n_runs][3] */
    const int32_t *run_coupling;               /* [n_runs]: first coefficient, in the order of coupling.h */
    const int32_t *run_start;                  /* [n_runs + 1]: first product; n_shared is one of them */
    const double *coupling;
    const int32_t *product_first, *product_second, *product_base;
    const int32_t *run_of;                                           /* [n_products] */
    const int32_t *order3_start, *order3_third;                      /* start: [n_products + 1] */
    const int32_t *order4_start, *order4_other;                      /* other: a product */
    const int32_t *mirrored_start, *mirrored_other, *mirrored_place; /* place: in the walk */

    /* orders 1 and 2 as matrices (quadratic.h); n_dense is 0 where that does not serve */
    int n_dense;
    const int32_t *dense_n;      /* [n_channels][l_max + 1]: radial functions that order 2 uses */
    const int32_t *dense_place;  /* [features of order 2][2] entries q' q and q q' of W_l */
    const int32_t *order1_place; /* [n_order1] k n_stride + n */

    /* repulsive core (Ziegler, Biersack, Littmark), zero beyond core_outer; none where core_outer is NULL */
    const double *core_inner, *core_outer; /* [n_species][n_species] */
    const double *nuclear_charge;          /* [n_species] */

    harmonics_table harmonics;
} descriptor;

/* From the density of one centre, or n_sets adjoints of it, to that of the next: not a power of two, as eight numbers
 * so far from each other have no room beside each other in a cache. */
INLINE size_t density_stride(const descriptor *d, int n_sets)
{
    return n_sets * d->n_density + PADDING;
}

/* Places in the walk of the first entries of orders 1, 2, 3 and 4. */
INLINE int order1_places(const descriptor *d)
{
    return d->n_order0;
}

INLINE int order2_places(const descriptor *d)
{
    return order1_places(d) + d->n_order1;
}

INLINE int scaled_places(const descriptor *d)
{
    return order2_places(d) + d->order2_start[d->n_order2];
}

INLINE int order3_places(const descriptor *d)
{
    return scaled_places(d) + d->scaled_start[d->order2_start[d->n_order2]];
}

INLINE int order4_places(const descriptor *d)
{
    return order3_places(d) + d->order3_start[d->n_products];
}

#endif
