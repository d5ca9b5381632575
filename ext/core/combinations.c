#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "evaluate.h"

/* Two sets of weights are taken at a time, so that radial functions and harmonics are read once for both. */
struct combination_worker {
    environment made[LANES], kept[LANES]; /* the latter point to what was kept */
    lanes *terms, *adjoint, *gradient;    /* [n_terms], [n_components], [2][n_blocks][3] */
    lanes *weight, *features;             /* [n_features] for a block of several structures */
    real *A, *A_adjoint;                  /* [n_density], [LANES][2][n_density] */
    real *coefficients;                   /* [n_sets][n_coefficients] of one structure and species */
    int32_t structure, species;           /* which these are of; -1: none yet */
    double *forces, *virials;             /* [n_sets][n_atoms][3], [n_sets][n_structures][9] */
    size_t capacity[10], n_allocations;
};

static void worker_free(combination_worker *w)
{
    for (int v = 0; v < LANES; v++)
        environment_free(&w->made[v]);
    void *arrays[] = {w->terms, w->adjoint,   w->gradient,     w->weight, w->features,
                      w->A,     w->A_adjoint, w->coefficients, w->forces, w->virials};
    for (size_t a = 0; a < sizeof arrays / sizeof *arrays; a++)
        free(arrays[a]);
}

void combination_workers_free(evaluator *e)
{
    for (int t = 0; t < e->n_combination_workers; t++)
        worker_free(&e->combination_workers[t]);
    free(e->combination_workers);
}

static size_t n_coefficients(const descriptor *d)
{
    return d->n_dense ? quadratic_size(d) : round_up(d->n_features);
}

static int worker_begin(combination_worker *w, const descriptor *d, size_t n_atoms, size_t n_structures, size_t n_sets)
{
    size_t *c = w->capacity, *n = &w->n_allocations;
    const size_t n_features = d->n_features, n_forces = 3 * n_atoms * n_sets, n_virials = 9 * n_structures * n_sets;
    const size_t n_terms = d->n_terms, n_components = d->n_components, one = sizeof(lanes), n_before = *n;
    if (reserve((void **)&w->terms, &c[0], n_terms, one, n) ||
        reserve((void **)&w->adjoint, &c[1], n_components, one, n) ||
        reserve((void **)&w->weight, &c[2], n_features, one, n) ||
        reserve((void **)&w->features, &c[3], n_features, one, n) ||
        reserve((void **)&w->A, &c[4], d->n_density, sizeof(real), n) ||
        reserve((void **)&w->A_adjoint, &c[5], LANES * 2 * d->n_density, sizeof(real), n) ||
        reserve((void **)&w->coefficients, &c[6], n_sets * n_coefficients(d), sizeof(real), n) ||
        reserve((void **)&w->forces, &c[7], n_forces, sizeof(double), n) ||
        reserve((void **)&w->virials, &c[8], n_virials, sizeof(double), n))
        return OUT_OF_MEMORY;
    if (*n != n_before) {
        memset(w->terms, 0, n_terms * one);
        memset(w->weight, 0, n_features * one);
        memset(w->features, 0, n_features * one);
        memset(w->A_adjoint, 0, LANES * 2 * d->n_density * sizeof(real)); /* stays so where no feature reads A */
    }
    memset(w->forces, 0, n_forces * sizeof(double));
    memset(w->virials, 0, n_virials * sizeof(double));
    w->structure = w->species = -1;
    return 0;
}

/* What is the same for all blocks. */
typedef struct {
    const evaluator *e;
    const descriptor *d;
    const structure *structures;
    size_t n_structures, n_atoms;
    const combination *what;
} task;

static const double *weights_of(const task *t, int32_t structure, size_t set, int species)
{
    const size_t row = ((size_t)structure * t->what->n_sets + set) * t->d->n_species + species;
    return t->what->weights + row * t->d->n_features;
}

/* The weights of all sets for one structure and species, in the order in which the kernels read them. */
static const real *coefficients_of(const task *t, combination_worker *w, int32_t structure, int species, size_t set)
{
    const descriptor *d = t->d;
    if (w->structure != structure || w->species != species)
        for (size_t s = 0; s < t->what->n_sets; s++)
            (d->n_dense ? quadratic_weights : correlations_weights)(d, weights_of(t, structure, s, species),
                                                                    w->coefficients + s * n_coefficients(d));
    w->structure = structure;
    w->species = species;
    return w->coefficients + set * n_coefficients(d);
}

