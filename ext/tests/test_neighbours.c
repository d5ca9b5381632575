/* The neighbour list against all images counted one by one, for every kind of cell. */
#include "neighbours.h"

#include <float.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

typedef struct {
    int neighbour, shift[3];
} pair;

static int compare_pairs(const void *left, const void *right)
{
    const pair *a = left, *b = right;
    if (a->neighbour != b->neighbour) {
        return a->neighbour < b->neighbour ? -1 : 1;
    }
    for (int d = 0; d < 3; d++) {
        if (a->shift[d] != b->shift[d]) {
            return a->shift[d] < b->shift[d] ? -1 : 1;
        }
    }
    return 0;
}

static double determinant(const double c[9])
{
    return c[0] * (c[4] * c[8] - c[5] * c[7]) + c[1] * (c[5] * c[6] - c[3] * c[8]) + c[2] * (c[3] * c[7] - c[4] * c[6]);
}

static double distance(const double *r, const double *cell, const int pbc[3], size_t i, size_t j, const int shift[3])
{
    double squared = 0;
    for (int k = 0; k < 3; k++) {
        double d = r[3 * j + k] - r[3 * i + k];
        for (int v = 0; v < 3; v++) {
            d += pbc[v] ? shift[v] * cell[3 * v + k] : 0;
        }
        squared += d * d;
    }
    return sqrt(squared);
}

/* All pairs of atom i by looking at every image within `reach` cells; those within `blur` of the cutoff may be
 * in the list or not. Positions must lie in or near the cell. */
static void check_atom(const neighbour_list *list, const double *r, const double *cell, const int pbc[3], size_t i,
                       int reach, double blur)
{
    const double cutoff = list->cutoff + list->skin;
    size_t capacity = 64, n_expected = 0, n_certain = 0;
    pair *expected = malloc(capacity * sizeof *expected);
    int limit[3];
    for (int d = 0; d < 3; d++) {
        limit[d] = pbc[d] ? reach : 0;
    }
    for (size_t j = 0; j < list->n_atoms; j++) {
        for (int a = -limit[0]; a <= limit[0]; a++) {
            for (int b = -limit[1]; b <= limit[1]; b++) {
                for (int c = -limit[2]; c <= limit[2]; c++) {
                    const int shift[3] = {a, b, c};
                    if (j == i && a == 0 && b == 0 && c == 0) {
                        continue;
                    }
                    double separation = distance(r, cell, pbc, i, j, shift);
                    if (separation >= cutoff + blur) {
                        continue;
                    }
                    n_certain += separation < cutoff - blur;
                    if (n_expected == capacity) {
                        expected = realloc(expected, (capacity *= 2) * sizeof *expected);
                    }
                    expected[n_expected++] = (pair){
                        (int)j, {a, b, c}
                    };
                }
            }
        }
    }
    qsort(expected, n_expected, sizeof *expected, compare_pairs);
    int64_t found = list->start[i + 1] - list->start[i];
    CHECK(found >= (int64_t)n_certain && found <= (int64_t)n_expected, "atom %zu: %lld pairs, %zu to %zu expected", i,
          (long long)found, n_certain, n_expected);
    const pair *previous = NULL;
    pair entry, before;
    for (int64_t p = list->start[i]; p < list->start[i + 1]; p++) {
        entry.neighbour = list->neighbour[p];
        memcpy(entry.shift, &list->shift[3 * p], sizeof entry.shift);
        CHECK(previous == NULL || compare_pairs(previous, &entry) < 0, "atom %zu: pair %lld out of order", i,
              (long long)(p - list->start[i]));
        CHECK(bsearch(&entry, expected, n_expected, sizeof *expected, compare_pairs) != NULL,
              "atom %zu: pair with %d, shift %d %d %d is not one", i, entry.neighbour, entry.shift[0], entry.shift[1],
              entry.shift[2]);
        before = entry;
        previous = &before;
    }
    free(expected);
}

