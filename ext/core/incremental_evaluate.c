#include <stdlib.h>
#include <string.h>

#include "incremental.h"

enum { NOWHERE = -1 };

void incremental_scratch_free(incremental_scratch *s)
{
    evaluator_free(&s->evaluator);
    for (int which = 0; which < 2; which++) {
        for (int m = 0; m < MOST_MOVED; m++) {
            free(s->rows[which][m].neighbour);
            free(s->rows[which][m].shift);
        }
        free(s->lists[which].start);
        free(s->lists[which].neighbour);
        free(s->lists[which].shift);
        free(s->positions[which]);
    }
    void *arrays[] = {s->row.neighbour, s->row.shift, s->place, s->atom, s->species, s->forces, s->energies, s->sums};
    for (size_t a = 0; a < sizeof arrays / sizeof *arrays; a++)
        free(arrays[a]);
    *s = (incremental_scratch){0};
}

/* A larger array where n elements do not fit, with what it holds, and with headroom. */
static int grow(void **array, size_t *capacity, size_t n, size_t size, size_t *n_allocations)
{
    if (n <= *capacity)
        return 0;
    void *moved = realloc(*array, (n + n / 2 + 64) * size);
    if (moved == NULL)
        return OUT_OF_MEMORY;
    *array = moved;
    *capacity = n + n / 2 + 64;
    (*n_allocations)++;
    return 0;
}

/* Place of an atom in the structure of the trial, from now on; NOWHERE without memory. */
static int32_t place_of(incremental_scratch *s, int32_t atom, int *n)
{
    if (s->place[atom] == NOWHERE) {
        if (grow((void **)&s->atom, &s->atom_capacity, (size_t)*n + 1, sizeof(int32_t), &s->n_allocations))
            return NOWHERE;
        s->atom[*n] = atom;
        s->place[atom] = (*n)++;
    }
    return s->place[atom];
}

/* Neighbours of the atoms that moved, which are touched. */
static int find_rows(const incremental_base *b, incremental_scratch *s, int which,
                     const incremental_difference *difference, int *n)
{
    for (int m = 0; m < difference->n; m++) {
        linked_row *row = &s->rows[which][m];
        row->n = 0;
        int code = linked_cells_neighbours(&b->cells, difference->atom[m], row);
        for (int k = 0; code == 0 && k < row->n; k++)
            code = place_of(s, row->neighbour[k], n) == NOWHERE ? OUT_OF_MEMORY : 0;
        if (code != 0)
            return code;
    }
    return 0;
}

static int add_pair(incremental_scratch *s, int which, int32_t neighbour, const int32_t shift[3], int sign, int *n)
{
    neighbour_list *list = &s->lists[which];
    size_t capacity = list->pair_capacity;
    const int32_t place = place_of(s, neighbour, n);
    if (place == NOWHERE ||
        grow((void **)&list->neighbour, &capacity, list->n_pairs + 1, sizeof(int32_t), &s->n_allocations) ||
        grow((void **)&list->shift, &list->pair_capacity, list->n_pairs + 1, 3 * sizeof(int32_t), &s->n_allocations))
        return OUT_OF_MEMORY;
    list->neighbour[list->n_pairs] = place;
    for (int k = 0; k < 3; k++)
        list->shift[3 * list->n_pairs + k] = sign * shift[k];
    list->n_pairs++;
    return 0;
}

static void exchange(int32_t *a, int32_t *b, size_t n)
{
    for (size_t k = 0; k < n; k++) {
        const int32_t kept = a[k];
        a[k] = b[k];
        b[k] = kept;
    }
}

/* Ends the row of a centre: its first neighbour has the lowest place, its last one the highest (see parts.c). */
static void end_row(neighbour_list *list, int centre)
{
    const size_t begin = (size_t)list->start[centre], end = list->n_pairs;
    for (int last = 0; last < 2; last++) {
        size_t extreme = last ? end - 1 : begin;
        for (size_t p = begin; p < end; p++)
            if (last ? list->neighbour[p] > list->neighbour[extreme] : list->neighbour[p] < list->neighbour[extreme])
                extreme = p;
        if (begin < end) {
            exchange(list->neighbour + extreme, list->neighbour + (last ? end - 1 : begin), 1);
            exchange(list->shift + 3 * extreme, list->shift + 3 * (last ? end - 1 : begin), 3);
        }
    }
    list->start[centre + 1] = (int64_t)end;
}

