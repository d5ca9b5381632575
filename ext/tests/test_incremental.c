/* Rows of the linked cells against the neighbour list, and trials against full evaluations. */
#include "incremental.h"

#include "sample.h"

enum { N = 80, N_TRIALS = 60 };

static const double wide[9] = {12, 0, 0, 2, 11, 0, -1.5, 1, 13};

/* Pairs of the list that the row lacks, and the other way round, out of those closer than the cutoff. */
static int not_shared(const neighbour_list *list, size_t i, const linked_row *row)
{
    int missing = (int)(list->start[i + 1] - list->start[i]) - row->n;
    missing = missing < 0 ? -missing : missing;
    for (int64_t p = list->start[i]; p < list->start[i + 1]; p++) {
        int found = 0;
        for (int k = 0; k < row->n; k++) {
            found += row->neighbour[k] == list->neighbour[p] &&
                     memcmp(row->shift + 3 * k, list->shift + 3 * p, 3 * sizeof(int32_t)) == 0;
        }
        missing += found != 1;
    }
    return missing;
}

static void check_rows(const linked_cells *cells, sample *s, const char *name)
{
    linked_row row = {0};
    neighbour_list_update(&s->list, s->n_atoms, s->positions, s->cell, s->pbc);
    for (size_t i = 0; i < s->n_atoms; i++) {
        row.n = 0;
        CHECK(linked_cells_neighbours(cells, (int32_t)i, &row) == 0, "no memory");
        CHECK(not_shared(&s->list, i, &row) == 0, "%s: neighbours of atom %zu", name, i);
    }
    free(row.neighbour);
    free(row.shift);
}

static void test_rows_are_those_of_the_list(void)
{
    uint64_t state = 1;
    linked_cells cells = {0};
    for (int kind = 0; kind < N_KINDS; kind++) {
        for (int c = 0; c < 3; c++) {
            const double cutoff = (double[]){1.5, 3.0, 6.5}[c];
            sample s;
            fill(&s, kinds[kind].n_atoms, kinds[kind].cell, kinds[kind].pbc, cutoff, 1.0, &state);
            CHECK(linked_cells_fill(&cells, cutoff, s.n_atoms, s.positions, s.cell, s.pbc) == 0, "fill");
            check_rows(&cells, &s, kinds[kind].name);
            for (int move = 0; move < 4; move++) {
                const size_t i = random_bits(&state) % s.n_atoms;
                for (int k = 0; k < 3; k++) {
                    s.positions[3 * i + k] += random_between(&state, -9, 9); /* also out of the range of the bins */
                }
                CHECK(linked_cells_move(&cells, (int32_t)i, s.positions + 3 * i) == 0, "move");
                check_rows(&cells, &s, kinds[kind].name);
            }
            neighbour_list_free(&s.list);
        }
    }
    const double nowhere[3] = {NAN, 0, 0};
    CHECK(linked_cells_move(&cells, 0, nowhere) == NEIGHBOURS_ERROR_NONFINITE, "not a number is somewhere");
    linked_cells_free(&cells);
}

typedef struct {
    double energies[N], forces[3 * N], virial[9], *sums;
} results;

static void evaluate_in_full(evaluator *e, const model *m, const int32_t *species, const double *weights,
                             const double *positions, const int pbc[3], results *out)
{
    neighbour_list list;
    neighbour_list_init(&list, m->d.cutoff, 0);
    neighbour_list_update(&list, N, positions, wide, pbc);
    const structure one = {N, species, positions, wide, &list, 0};
    const evaluation what = {.weights = weights,
                             .atomic_energies = out->energies,
                             .forces = out->forces,
                             .virials = out->virial,
                             .sums = out->sums};
    CHECK(evaluate(e, &m->d, 1, &one, 1, &what) == 0, "evaluate");
    neighbour_list_free(&list);
}

static double largest(size_t n, const double *a, const double *b)
{
    double difference = 0, scale = 1e-300;
    for (size_t k = 0; k < n; k++) {
        difference = fmax(difference, fabs(a[k] - b[k]));
        scale = fmax(scale, fabs(b[k]));
    }
    return difference / scale;
}

