/* Models of orders 0 to 2 as matrices against the same features one by one, and against a plain loop. */
#include "order2.h"
#include "sample.h"

/* Features of one atom by loops over its neighbours. */
static void plain_features(const pair_model *p, const sample *s, size_t i, double *features)
{
    const descriptor *d = &p->m->d;
    double A[MODEL_N_Q][MODEL_N_LM] = {{0}};
    for (int64_t pair = s->list.start[i]; pair < s->list.start[i + 1]; pair++) {
        const size_t j = (size_t)s->list.neighbour[pair];
        double r[3], Y[MODEL_N_LM], distance = 0;
        for (int a = 0; a < 3; a++) {
            r[a] = s->positions[3 * j + a] - s->positions[3 * i + a];
            for (int v = 0; v < 3; v++) {
                r[a] += s->list.shift[3 * pair + v] * s->cell[3 * v + a];
            }
            distance += r[a] * r[a];
        }
        distance = sqrt(distance);
        if (distance >= d->cutoff) {
            continue;
        }
        for (int a = 0; a < 3; a++) {
            r[a] /= distance;
        }
        harmonics_at(&d->harmonics, MODEL_L_MAX, r, Y);
        const double x = distance / d->cutoff;
        for (int q = 0; q < MODEL_N_Q; q++) {
            const int k = q / MODEL_N_RADIAL, n = q % MODEL_N_RADIAL;
            for (int lm = 0; lm < MODEL_N_LM; lm++) {
                A[q][lm] += p->m->contraction[k][s->species[j]] * (1 + n) * pow(1 - x, 3) * pow(x, n) * Y[lm];
            }
        }
    }
    features[0] = 1;
    for (int q = 0; q < MODEL_N_Q; q++) {
        features[1 + q] = A[q][0];
    }
    for (int e = 0; e < p->n_order2; e++) {
        double sum = 0;
        for (int lm = p->l[e] * p->l[e]; lm < (p->l[e] + 1) * (p->l[e] + 1); lm++) {
            sum += A[p->q1[e]][lm] * A[p->q2[e]][lm];
        }
        features[1 + MODEL_N_Q + e] = sum / sqrt(2 * p->l[e] + 1);
    }
}

typedef struct {
    double *atomic, *forces, *virials, *sums, *features;
} answers;

/* Everything, from weights or from the same numbers as an adjoint. */
static answers evaluate_all(const descriptor *d, batch *all, const double *weights, int as_adjoint, int n_threads)
{
    const size_t n_features = (size_t)d->n_features;
    answers out = {malloc(all->n_atoms * sizeof(double)), malloc(3 * all->n_atoms * sizeof(double)),
                   malloc(9 * N_BATCH * sizeof(double)),
                   malloc(N_BATCH * MODEL_N_SPECIES * n_features * sizeof(double)),
                   malloc(all->n_atoms * n_features * sizeof(double))};
    double *adjoint = malloc(all->n_atoms * n_features * sizeof(double));
    for (size_t k = 0, i = 0; k < N_BATCH; k++) {
        for (size_t a = 0; a < all->sample[k].n_atoms; a++, i++) {
            memcpy(adjoint + i * n_features, weights + (size_t)all->sample[k].species[a] * n_features,
                   n_features * sizeof(double));
        }
    }
    evaluation what = {.weights = as_adjoint ? NULL : weights,
                       .adjoint = as_adjoint ? adjoint : NULL,
                       .atomic_energies = out.atomic,
                       .forces = out.forces,
                       .virials = out.virials,
                       .sums = out.sums,
                       .features = out.features};
    evaluator e = {0};
    CHECK(evaluate(&e, d, N_BATCH, all->structure, n_threads, &what) == 0, "evaluate");
    evaluator_free(&e);
    free(adjoint);
    return out;
}

static void free_answers(answers *a)
{
    double *arrays[] = {a->atomic, a->forces, a->virials, a->sums, a->features};
    for (size_t k = 0; k < sizeof arrays / sizeof *arrays; k++) {
        free(arrays[k]);
    }
}

static void compare(const double *found, const double *expected, size_t n)
{
    for (size_t k = 0; k < n; k++) {
        CHECK_CLOSE(found[k], expected[k], 1e-12 * (1 + fabs(expected[k])));
    }
}

static void test_matrices_equal_features(void)
{
    uint64_t state = 11;
    for (int core = 0; core < 2; core++) {
        pair_model *p = pair_model_new(core);
        const size_t n_features = (size_t)p->dense.n_features;
        double *weights = random_numbers(&state, MODEL_N_SPECIES * n_features);
        batch all;
        fill_batch(&all, 4.0, &state);
        for (int way = 0; way < 2; way++) {
            answers expected = evaluate_all(&p->m->d, &all, weights, way, 1);
            for (int n_threads = 1; n_threads <= 3; n_threads++) {
                answers found = evaluate_all(&p->dense, &all, weights, way, n_threads);
                compare(found.atomic, expected.atomic, all.n_atoms);
                compare(found.forces, expected.forces, 3 * all.n_atoms);
                compare(found.virials, expected.virials, 9 * N_BATCH);
                compare(found.sums, expected.sums, N_BATCH * MODEL_N_SPECIES * n_features);
                compare(found.features, expected.features, all.n_atoms * n_features);
                free_answers(&found);
            }
            free_answers(&expected);
        }
        free_batch(&all);
        free(weights);
        pair_model_free(p);
    }
}

static void test_matrices_equal_loops(void)
{
    uint64_t state = 12;
    pair_model *p = pair_model_new(0);
    const size_t n_features = (size_t)p->dense.n_features;
    double *weights = random_numbers(&state, MODEL_N_SPECIES * n_features);
    double *features = malloc(n_features * sizeof *features);
    batch all;
    fill_batch(&all, 4.0, &state);
    answers found = evaluate_all(&p->dense, &all, weights, 0, 2);
    for (size_t k = 0, i = 0; k < N_BATCH; k++) {
        for (size_t a = 0; a < all.sample[k].n_atoms; a++, i++) {
            double energy = 0;
            plain_features(p, &all.sample[k], a, features);
            for (size_t f = 0; f < n_features; f++) {
                energy += weights[(size_t)all.sample[k].species[a] * n_features + f] * features[f];
            }
            compare(found.features + i * n_features, features, n_features);
            CHECK_CLOSE(found.atomic[i], energy, 1e-11 * (1 + fabs(energy)));
        }
    }
    free_answers(&found);
    free_batch(&all);
    free(features);
    free(weights);
    pair_model_free(p);
}

int main(void)
{
    use_requested_instructions();
    test_matrices_equal_features();
    test_matrices_equal_loops();
    return checks_summary("quadratic");
}
