/* Linear-scaling neighbour list. All atoms are wrapped into the cell, and every copy of an atom that can reach
 * it is written down, so that the search meets no boundaries. Copies are sorted into bins along the cell
 * vectors; those of one row of bins lie side by side in memory. Each pair is found once, from the atom with the
 * higher index, so both directions rest on one decision; two transpositions, each walking the atoms in order,
 * put the full list into order without sorting it. */
#include "neighbours.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bins.h"

#define MAX_ATOMS ((size_t)1 << 30)
#define MAX_HALF_PAIRS ((size_t)1 << 28)

enum { FEWEST_ATOMS = 1000 }; /* that a thread is started for */

void neighbour_list_init(neighbour_list *list, double cutoff, double skin)
{
    memset(list, 0, sizeof *list);
    list->cutoff = cutoff;
    list->skin = skin;
    list->n_threads = 1;
}

void neighbour_list_free(neighbour_list *list)
{
    void *blocks[] = {list->start,    list->neighbour, list->shift,      list->positions_built, list->wrapped,
                      list->fraction, list->image,     list->n_upper,    list->half_start,      list->fill,
                      list->half,     list->copy_atom, list->copy_shift, list->copy_bin,        list->bin_x,
                      list->bin_y,    list->bin_z,     list->bin_key,    list->bin_shift,       list->bin_start};
    for (int p = 0; p < list->part_capacity; p++) {
        free(list->half[p].copy);
    }
    for (size_t b = 0; b < sizeof blocks / sizeof *blocks; b++) {
        free(blocks[b]);
    }
    neighbour_list_init(list, list->cutoff, list->skin);
}

const char *neighbour_error(int code)
{
    switch (code) {
    case NEIGHBOURS_ERROR_MEMORY:
        return "there is not enough memory for the neighbour list; use fewer atoms or a shorter cutoff";
    case NEIGHBOURS_ERROR_CELL:
        return "the cell vectors of the periodic directions are zero or lie in one plane; give a cell with a volume, "
               "or switch pbc off in these directions";
    case NEIGHBOURS_ERROR_NONFINITE:
        return "a position or a cell vector is not finite; the step that made it went wrong";
    case NEIGHBOURS_ERROR_TOO_MANY:
        return "there are too many atoms, images or pairs for one neighbour list; look for a cell much smaller than "
               "the cutoff, or for atoms on top of each other";
    case NEIGHBOURS_ERROR_FAR:
        return "an atom is so far away that its distances have no digits left; wrap the positions into the cell, or "
               "check their unit (angstrom)";
    case NEIGHBOURS_ERROR_CUTOFF: return "the cutoff and the skin must be finite and not negative";
    default: return code < 0 ? "unknown error of the neighbour list" : "no error";
    }
}

static int reserve_atoms(neighbour_list *list, size_t n_atoms)
{
    if (list->start != NULL && n_atoms <= list->atom_capacity) {
        return 0;
    }
    RESERVE(list->start, n_atoms + 1);
    RESERVE(list->half_start, n_atoms + 1);
    RESERVE(list->fill, n_atoms + 1);
    RESERVE(list->n_upper, n_atoms + 1);
    RESERVE(list->positions_built, 3 * n_atoms + 1);
    RESERVE(list->wrapped, 3 * n_atoms + 1);
    RESERVE(list->fraction, 3 * n_atoms + 1);
    RESERVE(list->image, 3 * n_atoms + 1);
    list->atom_capacity = n_atoms;
    return 0;
}

/* Runs of atoms for the threads; no more of them than is worth their start. */
static int cut_atoms(neighbour_list *list)
{
    const size_t most = list->n_atoms / FEWEST_ATOMS + 1, n_threads = (size_t)list->n_threads;
    list->n_parts = (int)(most < n_threads ? most : n_threads);
    if (list->n_parts > list->part_capacity) {
        RESERVE(list->half, (size_t)list->n_parts);
        memset(list->half + list->part_capacity, 0, (list->n_parts - list->part_capacity) * sizeof *list->half);
        list->part_capacity = list->n_parts;
    }
    for (int p = 0; p < list->n_parts; p++) {
        list->half[p].begin = list->n_atoms * p / list->n_parts;
        list->half[p].end = list->n_atoms * (p + 1) / list->n_parts;
    }
    return 0;
}

