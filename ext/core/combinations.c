#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "evaluate.h"

/* Two sets of weights are taken at a time, so that radial functions and harmonics are read once for both. */
struct combination_worker {
    environment env[LANES];
    lanes *terms, *adjoint, *gradient; /* [n_terms], [2][n_components], [2][n_blocks][3] */
    lanes *weight, *features;          /* [n_features] for a block of several structures */
    real *A, *A_adjoint, *A_adjoints;  /* [LANES][density_stride] of one set of weights, and of two */
    real *coefficients;                /* [n_sets][n_coefficients] of one structure and species */
    int32_t structure, species;        /* which these are of; -1: none yet */
    double *forces, *virials;          /* [n_sets][n_atoms][3], [n_sets][n_structures][9] */
    size_t capacity[11], n_allocations;
};

static void worker_free(combination_worker *w)
{
    for (int v = 0; v < LANES; v++)
        environment_free(&w->env[v]);
    void *arrays[] = {w->terms,     w->adjoint,    w->gradient,     w->weight, w->features, w->A,
                      w->A_adjoint, w->A_adjoints, w->coefficients, w->forces, w->virials};
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
    const size_t n_density = LANES * density_stride(d, 1), n_densities = LANES * density_stride(d, 2);
    if (reserve((void **)&w->terms, &c[0], n_terms, one, n) ||
        reserve((void **)&w->adjoint, &c[1], 2 * n_components, one, n) ||
        reserve((void **)&w->weight, &c[2], n_features, one, n) ||
        reserve((void **)&w->features, &c[3], n_features, one, n) ||
        reserve((void **)&w->A, &c[4], n_density, sizeof(real), n) ||
        reserve((void **)&w->A_adjoint, &c[5], n_density, sizeof(real), n) ||
        reserve((void **)&w->A_adjoints, &c[10], n_densities, sizeof(real), n) ||
        reserve((void **)&w->coefficients, &c[6], n_sets * n_coefficients(d), sizeof(real), n) ||
        reserve((void **)&w->forces, &c[7], n_forces, sizeof(double), n) ||
        reserve((void **)&w->virials, &c[8], n_virials, sizeof(double), n))
        return OUT_OF_MEMORY;
    if (*n != n_before) {
        memset(w->terms, 0, n_terms * one);
        memset(w->weight, 0, n_features * one);
        memset(w->features, 0, n_features * one);
        memset(w->A_adjoint, 0, n_density * sizeof(real)); /* stays so where no feature reads A */
        memset(w->A_adjoints, 0, n_densities * sizeof(real));
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
                            w->virials + 9 * ((set + s) * t->n_structures + structure), NULL);
    return 0;
}

static void add_energy(const task *t, size_t set, int64_t centre, const environment *env, double energy)
{
    const centre_blocks *blocks = &t->e->blocks;
    const size_t i = blocks->first_atom[blocks->centre_structure[centre]] + blocks->centre_atom[centre];
    t->what->atomic_energies[set * t->n_atoms + i] = energy + t->what->core[set] * env->core_energy;
}

/* Where what was kept of a block begins; NULL where it was not. */
static lanes *kept_of(const task *t, const kept_memory *kept, int64_t block)
{
    return t->e->kept_where[block] == NOT_KEPT ? NULL : kept->memory + t->e->kept_where[block];
}

/* Asks for a part of what was kept of the block that is next, going backwards, for each centre v of this one. */
static void fetch_next(const task *t, const kept_memory *kept, int64_t block, int v)
{
    const int64_t *where = t->e->kept_where;
    if (block > 0 && where[block] > 0 && where[block - 1] != NOT_KEPT)
        kept_fetch(kept, where[block - 1], where[block] - where[block - 1], v, t->e->blocks.count[block]);
}

/* The environment of centre v of a block and its density. */
static int make_again(const task *t, combination_worker *w, int64_t centre, int v)
{
    const centre_blocks *blocks = &t->e->blocks;
    const structure *s = &t->structures[blocks->centre_structure[centre]];
    if (environment_gather(t->d, s, blocks->centre_atom[centre], NULL, &w->env[v]))
        return OUT_OF_MEMORY;
    density_expand(t->d, &w->env[v], w->A + v * density_stride(t->d, 1));
    return 0;
}