/* The row of a centre that moved. */
static int copy_row(incremental_scratch *s, int which, int centre, int *n)
{
    const linked_row *row = &s->rows[which][centre];
    for (int k = 0; k < row->n; k++)
        if (add_pair(s, which, row->neighbour[k], row->shift + 3 * k, 1, n))
            return OUT_OF_MEMORY;
    end_row(&s->lists[which], centre);
    return 0;
}

/* Rows of a centre that stayed: its neighbours after the move; before it, those that moved are where they were. */
static int find_row(const incremental_base *b, incremental_scratch *s, int centre, int n_moved, int *n)
{
    const int32_t atom = s->atom[centre];
    s->row.n = 0;
    int code = linked_cells_neighbours(&b->cells, atom, &s->row);
    for (int k = 0; code == 0 && k < s->row.n; k++) {
        code = add_pair(s, 1, s->row.neighbour[k], s->row.shift + 3 * k, 1, n);
        if (code == 0 && (uint32_t)s->place[s->row.neighbour[k]] >= (uint32_t)n_moved)
            code = add_pair(s, 0, s->row.neighbour[k], s->row.shift + 3 * k, 1, n);
    }
    for (int m = 0; m < n_moved; m++) {
        const linked_row *row = &s->rows[0][m];
        for (int k = 0; code == 0 && k < row->n; k++)
            if (row->neighbour[k] == atom)
                code = add_pair(s, 0, s->atom[m], row->shift + 3 * k, -1, n);
    }
    if (code != 0)
        return code;
    end_row(&s->lists[0], centre);
    end_row(&s->lists[1], centre);
    return 0;
}

/* Rows of all centres before and after. */
static int find_lists(const incremental_base *b, incremental_scratch *s, int n_moved, int n_centres, int *n)
{
    for (int which = 0; which < 2; which++) {
        neighbour_list *list = &s->lists[which];
        if (grow((void **)&list->start, &s->start_capacity[which], (size_t)n_centres + 1, sizeof(int64_t),
                 &s->n_allocations))
            return OUT_OF_MEMORY;
        list->n_pairs = 0;
        list->start[0] = 0;
    }
    for (int centre = 0; centre < n_centres; centre++) {
        int code;
        if (centre < n_moved)
            code = copy_row(s, 0, centre, n) || copy_row(s, 1, centre, n) ? OUT_OF_MEMORY : 0;
        else
            code = find_row(b, s, centre, n_moved, n);
        if (code != 0)
            return code;
    }
    return 0;
}

static int reserve_results(const incremental_base *b, incremental_scratch *s, incremental_change *change, size_t n)
{
    size_t *count = &s->n_allocations;
    return grow((void **)&s->species, &s->species_capacity, n, sizeof(int32_t), count) ||
                   grow((void **)&s->positions[0], &s->position_capacity[0], n, 3 * sizeof(double), count) ||
                   grow((void **)&s->positions[1], &s->position_capacity[1], n, 3 * sizeof(double), count) ||
                   grow((void **)&s->forces, &s->force_capacity, 2 * n, 3 * sizeof(double), count) ||
                   grow((void **)&s->energies, &s->energy_capacity, 2 * n, sizeof(double), count) ||
                   grow((void **)&s->sums, &s->sum_capacity, 2 * b->n_sums, sizeof(double), count) ||
                   grow((void **)&change->atom, &change->atom_capacity, n, sizeof(int32_t), count) ||
                   grow((void **)&change->energies, &change->energy_capacity, n, sizeof(double), count) ||
                   grow((void **)&change->forces, &change->force_capacity, n, 3 * sizeof(double), count)
               ? OUT_OF_MEMORY
               : 0;
}

