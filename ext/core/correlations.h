/* Correlations of the density: features B of order nu = 0 ... 4 of LANES centres of one species at once, and the
 * adjoint of the density for the energy E = sum_f weight[f] B[f].
 *
 * The products of two channels are shared by all features, in the forward and in the reverse direction. */
#ifndef COMITIA_CORRELATIONS_H
#define COMITIA_CORRELATIONS_H

#include "descriptor.h"

/* The densities A[LANES][density_stride(1)] of `count` centres into their lanes of the first n_components of `terms`
 * [n_terms], and 0 into the other lanes. */
void correlations_load(const descriptor *d, int count, const real *A, lanes *terms);

/* Back: the adjoints [n_sets][n_components] for one or two sets of weights to A[count][density_stride(n_sets)], where
 * those of two sets stand in turns. What no component comes from stays as it is. */
void correlations_store(const descriptor *d, int n_sets, const lanes *adjoint, int count, real *A);

/* Weights and features are in the order of the walk (descriptor.h): a feature is `scale` times its scalar product, and
 * the weight of the scalar product is `scale` times that of the feature. */
void correlations_weights(const descriptor *d, const double *weight, real *ordered);

/* terms: components IN, products OUT. With one weight per scalar product, the same for all lanes: the products are
 * added to features [n_features], which may be NULL; adjoint of the components [n_components] OUT, or NULL; their
 * energy OUT where the adjoint is asked for. */
void correlations_evaluate(const descriptor *d, lanes *terms, const real *weight, lanes *features, lanes *adjoint,
                           lanes *energy);

/* The same for two sets of weights, without features: adjoint [2][n_components], energy [2]. */
void correlations_evaluate_two(const descriptor *d, lanes *terms, const real *const *weight, lanes *adjoint,
                               lanes *energy);

/* The same with a weight for each lane: any adjoint of the features. */
void correlations_reverse(const descriptor *d, lanes *terms, const lanes *weight, lanes *features, lanes *adjoint,
                          lanes *energy);

/* The product of a, b with angular momenta l[0], l[1], coupled to l[2]; coefficients as coupling.h wants them. */
void correlations_couple(const int32_t *l, const double *coefficients, const lanes *a, const lanes *b, lanes *out);

#endif
