#include <stdlib.h>
#include <string.h>

#include "incremental.h"

enum { NOWHERE = -1, MOST_STORED = 256 * 1024 * 1024 /* bytes */ };

void incremental_scratch_free(incremental_scratch *s)
{
    contribution_memory_free(&s->memory);
    contribution_store_free(&s->store);
    contributions_free(&s->before);
    for (int m = 0; m < MOST_MOVED; m++)
        for (int when = 0; when < 2; when++) {
            free(s->rows[when][m].neighbour);
            free(s->rows[when][m].shift);
        }
    free(s->row.neighbour);
    free(s->row.shift);
    free(s->place);
    free(s->touched);
    *s = (incremental_scratch){0};
}

/* --- results ----------------------------------------------------------------------------------------------------- */

static void add_forces(int32_t centre, size_t n_pairs, const int32_t *neighbour, const double *of_pairs, double sign,
                       double *forces)
{
    double own[3] = {0, 0, 0};
    for (size_t p = 0; p < n_pairs; p++)
        for (int k = 0; k < 3; k++) {
            const double force = sign * of_pairs[3 * p + k];
            forces[3 * neighbour[p] + k] += force;
            own[k] += force;
        }
    for (int k = 0; k < 3; k++)
        forces[3 * centre + k] -= own[k];
}

void incremental_apply(const incremental_base *b, const incremental_scratch *s, double *energies, double *forces,
                       double virial[9], double *sums)
{
    const contributions *trial = &b->trial;
    for (size_t c = 0; c < trial->n_centres; c++) {
        const int32_t atom = trial->centre[c];
        const contribution_slot before = contribution_store_read(&s->store, b->slot[atom]);
        const size_t first = (size_t)trial->start[c], n = (size_t)trial->start[c + 1] - first;
        energies[atom] = trial->energies[c];
        add_forces(atom, (size_t)before.n_pairs, before.neighbour, before.forces, -1, forces);
        add_forces(atom, n, trial->neighbour + first, trial->forces + 3 * first, 1, forces);
    }
    for (int k = 0; k < 9; k++)
        virial[k] += b->virial_change[k];
    for (size_t f = 0; sums != NULL && f < b->n_sums; f++)
        sums[f] += b->sums_change[f];
}

/* The trial becomes the base. */
static int accept(incremental_base *b, incremental_scratch *s)
{
    const contributions *trial = &b->trial;
    incremental_apply(b, s, b->energies, b->forces, b->virial, b->n_sums > 0 ? b->sums : NULL);
    for (size_t c = 0; c < trial->n_centres; c++) {
        const int32_t atom = trial->centre[c];
        b->slot[atom] = contribution_store_write(&s->store, b->slot[atom], trial, c);
    }
    int code = 0;
    for (int m = 0; m < b->n_moved; m++) {
        const int32_t atom = b->moved[m];
        memcpy(b->positions + 3 * atom, b->moved_to + 3 * m, 3 * sizeof(double));
        code = code != 0 ? code : linked_cells_move(&b->cells, atom, b->positions + 3 * atom);
    }
    b->n_moved = 0;
    return code;
}

/* Virial and sums of the trial less those of the base. */
static void find_change(incremental_base *b, const incremental_scratch *s, const int32_t *species, int n_features)
{
    const contributions *trial = &b->trial;
    memset(b->virial_change, 0, sizeof b->virial_change);
    memset(b->sums_change, 0, b->n_sums * sizeof(double));
    for (size_t c = 0; c < trial->n_centres; c++) {
        const int32_t atom = trial->centre[c];
        const contribution_slot before = contribution_store_read(&s->store, b->slot[atom]);
        for (int k = 0; k < 9; k++)
            b->virial_change[k] += trial->virials[9 * c + k] - before.virial[k];
        if (b->n_sums == 0)
            continue;
        const double *after = trial->features + c * n_features;
        double *sums = b->sums_change + (size_t)species[atom] * n_features;
        for (int f = 0; f < n_features; f++)
            sums[f] += after[f] - before.features[f];
    }
}

