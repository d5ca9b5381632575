/* Energy, forces and virial of a configuration that differs in few atoms from one whose results are known, as trials of
 * Monte Carlo do: the atoms that moved, and every centre that has one of them among its neighbours before or after, are
 * evaluated as they were and as they are, and the difference is added.
 *
 * Nobody says whether a trial was accepted. The base stays as it was until a request comes that is closer to the trial
 * than to the base: then the trial becomes the base. A trial from the same base after a rejection costs no more than
 * one after an acceptance, and only accepted trials leave rounding errors behind. The cost does not grow with the
 * number of atoms, but for comparing and copying their numbers.                                                   */
#ifndef COMITIA_INCREMENTAL_H
#define COMITIA_INCREMENTAL_H

#include "evaluate.h"
#include "linked_cells.h"

enum {
    MOST_MOVED = 8,         /* atoms of a trial */
    INCREMENTAL_CLOSED = 1, /* too much of the structure is touched: a full evaluation is the cheaper one */
};

/* What a trial changes. */
typedef struct {
    int n_moved, n_centres, n_atoms;
    int32_t moved[MOST_MOVED];
    double moved_to[3 * MOST_MOVED];
    int32_t *atom;    /* [n_atoms] the centres touched, first those that moved; then their neighbours */
    double *energies; /* [n_centres] of the trial */
    double *forces;   /* [n_atoms][3] trial less base, as the rest */
    double *sums;     /* [n_sums] */
    double virial[9];
    size_t atom_capacity, energy_capacity, force_capacity;
} incremental_change;

/* A configuration whose results are known, and the last trial that was made from it. */
typedef struct {
    size_t n_atoms, n_sums; /* n_sums: species times features, or 0 where sums are not wanted */
    int known, filled;      /* whether there are results; whether the cells have the atoms of the trial */
    double *positions, *forces, *energies, *sums; /* [n_atoms][3], [n_atoms][3], [n_atoms], [n_sums] */
    double cell[9], virial[9];
    int pbc[3];
    linked_cells cells;
    incremental_change change;
} incremental_base;

/* Where a request differs from a base, or from the trial made from it, whichever is closer. */
typedef struct {
    int n, from_trial;
    int32_t atom[2 * MOST_MOVED];
} incremental_difference;

/* Memory of the evaluation of trials, whatever their base. */
typedef struct {
    evaluator evaluator;
    int32_t *place; /* [n_atoms] in the structure of the trial, or -1 */
    int32_t *atom;  /* of each place */
    int32_t *species;
    linked_row rows[2][MOST_MOVED], row; /* of the atoms that moved: before, after; of another */
    neighbour_list lists[2];             /* before, after */
    double *positions[2], *forces, *energies, *sums, virials[18];
    size_t place_capacity, atom_capacity, species_capacity, position_capacity[2], force_capacity, energy_capacity,
        sum_capacity, start_capacity[2], n_allocations;
} incremental_scratch;

void incremental_base_free(incremental_base *b);
void incremental_scratch_free(incremental_scratch *s);

/* Makes room. Returns 0 or OUT_OF_MEMORY. */
int incremental_base_prepare(incremental_base *b, size_t n_atoms, const int pbc[3], size_t n_sums);

/* Takes the results of a full evaluation; sums may be NULL where n_sums is 0. */
void incremental_keep(incremental_base *b, const double *positions, const double cell[9], const double *energies,
                      const double *forces, const double virial[9], const double *sums);

/* How many atoms of the request are elsewhere, at most MOST_MOVED + 1: that many also for another cell. */
int incremental_compare(const incremental_base *b, const double *positions, const double cell[9],
                        incremental_difference *difference);

/* Makes the request, of which `difference` was found, the trial of the base.
 *   species  IN  [n_atoms]
 *   weights  IN  [n_species][n_features]
 * Returns 0, INCREMENTAL_CLOSED, OUT_OF_MEMORY or a NEIGHBOURS_ERROR_...; unless 0, there is no trial then. */
int incremental_evaluate(incremental_base *b, incremental_scratch *s, const descriptor *d, const int32_t *species,
                         const double *weights, const double *positions, const incremental_difference *difference,
                         int n_threads);

/* Forgets the trial, or makes it the base. */
void incremental_reject(incremental_base *b);
void incremental_accept(incremental_base *b);

/* The results of the trial, or of the base where there is none; sums may be NULL. */
void incremental_read(const incremental_base *b, double *energies, double *forces, double virial[9], double *sums);

#endif