/* i -> j, shift S is there exactly when j -> i, shift -S is. */
static void check_symmetry(const neighbour_list *list)
{
    for (size_t i = 0; i < list->n_atoms; i++) {
        for (int64_t p = list->start[i]; p < list->start[i + 1]; p++) {
            size_t j = (size_t)list->neighbour[p];
            int found = 0;
            for (int64_t q = list->start[j]; q < list->start[j + 1] && !found; q++) {
                found = list->neighbour[q] == (int)i && list->shift[3 * q] == -list->shift[3 * p] &&
                        list->shift[3 * q + 1] == -list->shift[3 * p + 1] &&
                        list->shift[3 * q + 2] == -list->shift[3 * p + 2];
            }
            CHECK(found, "pair %zu-%zu only one way", i, j);
        }
    }
}

static void random_cell(uint64_t *state, double size, double cell[9])
{
    double volume;
    do {
        for (int k = 0; k < 9; k++) {
            cell[k] = random_between(state, -size, size);
        }
        volume = determinant(cell);
    } while (fabs(volume) < 0.15 * size * size * size);
}

static void test_random_cells(void)
{
    uint64_t state = 11;
    int left_handed = 0;
    neighbour_list list;
    neighbour_list_init(&list, 0, 0);
    for (int trial = 0; trial < 300; trial++) {
        double cell[9], positions[3 * 24];
        const int pbc[3] = {trial & 1, (trial >> 1) & 1, (trial >> 2) & 1};
        const size_t n_atoms = (size_t)random_between(&state, 0, 24.999);
        const double size = random_between(&state, 1.5, 8);
        random_cell(&state, size, cell);
        left_handed += determinant(cell) < 0;
        for (size_t i = 0; i < n_atoms; i++) {
            double s[3];
            for (int d = 0; d < 3; d++) {
                s[d] = random_between(&state, -0.5, 1.5);
            }
            for (int k = 0; k < 3; k++) {
                positions[3 * i + k] = s[0] * cell[k] + s[1] * cell[3 + k] + s[2] * cell[6 + k];
            }
        }
        if (n_atoms > 3) { /* two atoms in one place, and two that differ by a cell vector */
            memcpy(&positions[3], &positions[0], 3 * sizeof *positions);
            for (int k = 0; k < 3; k++) {
                positions[9 + k] = positions[6 + k] + cell[k];
            }
        }
        for (int d = 0; d < 3; d++) {
            for (int k = 0; k < 3 && !pbc[d]; k++) {
                cell[3 * d + k] = trial % 3 == 0 ? 0 : trial % 3 == 1 ? NAN : cell[k];
            }
        }
        list.cutoff = random_between(&state, 0.5, 5);
        list.skin = random_between(&state, 0, 0.6);
        list.valid = 0;
        int code = neighbour_list_update(&list, n_atoms, positions, cell, pbc);
        CHECK(code == 1, "trial %d: code %d", trial, code);
        CHECK(list.start[0] == 0 && list.start[n_atoms] == (int64_t)list.n_pairs, "trial %d", trial);
        /* height >= volume / area > 0.15 size / 3; cells apart by cutoff / height, and 2 for the spread */
        int reach = (int)ceil((list.cutoff + list.skin) / (0.05 * size)) + 3;
        reach = reach > 14 ? 14 : reach;
        double height = DBL_MAX; /* look no further than needed */
        for (int d = 0; d < 3; d++) {
            const double *a = &cell[3 * ((d + 1) % 3)], *b = &cell[3 * ((d + 2) % 3)];
            if (pbc[0] && pbc[1] && pbc[2]) {
                double x = a[1] * b[2] - a[2] * b[1], y = a[2] * b[0] - a[0] * b[2], z = a[0] * b[1] - a[1] * b[0];
                height = fmin(height, fabs(determinant(cell)) / sqrt(x * x + y * y + z * z));
            }
        }
        if (height < DBL_MAX) {
            reach = (int)ceil((list.cutoff + list.skin) / height) + 2;
        }
        for (size_t i = 0; i < n_atoms; i += 3) {
            check_atom(&list, positions, cell, pbc, i, reach, 1e-12);
        }
        check_symmetry(&list);
    }
    CHECK(left_handed > 50, "only %d left-handed cells", left_handed);
    neighbour_list_free(&list);
}

