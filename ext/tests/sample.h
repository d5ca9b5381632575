/* Small random structures, and what the model says of them. */
#ifndef COMITIA_TEST_SAMPLE_H
#define COMITIA_TEST_SAMPLE_H

#include "evaluate.h"
#include "model.h"

enum { N_MAX = 24 };

static const double cubic[9] = {7, 0, 0, 0, 7, 0, 0, 0, 7};
static const double triclinic[9] = {5.5, 0.3, -0.2, 2.0, 5.0, 0.1, -1.2, 1.5, 6.0};
static const double left_handed[9] = {2.0, 5.0, 0.1, 5.5, 0.3, -0.2, -1.2, 1.5, 6.0};
static const double small[9] = {2.5, 0.1, 0, 0.9, 2.6, 0.2, 0.3, -0.8, 2.7};

static const struct {
    const char *name;
    const double *cell;
    int pbc[3];
    size_t n_atoms;
} kinds[] = {
    {"molecule",    cubic,       {0, 0, 0}, 9 },
    {"bulk",        cubic,       {1, 1, 1}, 10},
    {"triclinic",   triclinic,   {1, 1, 1}, 11},
    {"slab",        triclinic,   {1, 1, 0}, 8 },
    {"left-handed", left_handed, {1, 1, 1}, 8 },
    {"small",       small,       {1, 1, 1}, 1 },
    {"wire",        small,       {0, 0, 1}, 3 },
    {"one atom",    cubic,       {0, 0, 0}, 1 },
    {"two atoms",   cubic,       {0, 0, 0}, 2 },
};
enum { N_KINDS = sizeof kinds / sizeof *kinds };

typedef struct {
    size_t n_atoms;
    int32_t species[N_MAX];
    double positions[3 * N_MAX], cell[9];
    int pbc[3];
    neighbour_list list;
} sample;

static inline double determinant(const double c[9])
{
    return c[0] * (c[4] * c[8] - c[5] * c[7]) + c[1] * (c[5] * c[6] - c[3] * c[8]) + c[2] * (c[3] * c[7] - c[4] * c[6]);
}

static double closest(const sample *s)
{
    neighbour_list list;
    neighbour_list_init(&list, 2.0, 0);
    neighbour_list_update(&list, s->n_atoms, s->positions, s->cell, s->pbc);
    double least = 4;
    for (size_t i = 0; i < s->n_atoms; i++) {
        for (int64_t p = list.start[i]; p < list.start[i + 1]; p++) {
            double square = 0;
            for (int k = 0; k < 3; k++) {
                double d = s->positions[3 * (size_t)list.neighbour[p] + k] - s->positions[3 * i + k];
                for (int v = 0; v < 3; v++) {
                    d += list.shift[3 * p + v] * s->cell[3 * v + k];
                }
                square += d * d;
            }
            least = square < least ? square : least;
        }
    }
    neighbour_list_free(&list);
    return sqrt(least);
}

/* Atoms one after the other at random, none closer to another than `contact`. */
static void fill(sample *s, size_t n_atoms, const double cell[9], const int pbc[3], double cutoff, double contact,
                 uint64_t *state)
{
    memset(s, 0, sizeof *s);
    memcpy(s->cell, cell, sizeof s->cell);
    memcpy(s->pbc, pbc, sizeof s->pbc);
    neighbour_list_init(&s->list, cutoff, 0);
    while (s->n_atoms < n_atoms) {
        const size_t i = s->n_atoms++;
        double f[3];
        for (int v = 0; v < 3; v++) {
            f[v] = random_between(state, -0.5, 1.5); /* also outside the cell */
        }
        for (int k = 0; k < 3; k++) {
            s->positions[3 * i + k] = f[0] * cell[k] + f[1] * cell[3 + k] + f[2] * cell[6 + k];
        }
        s->species[i] = (int32_t)(random_bits(state) % MODEL_N_SPECIES);
        s->n_atoms -= closest(s) < contact;
    }
}

static structure view(sample *s)
{
    int code = neighbour_list_update(&s->list, s->n_atoms, s->positions, s->cell, s->pbc);
    CHECK(code >= 0, "neighbour list: %d", code);
    return (structure){s->n_atoms, s->species, s->positions, s->cell, &s->list, 0};
}

typedef struct {
    double energy, atomic[N_MAX], forces[3 * N_MAX], virial[9];
} answer;

static inline answer compute(const model *m, sample *s, const double *weights, int n_threads)
{
    static evaluator state;
    answer out = {0};
    structure one = view(s);
    evaluation what = {.weights = weights, .atomic_energies = out.atomic, .forces = out.forces, .virials = out.virial};
    CHECK(evaluate(&state, &m->d, 1, &one, n_threads, &what) == 0, "evaluate");
    evaluator_free(&state);
    for (size_t i = 0; i < s->n_atoms; i++) {
        out.energy += out.atomic[i];
    }
    return out;
}

static double *random_numbers(uint64_t *state, size_t n)
{
    double *numbers = malloc(n * sizeof *numbers);
    for (size_t k = 0; k < n; k++) {
        numbers[k] = random_between(state, -1, 1);
    }
    return numbers;
}

/* One of each kind, and one without atoms. */
enum { N_BATCH = N_KINDS + 1 };

typedef struct {
    sample sample[N_BATCH];
    structure structure[N_BATCH];
    size_t n_atoms;
} batch;

static inline void fill_batch(batch *b, double cutoff, uint64_t *state)
{
    b->n_atoms = 0;
    for (int k = 0; k < N_BATCH; k++) {
        const int kind = k % N_KINDS;
        fill(&b->sample[k], k < N_KINDS ? kinds[k].n_atoms : 0, kinds[kind].cell, kinds[kind].pbc, cutoff, 1.2, state);
        b->structure[k] = view(&b->sample[k]);
        b->n_atoms += b->sample[k].n_atoms;
    }
}

static inline void free_batch(batch *b)
{
    for (int k = 0; k < N_BATCH; k++) {
        neighbour_list_free(&b->sample[k].list);
    }
}

#endif
