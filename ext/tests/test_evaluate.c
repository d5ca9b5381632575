/* Energy, forces, virial, features and their derivatives of a small model against differences, and against each
 * other along every way through the kernels. */
#include "evaluate.h"

#include <omp.h>

#include "sample.h"

/* Derivative of the energy when `change` moves the sample by t, of fourth order. */
static double slope(const model *m, const sample *s, const double *weights,
                    void (*change)(sample *, double, const int *), const int *what, double h)
{
    static const double factor[4] = {1, -8, 8, -1};
    double sum = 0;
    for (int step = 0; step < 4; step++) {
        sample moved = *s;
        neighbour_list_init(&moved.list, s->list.cutoff, 0);
        change(&moved, h * (step < 2 ? step - 2 : step - 1), what);
        sum += factor[step] * compute(m, &moved, weights, 1).energy;
        neighbour_list_free(&moved.list);
    }
    return sum / (12 * h);
}

static void displace(sample *s, double t, const int *what)
{
    s->positions[what[0]] += t;
}

/* Strain: every vector r becomes r + t r[what0] e[what1]. */
static void strain(sample *s, double t, const int *what)
{
    for (size_t i = 0; i < s->n_atoms; i++) {
        s->positions[3 * i + what[1]] += t * s->positions[3 * i + what[0]];
    }
    for (int v = 0; v < 3; v++) {
        s->cell[3 * v + what[1]] += t * s->cell[3 * v + what[0]];
    }
}

static void check_gradients(const model *m, sample *s, const double *weights, const char *name)
{
    answer exact = compute(m, s, weights, 1);
    for (int k = 0; k < (int)(3 * s->n_atoms); k++) {
        double numerical = -slope(m, s, weights, displace, &k, 1e-3);
        CHECK(fabs(exact.forces[k] - numerical) < 1e-7, "%s, force %d: %.12g against %.12g", name, k, exact.forces[k],
              numerical);
    }
    for (int a = 0; a < 3; a++) {
        for (int b = 0; b < 3; b++) {
            const int what[2] = {a, b};
            double numerical = -slope(m, s, weights, strain, what, 3e-4);
            CHECK(fabs(exact.virial[3 * a + b] - numerical) < 1e-7, "%s, virial %d %d: %.12g against %.12g", name, a, b,
                  exact.virial[3 * a + b], numerical);
        }
    }
}

static void test_gradients(void)
{
    uint64_t state = 3;
    for (int core = 0; core < 2; core++) {
        model *m = model_new(4.0, core);
        double *weights = random_numbers(&state, (size_t)MODEL_N_SPECIES * (size_t)m->d.n_features);
        for (int k = 0; k < N_KINDS; k++) {
            sample s;
            fill(&s, kinds[k].n_atoms, kinds[k].cell, kinds[k].pbc, 4.0, 1.9, &state);
            check_gradients(m, &s, weights, kinds[k].name);
            neighbour_list_free(&s.list);
        }
        free(weights);
        free(m);
    }
}

