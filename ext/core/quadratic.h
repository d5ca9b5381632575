/* Models of orders 0 to 2 as matrices:  E = w0 + sum_q w1[q] A[q, 00] + 1/2 sum_lm sum_q'q A[q', lm] W_l[q', q] A[q,
 * lm].
 *
 * One centre at a time, radial functions in lanes; nothing of the features is written down unless asked for. Where
 * most pairs q' q are features this is less work than going from feature to feature.                           */
#ifndef COMITIA_QUADRATIC_H
#define COMITIA_QUADRATIC_H

#include "descriptor.h"

/* Coefficients or products of all orders, as long as `quadratic_size`:
 * order 0 [PADDING], order 1 [n_channels][n_stride], order 2 [n_dense]: the matrices W_l. */
size_t quadratic_size(const descriptor *d);

/* The coefficients from one weight per feature. */
void quadratic_weights(const descriptor *d, const double *weight, real *coefficients);

/* Energy of one centre, and adjoint = dE/dA where that is given. */
double quadratic_energy(const descriptor *d, const real *coefficients, const real *A, real *adjoint);

/* Adds 1, A[q, 00] and sum_m A[q', lm] A[q, lm] to `products`. */
void quadratic_products(const descriptor *d, const real *A, real *products);

/* Adds the features that the products are to features[f stride]. */
void quadratic_features(const descriptor *d, const real *products, double *features);

#endif