/* A quarter of headroom: the counts change a little from build to build. */
static int reserve_half(half_pairs *half, size_t count)
{
    if (count <= half->capacity) {
        return 0;
    }
    size_t room = count + count / 4 + 64;
    int32_t *moved = realloc(half->copy, room * sizeof *moved);
    if (moved == NULL) {
        return NEIGHBOURS_ERROR_MEMORY;
    }
    half->copy = moved;
    half->capacity = room;
    half->n_allocations++;
    return 0;
}

static int reserve_pairs(neighbour_list *list, size_t count)
{
    if (list->neighbour != NULL && count <= list->pair_capacity) {
        return 0;
    }
    size_t room = count + count / 4 + 64;
    list->pair_capacity = 0;
    RESERVE(list->neighbour, room);
    RESERVE(list->shift, 3 * room);
    list->pair_capacity = room;
    return 0;
}

/* Copies closer than the cutoff to an atom, of atoms with a lower index or its own.
 *   low, high        IN   [3]   first and last bin along each vector
 *   n                IN   [3]   number of bins
 *   start            IN   [n_bins + 1]
 *   x, y, z, key     IN   [n_copies] in the order of the bins
 *   r                IN   [3]   position of the atom
 *   limit            IN   copies with a lower key count
 *   found            OUT  their places; room for all copies
 *   returns how many                                                                                            */
static size_t search(const int low[3], const int high[3], const int n[3], const int32_t *start, const double *x,
                     const double *y, const double *z, const int32_t *key, const double r[3], double squared,
                     int32_t limit, int32_t *restrict found)
{
    size_t count = 0;
    for (int a = low[0]; a <= high[0]; a++) {
        for (int b = low[1]; b <= high[1]; b++) {
            const int32_t *row = &start[((size_t)a * (size_t)n[1] + (size_t)b) * (size_t)n[2]];
            for (int32_t place = row[low[2]]; place < row[high[2] + 1]; place++) {
                const double dx = x[place] - r[0], dy = y[place] - r[1], dz = z[place] - r[2];
                found[count] = place;
                count += (dx * dx + dy * dy + dz * dz < squared) & (key[place] < limit);
            }
        }
    }
    return count;
}

/* The pairs of a run of atoms; half_start counts from the first of them. */
static int find_part(neighbour_list *list, const bins *bins, double cutoff, half_pairs *half)
{
    size_t n_half = 0;
    for (size_t i = half->begin; i < half->end; i++) {
        const double *s = &list->fraction[3 * i];
        int low[3], high[3];
        for (int d = 0; d < 3; d++) {
            low[d] = bin_along(bins, d, s[d] - bins->reach[d]);
            high[d] = bin_along(bins, d, s[d] + bins->reach[d]);
        }
        int code = n_half > MAX_HALF_PAIRS ? NEIGHBOURS_ERROR_TOO_MANY : reserve_half(half, n_half + bins->n_copies);
        if (code != 0) {
            return code;
        }
        list->half_start[i] = (int64_t)n_half;
        size_t n_found =
            search(low, high, bins->n, list->bin_start, list->bin_x, list->bin_y, list->bin_z, list->bin_key,
                   &list->wrapped[3 * i], cutoff * cutoff, 2 * (int32_t)i + 1, &half->copy[n_half]);
        n_half += n_found;
    }
    half->count = n_half;
    return 0;
}

