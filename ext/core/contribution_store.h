/* What centres of known configurations give, kept in slots of equal size until it is asked for again. */
#ifndef COMITIA_CONTRIBUTION_STORE_H
#define COMITIA_CONTRIBUTION_STORE_H

#include "contributions.h"

enum { NO_SLOT = -1 };

typedef struct {
    double *memory;  /* [capacity][size] */
    int32_t *unused; /* [n_unused] slots that were given back */
    size_t size, n_pairs_most, n_features, n_slots, n_unused, capacity, unused_capacity, most_bytes, n_allocations;
    int64_t generation; /* who has a slot of an earlier one has none */
} contribution_store;

/* One slot. */
typedef struct {
    int32_t n_pairs, *neighbour, *shift;
    const double *virial, *features, *forces;
} contribution_slot;

void contribution_store_free(contribution_store *s);

/* Before a trial: forgets everything where slots are too small for so many pairs, or too many. */
void contribution_store_prepare(contribution_store *s, size_t n_pairs, size_t n_features);

/* Writes centre c to a slot, a new one where it has none. Returns the slot; NO_SLOT without memory, or with more pairs
 * than a slot takes. */
int32_t contribution_store_write(contribution_store *s, int32_t slot, const contributions *of, size_t c);

void contribution_store_give_back(contribution_store *s, int32_t slot);
contribution_slot contribution_store_read(const contribution_store *s, int32_t slot);

#endif
