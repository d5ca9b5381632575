/* Forces and virials of all members of a committee in one pass over the centres.
 *
 * What does not depend on the weights (neighbours, density, products, radial functions and gradients of harmonics) is
 * made once; what does is done with members in the lanes: the adjoint of every channel is gathered from the scalar
 * products that it is part of, so that it is written once, and turned into forces for two neighbours at a time.  */
#ifndef COMITIA_MEMBERS_H
#define COMITIA_MEMBERS_H

#include "density.h"

/* The program of a descriptor in the order in which adjoints are gathered, see comitia.density.member_program.
 * The terms are followed by one that is 1: features of order 1 are scalar products with it. */
typedef struct {
    int n_channels, n_products, n_terms; /* blocks of terms: channels, then products of two of them */
    const int32_t *block_base;           /* [n_channels + n_products + 1] first term */
    const int32_t *dot_start;            /* [n_channels + n_products + 1] scalar products that a block is part of */
    const int32_t *dot_other;            /* first term of the other factor */
    const int32_t *dot_feature;          /* row of the weights */
    const int32_t *product_first, *product_second, *product_coupling; /* first terms of two channels, table */
    /* couplings by the m of the first channel, and of the second: the m of the other, that of the product, value */
    const int32_t *first_row, *first_start, *first_factor, *first_out;
    const int32_t *second_row, *second_start, *second_factor, *second_out;
    const double *first_value, *second_value;
    const int32_t *slot_start;    /* [n_species][(l_max + 1)^2 + 1] functions that a neighbour of a species meets */
    const int32_t *slot_function; /* [n_slots] */
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
    size_t centre_capacity;
    int32_t *centre_structure; /* [n_atoms] */
    int64_t *first_atom;       /* [n_structures + 1] */
    size_t structure_capacity, n_allocations;
} member_evaluator;

void member_evaluator_free(member_evaluator *e);

/* n_columns is the number of members padded to a multiple of PADDING; arrays run over all atoms of all structures.
 *   weights  IN  [n_species][n_features][n_columns], each row times the scale of its scalar product
 *   forces   OUT [n_atoms][3][n_columns], repulsive core included
 *   virials  OUT [n_structures][9][n_columns]
 * Returns 0 or OUT_OF_MEMORY. */
int evaluate_members(member_evaluator *e, const descriptor *d, const member_program *program, size_t n_structures,
                     const structure *structures, int n_threads, size_t n_columns, const double *weights,
                     double *forces, double *virials);

#endif
