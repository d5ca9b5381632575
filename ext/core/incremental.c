#include "incremental.h"

#include <stdlib.h>
#include <string.h>

enum { STRETCH = 64 }; /* atoms that are compared at a time */

void incremental_base_free(incremental_base *b)
{
    void *arrays[] = {b->positions, b->forces, b->energies, b->sums, b->sums_change, b->slot};
    for (size_t a = 0; a < sizeof arrays / sizeof *arrays; a++)
        free(arrays[a]);
    linked_cells_free(&b->cells);
    contributions_free(&b->trial);
    *b = (incremental_base){0};
}

int incremental_base_prepare(incremental_base *b, size_t n_atoms, const int pbc[3], size_t n_sums)
{
    b->n_atoms = n_atoms;
    b->n_sums = n_sums;
    memcpy(b->pbc, pbc, sizeof b->pbc);
    b->positions = malloc((3 * n_atoms + 1) * sizeof(double));
    b->forces = malloc((3 * n_atoms + 1) * sizeof(double));
    b->energies = malloc((n_atoms + 1) * sizeof(double));
    b->sums = malloc((n_sums + 1) * sizeof(double));
    b->sums_change = malloc((n_sums + 1) * sizeof(double));
    b->slot = malloc((n_atoms + 1) * sizeof(int32_t));
    b->generation = -1;
    return b->positions && b->forces && b->energies && b->sums && b->sums_change && b->slot ? 0 : OUT_OF_MEMORY;
}

void incremental_keep(incremental_base *b, incremental_scratch *s, const double *positions, const double cell[9],
                      const double *energies, const double *forces, const double virial[9], const double *sums)
{
    memcpy(b->positions, positions, 3 * b->n_atoms * sizeof(double));
    memcpy(b->forces, forces, 3 * b->n_atoms * sizeof(double));
    memcpy(b->energies, energies, b->n_atoms * sizeof(double));
    if (b->n_sums > 0)
        memcpy(b->sums, sums, b->n_sums * sizeof(double));
    memcpy(b->cell, cell, sizeof b->cell);
    memcpy(b->virial, virial, sizeof b->virial);
    b->known = 1;
    b->filled = 0;
    b->n_moved = 0;
    for (size_t i = 0; b->generation == s->store.generation && i < b->n_atoms; i++)
        if (b->slot[i] != NO_SLOT)
            contribution_store_give_back(&s->store, b->slot[i]);
    b->generation = -1;
}

static int same_place(const double a[3], const double b[3])
{
    return memcmp(a, b, 3 * sizeof(double)) == 0;
}

/* Atoms that are not where the base has them, bit for bit; n is more than there is room for where there are many. */
static void compare_base(const incremental_base *b, const double *positions, incremental_difference *found)
{
    *found = (incremental_difference){.n = 0, .from_trial = 0};
    for (size_t from = 0; from < b->n_atoms; from += STRETCH) {
        const size_t to = from + STRETCH < b->n_atoms ? from + STRETCH : b->n_atoms;
        if (memcmp(positions + 3 * from, b->positions + 3 * from, 3 * (to - from) * sizeof(double)) == 0)
            continue;
        for (size_t i = from; i < to; i++) {
            if (same_place(positions + 3 * i, b->positions + 3 * i))
                continue;
            if (found->n == 2 * MOST_MOVED) {
                found->n++;
                return;
            }
            found->atom[found->n++] = (int32_t)i;
        }
    }
}

static int was_moved(const incremental_base *b, int32_t atom)
{
    for (int m = 0; m < b->n_moved; m++)
        if (b->moved[m] == atom)
            return 1;
    return 0;
}

/* The same for the trial, from what is known of the base. */
static void compare_trial(const incremental_base *b, const double *positions, const incremental_difference *from_base,
                          incremental_difference *found)
{
    *found = (incremental_difference){.n = 0, .from_trial = 1};
    for (int k = 0; k < from_base->n && found->n < 2 * MOST_MOVED; k++)
        if (!was_moved(b, from_base->atom[k]))
            found->atom[found->n++] = from_base->atom[k];
    for (int m = 0; m < b->n_moved && found->n < 2 * MOST_MOVED; m++)
        if (!same_place(positions + 3 * b->moved[m], b->moved_to + 3 * m))
            found->atom[found->n++] = b->moved[m];
}

int incremental_compare(incremental_base *b, const incremental_scratch *s, const double *positions,
                        const double cell[9], incremental_difference *difference)
{
    difference->n = MOST_MOVED + 1;
    if (!b->known || memcmp(cell, b->cell, sizeof b->cell) != 0)
        return MOST_MOVED + 1;
    if (b->generation != s->store.generation)
        incremental_reject(b);
    compare_base(b, positions, difference);
    if (b->n_moved > 0 && difference->n <= 2 * MOST_MOVED) {
        incremental_difference from_trial;
        compare_trial(b, positions, difference, &from_trial);
        if (from_trial.n < difference->n)
            *difference = from_trial;
    }
    difference->n = difference->n <= MOST_MOVED ? difference->n : MOST_MOVED + 1;
    return difference->n;
}

void incremental_reject(incremental_base *b)
{
    b->n_moved = 0;
}

void incremental_read(const incremental_base *b, const incremental_scratch *s, double *energies, double *forces,
                      double virial[9], double *sums)
{
    memcpy(energies, b->energies, b->n_atoms * sizeof(double));
    memcpy(forces, b->forces, 3 * b->n_atoms * sizeof(double));
    memcpy(virial, b->virial, sizeof b->virial);
    if (sums != NULL)
        memcpy(sums, b->sums, b->n_sums * sizeof(double));
    if (b->n_moved > 0)
        incremental_apply(b, s, energies, forces, virial, sums);
}
