#include "kept.h"

#include <stdlib.h>
#include <string.h>

void kept_free(kept_memory *k)
{
    free(k->memory);
    *k = (kept_memory){0};
}

static int make_room(kept_memory *k, size_t n, size_t most)
{
    if (k->used + n <= k->capacity)
        return 1;
    if (k->used + n > most)
        return 0;
    size_t capacity = k->capacity + k->capacity / 2 + 64 * n;
    capacity = capacity < most ? capacity : most;
    lanes *grown = aligned_alloc(64, (capacity * sizeof(lanes) + 63) / 64 * 64);
    if (grown == NULL)
        return 0;
    if (k->used > 0)
        memcpy(grown, k->memory, k->used * sizeof(lanes));
    free(k->memory);
    k->memory = grown;
    k->capacity = capacity;
    k->n_allocations++;
    return 1;
}

lanes *kept_block(kept_memory *k, const descriptor *d, const centre_blocks *blocks, const structure *structures,
                  int64_t block, size_t n, size_t most)
{
    for (int64_t c = blocks->first[block]; c < blocks->first[block] + blocks->count[block]; c++) {
        const int64_t *start = structures[blocks->centre_structure[c]].list->start + blocks->centre_atom[c];
        n += environment_size(d, (size_t)(start[1] - start[0]));
    }
    return make_room(k, n, most / sizeof(lanes)) ? k->memory + k->used : NULL;
}