/* Translating single atoms by lattice vectors changes the shifts and nothing else. */
static void test_far_images(void)
{
    uint64_t state = 5;
    const double cell[9] = {6, 0.5, -1, 0, 5, 1, 1.25, 0, 7}; /* sums of few bits: translations are exact */
    const int pbc[3] = {1, 1, 1};
    const size_t n_atoms = 30;
    double positions[90], moved[90];
    int cells[90];
    for (size_t i = 0; i < n_atoms; i++) {
        for (int k = 0; k < 3; k++) {
            positions[3 * i + k] = ldexp(floor(ldexp(random_between(&state, -4, 9), 20)), -20);
            cells[3 * i + k] = (int)random_between(&state, -1e6, 1e6);
        }
        for (int k = 0; k < 3; k++) {
            moved[3 * i + k] = positions[3 * i + k];
            for (int d = 0; d < 3; d++) {
                moved[3 * i + k] += cells[3 * i + d] * cell[3 * d + k];
            }
        }
    }
    neighbour_list here, there;
    neighbour_list_init(&here, 4.5, 0);
    neighbour_list_init(&there, 4.5, 0);
    CHECK(neighbour_list_update(&here, n_atoms, positions, cell, pbc) == 1, "here");
    CHECK(neighbour_list_update(&there, n_atoms, moved, cell, pbc) == 1, "there");
    CHECK(here.n_pairs == there.n_pairs && here.n_pairs > 0, "%zu against %zu pairs", here.n_pairs, there.n_pairs);
    for (size_t i = 0; i < n_atoms; i++) {
        for (int64_t p = here.start[i]; p < here.start[i + 1]; p++) {
            const int32_t j = here.neighbour[p];
            CHECK(there.neighbour[p] == j, "pair %lld", (long long)p);
            for (int d = 0; d < 3; d++) {
                int expected = here.shift[3 * p + d] - cells[3 * j + d] + cells[3 * i + (size_t)d];
                CHECK(there.shift[3 * p + d] == expected, "pair %lld: %d, not %d", (long long)p, there.shift[3 * p + d],
                      expected);
            }
        }
    }
    neighbour_list_free(&here);
    neighbour_list_free(&there);
}

/* Within the skin the list is kept and holds every pair inside the cutoff; nothing is allocated again. */
static void test_skin(void)
{
    uint64_t state = 7;
    const double cell[9] = {12, 0, 0, 1, 11, 0, 0, 2, 13};
    const int pbc[3] = {1, 1, 0};
    const size_t n_atoms = 120;
    double positions[360];
    for (size_t k = 0; k < 3 * n_atoms; k++) {
        positions[k] = random_between(&state, 0, 12);
    }
    neighbour_list kept, fresh;
    neighbour_list_init(&kept, 3.5, 0.8);
    neighbour_list_init(&fresh, 3.5, 0);
    int n_reused = 0, n_rebuilt = 0;
    size_t n_allocations = 0;
    for (int step = 0; step < 60; step++) {
        int code = neighbour_list_update(&kept, n_atoms, positions, cell, pbc);
        CHECK(code == 0 || code == 1, "code %d", code);
        n_reused += code == 0;
        n_rebuilt += code == 1;
        n_allocations = step == 0 ? kept.n_allocations : n_allocations;
        fresh.valid = 0;
        CHECK(neighbour_list_update(&fresh, n_atoms, positions, cell, pbc) == 1, "step %d", step);
        int64_t q = 0;
        for (size_t i = 0; i < n_atoms; i++) {
            for (int64_t p = kept.start[i]; p < kept.start[i + 1]; p++) {
                if (distance(positions, cell, pbc, i, (size_t)kept.neighbour[p], &kept.shift[3 * p]) >= 3.5) {
                    continue;
                }
                CHECK(q < fresh.start[i + 1] && fresh.neighbour[q] == kept.neighbour[p] &&
                          memcmp(&fresh.shift[3 * q], &kept.shift[3 * p], 3 * sizeof(int32_t)) == 0,
                      "step %d, atom %zu", step, i);
                q++;
            }
            CHECK(q == fresh.start[i + 1], "step %d, atom %zu misses a pair", step, i);
        }
        for (size_t k = 0; k < 3 * n_atoms; k++) {
            positions[k] += random_between(&state, -0.06, 0.06);
        }
    }
    CHECK(n_reused > 20 && n_rebuilt > 3, "%d reused, %d rebuilt", n_reused, n_rebuilt);
    CHECK(kept.n_allocations == n_allocations, "%zu allocations after the first", kept.n_allocations - n_allocations);

    double other[9];
    memcpy(other, cell, sizeof other);
    CHECK(neighbour_list_update(&kept, n_atoms, positions, cell, pbc) >= 0, "settle");
    other[8] += 1; /* not periodic: nothing to do */
    CHECK(neighbour_list_update(&kept, n_atoms, positions, other, pbc) == 0, "free direction");
    other[0] += 1e-12;
    CHECK(neighbour_list_update(&kept, n_atoms, positions, other, pbc) == 1, "cell");
    CHECK(neighbour_list_update(&kept, n_atoms, positions, other, (int[3]){1, 1, 1}) == 1, "pbc");
    CHECK(neighbour_list_update(&kept, n_atoms - 1, positions, other, (int[3]){1, 1, 1}) == 1, "number of atoms");
    neighbour_list_free(&kept);
    neighbour_list_free(&fresh);
}

