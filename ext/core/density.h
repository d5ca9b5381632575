/* Density expansion about one centre,  A[k][lm][n] = sum_j u[k, s_j] R[n, l](r_ij) Y_lm(r_ij),  and its reverse. */
#ifndef COMITIA_DENSITY_H
#define COMITIA_DENSITY_H

#include "descriptor.h"
#include "neighbours.h"

/* One structure of a batch. Positions in Å, cell vectors in rows, species as indices into those of the model. */
typedef struct {
    size_t n_atoms;
    const int32_t *species;
    const double *positions;
    const double *cell;
    const neighbour_list *list;
} structure;

/* The environment of one centre: neighbours inside the cutoff, sorted by species (stable, so the order is that of
 * the list: index, image), each species padded to whole blocks of LANES with R = 0. */
typedef struct {
    int n_blocks, block_capacity;
    int *species;     /* [n_blocks] of the neighbours of this block */
    int *count;       /* [n_blocks] real neighbours in it */
    int32_t *index;   /* [n_blocks][LANES] atom */
    lanes *unit;      /* [n_blocks][3] */
    lanes *inverse_r; /* [n_blocks] */
    lanes *radial;    /* [n_blocks][n_functions], a function in the lanes of its neighbours */
    lanes *slope;     /* [n_blocks][n_functions] dR/dr */
    double core_energy;
    lanes *core_slope; /* [n_blocks] dV/dr of half the core energy of each pair */
    /* gathering, before the sort */
    int gathered_capacity, n_gathered;
    double *vector; /* [n_gathered][4] r_ij, r */
    int32_t *neighbour;
} environment;

enum { OUT_OF_MEMORY = -1 };

void environment_free(environment *env);

/* Fills `env` for atom i of the structure. Returns 0 or OUT_OF_MEMORY. */
int environment_gather(const descriptor *d, const structure *s, size_t i, environment *env);

/* A[k][lm][n] of the environment. `species_density` is scratch of (l_max + 1)^2 n_stride doubles. */
void density_expand(const descriptor *d, const environment *env, double *species_density, double *A);

/* dE/dr_ij of every neighbour from the adjoint of A: gradient [n_blocks][3]. Scratch as above. */
void density_reverse(const descriptor *d, const environment *env, const double *adjoint, double *species_density,
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
void density_tangent(const descriptor *d, const environment *env, const lanes *direction, double *tangent);

#endif