/* Evaluates the centres before and after, as two structures whose other atoms are neighbours only. */
static int evaluate_both(incremental_base *b, incremental_scratch *s, const descriptor *d, const int32_t *species,
                         const double *weights, const double *positions, int n_centres, int n, int n_threads)
{
    incremental_change *change = &b->change;
    structure structures[2];
    if (reserve_results(b, s, change, (size_t)n))
        return OUT_OF_MEMORY;
    for (int i = 0; i < n; i++) {
        const size_t atom = (size_t)s->atom[i];
        s->species[i] = species[atom];
        memcpy(s->positions[0] + 3 * i, b->positions + 3 * atom, 3 * sizeof(double));
        memcpy(s->positions[1] + 3 * i, positions + 3 * atom, 3 * sizeof(double));
    }
    for (int which = 0; which < 2; which++)
        structures[which] = (structure){.n_atoms = (size_t)n,
                                        .n_silent = (size_t)(n - n_centres),
                                        .species = s->species,
                                        .positions = s->positions[which],
                                        .cell = b->cell,
                                        .list = &s->lists[which]};
    const evaluation what = {.weights = weights,
                             .atomic_energies = s->energies,
                             .forces = s->forces,
                             .virials = s->virials,
                             .sums = b->n_sums > 0 ? s->sums : NULL};
    if (evaluate(&s->evaluator, d, 2, structures, n_threads, &what))
        return OUT_OF_MEMORY;
    change->n_centres = n_centres;
    change->n_atoms = n;
    memcpy(change->atom, s->atom, n * sizeof *change->atom);
    memcpy(change->energies, s->energies + n, n_centres * sizeof(double));
    for (int k = 0; k < 3 * n; k++)
        change->forces[k] = s->forces[3 * n + k] - s->forces[k];
    for (int k = 0; k < 9; k++)
        change->virial[k] = s->virials[9 + k] - s->virials[k];
    for (size_t f = 0; f < b->n_sums; f++)
        change->sums[f] = s->sums[b->n_sums + f] - s->sums[f];
    return 0;
}

/* The trial, with the atoms of the cells where it has them. */
static int evaluate_change(incremental_base *b, incremental_scratch *s, const descriptor *d, const int32_t *species,
                           const double *weights, const double *positions, const incremental_difference *difference,
                           int *n, int n_threads)
{
    for (int m = 0; m < difference->n; m++)
        if (place_of(s, difference->atom[m], n) == NOWHERE)
            return OUT_OF_MEMORY;
    int code = find_rows(b, s, 0, difference, n);
    for (int m = 0; code == 0 && m < difference->n; m++) {
        const int32_t atom = difference->atom[m];
        code = linked_cells_move(&b->cells, atom, positions + 3 * atom);
        if (code == 0) {
            b->change.moved[m] = atom;
            memcpy(b->change.moved_to + 3 * m, positions + 3 * atom, 3 * sizeof(double));
            b->change.n_moved = m + 1;
        }
    }
    if (code == 0)
        code = find_rows(b, s, 1, difference, n);
    const int n_centres = *n;
    if (code == 0 && 2 * (size_t)n_centres > b->n_atoms)
        code = INCREMENTAL_CLOSED;
    if (code == 0)
        code = find_lists(b, s, difference->n, n_centres, n);
    if (code == 0)
        code = evaluate_both(b, s, d, species, weights, positions, n_centres, *n, n_threads);
    return code;
}

int incremental_evaluate(incremental_base *b, incremental_scratch *s, const descriptor *d, const int32_t *species,
                         const double *weights, const double *positions, const incremental_difference *difference,
                         int n_threads)
{
    if (difference->n == 0 && difference->from_trial)
        return 0;
    if (difference->from_trial)
        incremental_accept(b);
    else
        incremental_reject(b);
    if (difference->n == 0)
        return 0;
    if (!b->filled) {
        const int code = linked_cells_fill(&b->cells, d->cutoff, b->n_atoms, b->positions, b->cell, b->pbc);
        if (code != 0)
            return code;
        b->filled = 1;
    }
    if (b->n_atoms > s->place_capacity) {
        if (grow((void **)&s->place, &s->place_capacity, b->n_atoms, sizeof(int32_t), &s->n_allocations))
            return OUT_OF_MEMORY;
        for (size_t i = 0; i < s->place_capacity; i++)
            s->place[i] = NOWHERE;
    }
    int n = 0;
    const int code = evaluate_change(b, s, d, species, weights, positions, difference, &n, n_threads);
    for (int i = 0; i < n; i++)
        s->place[s->atom[i]] = NOWHERE;
    if (code != 0)
        incremental_reject(b);
    return code;
}