static int block_quadratic(const task *t, combination_worker *w, const kept_memory *memory, int64_t block)
{
    const centre_blocks *blocks = &t->e->blocks;
    const size_t n_density = t->d->n_density;
    lanes *kept = kept_of(t, memory, block), *room = kept;
    if (kept != NULL)
        room += n_density / LANES * blocks->count[block];
    for (int64_t c = blocks->first[block]; c < blocks->first[block] + blocks->count[block]; c++) {
        const real *A = w->A;
        fetch_next(t, memory, block, (int)(c - blocks->first[block]));
        if (kept != NULL) {
            A = (real *)kept + (c - blocks->first[block]) * n_density;
            if (environment_read(t->d, blocks->species[block], room, &w->env[0]))
                return OUT_OF_MEMORY;
            room += environment_size(t->d, w->env[0].n);
        } else if (make_again(t, w, c, 0)) {
            return OUT_OF_MEMORY;
        }
        for (size_t set = 0; set < t->what->n_sets; set += 2) {
            const int n = set + 2 <= t->what->n_sets ? 2 : 1;
            for (int s = 0; s < n; s++)
                add_energy(t, set + s, c, &w->env[0],
                           quadratic_energy(
                               t->d,
                               coefficients_of(t, w, blocks->centre_structure[c], blocks->species[block], set + s), A,
                               w->A_adjoint + s * n_density));
            for (size_t place = 0; n == 2 && place < n_density; place += LANES)
                interleave(*(lanes *)(w->A_adjoint + place), *(lanes *)(w->A_adjoint + n_density + place),
                           (lanes *)(w->A_adjoints + 2 * place), (lanes *)(w->A_adjoints + 2 * place + LANES));
            if (add_forces(t, w, &w->env[0], n == 2 ? w->A_adjoints : w->A_adjoint, c, set, n))
                return OUT_OF_MEMORY;
        }
    }
    return 0;
}

/* Adjoints of the components of a block for n sets from `set` on, and energies. */
static void reverse_block(const task *t, combination_worker *w, lanes *terms, int64_t block, size_t set, int n,
                          lanes *energy)
{
    const descriptor *d = t->d;
    const int32_t *of = t->e->blocks.centre_structure + t->e->blocks.first[block];
    const int species = t->e->blocks.species[block], count = t->e->blocks.count[block];
    int one_structure = 1;
    for (int v = 1; v < count; v++)
        one_structure &= of[v] == of[0];
    if (one_structure) {
        const real *first = coefficients_of(t, w, of[0], species, set);
        if (n == 2)
            correlations_evaluate_two(d, terms, (const real *[]){first, first + n_coefficients(d)}, w->adjoint, energy);
        else
            correlations_evaluate(d, terms, first, NULL, w->adjoint, energy);
        return;
    }
    for (int s = 0; s < n; s++) {
        for (int v = 0; v < count; v++) {
            const double *row = weights_of(t, of[v], set + s, species);
            for (int place = 0; place < d->n_features; place++)
                w->weight[place][v] = (real)(d->scale[place] * row[d->feature[place]]);
        }
        correlations_reverse(d, terms, w->weight, w->features, w->adjoint + (size_t)s * d->n_components, energy + s);
    }
}

static int block_correlations(const task *t, combination_worker *w, const kept_memory *memory, int64_t block)
{
    const descriptor *d = t->d;
    const int64_t first = t->e->blocks.first[block];
    const int count = t->e->blocks.count[block], species = t->e->blocks.species[block];
    lanes *kept = kept_of(t, memory, block), *terms = kept != NULL ? kept : w->terms;
    for (int v = 0; kept == NULL && v < count; v++)
        if (make_again(t, w, first + v, v))
            return OUT_OF_MEMORY;
    if (kept == NULL)
        correlations_load(d, count, w->A, terms);
    for (size_t set = 0; set < t->what->n_sets; set += 2) {
        const int n = set + 2 <= t->what->n_sets ? 2 : 1;
        lanes energy[2], *room = kept != NULL ? kept + d->n_terms : NULL;
        reverse_block(t, w, terms, block, set, n, energy);
        real *A_adjoint = n == 2 ? w->A_adjoints : w->A_adjoint;
        correlations_store(d, n, w->adjoint, count, A_adjoint);
        for (int v = 0; v < count; v++) {
            if (set == 0)
                fetch_next(t, memory, block, v);
            environment *env = &w->env[kept == NULL || t->what->n_sets > 2 ? v : 0];
            if (kept != NULL && set == 0) {
                if (environment_read(d, species, room, env))
                    return OUT_OF_MEMORY;
                room += environment_size(d, env->n);
            }
            for (int s = 0; s < n; s++)
                add_energy(t, set + s, first + v, env, energy[s][v]);
            if (add_forces(t, w, env, A_adjoint + v * density_stride(d, n), first + v, set, n))
                return OUT_OF_MEMORY;
        }
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
            /* backwards, as what was kept last is still in the nearest cache */
            for (int64_t b = n_blocks * (t + 1) / n_threads - 1; !error && b >= n_blocks * t / n_threads; b--)
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
