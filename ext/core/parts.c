#include "parts.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_PARTS = 32, LEVELS = 4, STRETCH = 512 }; /* STRETCH: atoms that a thread adds up at a time */

void parts_free(work_parts *p)
{
    for (int k = 0; k < p->capacity; k++) {
        free(p->part[k].forces);
        free(p->part[k].virials);
        free(p->part[k].atomic_virials);
        free(p->part[k].sums);
    }
    free(p->part);
    *p = (work_parts){0};
}

static int reserve_parts(work_parts *p, int n, size_t *n_allocations)
{
    if (n <= p->capacity)
        return 0;
    part *grown = realloc(p->part, n * sizeof(part));
    if (grown == NULL)
        return OUT_OF_MEMORY;
    memset(grown + p->capacity, 0, (n - p->capacity) * sizeof(part));
    p->part = grown;
    p->capacity = n;
    (*n_allocations)++;
    return 0;
}

int parts_cut(work_parts *p, int64_t n_blocks, int n_threads, int one_each, size_t *n_allocations)
{
    int levels = n_threads == 1 || one_each ? 0 : MOST_PARTS / n_threads - 1;
    levels = levels < 0 ? 0 : levels < LEVELS ? levels : LEVELS;
    if (reserve_parts(p, (levels + 1) * n_threads, n_allocations))
        return OUT_OF_MEMORY;
    p->n = 0;
    double done = 0, left = 1; /* of the work of a thread */
    for (int level = 0; level <= levels; level++) {
        const double share = level == levels ? left : left * (level == 0 ? 0.75 : 0.5);
        for (int t = 0; t < n_threads; t++) {
            part *one = &p->part[p->n++];
            one->begin = p->n == 1 ? 0 : one[-1].end;
            one->end = (int64_t)(n_blocks * (done + share * (t + 1) / n_threads) + 1e-6);
        }
        done += share;
        left -= share;
    }
    return 0;
}

/* The neighbours of an atom are in order: the first and the last tell which forces it may change. */
static void find_range(part *one, const centre_blocks *blocks, const structure *structures)
{
    const int64_t begin = blocks->first[one->begin], end = blocks->first[one->end - 1] + blocks->count[one->end - 1],
                  n_structures = (int64_t)blocks->n_structures;
    one->first_row = blocks->species[one->begin] * n_structures + blocks->centre_structure[begin];
    one->last_row = blocks->species[one->end - 1] * n_structures + blocks->centre_structure[end - 1];
    one->first_atom = INT64_MAX;
    one->last_atom = -1;
    for (int64_t c = begin; c < end; c++) {
        const int32_t i = blocks->centre_atom[c];
        const neighbour_list *list = structures[blocks->centre_structure[c]].list;
        const int64_t from = blocks->first_atom[blocks->centre_structure[c]];
        int64_t first = i, last = i;
        if (list->start[i] < list->start[i + 1]) {
            first = list->neighbour[list->start[i]] < i ? list->neighbour[list->start[i]] : i;
            last = list->neighbour[list->start[i + 1] - 1] > i ? list->neighbour[list->start[i + 1] - 1] : i;
        }
        one->first_atom = from + first < one->first_atom ? from + first : one->first_atom;
        one->last_atom = from + last > one->last_atom ? from + last : one->last_atom;
    }
}

int part_begin(part *one, const centre_blocks *blocks, const structure *structures, int n_features, int with_forces,
               int with_atomic_virials, int with_sums)
{
    const size_t n_structures = blocks->n_structures;
    one->first_atom = one->first_row = 0;
    one->last_atom = one->last_row = -1;
    if (one->begin < one->end)
        find_range(one, blocks, structures);
    const int64_t n_atoms = one->last_atom - one->first_atom + 1,
                  n_sums = (one->last_row - one->first_row + 1) * n_features;
    if (with_forces) {
        if (reserve((void **)&one->forces, &one->forces_capacity, 3 * blocks->first_atom[n_structures], sizeof(double),
                    &one->n_allocations) ||
            reserve((void **)&one->virials, &one->virials_capacity, 9 * n_structures, sizeof(double),
                    &one->n_allocations))
            return OUT_OF_MEMORY;
        if (n_atoms > 0)
            memset(one->forces + 3 * one->first_atom, 0, 3 * n_atoms * sizeof(double));
        if (n_structures > 0)
            memset(one->virials, 0, 9 * n_structures * sizeof(double));
    }
    if (with_atomic_virials) {
        if (reserve((void **)&one->atomic_virials, &one->atomic_virials_capacity, 9 * blocks->first_atom[n_structures],
                    sizeof(double), &one->n_allocations))
            return OUT_OF_MEMORY;
        if (n_atoms > 0)
            memset(one->atomic_virials + 9 * one->first_atom, 0, 9 * n_atoms * sizeof(double));
    }
    if (with_sums) {
        if (reserve((void **)&one->sums, &one->sums_capacity, n_sums, sizeof(double), &one->n_allocations))
            return OUT_OF_MEMORY;
        if (n_sums > 0)
            memset(one->sums, 0, n_sums * sizeof(double));
    }
    return 0;
}

/* Sums over the parts of `width` numbers of each of the atoms from ... to - 1. */
static void add_up_atoms(const work_parts *p, int64_t from, int64_t to, int width, int of_virials, double *sums)
{
    memset(sums + width * from, 0, width * (to - from) * sizeof(double));
    for (int k = 0; k < p->n; k++) {
        const part *one = &p->part[k];
        const double *own = of_virials ? one->atomic_virials : one->forces;
        const int64_t begin = from > one->first_atom ? from : one->first_atom,
                      end = to <= one->last_atom ? to : one->last_atom + 1;
        for (int64_t i = width * begin; i < width * end; i++)
            sums[i] += own[i];
    }
}

void parts_add_up(const work_parts *p, const centre_blocks *blocks, int n_species, int n_features, double *forces,
                  double *virials, double *atomic_virials, double *sums)
{
    const int64_t n_structures = (int64_t)blocks->n_structures, n_atoms = blocks->first_atom[n_structures],
                  n_rows = n_structures * n_species;
    if (forces != NULL || atomic_virials != NULL) {
#pragma omp for schedule(static) nowait
        for (int64_t from = 0; from < n_atoms; from += STRETCH) {
            const int64_t to = from + STRETCH < n_atoms ? from + STRETCH : n_atoms;
            if (forces != NULL)
                add_up_atoms(p, from, to, 3, 0, forces);
            if (atomic_virials != NULL)
                add_up_atoms(p, from, to, 9, 1, atomic_virials);
        }
    }
    if (sums != NULL) {
#pragma omp for schedule(static) nowait
        for (int64_t row = 0; row < n_rows; row++) {
            const int32_t species = (int32_t)(row / n_structures), structure = (int32_t)(row % n_structures);
            double *sum = sums + ((size_t)structure * n_species + species) * n_features;
            memset(sum, 0, n_features * sizeof(double));
            for (int k = 0; k < p->n; k++) {
                const part *one = &p->part[k];
                if (row < one->first_row || row > one->last_row)
                    continue;
                const double *own = part_sums(one, blocks, n_features, structure, species);
                for (int f = 0; f < n_features; f++)
                    sum[f] += own[f];
            }
        }
    }
    if (virials != NULL) {
#pragma omp for schedule(static) nowait
        for (int64_t v = 0; v < 9 * n_structures; v++) {
            double virial = 0;
            for (int k = 0; k < p->n; k++)
                virial += p->part[k].virials[v];
            virials[v] = virial;
        }
    }
}
