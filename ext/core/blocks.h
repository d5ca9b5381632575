/* Centres of a batch in blocks of LANES of one species, whichever structures they belong to. */
#ifndef COMITIA_BLOCKS_H
#define COMITIA_BLOCKS_H

#include "environment.h"

typedef struct {
    int32_t *centre_structure, *centre_atom; /* [n_atoms] sorted by species */
    int64_t *first;                          /* [n_blocks] first centre */
    int32_t *species, *count;                /* [n_blocks] */
    int64_t *first_atom;                     /* [n_structures + 1] */
    size_t n_structures, most_neighbours;    /* most of any centre, as listed */
    size_t atom_capacity, block_capacity, structure_capacity;
} centre_blocks;

void blocks_free(centre_blocks *b);

/* Sorts the centres by species (stable) and cuts them into blocks. Returns their number, or OUT_OF_MEMORY. */
int64_t blocks_arrange(centre_blocks *b, int n_species, size_t n_structures, const structure *structures,
                       size_t *n_allocations);

/* A larger array where n numbers of `size` bytes do not fit; nothing is kept. */
int reserve(void **array, size_t *capacity, size_t n, size_t size, size_t *n_allocations);

#endif
