/* Correlations of the density: features B of order nu = 0 ... 4 of LANES centres of one species at once, and the
 * adjoint of the density for the energy E = sum_f weight[f] B[f].
 *
 * The products of two channels are shared by all features, in the forward and in the reverse direction. */
#ifndef COMITIA_CORRELATIONS_H
#define COMITIA_CORRELATIONS_H

#include "descriptor.h"

/* Copies A[k][lm][n] of one centre into its lane of the first n_components of `terms` [n_terms], and back. */
void correlations_load(const descriptor *d, const real *A, int lane, lanes *terms);
/* A lane without a centre. */
void correlations_clear(const descriptor *d, int lane, lanes *terms);
void correlations_store(const descriptor *d, const lanes *terms, int lane, real *A);

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
