/* Density expansion about one centre,  A[k][lm][n] = sum_j u[k, s_j] R[n, l](r_ij) Y_lm(r_ij),  and its reverse.
 *
 * A neighbour costs as many multiplications as there are channels that its species is part of, whatever the number
 * of species: the contraction comes before the sum over neighbours. */
#ifndef COMITIA_DENSITY_H
#define COMITIA_DENSITY_H

#include "environment.h"

/* A[k][lm][n] of the environment, and the harmonics of its neighbours. */
void density_expand(const descriptor *d, environment *env, real *A);

/* dE/dr_ij of every neighbour from the adjoint of A: gradient [n_blocks][3]; the repulsive core is part of E as many
 * times as `core` says. */
void density_reverse(const descriptor *d, const environment *env, real core, const real *adjoint, lanes *gradient);

/* The same for two adjoints in turns, [n_density][2]: core [2], gradient [2][n_blocks][3]. */
void density_reverse_two(const descriptor *d, const environment *env, const real *core, const real *adjoint,
                         lanes *gradient);

/* Along displacements (x, y, z) of the neighbours of block b: d r = along, d Y_lm = angular[lm]. */
typedef struct {
    lanes along, harmonics[N_LM_MAX], angular[N_LM_MAX];
} density_block_tangent;

INLINE void block_tangent(const descriptor *d, const environment *env, int b, lanes x, lanes y, lanes z,
                          density_block_tangent *block)
{
    const lanes *unit = env->unit + 3 * b;
    harmonics_parts part;
    harmonics_parts_of(&d->harmonics, d->l_max, unit[0], unit[1], unit[2], &part);
    harmonics_values(d->l_max, &part, block->harmonics);
    lanes along = x * unit[0] + y * unit[1] + z * unit[2], inverse = env->inverse_r[b];
    harmonics_tangent(&d->harmonics, d->l_max, &part, (x - along * unit[0]) * inverse, (y - along * unit[1]) * inverse,
                      (z - along * unit[2]) * inverse, block->angular);
    block->along = along;
}

/* dA/dr_ij . direction_j summed over neighbours, for directions [n_blocks][3]: the tangent of A. */
void density_tangent(const descriptor *d, const environment *env, const lanes *direction, real *tangent);

#endif
