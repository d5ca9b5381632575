#include "blocks.h"

#include <stdlib.h>

int reserve(void **array, size_t *capacity, size_t n, size_t size, size_t *n_allocations)
{
    if (n <= *capacity)
        return 0;
    free(*array);
    *array = aligned_alloc(64, (n * size + 64) / 64 * 64);
    *capacity = *array == NULL ? 0 : n;
    (*n_allocations)++;
    return *array == NULL ? OUT_OF_MEMORY : 0;
}

void blocks_free(centre_blocks *b)
{
    void *arrays[] = {b->centre_structure, b->centre_atom, b->first, b->species, b->count, b->first_atom};
    for (size_t a = 0; a < sizeof arrays / sizeof *arrays; a++)
        free(arrays[a]);
    *b = (centre_blocks){0};
}

static int reserve_all(centre_blocks *b, size_t n_atoms, size_t n_blocks, size_t n_structures, size_t *n)
{
    size_t atoms = b->atom_capacity, blocks[2] = {b->block_capacity, b->block_capacity};
    if (reserve((void **)&b->centre_structure, &atoms, n_atoms, sizeof(int32_t), n) ||
        reserve((void **)&b->centre_atom, &b->atom_capacity, n_atoms, sizeof(int32_t), n) ||
        reserve((void **)&b->first, &blocks[0], n_blocks, sizeof(int64_t), n) ||
        reserve((void **)&b->species, &blocks[1], n_blocks, sizeof(int32_t), n) ||
        reserve((void **)&b->count, &b->block_capacity, n_blocks, sizeof(int32_t), n) ||
        reserve((void **)&b->first_atom, &b->structure_capacity, n_structures + 1, sizeof(int64_t), n)) {
        b->atom_capacity = b->block_capacity = 0; /* some of the arrays are gone: take all of them anew */
        return OUT_OF_MEMORY;
    }
    return 0;
}

int64_t blocks_arrange(centre_blocks *b, int n_species, size_t n_structures, const structure *structures,
                       size_t *n_allocations)
{
    size_t n_atoms = 0, count[MAX_SPECIES] = {0}, next[MAX_SPECIES], n_blocks = 0;
    b->n_structures = n_structures;
    b->most_neighbours = 0;
    for (size_t s = 0; s < n_structures; s++) {
        n_atoms += structures[s].n_atoms;
        for (size_t i = 0; i < structures[s].n_atoms - structures[s].n_silent; i++) {
            const size_t n = (size_t)(structures[s].list->start[i + 1] - structures[s].list->start[i]);
            b->most_neighbours = n > b->most_neighbours ? n : b->most_neighbours;
            count[structures[s].species[i]]++;
        }
    }
    for (int t = 0; t < n_species; t++)
        n_blocks += (count[t] + LANES - 1) / LANES;
    if (reserve_all(b, n_atoms, n_blocks, n_structures, n_allocations))
        return OUT_OF_MEMORY;

    size_t block = 0, centre = 0;
    for (int t = 0; t < n_species; t++) {
        next[t] = centre;
        for (size_t left = count[t]; left > 0; block++) {
            b->species[block] = t;
            b->first[block] = (int64_t)centre;
            b->count[block] = left < LANES ? (int32_t)left : LANES;
            centre += b->count[block];
            left -= b->count[block];
        }
    }
    b->first_atom[0] = 0;
    for (size_t s = 0; s < n_structures; s++) {
        b->first_atom[s + 1] = b->first_atom[s] + (int64_t)structures[s].n_atoms;
        for (size_t i = 0; i < structures[s].n_atoms - structures[s].n_silent; i++) {
            size_t place = next[structures[s].species[i]]++;
            b->centre_structure[place] = (int32_t)s;
            b->centre_atom[place] = (int32_t)i;
        }
    }
    return (int64_t)n_blocks;
}