/* Threads that search together make the same list, and take no memory once they know its size. */
static void test_threads(void)
{
    uint64_t state = 9;
    enum { N_ATOMS = 4500 };
    const double cell[9] = {38, 0, 0, 5, 36, 0, -4, 3, 40};
    const int pbc[3] = {1, 0, 1};
    double *positions = malloc(3 * N_ATOMS * sizeof *positions);
    for (size_t k = 0; k < 3 * N_ATOMS; k++) {
        positions[k] = random_between(&state, -10, 50);
    }
    neighbour_list one, several;
    neighbour_list_init(&one, 4, 0);
    CHECK(neighbour_list_update(&one, N_ATOMS, positions, cell, pbc) == 1 && one.n_pairs > 10 * N_ATOMS, "one thread");
    for (int n_threads = 2; n_threads <= 9; n_threads += n_threads - 1) { /* 2, 3, 5, 9: more than there is work for */
        neighbour_list_init(&several, 4, 0);
        several.n_threads = n_threads;
        size_t n_allocations = 0;
        for (int repeat = 0; repeat < 2; repeat++) {
            CHECK(neighbour_list_update(&several, N_ATOMS, positions, cell, pbc) == 1, "%d threads", n_threads);
            CHECK(several.n_pairs == one.n_pairs &&
                      memcmp(several.start, one.start, (N_ATOMS + 1) * sizeof *one.start) == 0 &&
                      memcmp(several.neighbour, one.neighbour, one.n_pairs * sizeof *one.neighbour) == 0 &&
                      memcmp(several.shift, one.shift, 3 * one.n_pairs * sizeof *one.shift) == 0,
                  "%d threads make another list", n_threads);
            n_allocations = repeat == 0 ? several.n_allocations : n_allocations;
            several.valid = 0;
        }
        CHECK(several.n_allocations == n_allocations, "%d threads take memory again", n_threads);
        neighbour_list_free(&several);
    }
    neighbour_list_free(&one);
    free(positions);
}

static int update_once(double cutoff, double skin, size_t n_atoms, const double *positions, const double *cell, int a,
                       int b, int c, size_t *n_pairs, size_t *atom)
{
    neighbour_list list;
    neighbour_list_init(&list, cutoff, skin);
    int code = neighbour_list_update(&list, n_atoms, positions, cell, (int[3]){a, b, c});
    *n_pairs = list.n_pairs;
    *atom = list.offending_atom;
    CHECK(strlen(neighbour_error(code)) > 5, "no sentence for %d", code);
    neighbour_list_free(&list);
    return code;
}

