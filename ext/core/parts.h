/* The work of several threads, cut into parts that go to whichever thread is free next.
 *
 * A part is a run of blocks of centres with forces, virials and sums of features of its own, which are added up in the
 * order of the parts: the bits depend on the cut alone, not on who did what. First comes a long part for each thread,
 * then ever shorter ones, which make up for cores that are not equally fast.                                    */
#ifndef COMITIA_PARTS_H
#define COMITIA_PARTS_H

#include "blocks.h"

typedef struct {
    int64_t begin, end;            /* blocks */
    int64_t first_atom, last_atom; /* forces of no others are touched; not first <= last where there are none */
    int64_t first_row, last_row;   /* sums of no others are touched: species n_structures + structure */
    double *forces;                /* [n_atoms][3], of which the rest is not set */
    double *virials;               /* [n_structures][9] */
    double *atomic_virials;        /* [n_atoms][9] as the forces; NULL unless asked for */
    double *sums;                  /* [last_row - first_row + 1][n_features] */
    size_t forces_capacity, virials_capacity, atomic_virials_capacity, sums_capacity, n_allocations;
} part;

typedef struct {
    int n, capacity;
    part *part;
} work_parts;

void parts_free(work_parts *p);

/* Cuts the blocks for so many threads, into one part for each where `one_each`. Returns 0 or OUT_OF_MEMORY. */
int parts_cut(work_parts *p, int64_t n_blocks, int n_threads, int one_each, size_t *n_allocations);

/* What the part may touch, set to zero, of what is asked for. Returns 0 or OUT_OF_MEMORY. */
int part_begin(part *one, const centre_blocks *blocks, const structure *structures, int n_features, int with_forces,
               int with_atomic_virials, int with_sums);

/* Adds up the parts, by all threads that are here; any output may be NULL.
 *   forces          OUT [n_atoms][3]
 *   virials         OUT [n_structures][9]
 *   atomic_virials  OUT [n_atoms][9]
 *   sums            OUT [n_structures][n_species][n_features]                                                 */
void parts_add_up(const work_parts *p, const centre_blocks *blocks, int n_species, int n_features, double *forces,
                  double *virials, double *atomic_virials, double *sums);

INLINE double *part_sums(const part *one, const centre_blocks *blocks, int n_features, int32_t structure, int species)
{
    return one->sums + (species * (int64_t)blocks->n_structures + structure - one->first_row) * n_features;
}

#endif
