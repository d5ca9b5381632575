/* Linear-scaling neighbour list. All atoms are wrapped into the cell, and every copy of an atom that can reach
 * it is written down, so that the search meets no boundaries. Copies are sorted into bins along the cell
 * vectors; those of one row of bins lie side by side in memory. Each pair is found once, from the atom with the
 * higher index, so both directions rest on one decision; two transpositions, each walking the atoms in order,
 * put the full list into order without sorting it. */
#include "neighbours.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "lanes.h"

#define MAX_ATOMS ((size_t)1 << 30)
#define MAX_COPIES ((size_t)1 << 26)
#define MAX_HALF_PAIRS ((size_t)1 << 28)
#define MAX_POSITION 1e12             /* Angstrom: four decimals are left */
#define MAX_IMAGE ((double)(1 << 29)) /* a shift, the difference of two, fits an int32 */
#define MIN_RELATIVE_VOLUME 1e-10     /* of the cell, against the product of its edges */

/* The cell with a unit vector, normal to the others, in place of every vector that is not periodic. */
typedef struct {
    double vector[3][3];  /* rows */
    double inverse[3][3]; /* fraction[d] = sum_k position[k] inverse[k][d] */
    double height[3];     /* distance between the two faces that vector d joins */
    double condition;     /* product of the edges over the volume, 1 for an orthogonal cell */
} lattice;

/* Bins along the three vectors: bin = (fraction - origin) * scale. */
typedef struct {
    int n[3];
    double origin[3], scale[3], reach[3]; /* reach: cutoff in units of the cell vectors, rounded up */
} bins;

void neighbour_list_init(neighbour_list *list, double cutoff, double skin) {
    memset(list, 0, sizeof *list);
    list->cutoff = cutoff;
    list->skin = skin;
}

void neighbour_list_free(neighbour_list *list) {
    void *blocks[] = {list->start,    list->neighbour, list->shift,      list->positions_built, list->wrapped,
                      list->fraction, list->image,     list->n_upper,    list->half_start,      list->fill,
                      list->half,     list->copy_atom, list->copy_shift, list->copy_bin,        list->bin_x,
                      list->bin_y,    list->bin_z,     list->bin_key,    list->bin_shift,       list->bin_start};
    for (size_t b = 0; b < sizeof blocks / sizeof *blocks; b++) {
        free(blocks[b]);
    }
    neighbour_list_init(list, list->cutoff, list->skin);
}

const char *neighbour_error(int code) {
    switch (code) {
    case NEIGHBOURS_ERROR_MEMORY:
        return "there is not enough memory for the neighbour list; use fewer atoms or a shorter cutoff";
    case NEIGHBOURS_ERROR_CELL:
        return "the cell vectors of the periodic directions are zero or lie in one plane; give a cell with a volume, "
               "or "
               "switch pbc off in these directions";
    case NEIGHBOURS_ERROR_NONFINITE:
        return "a position or a cell vector is not finite; the step that made it went wrong";
    case NEIGHBOURS_ERROR_TOO_MANY:
        return "there are too many atoms, images or pairs for one neighbour list; look for a cell much smaller than "
               "the "
               "cutoff, or for atoms on top of each other";
    case NEIGHBOURS_ERROR_FAR:
        return "an atom is so far away that its distances have no digits left; wrap the positions into the cell, or "
               "check their unit (angstrom)";
    case NEIGHBOURS_ERROR_CUTOFF:
        return "the cutoff and the skin must be finite and not negative";
    default:
        return code < 0 ? "unknown error of the neighbour list" : "no error";
    }
}

/* Make room for `count` elements; old contents are kept. Returns 0, or the error code. */
static int reserve(neighbour_list *list, void *block, size_t count, size_t size) {
    void **pointer = block;
    if (count > SIZE_MAX / size) {
        return NEIGHBOURS_ERROR_TOO_MANY;
    }
    void *moved = realloc(*pointer, count * size);
    if (moved == NULL) {
        return NEIGHBOURS_ERROR_MEMORY;
    }
    *pointer = moved;
    list->n_allocations++;
    return 0;
}

