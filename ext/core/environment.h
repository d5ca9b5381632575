/* The environment of one centre: its neighbours inside the cutoff, in blocks of LANES. */
#ifndef COMITIA_ENVIRONMENT_H
#define COMITIA_ENVIRONMENT_H

#include "descriptor.h"
#include "neighbours.h"

/* One structure of a batch. Positions in Å, cell vectors in rows, species as indices into those of the model. */
typedef struct {
    size_t n_atoms;
    const int32_t *species;
    const double *positions;
    const double *cell;
    const neighbour_list *list; /* without `shift` all images are atoms of their own */
    size_t n_silent;            /* the last so many atoms are neighbours only, and have no centres of their own */
} structure;

enum { MAX_SPECIES = 128 };

/* Neighbours are sorted by species (stable, so the order is that of the list: index, image). Only the last block is
 * padded: with R = 0 and the unit vector z. */
typedef struct {
    int n, n_blocks;
    int first[MAX_SPECIES + 1]; /* neighbours of species t: first[t] ... first[t + 1] - 1 */
    double core_energy;

    /* what all the rest is made of; in room of the caller, or in `memory` */
    int32_t *index; /* [n_blocks LANES] atom */
    double *vector; /* [3][n_blocks LANES] r_ij */

    /* what density_reverse reads beside the index, one array behind the other in `memory` */
    lanes *unit;           /* [n_blocks][3] */
    lanes *distance;       /* [n_blocks] r, 0 in the padding */
    lanes *inverse_r;      /* [n_blocks] 1 / r, 0 in the padding */
    lanes *core_slope;     /* [n_blocks] dV/dr of half the core energy of each pair */
    lanes *weight;         /* [n_channels][n_blocks] u[k][s_j], 0 in the padding */
    lanes *radial, *slope; /* [n_blocks][radial_rows] R and dR/dr, a function in the lanes of its neighbours */
    lanes *memory;

    /* beside them, for density_expand */
    int32_t *species; /* [n_blocks LANES] */
    lanes *harmonics; /* [n_blocks][(l_max + 1)^2] Y_lm, filled by density_expand */
    real *functions;  /* [n_blocks LANES][n_functions] R of one neighbour side by side */
    int block_capacity;

    /* gathering, before the sort */
    int gathered_capacity;
    double *gathered; /* [n_gathered][4] r_ij, r^2 */
    int32_t *neighbour;
} environment;

enum { OUT_OF_MEMORY = -1 };

void environment_free(environment *env);

/* Registers that n neighbours take of memory that is given to environment_gather. */
size_t environment_size(const descriptor *d, size_t n);

/* Fills `env` for atom i of the structure. With room, neighbours are written there and radial functions are made for
 * density_expand only; environment_read makes of this, for a centre of that species, what density_reverse reads: to
 * evaluate the functions again costs less than to write and to read them. Both return 0 or OUT_OF_MEMORY. */
int environment_gather(const descriptor *d, const structure *s, size_t i, lanes *room, environment *env);
int environment_read(const descriptor *d, int species, lanes *room, environment *env);

/* Adds dE_i/dr_ij [n_blocks][3] of centre i to the forces of its structure, to its virial and, unless NULL, to those of
 * its atoms [n_atoms][9]: r_ij times the force belongs to the atom j that it acts on, as the heat flux asks.
 *
 * Fan et al., Phys. Rev. B 92, 094301 (2015), eq. 23. */
void environment_scatter(const environment *env, const lanes *gradient, size_t i, double *forces, double *virial,
                         double *atomic_virials);

/* Whether there are other radial functions for each l. */
INLINE int functions_of_each_l(const descriptor *d)
{
    return d->l_max > 0 && d->radial_offset[1] != d->radial_offset[0];
}

INLINE int radial_rows(const descriptor *d)
{
    const int last = functions_of_each_l(d) ? d->l_max : 0;
    return d->radial_offset[last] + d->n_used[last];
}

INLINE int real_neighbours(const environment *env, int b)
{
    return env->n - b * LANES < LANES ? env->n - b * LANES : LANES;
}

/* Neighbours that may be in channel k: from `begin` on, before `end`. */
INLINE void channel_range(const descriptor *d, const environment *env, int k, int *begin, int *end)
{
    *begin = env->first[d->channel_species[2 * k]];
    *end = env->first[d->channel_species[2 * k + 1]];
}

#endif
