#include "kept.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    int n, n_blocks;
    double core_energy;
    int first[]; /* [n_species + 1] */
} head;

static size_t registers(size_t bytes)
{
    return (bytes + sizeof(lanes) - 1) / sizeof(lanes);
}

static size_t head_size(const descriptor *d)
{
    return registers(sizeof(head) + (d->n_species + 1) * sizeof(int));
}

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

/* The arrays of an environment, one behind the other; returns where they end. */
static lanes *point_to(const descriptor *d, lanes *at, environment *env)
{
    const size_t n = env->n_blocks;
    env->index = (int32_t *)at;
    at += registers(n * LANES * sizeof(int32_t));
    lanes **arrays[] = {&env->unit,   &env->distance, &env->inverse_r, &env->core_slope,
                        &env->weight, &env->radial,   &env->slope};
    const size_t sizes[] = {3, 1, 1, 1, d->n_channels, d->n_functions, d->n_functions};
    for (int a = 0; a < 7; a++) {
        *arrays[a] = at;
        at += sizes[a] * n;
    }
    return at;
}

int64_t keep_centre(kept_memory *k, const descriptor *d, size_t most, const environment *env, const lanes *density,
                    size_t n_density)
{
    const size_t n = env->n_blocks, one = sizeof(lanes);
    const size_t size = head_size(d) + registers(n * LANES * sizeof(int32_t)) +
                        n * (6 + d->n_channels + 2 * (size_t)d->n_functions) + n_density;
    if (!make_room(k, size, most / one))
        return NOT_KEPT;
    const int64_t where = (int64_t)k->used;
    head *header = (head *)(k->memory + where);
    environment copy = {.n_blocks = env->n_blocks};
    lanes *behind = point_to(d, k->memory + where + head_size(d), &copy);
    header->n = env->n;
    header->n_blocks = env->n_blocks;
    header->core_energy = env->core_energy;
    memcpy(header->first, env->first, (d->n_species + 1) * sizeof(int));
    k->used += size;
    if (n_density > 0)
        memcpy(behind, density, n_density * one);
    if (n == 0)
        return where;
    memcpy(copy.index, env->index, n * LANES * sizeof(int32_t));
    memcpy(copy.unit, env->unit, 3 * n * one);
    memcpy(copy.distance, env->distance, n * one);
    memcpy(copy.inverse_r, env->inverse_r, n * one);
    memcpy(copy.core_slope, env->core_slope, n * one);
    memcpy(copy.weight, env->weight, d->n_channels * n * one);
    const int last = d->l_max > 0 && d->radial_offset[1] != d->radial_offset[0] ? d->l_max : 0;
    for (size_t b = 0; b < n; b++)
        for (int l = 0; l <= last; l++) { /* padding between the functions of different l is left as it is */
            const size_t from = b * d->n_functions + d->radial_offset[l];
            memcpy(copy.radial + from, env->radial + from, d->n_used[l] * one);
            memcpy(copy.slope + from, env->slope + from, d->n_used[l] * one);
        }
    return where;
}

const lanes *kept_centre(const kept_memory *k, const descriptor *d, int64_t where, environment *env)
{
    const head *header = (const head *)(k->memory + where);
    env->n = header->n;
    env->n_blocks = header->n_blocks;
    env->core_energy = header->core_energy;
    memcpy(env->first, header->first, (d->n_species + 1) * sizeof(int));
    return point_to(d, k->memory + where + head_size(d), env);
}
