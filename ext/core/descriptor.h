/* What the kernels know of a model: plain arrays, owned by the caller and filled by Python or by a model reader.
 *
 * The density coefficients of one centre are A[k][lm][n], n padded to a multiple of LANES (n_stride). The
 * correlations read a compact copy of them, `component`, with the m of one channel q l side by side: component
 * `base + m` of a channel comes from A[component_source[base + m]].
 *
 * Features are walked in groups that share their first factors. A feature f of order
 *   1 is  A[base]                                                          (order1_base, order1_feature)
 *   2 is  sum_m A[first][m] A[second][m] / sqrt(2 l + 1)                   one group per `first`
 *   3 is  sum_m T[m] A[third][m],  T[m3] = sum C A[first][m1] A[second][m2]  one group per (first, second, l3)
 * and order 0 is the constant 1. The sparse couplings C of group g are the entries
 * coupling_start[order3_coupling[g]] ... of coupling_m and coupling_value.                               */
#ifndef COMITIA_DESCRIPTOR_H
#define COMITIA_DESCRIPTOR_H

#include "harmonics.h"

typedef struct {
    int n_species, n_channels, l_max;
    double cutoff;

    /* radial functions: quintic pieces in powers of the position inside one of n_intervals equal intervals */
    int n_intervals, n_functions; /* n_functions is a multiple of LANES */
    const double *spline;         /* [n_intervals][6][n_functions] */
    int n_stride;                 /* padded number of n of each l */
    const int32_t *radial_offset; /* [l_max + 1]: function of n = 0 */
    const int32_t *n_blocks;      /* [l_max + 1]: blocks of LANES radial functions in use at this l */
    const double *contraction;    /* [n_channels][n_species] */

    /* correlations */
    int n_features, n_components;
    const int32_t *component_source;                                      /* [n_components] index into A */
    const int32_t *component_function, *component_lm, *component_channel; /* its radial function, harmonic and k */
    int n_order0;
    const int32_t *order0_feature;
    int n_order1;
    const int32_t *order1_base, *order1_feature;
    int n_order2;                                          /* groups */
    const int32_t *order2_l, *order2_first, *order2_start; /* start: [n_order2 + 1] */
    const int32_t *order2_second, *order2_feature;
    int n_order3;
    const int32_t *order3_l, *order3_first, *order3_second, *order3_coupling, *order3_start; /* l: that of third */
    const int32_t *order3_third, *order3_feature;
    const int32_t *coupling_l;     /* [n_couplings][3] */
    const int32_t *coupling_start; /* [n_couplings + 1] */
    const int32_t *coupling_m;     /* [n_entries][3] */
    const double *coupling_value;  /* [n_entries] */

    /* repulsive core (Ziegler, Biersack, Littmark), zero beyond core_outer; none where core_outer is NULL */
    const double *core_inner, *core_outer; /* [n_species][n_species] */
    const double *nuclear_charge;          /* [n_species] */

    harmonics_table harmonics;
} descriptor;

/* Number of doubles of A[k][lm][n]. */
INLINE size_t density_size(const descriptor *d)
{
    return (size_t)d->n_channels * (d->l_max + 1) * (d->l_max + 1) * d->n_stride;
}

#endif
