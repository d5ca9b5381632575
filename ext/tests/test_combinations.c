/* Several sets of weights on densities that were kept against one evaluation for each set and structure. */
#include "evaluate.h"
#include "order2.h"
#include "sample.h"

enum { MOST_SETS = 3 };

typedef struct {
    double *atomic, *forces, *virials;
} answers;

static answers answers_of(size_t n_sets, size_t n_atoms)
{
    return (answers){malloc(n_sets * n_atoms * sizeof(double)), malloc(n_sets * 3 * n_atoms * sizeof(double)),
                     malloc(n_sets * 9 * N_BATCH * sizeof(double))};
}

static void free_answers(answers *a)
{
    free(a->atomic);
    free(a->forces);
    free(a->virials);
}

/* One set of one structure, or the repulsive core alone. */
static void one_set(const descriptor *d, batch *all, int k, const double *weights, answers *out)
{
    double *zero = calloc(MODEL_N_SPECIES * (size_t)d->n_features, sizeof *zero);
    evaluator e = {0};
    evaluation what = {.weights = weights == NULL ? zero : weights,
                       .atomic_energies = out->atomic,
                       .forces = out->forces,
                       .virials = out->virials};
    CHECK(evaluate(&e, d, 1, &all->structure[k], 1, &what) == 0, "evaluate");
    evaluator_free(&e);
    free(zero);
}

static void compare(const double *found, const double *expected, const double *core, double times, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const double value = expected[i] + (times - 1) * core[i]; /* evaluate() has the core once */
        CHECK_CLOSE(found[i], value, 1e-11 * (1 + fabs(value) + fabs(core[i])));
    }
}

static void compare_all(const descriptor *d, batch *all, const combination *what)
{
    const size_t width = MODEL_N_SPECIES * (size_t)d->n_features;
    answers one = answers_of(1, N_MAX), core = answers_of(1, N_MAX);
    size_t first = 0;
    for (int k = 0; k < N_BATCH; k++) {
        const size_t n_atoms = all->sample[k].n_atoms;
        one_set(d, all, k, NULL, &core);
        for (size_t s = 0; s < what->n_sets; s++) {
            const size_t atom = s * all->n_atoms + first;
            one_set(d, all, k, what->weights + ((size_t)k * what->n_sets + s) * width, &one);
            compare(what->atomic_energies + atom, one.atomic, core.atomic, what->core[s], n_atoms);
            compare(what->forces + 3 * atom, one.forces, core.forces, what->core[s], 3 * n_atoms);
            compare(what->virials + 9 * (s * N_BATCH + (size_t)k), one.virials, core.virials, what->core[s], 9);
        }
        first += n_atoms;
    }
    free_answers(&one);
    free_answers(&core);
}

/* Much, little and next to nothing is kept; what is not is made again. */
static void test_sets_one_by_one(const descriptor *d)
{
    static const size_t keep[] = {(size_t)1 << 30, 200000, 1};
    static const double times[MOST_SETS] = {1, 0, -0.5};
    uint64_t state = 31;
    const size_t n_features = (size_t)d->n_features, width = MODEL_N_SPECIES * n_features;
    double *weights = random_numbers(&state, N_BATCH * MOST_SETS * width);
    double *sums = malloc(N_BATCH * width * sizeof *sums), *expected = malloc(N_BATCH * width * sizeof *expected);
    batch all;
    fill_batch(&all, 4.0, &state);
    evaluator plain = {0};
    evaluation direct = {.weights = weights, .sums = expected};
    CHECK(evaluate(&plain, d, N_BATCH, all.structure, 1, &direct) == 0, "sums");
    evaluator_free(&plain);
    for (size_t n_sets = 1; n_sets <= MOST_SETS; n_sets++) {
        for (int n_threads = 1; n_threads <= 3; n_threads++) {
            for (int k = 0; k < 3; k++) {
                answers found = answers_of(n_sets, all.n_atoms);
                const combination what = {n_sets, weights, times, found.atomic, found.forces, found.virials};
                const evaluation first = {.sums = sums, .keep = keep[k]};
                evaluator e = {0};
                for (int again = 0; again < 2; again++) {
                    const size_t before = e.n_allocations;
                    CHECK(evaluate(&e, d, N_BATCH, all.structure, n_threads, &first) == 0, "keep");
                    CHECK(evaluate_combinations(&e, d, N_BATCH, all.structure, n_threads, &what) == 0, "sets");
                    CHECK(again == 0 || e.n_allocations == before, "memory was taken again");
                }
                evaluator_free(&e);
                for (size_t f = 0; f < N_BATCH * width; f++) {
                    CHECK_CLOSE(sums[f], expected[f], 1e-12 * (1 + fabs(expected[f])));
                }
                compare_all(d, &all, &what);
                free_answers(&found);
            }
        }
    }
    free_batch(&all);
    free(weights);
    free(sums);
    free(expected);
}

int main(void)
{
    use_requested_instructions();
    model *m = model_new(4.0, 1);
    test_sets_one_by_one(&m->d);
    free(m);
    pair_model *p = pair_model_new(1);
    test_sets_one_by_one(&p->m->d);
    test_sets_one_by_one(&p->dense);
    pair_model_free(p);
    return checks_summary("combinations");
}