/* --- touched centres --------------------------------------------------------------------------------------------- */

static int touch(incremental_scratch *s, int32_t atom, int *n)
{
    if (s->place[atom] != NOWHERE)
        return 0;
    if (grow((void **)&s->touched, &s->touched_capacity, (size_t)*n + 1, sizeof(int32_t), &s->n_allocations))
        return OUT_OF_MEMORY;
    s->touched[*n] = atom;
    s->place[atom] = (*n)++;
    return 0;
}

/* Neighbours of the atoms that moved, before or after; all are touched. */
static int find_rows(const incremental_base *b, incremental_scratch *s, int when,
                     const incremental_difference *difference, int *n)
{
    int code = 0;
    for (int m = 0; code == 0 && m < difference->n; m++) {
        linked_row *row = &s->rows[when][m];
        row->n = 0;
        code = linked_cells_neighbours(&b->cells, difference->atom[m], row);
        for (int k = 0; code == 0 && k < row->n; k++)
            code = touch(s, row->neighbour[k], n);
    }
    return code;
}

/* The touched centres, those that moved first. The cells have the atoms where they were afterwards as before. */
static int find_touched(incremental_base *b, incremental_scratch *s, const double *positions,
                        const incremental_difference *difference, int *n)
{
    int code = 0, n_moved = 0;
    for (int m = 0; code == 0 && m < difference->n; m++)
        code = touch(s, difference->atom[m], n);
    if (code == 0)
        code = find_rows(b, s, 0, difference, n);
    while (code == 0 && n_moved < difference->n) {
        const int32_t atom = difference->atom[n_moved];
        code = linked_cells_move(&b->cells, atom, positions + 3 * atom);
        n_moved += code == 0;
    }
    if (code == 0)
        code = find_rows(b, s, 1, difference, n);
    while (n_moved-- > 0)
        linked_cells_move(&b->cells, difference->atom[n_moved], b->positions + 3 * difference->atom[n_moved]);
    return code;
}

/* Slots of a base that are still its own. */
static void join_store(incremental_base *b, const incremental_scratch *s)
{
    if (b->generation == s->store.generation)
        return;
    for (size_t i = 0; i < b->n_atoms; i++)
        b->slot[i] = NO_SLOT;
    b->generation = s->store.generation;
}

/* --- before and after -------------------------------------------------------------------------------------------- */

/* Evaluates the centres that the store does not have as they are in the base. */
static int evaluate_before(incremental_base *b, incremental_scratch *s, const descriptor *d, const int32_t *species,
                           const double *weights, int n, int n_threads)
{
    size_t most_pairs = 0, *count = &s->n_allocations;
    int code = contributions_clear(&s->before, count);
    for (int c = 0; code == 0 && c < n; c++) {
        if (b->slot[s->touched[c]] != NO_SLOT)
            continue;
        s->row.n = 0;
        code = linked_cells_neighbours(&b->cells, s->touched[c], &s->row);
        for (int k = 0; code == 0 && k < s->row.n; k++)
            code = contributions_add(&s->before, s->row.neighbour[k], s->row.shift + 3 * k, 1, count);
        if (code == 0)
            code = contributions_end_row(&s->before, s->touched[c], count);
        most_pairs = (size_t)s->row.n > most_pairs ? (size_t)s->row.n : most_pairs;
    }
    if (code != 0 || s->before.n_centres == 0)
        return code;
    if (most_pairs > s->store.n_pairs_most) {
        contribution_store_prepare(&s->store, most_pairs, s->store.n_features);
        join_store(b, s);
        return evaluate_before(b, s, d, species, weights, n, n_threads);
    }
    code = contributions_evaluate(&s->before, &s->memory, d, species, weights, b->positions, b->cell, b->n_sums > 0,
                                  n_threads);
    for (size_t c = 0; code == 0 && c < s->before.n_centres; c++) {
        const int32_t slot = contribution_store_write(&s->store, NO_SLOT, &s->before, c);
        b->slot[s->before.centre[c]] = slot;
        code = slot == NO_SLOT ? OUT_OF_MEMORY : 0;
    }
    return code;
}