static void check_results(const results *found, const results *full, size_t n_sums, int trial)
{
    CHECK(largest(N, found->energies, full->energies) < 1e-12, "energies of trial %d", trial);
    CHECK(largest(3 * N, found->forces, full->forces) < 1e-12, "forces of trial %d", trial);
    CHECK(largest(9, found->virial, full->virial) < 1e-12, "virial of trial %d", trial);
    CHECK(largest(n_sums, found->sums, full->sums) < 1e-12, "sums of trial %d", trial);
}

/* Swaps and moves by any distance, from the base or from the trial before. */
static void change(double *positions, uint64_t *state)
{
    const size_t i = random_bits(state) % N, j = random_bits(state) % N;
    for (int k = 0; k < 3; k++) {
        if (random_bits(state) % 4) {
            const double kept = positions[3 * i + k];
            positions[3 * i + k] = positions[3 * j + k];
            positions[3 * j + k] = kept;
        } else {
            positions[3 * i + k] += random_between(state, -0.3, 0.3);
        }
    }
}

static void walk(const int pbc[3], int n_threads, uint64_t state)
{
    model *m = model_new(3.0, 1);
    const size_t n_sums = MODEL_N_SPECIES * (size_t)m->d.n_features;
    double *weights = random_numbers(&state, n_sums), base[3 * N], trial[3 * N];
    int32_t species[N];
    for (size_t i = 0; i < N; i++) {
        const size_t along[3] = {i % 5, i / 5 % 4, i / 20};
        species[i] = (int32_t)(random_bits(&state) % MODEL_N_SPECIES);
        for (int k = 0; k < 3; k++)
            base[3 * i + k] = 2.4 * (double)along[k] + random_between(&state, -0.4, 0.4);
    }
    evaluator e = {0};
    incremental_base known = {0};
    incremental_scratch scratch = {0};
    results full = {.sums = random_numbers(&state, n_sums)}, found = {.sums = random_numbers(&state, n_sums)};
    CHECK(incremental_base_prepare(&known, N, pbc, n_sums) == 0, "prepare");
    evaluate_in_full(&e, m, species, weights, base, pbc, &full);
    incremental_keep(&known, &scratch, base, wide, full.energies, full.forces, full.virial, full.sums);
    int n_made = 0;
    for (int t = 0; t < N_TRIALS; t++) {
        incremental_difference difference;
        memcpy(trial, base, sizeof trial);
        change(trial, &state);
        if (incremental_compare(&known, &scratch, trial, wide, &difference) <= MOST_MOVED) {
            const int code =
                incremental_evaluate(&known, &scratch, &m->d, species, weights, trial, &difference, n_threads);
            CHECK(code == 0 || code == INCREMENTAL_CLOSED, "trial %d: %d", t, code);
            if (code == 0) {
                n_made++;
                incremental_read(&known, &scratch, found.energies, found.forces, found.virial, found.sums);
                evaluate_in_full(&e, m, species, weights, trial, pbc, &full);
                check_results(&found, &full, n_sums, t);
            }
        }
        if (random_bits(&state) % 2) {
            memcpy(base, trial, sizeof trial);
        }
    }
    CHECK(n_made > N_TRIALS / 2, "%d of %d trials were made", n_made, N_TRIALS);
    double other_cell[9];
    incremental_difference difference;
    memcpy(other_cell, wide, sizeof wide);
    other_cell[0] += 1e-9;
    CHECK(incremental_compare(&known, &scratch, base, other_cell, &difference) > MOST_MOVED, "another cell is close");
    incremental_base_free(&known);
    incremental_scratch_free(&scratch);
    evaluator_free(&e);
    free(full.sums);
    free(found.sums);
    free(weights);
    free(m);
}

int main(void)
{
    use_requested_instructions();
    test_rows_are_those_of_the_list();
    walk((int[3]){1, 1, 1}, 1, 2);
    walk((int[3]){1, 1, 0}, 2, 3);
    walk((int[3]){0, 0, 0}, 1, 4);
    return checks_summary("incremental");
}