/* The same number along every way: energies, summed features, any adjoint, the tangent and the design matrix. */
static void test_ways_agree(void)
{
    uint64_t state = 4;
    model *m = model_new(4.0, 0);
    const size_t n_features = (size_t)m->d.n_features, width = MODEL_N_SPECIES * n_features;
    double *weights = random_numbers(&state, width);
    double *sums = malloc(width * sizeof *sums), *tangent = malloc(width * sizeof *tangent);
    double *features = malloc(N_MAX * n_features * sizeof *features),
           *adjoint = malloc(N_MAX * n_features * sizeof *adjoint);
    double *rows = malloc(3 * N_MAX * width * sizeof *rows), *virial_rows = malloc(6 * width * sizeof *virial_rows);
    static const int voigt[6] = {0, 4, 8, 5, 2, 1};
    for (int k = 0; k < N_KINDS; k++) {
        sample s;
        fill(&s, kinds[k].n_atoms, kinds[k].cell, kinds[k].pbc, 4.0, 1.2, &state);
        answer direct = compute(m, &s, weights, 1), other = {0};
        structure one = view(&s);
        for (size_t i = 0; i < s.n_atoms; i++) {
            memcpy(adjoint + i * n_features, weights + (size_t)s.species[i] * n_features, n_features * sizeof *adjoint);
        }
        evaluator e = {0};
        evaluation what = {.adjoint = adjoint,
                           .atomic_energies = other.atomic,
                           .forces = other.forces,
                           .virials = other.virial,
                           .sums = sums,
                           .features = features};
        CHECK(evaluate(&e, &m->d, 1, &one, 1, &what) == 0, "evaluate");
        evaluator_free(&e);
        double energy = 0, summed = 0, scale = 1;
        for (size_t i = 0; i < s.n_atoms; i++) {
            CHECK_CLOSE(other.atomic[i], direct.atomic[i], 1e-12 * (1 + fabs(direct.atomic[i])));
            for (size_t f = 0; f < n_features; f++) {
                energy += adjoint[i * n_features + f] * features[i * n_features + f];
            }
        }
        for (size_t f = 0; f < width; f++) {
            summed += weights[f] * sums[f];
        }
        scale += fabs(direct.energy);
        CHECK_CLOSE(energy, direct.energy, 1e-12 * scale);
        CHECK_CLOSE(summed, direct.energy, 1e-12 * scale);

        double *direction = random_numbers(&state, 3 * s.n_atoms), work = 0, along = 0;
        CHECK(evaluate_tangent(&m->d, 1, &one, 1, direction, NULL, tangent) == 0, "tangent");
        for (size_t f = 0; f < width; f++) {
            along += weights[f] * tangent[f];
        }
        CHECK(evaluate_design(&m->d, &one, sums, rows, virial_rows) == 0, "design");
        for (size_t x = 0; x < 3 * s.n_atoms; x++) {
            double force = 0;
            for (size_t f = 0; f < width; f++) {
                force += rows[x * width + f] * weights[f];
            }
            work += direct.forces[x] * direction[x];
            CHECK_CLOSE(other.forces[x], direct.forces[x], 1e-11 * scale);
            CHECK_CLOSE(force, direct.forces[x], 1e-11 * scale);
        }
        CHECK_CLOSE(along, -work, 1e-11 * scale);
        for (int v = 0; v < 6; v++) {
            double virial = 0;
            for (size_t f = 0; f < width; f++) {
                virial += virial_rows[(size_t)v * width + f] * weights[f];
            }
            CHECK_CLOSE(virial, direct.virial[voigt[v]], 1e-11 * scale);
            CHECK_CLOSE(other.virial[voigt[v]], direct.virial[voigt[v]], 1e-11 * scale);
        }
        summed = 0;
        for (size_t f = 0; f < width; f++) {
            summed += weights[f] * sums[f];
        }
        CHECK_CLOSE(summed, direct.energy, 1e-12 * scale);
        CHECK(evaluate_design(&m->d, &one, sums, NULL, NULL) == 0, "design without rows");
        free(direction);
        neighbour_list_free(&s.list);
    }
    double *blocks[] = {weights, sums, tangent, features, adjoint, rows, virial_rows};
    for (size_t b = 0; b < sizeof blocks / sizeof *blocks; b++) {
        free(blocks[b]);
    }
    free(m);
}

