/* What the kernels know of a model: plain arrays, owned by the caller and filled by Python or by a model reader.
 *
 * The density coefficients of one centre are A[k][lm][n], n padded to a multiple of PADDING (n_stride), with as many
 * l for each channel k as are in use. The correlations read a compact copy of them, `component`, with the m of one
 * channel q l side by side: component `base + m` of a channel comes from A[component_source[base + m]].
 *
 * Products T[base + M] = sum C[m1][m2][M] A[first + m1] A[second + m2] of two channels, coupled to any L, follow the
 * components in one array of `terms`. The feature of order 0 is the constant 1, those of order 1 are A[base], and
 * all others are scalar products of two blocks of 2 l + 1 terms that start at `first` and `second`:
 *   order 2   A . A / sqrt(2 l + 1)
 *   order 3   T . A
 *   order 4   T . T sqrt(2 L + 1)
 * They are walked in groups that share `first` and the factor `scale`. The sparse couplings C of product p are the
 * entries coupling_start[product_coupling[p]] ... of coupling_m and coupling_value.                        */
#ifndef COMITIA_DESCRIPTOR_H
#define COMITIA_DESCRIPTOR_H

#include "harmonics.h"

typedef struct {
    int n_species, n_channels, l_max;
    double cutoff;

    /* radial functions: quintic pieces in powers of the position inside one of n_intervals equal intervals */
    int n_intervals, n_functions; /* n_functions is a multiple of PADDING */
    const double *spline;         /* [n_intervals][6][n_functions] */
    int n_stride;                 /* padded number of n of each l */
    const int32_t *radial_offset; /* [l_max + 1]: function of n = 0 */
    const int32_t *n_used;        /* [l_max + 1]: radial functions in use at this l, not increasing with l */
    const double *contraction;    /* [n_channels][n_species] */

    /* density: channel k has the harmonics up to its last l with radial functions, n_stride numbers each */
    size_t n_density;              /* numbers of A */
    const int32_t *channel_offset; /* [n_channels] into A */
    const int32_t *channel_n;      /* [n_channels][l_max + 1]: radial functions in use */

    /* correlations */
    int n_features, n_components;
    const int32_t *component_source;                                      /* [n_components] index into A */
    const int32_t *component_function, *component_lm, *component_channel; /* its radial function, harmonic and k */
    int n_order0;
    const int32_t *order0_feature;
    int n_order1;
    const int32_t *order1_base, *order1_feature;
    int n_products, n_terms; /* terms: components, then products */
    const int32_t *product_first, *product_second, *product_coupling;
    const int32_t *product_base;                  /* [n_products], increasing from n_components */
    const int32_t *product_of;                    /* [n_terms - n_components]: product that a term belongs to */
    int n_dots;                                   /* groups */
    const int32_t *dot_l, *dot_first, *dot_start; /* start: [n_dots + 1] */
    const double *dot_scale;
    const int32_t *dot_second, *dot_feature;
    const int32_t *coupling_l;     /* [n_couplings][3], the last up to 2 L_MAX */
    const int32_t *coupling_start; /* [n_couplings + 1] */
    const int32_t *coupling_m;     /* [n_entries][3] */
    const double *coupling_value;  /* [n_entries] */

    /* orders 1 and 2 as matrices (quadratic.h); n_dense is 0 where that does not serve */
    int n_dense;
    const int32_t *dense_n;      /* [n_channels][l_max + 1]: radial functions that order 2 uses */
    const int32_t *dense_place;  /* [dots][2] entries q' q and q q' of W_l */
    const int32_t *order1_place; /* [n_order1] k n_stride + n */

    /* repulsive core (Ziegler, Biersack, Littmark), zero beyond core_outer; none where core_outer is NULL */
    const double *core_inner, *core_outer; /* [n_species][n_species] */
    const double *nuclear_charge;          /* [n_species] */

    harmonics_table harmonics;
} descriptor;

#endif