/* The row of a centre after the move. Of one that stayed: its neighbours before, but those that moved are elsewhere. */
static int add_row_after(incremental_base *b, incremental_scratch *s, int c, int n_moved)
{
    const int32_t atom = s->touched[c];
    size_t *count = &s->n_allocations;
    int code = 0;
    if (c < n_moved) {
        const linked_row *row = &s->rows[1][c];
        for (int k = 0; code == 0 && k < row->n; k++)
            code = contributions_add(&b->trial, row->neighbour[k], row->shift + 3 * k, 1, count);
    } else {
        const contribution_slot before = contribution_store_read(&s->store, b->slot[atom]);
        for (int p = 0; code == 0 && p < before.n_pairs; p++) {
            const int32_t place = s->place[before.neighbour[p]];
            if (place == NOWHERE || place >= n_moved)
                code = contributions_add(&b->trial, before.neighbour[p], before.shift + 3 * p, 1, count);
        }
        for (int m = 0; m < n_moved; m++) {
            const linked_row *row = &s->rows[1][m];
            for (int k = 0; code == 0 && k < row->n; k++)
                if (row->neighbour[k] == atom)
                    code = contributions_add(&b->trial, s->touched[m], row->shift + 3 * k, -1, count);
        }
    }
    return code != 0 ? code : contributions_end_row(&b->trial, atom, count);
}

static int evaluate_trial(incremental_base *b, incremental_scratch *s, const descriptor *d, const int32_t *species,
                          const double *weights, const double *positions, const incremental_difference *difference,
                          int *n, int n_threads)
{
    int code = find_touched(b, s, positions, difference, n);
    if (code == 0 && 2 * (size_t)*n > b->n_atoms)
        code = INCREMENTAL_CLOSED;
    if (code == 0)
        code = evaluate_before(b, s, d, species, weights, *n, n_threads);
    if (code == 0)
        code = contributions_clear(&b->trial, &s->n_allocations);
    for (int c = 0; code == 0 && c < *n; c++)
        code = add_row_after(b, s, c, difference->n);
    if (code == 0)
        code = contributions_evaluate(&b->trial, &s->memory, d, species, weights, positions, b->cell, b->n_sums > 0,
                                      n_threads);
    if (code != 0)
        return code;
    find_change(b, s, species, d->n_features);
    b->n_moved = difference->n;
    for (int m = 0; m < b->n_moved; m++) {
        b->moved[m] = difference->atom[m];
        memcpy(b->moved_to + 3 * m, positions + 3 * b->moved[m], 3 * sizeof(double));
    }
    return 0;
}

int incremental_evaluate(incremental_base *b, incremental_scratch *s, const descriptor *d, const int32_t *species,
                         const double *weights, const double *positions, const incremental_difference *difference,
                         int n_threads)
{
    int code = 0;
    if (difference->n == 0 && difference->from_trial)
        return 0;
    if (difference->from_trial)
        code = accept(b, s);
    incremental_reject(b);
    if (code != 0 || difference->n == 0)
        return code;
    if (!b->filled)
        code = linked_cells_fill(&b->cells, d->cutoff, b->n_atoms, b->positions, b->cell, b->pbc);
    if (code != 0)
        return code;
    b->filled = 1;
    if (b->n_atoms > s->place_capacity) {
        if (grow((void **)&s->place, &s->place_capacity, b->n_atoms, sizeof(int32_t), &s->n_allocations))
            return OUT_OF_MEMORY;
        for (size_t i = 0; i < s->place_capacity; i++)
            s->place[i] = NOWHERE;
    }
    s->store.most_bytes = MOST_STORED;
    contribution_store_prepare(&s->store, s->store.n_pairs_most + (s->store.n_pairs_most == 0),
                               b->n_sums > 0 ? (size_t)d->n_features : 0);
    join_store(b, s);
    int n = 0;
    code = evaluate_trial(b, s, d, species, weights, positions, difference, &n, n_threads);
    for (int c = 0; c < n; c++)
        s->place[s->touched[c]] = NOWHERE;
    return code;
}