/* Forces and virials of one centre from the adjoints of its density, for n sets from `set` on. */
static int add_forces(const task *t, combination_worker *w, const environment *env, const real *adjoint, int64_t centre,
                      size_t set, int n)
{
    const centre_blocks *blocks = &t->e->blocks;
    const int32_t structure = blocks->centre_structure[centre], atom = blocks->centre_atom[centre];
    const real core[2] = {(real)t->what->core[set], (real)t->what->core[set + n - 1]};
    if (reserve((void **)&w->gradient, &w->capacity[9], 6 * (size_t)env->n_blocks, sizeof(lanes), &w->n_allocations))
        return OUT_OF_MEMORY;
    if (n == 2)
        density_reverse_two(t->d, env, core, adjoint, w->gradient);
    else
        density_reverse(t->d, env, core[0], adjoint, w->gradient);
    for (int s = 0; s < n; s++)
        environment_scatter(env, w->gradient + 3 * (size_t)s * env->n_blocks, atom,
                            w->forces + 3 * ((set + s) * t->n_atoms + (size_t)blocks->first_atom[structure]),
                            w->virials + 9 * ((set + s) * t->n_structures + structure));
    return 0;
}

static void add_energy(const task *t, size_t set, int64_t centre, const environment *env, double energy)
{
    const centre_blocks *blocks = &t->e->blocks;
    const size_t i = blocks->first_atom[blocks->centre_structure[centre]] + blocks->centre_atom[centre];
    t->what->atomic_energies[set * t->n_atoms + i] = energy + t->what->core[set] * env->core_energy;
}

/* The environment of a centre and its density, kept or made again. */
static const lanes *density_of(const task *t, combination_worker *w, int64_t centre, int v, const kept_memory *kept,
                               int is_kept, environment **env)
{
    const centre_blocks *blocks = &t->e->blocks;
    if (is_kept) {
        *env = &w->kept[v];
        return kept_centre(kept, t->d, t->e->kept_where[centre], *env);
    }
    *env = &w->made[v];
    if (environment_gather(t->d, &t->structures[blocks->centre_structure[centre]], blocks->centre_atom[centre], *env))
        return NULL;
    density_expand(t->d, *env, w->A);
    return (const lanes *)w->A;
}

static int block_quadratic(const task *t, combination_worker *w, const kept_memory *kept, int64_t block)
{
    const centre_blocks *blocks = &t->e->blocks;
    for (int64_t c = blocks->first[block]; c < blocks->first[block] + blocks->count[block]; c++) {
        environment *env;
        const real *A = (const real *)density_of(t, w, c, 0, kept, t->e->kept_where[c] != NOT_KEPT, &env);
        if (A == NULL)
            return OUT_OF_MEMORY;
        for (size_t set = 0; set < t->what->n_sets; set += 2) {
            const int n = set + 2 <= t->what->n_sets ? 2 : 1;
            for (int s = 0; s < n; s++)
                add_energy(t, set + s, c, env,
                           quadratic_energy(
                               t->d,
                               coefficients_of(t, w, blocks->centre_structure[c], blocks->species[block], set + s), A,
                               w->A_adjoint + s * t->d->n_density));
            if (add_forces(t, w, env, w->A_adjoint, c, set, n))
                return OUT_OF_MEMORY;
        }
    }
    return 0;
}

/* Adjoints of the components of a block for one set, and energies. */
static void reverse_block(const task *t, combination_worker *w, int64_t block, size_t set, int one_structure,
                          lanes *adjoint, lanes *energy)
{
    const descriptor *d = t->d;
    const int32_t *of = t->e->blocks.centre_structure + t->e->blocks.first[block];
    const int species = t->e->blocks.species[block];
    if (one_structure) {
        correlations_evaluate(d, w->terms, coefficients_of(t, w, of[0], species, set), NULL, adjoint, energy);
        return;
    }
    for (int v = 0; v < t->e->blocks.count[block]; v++) {
        const double *row = weights_of(t, of[v], set, species);
        for (int place = 0; place < d->n_features; place++)
            w->weight[place][v] = (real)(d->scale[place] * row[d->feature[place]]);
    }
    correlations_reverse(d, w->terms, w->weight, w->features, adjoint, energy);
}

