#include "contributions.h"

#include <stdlib.h>
#include <string.h>

void contributions_free(contributions *c)
{
    void *arrays[] = {c->centre, c->start, c->neighbour, c->shift, c->forces, c->energies, c->virials, c->features};
    for (size_t a = 0; a < sizeof arrays / sizeof *arrays; a++)
        free(arrays[a]);
    *c = (contributions){0};
}

void contribution_memory_free(contribution_memory *m)
{
    evaluator_free(&m->evaluator);
    free(m->species);
    free(m->neighbour);
    free(m->positions);
    *m = (contribution_memory){0};
}

int grow(void **array, size_t *capacity, size_t n, size_t size, size_t *n_allocations)
{
    if (n <= *capacity)
        return 0;
    const size_t room = n + n / 2 + 64;
    void *moved = realloc(*array, room * size);
    if (moved == NULL)
        return OUT_OF_MEMORY;
    *array = moved;
    *capacity = room;
    (*n_allocations)++;
    return 0;
}

int contributions_clear(contributions *c, size_t *n_allocations)
{
    c->n_centres = c->n_pairs = 0;
    if (grow((void **)&c->start, &c->start_capacity, 1, sizeof *c->start, n_allocations))
        return OUT_OF_MEMORY;
    c->start[0] = 0;
    return 0;
}

int contributions_add(contributions *c, int32_t neighbour, const int32_t shift[3], int sign, size_t *n_allocations)
{
    const size_t pair = c->n_pairs;
    if (grow((void **)&c->neighbour, &c->neighbour_capacity, pair + 1, sizeof *c->neighbour, n_allocations) ||
        grow((void **)&c->shift, &c->shift_capacity, pair + 1, 3 * sizeof *c->shift, n_allocations))
        return OUT_OF_MEMORY;
    c->neighbour[pair] = neighbour;
    for (int k = 0; k < 3; k++)
        c->shift[3 * pair + k] = sign * shift[k];
    c->n_pairs++;
    return 0;
}

int contributions_end_row(contributions *c, int32_t centre, size_t *n_allocations)
{
    const size_t n = c->n_centres;
    if (grow((void **)&c->centre, &c->centre_capacity, n + 1, sizeof *c->centre, n_allocations) ||
        grow((void **)&c->start, &c->start_capacity, n + 2, sizeof *c->start, n_allocations))
        return OUT_OF_MEMORY;
    c->centre[n] = centre;
    c->start[n + 1] = (int64_t)c->n_pairs;
    c->n_centres++;
    return 0;
}

static int reserve_all(contributions *c, contribution_memory *m, const descriptor *d, int with_features)
{
    const size_t n = c->n_centres, n_atoms = n + c->n_pairs, n_features = with_features ? n * d->n_features : 0;
    size_t *count = &m->n_allocations;
    return grow((void **)&m->species, &m->species_capacity, n_atoms, sizeof(int32_t), count) ||
                   grow((void **)&m->neighbour, &m->neighbour_capacity, c->n_pairs, sizeof(int32_t), count) ||
                   grow((void **)&m->positions, &m->position_capacity, n_atoms, 3 * sizeof(double), count) ||
                   grow((void **)&c->forces, &c->force_capacity, n_atoms, 3 * sizeof(double), count) ||
                   grow((void **)&c->energies, &c->energy_capacity, n, sizeof(double), count) ||
                   grow((void **)&c->virials, &c->virial_capacity, n, 9 * sizeof(double), count) ||
                   grow((void **)&c->features, &c->feature_capacity, n_features, sizeof(double), count)
               ? OUT_OF_MEMORY
               : 0;
}

/* Virial of each centre: sum over its neighbours of r_ij times the force on them. */
static void find_virials(contributions *c, const double *positions, const double cell[9])
{
    for (size_t i = 0; i < c->n_centres; i++) {
        double *virial = c->virials + 9 * i;
        memset(virial, 0, 9 * sizeof(double));
        for (int64_t p = c->start[i]; p < c->start[i + 1]; p++) {
            const double *force = c->forces + 3 * p;
            const int32_t *shift = c->shift + 3 * p;
            for (int a = 0; a < 3; a++) {
                const double r = positions[3 * c->neighbour[p] + a] - positions[3 * c->centre[i] + a] +
                                 shift[0] * cell[a] + shift[1] * cell[3 + a] + shift[2] * cell[6 + a];
                for (int b = 0; b < 3; b++)
                    virial[3 * a + b] += r * force[b];
            }
        }
    }
}

/* Every neighbour is an atom of its own, so that the force on it is what the one centre gives. */
int contributions_evaluate(contributions *c, contribution_memory *m, const descriptor *d, const int32_t *species,
                           const double *weights, const double *positions, const double cell[9], int with_features,
                           int n_threads)
{
    const size_t n = c->n_centres;
    if (n == 0)
        return 0;
    if (reserve_all(c, m, d, with_features))
        return OUT_OF_MEMORY;
    for (size_t i = 0; i < n + c->n_pairs; i++) {
        const int32_t atom = i < n ? c->centre[i] : c->neighbour[i - n];
        m->species[i] = species[atom];
        memcpy(m->positions + 3 * i, positions + 3 * atom, 3 * sizeof(double));
    }
    for (size_t p = 0; p < c->n_pairs; p++)
        m->neighbour[p] = (int32_t)(n + p);
    const neighbour_list list = {.start = c->start, .neighbour = m->neighbour, .shift = c->shift};
    const structure one = {.n_atoms = n + c->n_pairs,
                           .n_silent = c->n_pairs,
                           .species = m->species,
                           .positions = m->positions,
                           .cell = cell,
                           .list = &list};
    const evaluation what = {.weights = weights,
                             .atomic_energies = c->energies,
                             .forces = c->forces,
                             .features = with_features ? c->features : NULL};
    if (evaluate(&m->evaluator, d, 1, &one, n_threads, &what))
        return OUT_OF_MEMORY;
    memmove(c->forces, c->forces + 3 * n, 3 * c->n_pairs * sizeof(double)); /* those on the centres follow from them */
    find_virials(c, positions, cell);
    return 0;
}
