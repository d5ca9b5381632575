/* Forces and virials of all members of a committee in one pass over the centres, and the features they share.
 *
 * What does not depend on the weights (neighbours, density, products, radial functions and gradients of harmonics) is
 * made once. The derivative of a feature with respect to one of its factors is the product of the others: so the
 * adjoint of every channel is a sum of products times weights, with members in the lanes. It is turned into forces for
 * two neighbours at a time.                                                                                        */
#ifndef COMITIA_MEMBERS_H
#define COMITIA_MEMBERS_H

#include "blocks.h"
#include "density.h"
#include "parts.h"

/* What the adjoints are made of, see comitia.density.member_program. Terms are those of the channels, of products of
 * two blocks of terms, and one that is 1. */
typedef struct {
    int n_channels, n_products, n_terms; /* n_terms: without the last */
    const int32_t *channel_base;         /* [n_channels + 1] first term */
    const int32_t *dot_start;            /* [n_channels + 1] what the adjoint of a channel is the sum of: */
    const int32_t *dot_other;            /* [n_dots] terms from here on, each times a weight */
    const int32_t *product_l;            /* [n_products][3] */
    const int32_t *product_first, *product_second, *product_base, *product_coupling;
    const double *coupling;        /* coefficients in the order of coupling.h, from product_coupling on */
    const int32_t *function_start; /* [n_species][l_max + 2] radial functions that a neighbour of a species meets */
    const int32_t *function;
    const int32_t *function_base; /* the 2 l + 1 slots of each; components where the species has no slots of its own */
    const int32_t *slot_start;    /* [n_species + 1] */
    const int32_t *source_start;  /* [n_slots + 1] adjoints of components that a slot adds up */
    const int32_t *source_component;
    const double *source_factor;
    int most_slots; /* of one species */
} member_program;

typedef struct member_worker member_worker;
struct kernels;

typedef struct {
    const struct kernels *made_by;
    int n_workers;
    member_worker *workers;
    centre_blocks blocks;
    work_parts parts;     /* of sums of features */
    double *coefficients; /* [n_species][n_features] `first` in the order of the walk */
    size_t coefficients_capacity, n_allocations;
} member_evaluator;

/* A column is a member, or any linear combination of them; n_columns is their number padded to a multiple of PADDING.
 * Arrays run over all atoms of all structures. */
typedef struct {
    size_t n_columns;
    const double *weights;   /* [n_species][n_dots][n_columns] */
    const double *core;      /* [n_columns] how many times the repulsive core is part of each */
    const double *first;     /* [n_species][n_features] the weights of the first column */
    double *forces;          /* OUT [n_atoms][3][n_columns] */
    double *virials;         /* OUT [n_structures][9][n_columns] */
    double *atomic_energies; /* OUT [n_atoms] of the first column */
    double *sums;            /* OUT [n_structures][n_species][n_features] */
} member_evaluation;

void member_evaluator_free(member_evaluator *e);

/* Returns 0 or OUT_OF_MEMORY. */
int evaluate_members(member_evaluator *e, const descriptor *d, const member_program *program, size_t n_structures,
                     const structure *structures, int n_threads, const member_evaluation *what);

#endif