static void test_edges_and_errors(void)
{
    const double unit[9] = {1, 0, 0, 0, 1, 0, 0, 0, 1}, zero[9] = {0};
    const double flat[9] = {1, 0, 0, 0, 1, 0, 1, 1, 0};
    const double pair_in_one_place[6] = {3, 3, 3, 3, 3, 3};
    const double far[6] = {0, 0, 0, 0, 1e13, 0}, bad[6] = {0, 0, 0, 0, NAN, 0};
    const double wide[6] = {-1e11, 0, 0, 1e11, 0, 0};
    size_t n_pairs, atom;
    CHECK(update_once(2, 0, 0, NULL, unit, 1, 1, 1, &n_pairs, &atom) == 1 && n_pairs == 0, "no atom");
    CHECK(update_once(2, 0, 1, far, zero, 0, 0, 0, &n_pairs, &atom) == 1 && n_pairs == 0, "one atom");
    CHECK(update_once(1.2, 0, 1, far, unit, 1, 1, 1, &n_pairs, &atom) == 1 && n_pairs == 6, "%zu pairs", n_pairs);
    CHECK(update_once(1, 0, 1, far, unit, 1, 1, 1, &n_pairs, &atom) == 1 && n_pairs == 0, "the cutoff is excluded");
    CHECK(update_once(2, 0, 2, pair_in_one_place, zero, 0, 0, 0, &n_pairs, &atom) == 1 && n_pairs == 2, "one place");
    CHECK(update_once(2, 0, 2, wide, zero, 0, 0, 0, &n_pairs, &atom) == 1 && n_pairs == 0, "wide");
    CHECK(update_once(0, 0, 2, wide, zero, 0, 0, 0, &n_pairs, &atom) == 1 && n_pairs == 0, "no cutoff");
    CHECK(update_once(2, 0, 2, far, zero, 0, 0, 0, &n_pairs, &atom) == NEIGHBOURS_ERROR_FAR && atom == 1, "far");
    CHECK(update_once(2, 0, 2, bad, unit, 1, 1, 1, &n_pairs, &atom) == NEIGHBOURS_ERROR_NONFINITE && atom == 1, "nan");
    CHECK(update_once(2, 0, 1, far, zero, 1, 1, 1, &n_pairs, &atom) == NEIGHBOURS_ERROR_CELL, "zero cell");
    CHECK(update_once(2, 0, 1, far, flat, 1, 1, 1, &n_pairs, &atom) == NEIGHBOURS_ERROR_CELL, "flat cell");
    CHECK(update_once(2, 0, 1, far, flat, 1, 0, 1, &n_pairs, &atom) == 1, "flat, but not in two directions");
    CHECK(update_once(1000, 0, 1, far, unit, 1, 1, 1, &n_pairs, &atom) == NEIGHBOURS_ERROR_TOO_MANY, "images");
    CHECK(update_once(1e300, 0, 1, far, unit, 1, 1, 1, &n_pairs, &atom) == NEIGHBOURS_ERROR_TOO_MANY, "images");
    CHECK(update_once(-1, 0, 1, far, unit, 1, 1, 1, &n_pairs, &atom) == NEIGHBOURS_ERROR_CUTOFF, "cutoff");
    CHECK(update_once(1, INFINITY, 1, far, unit, 1, 1, 1, &n_pairs, &atom) == NEIGHBOURS_ERROR_CUTOFF, "skin");
}

/* After an error the list is used again as if nothing had happened. */
static void test_recovery(void)
{
    const double cell[9] = {4, 0, 0, 0, 4, 0, 0, 0, 4};
    double positions[6] = {0, 0, 0, 2, 2, 2};
    const int pbc[3] = {1, 1, 1};
    neighbour_list list;
    neighbour_list_init(&list, 3.6, 0.1);
    CHECK(neighbour_list_update(&list, 2, positions, cell, pbc) == 1 && list.n_pairs == 16, "%zu", list.n_pairs);
    positions[0] = NAN;
    CHECK(neighbour_list_update(&list, 2, positions, cell, pbc) == NEIGHBOURS_ERROR_NONFINITE, "nan");
    positions[0] = 0;
    CHECK(neighbour_list_update(&list, 2, positions, cell, pbc) == 1 && list.n_pairs == 16, "%zu", list.n_pairs);
    CHECK(neighbour_list_update(&list, 2, positions, cell, pbc) == 0, "unmoved");
    neighbour_list_free(&list);
    neighbour_list_free(&list);
}

int main(void)
{
    use_requested_instructions();
    test_random_cells();
    test_far_images();
    test_skin();
    test_threads();
    test_edges_and_errors();
    test_recovery();
    return checks_summary("neighbours");
}
