/* What two evaluations of the same positions share: densities and neighbours of blocks of centres, written where they
 * are kept, one block behind the other in memory of each thread that grows only, up to a bound; what does not fit is
 * made again. */
#ifndef COMITIA_KEPT_H
#define COMITIA_KEPT_H

#include "blocks.h"
#include "environment.h"

#define NOT_KEPT ((int64_t)-1)

typedef struct {
    lanes *memory;
    size_t used, capacity, n_allocations; /* registers */
} kept_memory;

void kept_free(kept_memory *k);

/* Room behind what is kept for n registers of densities of a block, and for the environments of its centres behind
 * them, as long as all this takes not more than `most` bytes; else NULL. What was kept before may move. */
lanes *kept_block(kept_memory *k, const descriptor *d, const centre_blocks *blocks, const structure *structures,
                  int64_t block, size_t n, size_t most);

/* Asks for part v of n of the `size` registers from `begin` on, so that they are near when they are gone through. */
INLINE void kept_fetch(const kept_memory *k, size_t begin, size_t size, int v, int n)
{
    enum { LINE = 64 };
    const size_t most = begin < k->capacity ? k->capacity - begin : 0;
    const size_t bytes = (size < most ? size : most) * sizeof(lanes);
    for (size_t at = bytes * v / n; at < bytes * (v + 1) / n; at += LINE)
        __builtin_prefetch((const char *)(k->memory + begin) + at, 0, 2);
}

#endif