static int block_correlations(const task *t, combination_worker *w, const kept_memory *kept, int64_t block)
{
    const descriptor *d = t->d;
    const centre_blocks *blocks = &t->e->blocks;
    const int64_t first = blocks->first[block];
    const int count = blocks->count[block];
    int is_kept = 1, one_structure = 1;
    environment *env[LANES];
    for (int v = 0; v < count; v++) {
        is_kept &= t->e->kept_where[first + v] != NOT_KEPT;
        one_structure &= blocks->centre_structure[first + v] == blocks->centre_structure[first];
    }
    for (int v = 0; v < count; v++) {
        const lanes *density = density_of(t, w, first + v, v, kept, is_kept, &env[v]);
        if (density == NULL)
            return OUT_OF_MEMORY;
        if (!is_kept)
            correlations_load(d, (const real *)density, v, w->terms);
        else if (v == 0)
            memcpy(w->terms, density, d->n_components * sizeof(lanes));
    }
    for (size_t set = 0; set < t->what->n_sets; set += 2) {
        const int n = set + 2 <= t->what->n_sets ? 2 : 1;
        for (int s = 0; s < n; s++) {
            lanes energy;
            reverse_block(t, w, block, set + s, one_structure, w->adjoint, &energy);
            for (int v = 0; v < count; v++) {
                correlations_store(d, w->adjoint, v, w->A_adjoint + (2 * v + s) * d->n_density);
                add_energy(t, set + s, first + v, env[v], energy[v]);
            }
        }
        for (int v = 0; v < count; v++)
            if (add_forces(t, w, env[v], w->A_adjoint + 2 * v * d->n_density, first + v, set, n))
                return OUT_OF_MEMORY;
    }
    return 0;
}

static int reserve_workers(evaluator *e, int n_threads)
{
    if (n_threads <= e->n_combination_workers)
        return 0;
    combination_worker *workers = realloc(e->combination_workers, n_threads * sizeof(combination_worker));
    if (workers == NULL)
        return OUT_OF_MEMORY;
    memset(workers + e->n_combination_workers, 0, (n_threads - e->n_combination_workers) * sizeof(combination_worker));
    e->combination_workers = workers;
    e->n_combination_workers = n_threads;
    e->n_allocations++;
    return 0;
}

int evaluate_combinations(evaluator *e, const descriptor *d, size_t n_structures, const structure *structures,
                          int n_threads, const combination *what)
{
    const int64_t n_blocks = blocks_arrange(&e->blocks, d->n_species, n_structures, structures, &e->n_allocations);
    if (n_blocks < 0 || reserve_workers(e, n_threads))
        return OUT_OF_MEMORY;
    if (n_threads > n_blocks)
        n_threads = n_blocks > 0 ? (int)n_blocks : 1;
    const size_t n_atoms = e->blocks.first_atom[n_structures];
    const int64_t n_forces = 3 * n_atoms * what->n_sets, n_virials = 9 * n_structures * what->n_sets;
    const task task = {e, d, structures, n_structures, n_atoms, what};
    int failed = 0;
#pragma omp parallel num_threads(n_threads)
    {
        for (int t = omp_get_thread_num(); t < n_threads; t += omp_get_num_threads()) { /* as in evaluate.c */
            combination_worker *w = &e->combination_workers[t];
            int error = worker_begin(w, d, n_atoms, n_structures, what->n_sets);
            for (int64_t b = n_blocks * t / n_threads; !error && b < n_blocks * (t + 1) / n_threads; b++)
                error = d->n_dense ? block_quadratic(&task, w, &e->kept[t], b)
                                   : block_correlations(&task, w, &e->kept[t], b);
            if (error) {
#pragma omp atomic write
                failed = 1;
            }
        }
#pragma omp barrier
#pragma omp for schedule(static)
        for (int64_t i = 0; i < n_forces + n_virials; i++) {
            double sum = 0;
            for (int u = 0; u < n_threads && !failed; u++)
                sum += i < n_forces ? e->combination_workers[u].forces[i]
                                    : e->combination_workers[u].virials[i - n_forces];
            *(i < n_forces ? what->forces + i : what->virials + i - n_forces) = sum;
        }
    }
    for (int t = 0; t < n_threads; t++) {
        e->n_allocations += e->combination_workers[t].n_allocations;
        e->combination_workers[t].n_allocations = 0;
    }
    return failed ? OUT_OF_MEMORY : 0;
}