/* Each pair once, at the atom with the higher index. */
static int find_half(neighbour_list *list, const bins *bins, double cutoff)
{
    int code = cut_atoms(list), failed = 0;
    if (code != 0) {
        return code;
    }
#pragma omp parallel for num_threads(list->n_parts) schedule(static, 1) if (list->n_parts > 1)
    for (int p = 0; p < list->n_parts; p++) {
        int result = find_part(list, bins, cutoff, &list->half[p]);
        if (result != 0) {
#pragma omp atomic write
            failed = result;
        }
    }
    int64_t n_half = 0;
    memset(list->n_upper, 0, list->n_atoms * sizeof *list->n_upper);
    for (int p = 0; p < list->n_parts; p++) {
        half_pairs *half = &list->half[p];
        list->n_allocations += half->n_allocations;
        half->n_allocations = 0;
        for (size_t i = half->begin; failed == 0 && i < half->end; i++) {
            list->half_start[i] += n_half;
        }
        for (size_t pair = 0; failed == 0 && pair < half->count; pair++) {
            list->n_upper[list->bin_key[half->copy[pair]] / 2]++;
        }
        n_half += (int64_t)half->count;
    }
    list->half_start[list->n_atoms] = n_half;
    return failed != 0 ? failed : n_half > (int64_t)MAX_HALF_PAIRS ? NEIGHBOURS_ERROR_TOO_MANY : 0;
}

static void set_pair(neighbour_list *list, int64_t pair, size_t neighbour, const int32_t shift[3], int32_t sign)
{
    list->neighbour[pair] = (int32_t)neighbour;
    for (int d = 0; d < 3; d++) {
        list->shift[3 * pair + d] = sign * shift[d];
    }
}

/* The part of atom i: first its pairs with lower atoms, then with higher ones. Walking the atoms upwards, the
 * second part of each comes out in order; walking the second parts upwards, so does the first. */
static int fill_pairs(neighbour_list *list)
{
    const size_t n_atoms = list->n_atoms;
    int64_t n_pairs = 0;
    for (size_t i = 0; i < n_atoms; i++) {
        int64_t n_lower = list->half_start[i + 1] - list->half_start[i];
        list->start[i] = n_pairs;
        list->fill[i] = n_pairs + n_lower;
        n_pairs += n_lower + list->n_upper[i];
    }
    list->start[n_atoms] = n_pairs;
    int code = reserve_pairs(list, (size_t)n_pairs);
    if (code != 0) {
        return code;
    }
    list->n_pairs = (size_t)n_pairs;
    for (const half_pairs *half = list->half; half < list->half + list->n_parts; half++) {
        const int32_t *found = half->copy;
        for (size_t i = half->begin; i < half->end; i++) {
            const int32_t *own = &list->image[3 * i];
            for (int64_t pair = list->half_start[i]; pair < list->half_start[i + 1]; pair++) {
                size_t place = (size_t)*found++, j = (size_t)(list->bin_key[place] / 2);
                const int32_t *copy = &list->bin_shift[3 * place], *other = &list->image[3 * j];
                const int32_t shift[3] = {copy[0] - other[0] + own[0], copy[1] - other[1] + own[1],
                                          copy[2] - other[2] + own[2]};
                set_pair(list, list->fill[j]++, i, shift, -1);
            }
        }
    }
    memcpy(list->fill, list->start, n_atoms * sizeof *list->fill);
    for (size_t j = 0; j < n_atoms; j++) {
        for (int64_t pair = list->start[j + 1] - list->n_upper[j]; pair < list->start[j + 1]; pair++) {
            set_pair(list, list->fill[list->neighbour[pair]]++, j, &list->shift[3 * pair], -1);
        }
    }
    return 0;
}

static inline int precedes(const int32_t a[3], const int32_t b[3])
{
    return a[0] != b[0] ? a[0] < b[0] : a[1] != b[1] ? a[1] < b[1] : a[2] < b[2];
}

/* Shell's method: runs are short, except in a cell much smaller than the cutoff. */
static void sort_shifts(size_t n, int32_t (*shift)[3])
{
    static const size_t gaps[] = {8929, 3905, 2161, 929, 505, 209, 109, 41, 19, 5, 1};
    for (size_t g = 0; g < sizeof gaps / sizeof *gaps; g++) {
        for (size_t k = gaps[g]; k < n; k++) {
            int32_t moving[3];
            size_t hole = k;
            memcpy(moving, shift[k], sizeof moving);
            for (; hole >= gaps[g] && precedes(moving, shift[hole - gaps[g]]); hole -= gaps[g]) {
                memcpy(shift[hole], shift[hole - gaps[g]], sizeof moving);
            }
            memcpy(shift[hole], moving, sizeof moving);
        }
    }
}

