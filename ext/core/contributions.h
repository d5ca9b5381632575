/* What single centres give to energies, forces, virial and sums of features, of any centres of a structure. */
#ifndef COMITIA_CONTRIBUTIONS_H
#define COMITIA_CONTRIBUTIONS_H

#include "evaluate.h"

/* Some centres, their neighbours in rows, and what they give. */
typedef struct {
    size_t n_centres, n_pairs;
    int32_t *centre;                       /* [n_centres] atoms */
    int64_t *start;                        /* [n_centres + 1] pairs start[c] to start[c + 1] - 1 belong to centre c */
    int32_t *neighbour, *shift;            /* [n_pairs] atom, [n_pairs][3] lattice vectors to add to its position */
    double *forces;                        /* [n_pairs][3] on each neighbour; its opposite acts on the centre */
    double *energies, *virials, *features; /* [n_centres], [n_centres][9], [n_centres][n_features] */
    size_t centre_capacity, start_capacity, neighbour_capacity, shift_capacity, force_capacity, energy_capacity,
        virial_capacity, feature_capacity;
} contributions;

/* Memory of their evaluation. */
typedef struct {
    evaluator evaluator;
    int32_t *species, *neighbour;
    double *positions;
    size_t species_capacity, neighbour_capacity, position_capacity, n_allocations;
} contribution_memory;

void contributions_free(contributions *c);
void contribution_memory_free(contribution_memory *m);

/* Rows: none, one more neighbour of the last centre, whose row then ends. All return 0 or OUT_OF_MEMORY. */
int contributions_clear(contributions *c, size_t *n_allocations);
int contributions_add(contributions *c, int32_t neighbour, const int32_t shift[3], int sign, size_t *n_allocations);
int contributions_end_row(contributions *c, int32_t centre, size_t *n_allocations);

/* Evaluates the rows.
 *   species        IN  [n_atoms]
 *   weights        IN  [n_species][n_features]
 *   positions      IN  [n_atoms][3]
 *   with_features  IN  whether features are wanted */
int contributions_evaluate(contributions *c, contribution_memory *m, const descriptor *d, const int32_t *species,
                           const double *weights, const double *positions, const double cell[9], int with_features,
                           int n_threads);

/* A larger array where n elements do not fit, with what it holds, and with headroom. Returns 0 or OUT_OF_MEMORY. */
int grow(void **array, size_t *capacity, size_t n, size_t size, size_t *n_allocations);

#endif
