/* Energy, forces and virial of a configuration that differs in few atoms from one whose results are known, as trials of
 * Monte Carlo do: the atoms that moved, and every centre that has one of them among its neighbours before or after, are
 * evaluated, and what they gave before is subtracted. That is kept from then on, so that it is evaluated once.
 *
 * Nobody says whether a trial was accepted. The base stays as it was until a request comes that is closer to the trial
 * than to the base: then the trial becomes the base. A trial from the same base after a rejection costs no more than
 * one after an acceptance, and only accepted trials leave rounding errors behind. The cost does not grow with the
 * number of atoms, but for comparing and copying their numbers.                                                   */
#ifndef COMITIA_INCREMENTAL_H
#define COMITIA_INCREMENTAL_H

#include "contribution_store.h"
#include "linked_cells.h"

enum {
    MOST_MOVED = 8,         /* atoms of a trial */
    INCREMENTAL_CLOSED = 1, /* too much of the structure is touched: a full evaluation is the cheaper one */
};

/* A configuration whose results are known, and the last trial that was made from it. */
typedef struct {
    size_t n_atoms, n_sums;                       /* n_sums: species times features, or 0 where sums are not wanted */
    int known, filled;                            /* whether there are results; whether the cells have their atoms */
    double *positions, *forces, *energies, *sums; /* [n_atoms][3], [n_atoms][3], [n_atoms], [n_sums] */
    double cell[9], virial[9];
    int pbc[3];
    linked_cells cells;
    int32_t *slot;      /* [n_atoms] where the store has what each centre gives, or NO_SLOT */
    int64_t generation; /* of the store */
    int n_moved;        /* by the trial; 0 where there is none */
    int32_t moved[MOST_MOVED];
    double moved_to[3 * MOST_MOVED];
    contributions trial; /* of the centres that it touches, first those that moved */
    double *sums_change, virial_change[9];
} incremental_base;

/* Where a request differs from a base, or from the trial made from it, whichever is closer. */
typedef struct {
    int n, from_trial;
    int32_t atom[2 * MOST_MOVED];
} incremental_difference;

/* Memory of trials, whatever their base. */
typedef struct {
    contribution_memory memory;
    contribution_store store;
    contributions before;                /* centres that the store does not have */
    int32_t *place;                      /* [n_atoms] among the touched centres, or -1 */
    int32_t *touched;                    /* [n] */
    linked_row rows[2][MOST_MOVED], row; /* of the atoms that moved: before, after; of another */
    size_t place_capacity, touched_capacity, n_allocations;
} incremental_scratch;

void incremental_base_free(incremental_base *b);
void incremental_scratch_free(incremental_scratch *s);

/* Makes room. Returns 0 or OUT_OF_MEMORY. */
int incremental_base_prepare(incremental_base *b, size_t n_atoms, const int pbc[3], size_t n_sums);

/* Takes the results of a full evaluation; sums may be NULL where n_sums is 0. */
void incremental_keep(incremental_base *b, incremental_scratch *s, const double *positions, const double cell[9],
                      const double *energies, const double *forces, const double virial[9], const double *sums);

/* How many atoms of the request are elsewhere, at most MOST_MOVED + 1: that many also for another cell. Forgets a trial
 * of which the store has forgotten what was before. */
int incremental_compare(incremental_base *b, const incremental_scratch *s, const double *positions,
                        const double cell[9], incremental_difference *difference);

/* Makes the request, of which `difference` was found, the trial of the base.
 *   species  IN  [n_atoms]
 *   weights  IN  [n_species][n_features]
 * Returns 0, INCREMENTAL_CLOSED, OUT_OF_MEMORY or a NEIGHBOURS_ERROR_...; unless 0, there is no trial then. */
int incremental_evaluate(incremental_base *b, incremental_scratch *s, const descriptor *d, const int32_t *species,
                         const double *weights, const double *positions, const incremental_difference *difference,
                         int n_threads);

/* Forgets the trial. */
void incremental_reject(incremental_base *b);

/* Adds what the trial changes. */
void incremental_apply(const incremental_base *b, const incremental_scratch *s, double *energies, double *forces,
                       double virial[9], double *sums);

/* The results of the trial, or of the base where there is none; sums may be NULL. */
void incremental_read(const incremental_base *b, const incremental_scratch *s, double *energies, double *forces,
                      double virial[9], double *sums);

#endif