/* Rotation with inversion, another order of the atoms, another choice of images. */
static void test_invariance(void)
{
    uint64_t state = 5;
    model *m = model_new(4.0, 1);
    double *weights = random_numbers(&state, MODEL_N_SPECIES * (size_t)m->d.n_features);
    for (int k = 0; k < N_KINDS; k++) {
        sample s, moved;
        fill(&s, kinds[k].n_atoms, kinds[k].cell, kinds[k].pbc, 4.0, 1.2, &state);
        answer before = compute(m, &s, weights, 1);
        double q[4], norm = 0, rotation[9];
        for (int a = 0; a < 4; a++) {
            q[a] = random_between(&state, -1, 1);
            norm += q[a] * q[a];
        }
        for (int a = 0; a < 3; a++) {
            for (int b = 0; b < 3; b++) {
                int c = 3 - a - b, sign = (b - a + 3) % 3 == 1 ? -1 : 1;
                double off =
                    a == b ? q[0] * q[0] - q[1] * q[1] - q[2] * q[2] - q[3] * q[3] : sign * 2 * q[0] * q[c + 1];
                rotation[3 * a + b] = -(off + 2 * q[a + 1] * q[b + 1]) / norm; /* minus: improper */
            }
        }
        CHECK_CLOSE(determinant(rotation), -1.0, 1e-13);
        moved = s;
        neighbour_list_init(&moved.list, 4.0, 0);
        memset(moved.positions, 0, sizeof moved.positions);
        memset(moved.cell, 0, sizeof moved.cell);
        for (size_t i = 0; i < s.n_atoms; i++) {
            const size_t to = (i + 1) % s.n_atoms;
            double image[3] = {0, 0, 0};
            for (int v = 0; v < 3; v++) {
                int cells = s.pbc[v] ? (int)(random_bits(&state) % 7) - 3 : 0;
                for (int a = 0; a < 3; a++) {
                    image[a] += cells * s.cell[3 * v + a];
                }
            }
            moved.species[to] = s.species[i];
            for (int a = 0; a < 3; a++) {
                for (int b = 0; b < 3; b++) {
                    moved.positions[3 * to + a] += rotation[3 * a + b] * (s.positions[3 * i + b] + image[b] + 0.7);
                }
            }
        }
        for (int v = 0; v < 3; v++) {
            for (int a = 0; a < 3; a++) {
                for (int b = 0; b < 3; b++) {
                    moved.cell[3 * v + a] += rotation[3 * a + b] * s.cell[3 * v + b];
                }
            }
        }
        answer after = compute(m, &moved, weights, 1);
        CHECK_CLOSE(after.energy, before.energy, 1e-10);
        for (size_t i = 0; i < s.n_atoms; i++) {
            for (int a = 0; a < 3; a++) {
                double force = 0;
                for (int b = 0; b < 3; b++) {
                    force += rotation[3 * a + b] * before.forces[3 * i + b];
                }
                CHECK_CLOSE(after.forces[3 * ((i + 1) % s.n_atoms) + a], force, 1e-10);
            }
        }
        neighbour_list_free(&s.list);
        neighbour_list_free(&moved.list);
    }
    free(weights);
    free(m);
}

/* A batch gives what its structures give, whatever the number of threads; the same number gives the same bits,
 * and after the first call no memory is taken. */