#define RESERVE(pointer, count)                                                                                        \
    do {                                                                                                               \
        int code_ = reserve(list, &(pointer), (count), sizeof *(pointer));                                             \
        if (code_ != 0) {                                                                                              \
            return code_;                                                                                              \
        }                                                                                                              \
    } while (0)

static int reserve_atoms(neighbour_list *list, size_t n_atoms) {
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

/* The next three leave a quarter of headroom: their counts change a little from build to build. */
static int reserve_copies(neighbour_list *list, size_t count) {
    if (count <= list->copy_capacity) {
        return 0;
    }
    size_t room = count + count / 4 + 16;
    list->copy_capacity = 0;
    RESERVE(list->copy_atom, room);
    RESERVE(list->copy_shift, 3 * room);
    RESERVE(list->copy_bin, room);
    RESERVE(list->bin_x, room);
    RESERVE(list->bin_y, room);
    RESERVE(list->bin_z, room);
    RESERVE(list->bin_key, room);
    RESERVE(list->bin_shift, 3 * room);
    list->copy_capacity = room;
    return 0;
}

static int reserve_half(neighbour_list *list, size_t count) {
    if (count <= list->half_capacity) {
        return 0;
    }
    size_t room = count + count / 4 + 64;
    RESERVE(list->half, room);
    list->half_capacity = room;
    return 0;
}

static int reserve_pairs(neighbour_list *list, size_t count) {
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

static void cross(const double a[3], const double b[3], double c[3]) {
    c[0] = a[1] * b[2] - a[2] * b[1];
    c[1] = a[2] * b[0] - a[0] * b[2];
    c[2] = a[0] * b[1] - a[1] * b[0];
}

static double length(const double a[3]) {
    return sqrt(a[0] * a[0] + a[1] * a[1] + a[2] * a[2]);
}

/* A unit vector along a x b; 0 when they are parallel. */
static int unit_normal(const double a[3], const double b[3], double normal[3]) {
    cross(a, b, normal);
    double norm = length(normal);
    if (!(norm > MIN_RELATIVE_VOLUME * length(a) * length(b))) {
        return 0;
    }
    for (int k = 0; k < 3; k++) {
        normal[k] /= norm;
    }
    return 1;
}

static int complete_lattice(const double cell[9], const int pbc[3], lattice *out) {
    int n_periodic = 0;
    for (int d = 0; d < 3; d++) {
        for (int k = 0; k < 3; k++) {
            out->vector[d][k] = pbc[d] ? cell[3 * d + k] : (double)(d == k);
            if (!isfinite(out->vector[d][k])) {
                return NEIGHBOURS_ERROR_NONFINITE;
            }
        }
        double edge = length(out->vector[d]);
        if (!(edge > 1e-150 && edge < 1e150)) { /* its square must be a number */
            return NEIGHBOURS_ERROR_CELL;
        }
        n_periodic += pbc[d] != 0;
    }
    if (n_periodic == 2) {
        int free_direction = !pbc[0] ? 0 : !pbc[1] ? 1 : 2;
        if (!unit_normal(out->vector[(free_direction + 1) % 3], out->vector[(free_direction + 2) % 3],
                         out->vector[free_direction])) {
            return NEIGHBOURS_ERROR_CELL;
        }
    } else if (n_periodic == 1) {
        int direction = pbc[0] ? 0 : pbc[1] ? 1 : 2;
        const double *axis = out->vector[direction];
        double *first = out->vector[(direction + 1) % 3], *second = out->vector[(direction + 2) % 3];
        int smallest = 0;
        for (int k = 1; k < 3; k++) {
            smallest = fabs(axis[k]) < fabs(axis[smallest]) ? k : smallest;
        }
        double aside[3] = {smallest == 0, smallest == 1, smallest == 2};
        unit_normal(axis, aside, first);
        unit_normal(axis, first, second);
    }

    double area[3][3], edges = 1;
    for (int d = 0; d < 3; d++) {
        cross(out->vector[(d + 1) % 3], out->vector[(d + 2) % 3], area[d]);
        edges *= length(out->vector[d]);
    }
    double volume = 0;
    for (int k = 0; k < 3; k++) {
        volume += out->vector[0][k] * area[0][k];
    }
    if (!(fabs(volume) > MIN_RELATIVE_VOLUME * edges) || !isfinite(edges)) {
        return NEIGHBOURS_ERROR_CELL;
    }
    for (int d = 0; d < 3; d++) {
        for (int k = 0; k < 3; k++) {
            out->inverse[k][d] = area[d][k] / volume;
        }
        out->height[d] = fabs(volume) / length(area[d]);
    }
    out->condition = edges / fabs(volume);
    return 0;
}

static inline void fraction_of(const lattice *lattice, const double r[3], double s[3]) {
    for (int d = 0; d < 3; d++) {
        s[d] = r[0] * lattice->inverse[0][d] + r[1] * lattice->inverse[1][d] + r[2] * lattice->inverse[2][d];
    }
}

/* Move every atom into the cell along the periodic directions. */
static int wrap_atoms(neighbour_list *list, const double *positions, const lattice *lattice, const int pbc[3]) {
    for (size_t i = 0; i < list->n_atoms; i++) {
        double *r = &list->wrapped[3 * i], *s = &list->fraction[3 * i];
        double cells[3] = {0, 0, 0};
        list->offending_atom = i;
        for (int k = 0; k < 3; k++) {
            r[k] = positions[3 * i + k];
            if (!isfinite(r[k])) {
                return NEIGHBOURS_ERROR_NONFINITE;
            }
            if (fabs(r[k]) > MAX_POSITION) {
                return NEIGHBOURS_ERROR_FAR;
            }
        }
        /* twice: far from the cell, the first time leaves the rounding error of a large number */
        for (int pass = 0; pass < 2; pass++) {
            fraction_of(lattice, r, s);
            for (int d = 0; d < 3; d++) {
                double whole = pbc[d] ? floor(s[d]) : 0;
                if (whole != 0) {
                    cells[d] += whole;
                    s[d] -= whole;
                    for (int k = 0; k < 3; k++) {
                        r[k] -= whole * lattice->vector[d][k];
                    }
                }
            }
        }
        for (int d = 0; d < 3; d++) {
            if (!(fabs(cells[d]) < MAX_IMAGE)) {
                return NEIGHBOURS_ERROR_FAR;
            }
            list->image[3 * i + d] = (int32_t)cells[d];
        }
    }
    list->offending_atom = list->n_atoms;
    return 0;
}

/* Bins of half the cutoff, a quarter along the last vector, where they cost nothing; but no more than a few for
 * every copy, however empty the space. */
static int choose_bins(neighbour_list *list, const lattice *lattice, const int pbc[3], double cutoff, bins *bins) {
    double largest = 0, n_copies = (double)list->n_atoms;
    for (size_t k = 0; k < 3 * list->n_atoms; k++) {
        largest = fmax(largest, fabs(list->wrapped[k]));
    }
    for (int d = 0; d < 3; d++) {
        double low = 0, high = 1;
        double rounding = 1e-12 + 1e-15 * lattice->condition * (largest + cutoff) / lattice->height[d];
        bins->reach[d] = cutoff / lattice->height[d] * (1 + 1e-12) + rounding;
        if (pbc[d]) {
            low = -bins->reach[d];
            high = 1 + bins->reach[d];
            n_copies *= high - low;
        } else if (list->n_atoms > 0) {
            low = high = list->fraction[d];
            for (size_t i = 1; i < list->n_atoms; i++) {
                low = fmin(low, list->fraction[3 * i + d]);
                high = fmax(high, list->fraction[3 * i + d]);
            }
        }
        double width = cutoff / (d == 2 ? 4 : 2);
        const double extent = (high - low) * lattice->height[d];
        bins->n[d] = extent > width ? (int)fmin(1e8, extent / width) : 1;
        bins->origin[d] = low;
        bins->scale[d] = bins->n[d] > 1 ? bins->n[d] / (high - low) : 0;
    }
    if (!(n_copies <= (double)MAX_COPIES)) {
        return NEIGHBOURS_ERROR_TOO_MANY;
    }
    while ((double)bins->n[0] * bins->n[1] * bins->n[2] > 4 * n_copies + 8) {
        int most = bins->n[0] >= bins->n[1] ? 0 : 1;
        most = bins->n[2] > bins->n[most] ? 2 : most;
        int fewer = bins->n[most] / 2;
        bins->scale[most] = fewer > 1 ? bins->scale[most] * fewer / bins->n[most] : 0;
        bins->n[most] = fewer;
    }
    return 0;
}

/* Never decreasing in `fraction`, so a copy within reach is within the bins in reach, whatever the rounding. */
static inline int bin_along(const bins *bins, int d, double fraction) {
    double bin = (fraction - bins->origin[d]) * bins->scale[d];
    return bin <= 0 ? 0 : bin >= bins->n[d] ? bins->n[d] - 1 : (int)bin;
}

/* Write down the copies in reach of the cell and sort them into bins. */
static int fill_bins(neighbour_list *list, const lattice *lattice, const int pbc[3], const bins *bins,
                     size_t *n_copies_out) {
    const size_t n_bins = (size_t)bins->n[0] * (size_t)bins->n[1] * (size_t)bins->n[2];
    if (n_bins + 2 > list->bin_capacity) {
        RESERVE(list->bin_start, n_bins + n_bins / 4 + 2);
        list->bin_capacity = n_bins + n_bins / 4 + 2;
    }
    memset(list->bin_start, 0, (n_bins + 2) * sizeof *list->bin_start);
    int32_t *count = list->bin_start + 2; /* moved by two: counts become ends, then starts */

    size_t n_copies = 0;
    for (size_t i = 0; i < list->n_atoms; i++) {
        const double *s = &list->fraction[3 * i];
        int32_t low[3] = {0, 0, 0}, high[3] = {0, 0, 0};
        size_t room = 1;
        for (int d = 0; d < 3; d++) {
            if (pbc[d]) {
                low[d] = (int32_t)ceil(-bins->reach[d] - s[d]);
                high[d] = (int32_t)floor(1 + bins->reach[d] - s[d]);
                room *= (size_t)(high[d] - low[d] + 1);
            }
        }
        if (n_copies + room > 2 * MAX_COPIES) {
            return NEIGHBOURS_ERROR_TOO_MANY;
        }
        int code = reserve_copies(list, n_copies + room);
        if (code != 0) {
            return code;
        }
        for (int32_t a = low[0]; a <= high[0]; a++) {
            int row = bin_along(bins, 0, s[0] + a) * bins->n[1];
            for (int32_t b = low[1]; b <= high[1]; b++) {
                int column = (row + bin_along(bins, 1, s[1] + b)) * bins->n[2];
                for (int32_t c = low[2]; c <= high[2]; c++) {
                    int32_t bin = column + bin_along(bins, 2, s[2] + c);
                    list->copy_atom[n_copies] = (int32_t)i;
                    list->copy_shift[3 * n_copies] = a;
                    list->copy_shift[3 * n_copies + 1] = b;
                    list->copy_shift[3 * n_copies + 2] = c;
                    list->copy_bin[n_copies++] = bin;
                    count[bin]++;
                }
            }
        }
    }
    for (size_t bin = 2; bin <= n_bins + 1; bin++) {
        list->bin_start[bin] += list->bin_start[bin - 1];
    }
    for (size_t copy = 0; copy < n_copies; copy++) {
        const int32_t *shift = &list->copy_shift[3 * copy];
        const double *r = &list->wrapped[3 * (size_t)list->copy_atom[copy]];
        const double a = shift[0], b = shift[1], c = shift[2];
        size_t place = (size_t)list->bin_start[list->copy_bin[copy] + 1]++;
        list->bin_x[place] = r[0] + (a * lattice->vector[0][0] + b * lattice->vector[1][0] + c * lattice->vector[2][0]);
        list->bin_y[place] = r[1] + (a * lattice->vector[0][1] + b * lattice->vector[1][1] + c * lattice->vector[2][1]);
        list->bin_z[place] = r[2] + (a * lattice->vector[0][2] + b * lattice->vector[1][2] + c * lattice->vector[2][2]);
        memcpy(&list->bin_shift[3 * place], shift, 3 * sizeof *shift);
        /* even for the copies that an atom may pair with among its own: one of every two opposite ones */
        int positive = a > 0 || (a == 0 && (b > 0 || (b == 0 && c > 0)));
        list->bin_key[place] = 2 * list->copy_atom[copy] + !positive;
    }
    *n_copies_out = n_copies;
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
KERNEL static size_t search(const int low[3], const int high[3], const int n[3], const int32_t *start, const double *x,
                            const double *y, const double *z, const int32_t *key, const double r[3], double squared,
                            int32_t limit, int32_t *restrict found) {
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

/* Each pair once, at the atom with the higher index. */
static int find_half(neighbour_list *list, const bins *bins, double cutoff, size_t n_copies) {
    size_t n_half = 0;
    memset(list->n_upper, 0, list->n_atoms * sizeof *list->n_upper);
    for (size_t i = 0; i < list->n_atoms; i++) {
        const double *s = &list->fraction[3 * i];
        int low[3], high[3];
        for (int d = 0; d < 3; d++) {
            low[d] = bin_along(bins, d, s[d] - bins->reach[d]);
            high[d] = bin_along(bins, d, s[d] + bins->reach[d]);
        }
        int code = n_half > MAX_HALF_PAIRS ? NEIGHBOURS_ERROR_TOO_MANY : reserve_half(list, n_half + n_copies);
        if (code != 0) {
            return code;
        }
        list->half_start[i] = (int64_t)n_half;
        size_t n_found =
            search(low, high, bins->n, list->bin_start, list->bin_x, list->bin_y, list->bin_z, list->bin_key,
                   &list->wrapped[3 * i], cutoff * cutoff, 2 * (int32_t)i + 1, &list->half[n_half]);
        for (size_t pair = n_half; pair < n_half + n_found; pair++) {
            list->n_upper[list->bin_key[list->half[pair]] / 2]++;
        }
        n_half += n_found;
    }
    list->half_start[list->n_atoms] = (int64_t)n_half;
    return 0;
}

static void set_pair(neighbour_list *list, int64_t pair, size_t neighbour, const int32_t shift[3], int32_t sign) {
    list->neighbour[pair] = (int32_t)neighbour;
    for (int d = 0; d < 3; d++) {
        list->shift[3 * pair + d] = sign * shift[d];
    }
}

/* The part of atom i: first its pairs with lower atoms, then with higher ones. Walking the atoms upwards, the
 * second part of each comes out in order; walking the second parts upwards, so does the first. */
static int fill_pairs(neighbour_list *list) {
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
    for (size_t i = 0; i < n_atoms; i++) {
        const int32_t *own = &list->image[3 * i];
        for (int64_t pair = list->half_start[i]; pair < list->half_start[i + 1]; pair++) {
            size_t place = (size_t)list->half[pair], j = (size_t)(list->bin_key[place] / 2);
            const int32_t *copy = &list->bin_shift[3 * place], *other = &list->image[3 * j];
            const int32_t shift[3] = {copy[0] - other[0] + own[0], copy[1] - other[1] + own[1],
                                      copy[2] - other[2] + own[2]};
            set_pair(list, list->fill[j]++, i, shift, -1);
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

static inline int precedes(const int32_t a[3], const int32_t b[3]) {
    return a[0] != b[0] ? a[0] < b[0] : a[1] != b[1] ? a[1] < b[1] : a[2] < b[2];
}

/* Shell's method: runs are short, except in a cell much smaller than the cutoff. */
static void sort_shifts(size_t n, int32_t (*shift)[3]) {
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
static void order_images(neighbour_list *list) {
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

static int build(neighbour_list *list, const double *positions, const double cell[9], const int pbc[3]) {
    const double cutoff = list->cutoff + list->skin;
    lattice lattice;
    bins bins;
    int code = complete_lattice(cell, pbc, &lattice);
    if (code == 0) {
        code = reserve_atoms(list, list->n_atoms);
    }
    if (code == 0) {
        code = wrap_atoms(list, positions, &lattice, pbc);
    }
    if (code == 0) {
        code = choose_bins(list, &lattice, pbc, cutoff, &bins);
    }
    size_t n_copies = 0;
    if (code == 0) {
        code = fill_bins(list, &lattice, pbc, &bins, &n_copies);
    }
    if (code == 0) {
        code = find_half(list, &bins, cutoff, n_copies);
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
KERNEL static double largest_move(size_t n_atoms, const double *from, const double *to) {
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
                       const int pbc[3]) {
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
                          const int pbc[3]) {
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