/* Images of the same neighbour by shift. */
static void order_images(neighbour_list *list)
{
#pragma omp parallel for num_threads(list->n_parts) schedule(static) if (list->n_parts > 1)
    for (size_t i = 0; i < list->n_atoms; i++) {
        const int64_t end = list->start[i + 1];
        for (int64_t first = list->start[i]; first < end;) {
            int64_t last = first + 1;
            while (last < end && list->neighbour[last] == list->neighbour[first]) {
                last++;
            }
            if (last - first > 1) {
                sort_shifts((size_t)(last - first), (int32_t (*)[3]) & list->shift[3 * first]);
            }
            first = last;
        }
    }
}

static int build(neighbour_list *list, const double *positions, const double cell[9], const int pbc[3])
{
    const double cutoff = list->cutoff + list->skin;
    lattice lattice;
    bins bins;
    int code = lattice_complete(cell, pbc, &lattice);
    if (code == 0) {
        code = reserve_atoms(list, list->n_atoms);
    }
    if (code == 0) {
        code = lattice_wrap(&lattice, list->n_atoms, positions, list->wrapped, list->fraction, list->image,
                            &list->offending_atom);
    }
    if (code == 0) {
        code = bins_fill(list, &lattice, cutoff, &bins);
    }
    if (code == 0) {
        code = find_half(list, &bins, cutoff);
    }
    if (code == 0) {
        code = fill_pairs(list);
    }
    if (code != 0) {
        return code;
    }
    order_images(list);
    if (list->n_atoms > 0) {
        memcpy(list->positions_built, positions, 3 * list->n_atoms * sizeof *positions);
    }
    memcpy(list->cell_built, cell, sizeof list->cell_built);
    for (int d = 0; d < 3; d++) {
        list->pbc_built[d] = pbc[d] != 0;
    }
    list->valid = 1;
    return 0;
}

/* Square of the longest way that an atom has come; not a number stays one. */
static double largest_move(size_t n_atoms, const double *from, const double *to)
{
    double largest = 0;
    for (size_t i = 0; i < n_atoms; i++) {
        const double dx = to[3 * i] - from[3 * i], dy = to[3 * i + 1] - from[3 * i + 1],
                     dz = to[3 * i + 2] - from[3 * i + 2];
        const double squared = dx * dx + dy * dy + dz * dz;
        largest = squared <= largest ? largest : squared;
        if (!(squared <= largest)) {
            return squared;
        }
    }
    return largest;
}

static int still_holds(const neighbour_list *list, size_t n_atoms, const double *positions, const double cell[9],
                       const int pbc[3])
{
    if (!list->valid || n_atoms != list->n_atoms) {
        return 0;
    }
    for (int d = 0; d < 3; d++) {
        if ((pbc[d] != 0) != list->pbc_built[d]) {
            return 0;
        }
        if (pbc[d] && memcmp(&cell[3 * d], &list->cell_built[3 * d], 3 * sizeof *cell) != 0) {
            return 0;
        }
    }
    const double allowed = 0.5 * list->skin * (1 - 1e-12);
    return largest_move(n_atoms, list->positions_built, positions) <= allowed * allowed;
}

int neighbour_list_update(neighbour_list *list, size_t n_atoms, const double *positions, const double cell[9],
                          const int pbc[3])
{
    if (still_holds(list, n_atoms, positions, cell, pbc)) {
        return 0;
    }
    list->valid = 0;
    list->n_pairs = 0;
    list->offending_atom = list->n_atoms = n_atoms;
    int code;
    if (!(isfinite(list->cutoff + list->skin) && list->cutoff >= 0 && list->skin >= 0)) {
        code = NEIGHBOURS_ERROR_CUTOFF;
    } else if (n_atoms > MAX_ATOMS) {
        code = NEIGHBOURS_ERROR_TOO_MANY;
    } else {
        code = build(list, positions, cell, pbc);
    }
    if (code == 0) {
        return 1;
    }
    list->n_pairs = 0;
    return code;
}