static void test_batches_and_threads(void)
{
    uint64_t state = 6;
    model *m = model_new(4.0, 1);
    double *weights = random_numbers(&state, MODEL_N_SPECIES * (size_t)m->d.n_features);
    const size_t n_features = (size_t)m->d.n_features;
    batch all;
    fill_batch(&all, 4.0, &state);
    const size_t n_atoms = all.n_atoms;
    double *atomic[4], *forces[4], *virials[4], *sums[4];
    static const int n_threads[4] = {1, 2, 2, 3};
    evaluator e = {0};
    for (int run = 0; run < 4; run++) {
        atomic[run] = malloc(n_atoms * sizeof(double));
        forces[run] = malloc(3 * n_atoms * sizeof(double));
        virials[run] = malloc(9 * N_BATCH * sizeof(double));
        sums[run] = malloc(N_BATCH * MODEL_N_SPECIES * n_features * sizeof(double));
        evaluation what = {.weights = weights,
                           .atomic_energies = atomic[run],
                           .forces = forces[run],
                           .virials = virials[run],
                           .sums = sums[run]};
        const size_t before = e.n_allocations;
        omp_set_max_active_levels(run != 2); /* the third time only one of two threads comes */
        CHECK(evaluate(&e, &m->d, N_BATCH, all.structure, n_threads[run], &what) == 0, "run %d", run);
        omp_set_max_active_levels(1);
        CHECK(run != 2 || e.n_allocations == before, "memory was taken again");
    }
    CHECK(memcmp(forces[1], forces[2], 3 * n_atoms * sizeof(double)) == 0, "forces of two runs differ");
    CHECK(memcmp(atomic[1], atomic[2], n_atoms * sizeof(double)) == 0, "energies of two runs differ");
    for (int run = 1; run < 4; run++) {
        for (size_t k = 0; k < 3 * n_atoms; k++) {
            CHECK_CLOSE(forces[run][k], forces[0][k], 1e-12 * (1 + fabs(forces[0][k])));
        }
        for (size_t k = 0; k < 9 * N_BATCH; k++) {
            CHECK_CLOSE(virials[run][k], virials[0][k], 1e-12 * (1 + fabs(virials[0][k])));
        }
        for (size_t k = 0; k < N_BATCH * MODEL_N_SPECIES * n_features; k++) {
            CHECK_CLOSE(sums[run][k], sums[0][k], 1e-12 * (1 + fabs(sums[0][k])));
        }
    }
    size_t first = 0;
    for (int k = 0; k < N_BATCH; k++) {
        answer alone = compute(m, &all.sample[k], weights, 1);
        for (size_t i = 0; i < all.sample[k].n_atoms; i++) {
            CHECK_CLOSE(atomic[0][first + i], alone.atomic[i], 1e-12 * (1 + fabs(alone.atomic[i])));
            for (int a = 0; a < 3; a++) {
                const double force = alone.forces[3 * i + (size_t)a];
                CHECK_CLOSE(forces[0][3 * (first + i) + (size_t)a], force, 1e-12 * (1 + fabs(force)));
            }
        }
        for (int v = 0; v < 9; v++) {
            CHECK_CLOSE(virials[0][9 * k + v], alone.virial[v], 1e-12 * (1 + fabs(alone.virial[v])));
        }
        first += all.sample[k].n_atoms;
    }
    double *directions = random_numbers(&state, 3 * n_atoms);
    for (int run = 0; run < 2; run++) {
        CHECK(evaluate_tangent(&m->d, N_BATCH, all.structure, run + 1, directions, NULL, sums[run]) == 0, "tangent");
    }
    CHECK(memcmp(sums[0], sums[1], N_BATCH * MODEL_N_SPECIES * n_features * sizeof(double)) == 0,
          "tangents depend on the number of threads");
    free(directions);
    evaluation nothing = {.weights = weights, .atomic_energies = atomic[0], .forces = forces[0]};
    CHECK(evaluate(&e, &m->d, 0, NULL, 2, &nothing) == 0, "no structure");
    evaluator_free(&e);
    for (int run = 0; run < 4; run++) {
        free(atomic[run]);
        free(forces[run]);
        free(virials[run]);
        free(sums[run]);
    }
    free_batch(&all);
    free(weights);
    free(m);
}

/* A list with a skin holds pairs beyond the cutoff; they must not be felt. */
static void test_skin_changes_nothing(void)
{
    uint64_t state = 7;
    model *m = model_new(4.0, 1);
    double *weights = random_numbers(&state, MODEL_N_SPECIES * (size_t)m->d.n_features);
    sample s;
    fill(&s, 12, triclinic, (int[3]){1, 1, 1}, 4.0, 1.2, &state);
    answer without = compute(m, &s, weights, 1);
    neighbour_list_free(&s.list);
    neighbour_list_init(&s.list, 4.0, 1.0);
    answer with = compute(m, &s, weights, 1);
    CHECK(s.list.n_pairs > 0 && memcmp(&with, &without, sizeof with) == 0, "not the same bits");
    neighbour_list_free(&s.list);
    free(weights);
    free(m);
}

int main(void)
{
    use_requested_instructions();
    test_gradients();
    test_ways_agree();
    test_invariance();
    test_batches_and_threads();
    test_skin_changes_nothing();
    return checks_summary("evaluate");
}
