/* Energy, forces and virial of a batch of structures in one pass per centre, and what training needs beside it.
 *
 * Centres of one species are taken LANES at a time, whichever structures they belong to. Threads take runs of such
 * blocks (parts.h), whose forces are added up in a fixed order: the same input gives the same bits for the same number
 * of threads. Memory grows at the first call of a given size only.                                              */
#ifndef COMITIA_EVALUATE_H
#define COMITIA_EVALUATE_H

#include "blocks.h"
#include "correlations.h"
#include "density.h"
#include "kept.h"
#include "parts.h"
#include "quadratic.h"

typedef struct worker worker;
typedef struct combination_worker combination_worker;
struct kernels;

typedef struct {
    const struct kernels *made_by; /* the copy whose memory this is, see dispatch.h */
    int n_workers;
    worker *workers;
    centre_blocks blocks;
    work_parts parts;
    void *coefficients; /* [n_species] of quadratic.h */
    size_t coefficients_capacity;
    int n_kept; /* see kept.h: memory of each part, one for each thread, and where it has each centre */
    kept_memory *kept;
    int64_t *kept_where; /* [n_blocks] */
    size_t kept_capacity;
    int n_combination_workers;
    combination_worker *combination_workers;
    size_t n_allocations; /* how often memory was taken: stays put at a given size */
} evaluator;

/* Arrays run over all atoms of all structures in order. Any output may be NULL.
 *   weights          IN  [n_species][n_features], or NULL where `adjoint` is given
 *   adjoint          IN  [n_atoms][n_features] dE/dB of each atom, any
 *   atomic_energies  OUT [n_atoms]  sum_f w_f B_f, and the repulsive core where weights are given
 *   forces           OUT [n_atoms][3]
 *   virials          OUT [n_structures][9]
 *   atomic_virials   OUT [n_atoms][9]  parts of the virials, see environment_scatter
 *   atomic_members   OUT [n_atoms][n_members]  by how much the energies of the atom are apart from the mean, with
 *   deviations       IN  [n_species][n_members][n_features] weights less their mean
 *   sums             OUT [n_structures][n_species][n_features]  features summed over the centres of each species
 *   features         OUT [n_atoms][n_features]
 *   keep             IN  not 0: evaluate_combinations will follow for the same positions and number of threads, and
 *                        each thread may keep so many bytes for it                                            */
typedef struct {
    const double *weights, *adjoint;
    double *atomic_energies, *forces, *virials, *atomic_virials, *sums, *features;
    size_t n_members;
    const double *deviations;
    double *atomic_members;
    size_t keep;
} evaluation;

/* Energies, forces and virials for several sets of weights, of each structure its own: linear combinations of members
 * that follow from the summed features.
 *   weights          IN  [n_structures][n_sets][n_species][n_features]
 *   core             IN  [n_sets] how many times the repulsive core is part of each
 *   atomic_energies  OUT [n_sets][n_atoms]
 *   forces           OUT [n_sets][n_atoms][3]
 *   virials          OUT [n_sets][n_structures][9]                                                           */
typedef struct {
    size_t n_sets;
    const double *weights, *core;
    double *atomic_energies, *forces, *virials;
} combination;

void evaluator_free(evaluator *e);

/* All return 0 or OUT_OF_MEMORY. */
int evaluate(evaluator *e, const descriptor *d, size_t n_structures, const structure *structures, int n_threads,
             const evaluation *what);

/* After `evaluate` with `keep` of the same structures, with as many threads. */
int evaluate_combinations(evaluator *e, const descriptor *d, size_t n_structures, const structure *structures,
                          int n_threads, const combination *what);
void combination_workers_free(evaluator *e);

/* sums [n_structures][n_species][n_features]: derivative of the summed features along directions [n_atoms][3]
 * and, unless NULL, strains e [n_structures][3][3] that take r to (1 + e) r. */
int evaluate_tangent(const descriptor *d, size_t n_structures, const structure *structures, int n_threads,
                     const double *directions, const double *strains, double *sums);

/* The rows of one structure for linear least squares: with weights w, energy = features w, forces = forces w and
 * virial (xx yy zz yz xz xy) = virial w.
 *   features OUT [n_species n_features]; forces OUT [3 n_atoms][n_species n_features], or NULL; virial OUT [6][...] */
int evaluate_design(const descriptor *d, const structure *s, double *features, double *forces, double *virial);

#endif
