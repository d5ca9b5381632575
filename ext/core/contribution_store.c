#include "contribution_store.h"

#include <stdlib.h>
#include <string.h>

void contribution_store_free(contribution_store *s)
{
    free(s->memory);
    free(s->unused);
    *s = (contribution_store){0};
}

void contribution_store_prepare(contribution_store *s, size_t n_pairs, size_t n_features)
{
    if (n_pairs <= s->n_pairs_most && n_features == s->n_features &&
        (s->n_slots - s->n_unused) * s->size * sizeof(double) <= s->most_bytes)
        return;
    if (n_pairs > s->n_pairs_most)
        s->n_pairs_most = n_pairs + n_pairs / 4 + 8;
    s->n_features = n_features;
    const size_t size = 9 + n_features + 3 * s->n_pairs_most + (1 + 4 * s->n_pairs_most + 1) / 2;
    s->capacity = s->capacity * s->size / size;
    s->size = size;
    s->n_slots = s->n_unused = 0;
    s->generation++;
}

/* Parts of a slot: virial, features, forces, number of pairs, neighbours, shifts. */
static double *forces_of(const contribution_store *s, double *slot)
{
    return slot + 9 + s->n_features;
}

static int32_t *integers_of(const contribution_store *s, double *slot)
{
    return (int32_t *)(forces_of(s, slot) + 3 * s->n_pairs_most);
}

int32_t contribution_store_write(contribution_store *s, int32_t slot, const contributions *of, size_t c)
{
    const size_t first = (size_t)of->start[c], n = (size_t)of->start[c + 1] - first;
    if (n > s->n_pairs_most) {
        if (slot != NO_SLOT)
            contribution_store_give_back(s, slot);
        return NO_SLOT;
    }
    if (slot == NO_SLOT && s->n_unused > 0) {
        slot = s->unused[--s->n_unused];
    } else if (slot == NO_SLOT) {
        if (grow((void **)&s->memory, &s->capacity, s->n_slots + 1, s->size * sizeof(double), &s->n_allocations))
            return NO_SLOT;
        slot = (int32_t)s->n_slots++;
    }
    double *place = s->memory + (size_t)slot * s->size;
    int32_t *integers = integers_of(s, place);
    memcpy(place, of->virials + 9 * c, 9 * sizeof(double));
    if (s->n_features > 0)
        memcpy(place + 9, of->features + c * s->n_features, s->n_features * sizeof(double));
    memcpy(forces_of(s, place), of->forces + 3 * first, 3 * n * sizeof(double));
    integers[0] = (int32_t)n;
    memcpy(integers + 1, of->neighbour + first, n * sizeof(int32_t));
    memcpy(integers + 1 + s->n_pairs_most, of->shift + 3 * first, 3 * n * sizeof(int32_t));
    return slot;
}

void contribution_store_give_back(contribution_store *s, int32_t slot)
{
    /* without memory for the note the slot is lost until all are forgotten */
    if (grow((void **)&s->unused, &s->unused_capacity, s->n_unused + 1, sizeof *s->unused, &s->n_allocations) == 0)
        s->unused[s->n_unused++] = slot;
}

contribution_slot contribution_store_read(const contribution_store *s, int32_t slot)
{
    double *place = s->memory + (size_t)slot * s->size;
    int32_t *integers = integers_of(s, place);
    return (contribution_slot){.n_pairs = integers[0],
                               .neighbour = integers + 1,
                               .shift = integers + 1 + s->n_pairs_most,
                               .virial = place,
                               .features = place + 9,
                               .forces = forces_of(s, place)};
}
