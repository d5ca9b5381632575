/* The features of one centre in plain numbers, with their derivatives: what training needs. */
#ifndef COMITIA_JACOBIAN_H
#define COMITIA_JACOBIAN_H

#include "descriptor.h"

/* The Jacobian dB/d(component) of one centre in rows of `count` entries. */
typedef struct {
    int count;
    int32_t component[4 * (2 * L_MAX + 1)];
    double value[4 * (2 * L_MAX + 1)];
} jacobian_row;

/* terms [n_terms]: components IN, products OUT. */
void features_jacobian(const descriptor *d, double *terms, double *features, jacobian_row *jacobian);

#endif
