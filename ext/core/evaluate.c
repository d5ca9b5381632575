#include "evaluate.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

struct worker {
    environment env[LANES];
    lanes *terms, *adjoint, *features, *weight, *sum, *gradient;
    double *A, *A_adjoint, *species_density, *forces, *sums;
    size_t gradient_capacity, forces_capacity, sums_capacity;
    size_t n_allocations;
    int ready;
};

static void *allocate(size_t bytes)
{
    return aligned_alloc(64, (bytes + 64) / 64 * 64);
}

static int reserve(void **array, size_t *capacity, size_t n, size_t size, size_t *n_allocations)
{
    if (n <= *capacity)
        return 0;
    free(*array);
    *array = allocate(n * size);
    *capacity = *array == NULL ? 0 : n;
    (*n_allocations)++;
    return *array == NULL ? OUT_OF_MEMORY : 0;
}

static void worker_free(worker *w)
{
    for (int v = 0; v < LANES; v++)
        environment_free(&w->env[v]);
    void *arrays[] = {w->terms, w->adjoint, w->features, w->weight,          w->sum,      w->gradient,
                      w->A,     w->forces,  w->sums,     w->species_density, w->A_adjoint};
    for (size_t a = 0; a < sizeof arrays / sizeof *arrays; a++)
        free(arrays[a]);
}

void evaluator_free(evaluator *e)
{
    for (int t = 0; t < e->n_workers; t++)
        worker_free(&e->workers[t]);
    void *arrays[] = {e->workers,       e->centre_structure, e->centre_atom, e->block_first,
                      e->block_species, e->block_count,      e->first_atom,  e->atomic_virials};
    for (size_t a = 0; a < sizeof arrays / sizeof *arrays; a++)
        free(arrays[a]);
    *e = (evaluator){0};
}

static int worker_prepare(worker *w, const descriptor *d)
{
    if (w->ready)
        return 0;
    w->terms = allocate(d->n_terms * sizeof(lanes));
    w->adjoint = allocate(d->n_terms * sizeof(lanes));
    w->features = allocate(d->n_features * sizeof(lanes));
    w->weight = allocate(d->n_features * sizeof(lanes));
    w->sum = allocate(d->n_features * sizeof(lanes));
    w->A = allocate(density_size(d) * sizeof(double));
    w->A_adjoint = allocate(density_size(d) * sizeof(double));
    w->species_density = allocate(density_size(d) * sizeof(double));
    w->n_allocations += 8;
    if (!w->terms || !w->adjoint || !w->features || !w->weight || !w->sum || !w->A || !w->A_adjoint ||
        !w->species_density) {
        worker_free(w);
        *w = (worker){0};
        return OUT_OF_MEMORY;
    }
    memset(w->A_adjoint, 0, density_size(d) * sizeof(double)); /* stays so where no feature reads A */
    memset(w->terms, 0, d->n_terms * sizeof(lanes));
    w->ready = 1;
    return 0;
}

/* Sorts the centres of the batch by species (stable) and cuts them into blocks. Returns their number, or an error. */
static int64_t arrange(evaluator *e, const descriptor *d, size_t n_structures, const structure *structures,
                       int n_threads)
{
    size_t n_atoms = 0, count[128] = {0}, next[128], n_blocks = 0;
    for (size_t s = 0; s < n_structures; s++) {
        n_atoms += structures[s].n_atoms;
        for (size_t i = 0; i < structures[s].n_atoms; i++)
            count[structures[s].species[i]]++;
    }
    for (int t = 0; t < d->n_species; t++)
        n_blocks += (count[t] + LANES - 1) / LANES;

    size_t capacity[2] = {e->atom_capacity, e->atom_capacity}, blocks[2] = {e->block_capacity, e->block_capacity};
    if (reserve((void **)&e->centre_structure, &capacity[0], n_atoms, sizeof(int32_t), &e->n_allocations) ||
        reserve((void **)&e->centre_atom, &capacity[1], n_atoms, sizeof(int32_t), &e->n_allocations) ||
        reserve((void **)&e->atomic_virials, &e->atom_capacity, n_atoms, 9 * sizeof(double), &e->n_allocations) ||
        reserve((void **)&e->block_first, &blocks[0], n_blocks, sizeof(int64_t), &e->n_allocations) ||
        reserve((void **)&e->block_species, &blocks[1], n_blocks, sizeof(int32_t), &e->n_allocations) ||
        reserve((void **)&e->block_count, &e->block_capacity, n_blocks, sizeof(int32_t), &e->n_allocations) ||
        reserve((void **)&e->first_atom, &e->structure_capacity, n_structures + 1, sizeof(int64_t),
                &e->n_allocations)) {
        e->atom_capacity = e->block_capacity = 0; /* some of the arrays are gone: take all of them anew */
        return OUT_OF_MEMORY;
    }
    if (n_threads > e->n_workers) {
        worker *workers = realloc(e->workers, n_threads * sizeof(worker));
        if (workers == NULL)
            return OUT_OF_MEMORY;
        memset(workers + e->n_workers, 0, (n_threads - e->n_workers) * sizeof(worker));
        e->workers = workers;
        e->n_workers = n_threads;
        e->n_allocations++;
    }

    size_t block = 0, centre = 0;
    for (int t = 0; t < d->n_species; t++) {
        next[t] = centre;
        for (size_t left = count[t]; left > 0; block++) {
            e->block_species[block] = t;
            e->block_first[block] = (int64_t)centre;
            e->block_count[block] = left < LANES ? (int32_t)left : LANES;
            centre += e->block_count[block];
            left -= e->block_count[block];
        }
    }
    e->first_atom[0] = 0;
    for (size_t s = 0; s < n_structures; s++) {
        e->first_atom[s + 1] = e->first_atom[s] + (int64_t)structures[s].n_atoms;
        for (size_t i = 0; i < structures[s].n_atoms; i++) {
            size_t place = next[structures[s].species[i]]++;
            e->centre_structure[place] = (int32_t)s;
            e->centre_atom[place] = (int32_t)i;
        }
    }
    return (int64_t)n_blocks;
}

/* Adds the features of a block to the sums of their structures; `sum` collects while the structure stays the same. */
typedef struct {
    int32_t structure, species;
} collected;

static void flush(const descriptor *d, worker *w, const collected *now)
{
    if (now->structure < 0)
        return;
    double *sums = w->sums + ((size_t)now->structure * d->n_species + now->species) * d->n_features;
    for (int f = 0; f < d->n_features; f++) {
        double total = 0;
        for (int v = 0; v < LANES; v++)
            total += w->sum[f][v];
        sums[f] += total;
    }
}

/* Energies of the lanes, and features added to `sum` where it is given, in one reading of the features. */
static void contract(int n_features, const lanes *features, const double *weight, const lanes *lane_weight, lanes *sum,
                     double *energy)
{
    lanes total = {0};
    if (lane_weight != NULL)
        for (int f = 0; f < n_features; f++)
            total += lane_weight[f] * features[f];
    else if (sum == NULL)
        for (int f = 0; f < n_features; f++)
            total += weight[f] * features[f];
    else
        for (int f = 0; f < n_features; f++) {
            total += weight[f] * features[f];
            sum[f] += features[f];
        }
    if (lane_weight != NULL && sum != NULL)
        for (int f = 0; f < n_features; f++)
            sum[f] += features[f];
    memcpy(energy, &total, sizeof total);
}

/* Where the features of a block are collected: in `sum`, as long as all its lanes belong to one structure and it
 * stays the same; else NULL, and they have been added to the sums of their structures. */
static lanes *collect(const descriptor *d, worker *w, const int32_t *centre_structure, int count, int species,
                      collected *now)
{
    int whole = count == LANES;
    for (int v = 1; v < count; v++)
        whole &= centre_structure[v] == centre_structure[0];
    if (!whole) {
        for (int v = 0; v < count; v++) {
            double *sums = w->sums + ((size_t)centre_structure[v] * d->n_species + species) * d->n_features;
            for (int f = 0; f < d->n_features; f++)
                sums[f] += w->features[f][v];
        }
        return NULL;
    }
    if (centre_structure[0] != now->structure || species != now->species) {
        flush(d, w, now);
        now->structure = centre_structure[0];
        now->species = species;
        memset(w->sum, 0, d->n_features * sizeof(lanes));
    }
    return w->sum;
}

/* Adds dE_i/dr_ij of one centre to the forces of its structure, and its part of the virial. */
static void scatter(const environment *env, const lanes *gradient, size_t i, double *forces, double *virial)
{
    double own[3] = {0, 0, 0}, sum[9] = {0};
    for (int b = 0; b < env->n_blocks; b++)
        for (int v = 0; v < env->count[b]; v++) {
            double *f = forces + 3 * env->index[b * LANES + v];
            const double r = 1 / env->inverse_r[b][v];
            for (int a = 0; a < 3; a++) {
                const double g = gradient[3 * b + a][v];
                f[a] -= g;
                own[a] += g;
                for (int c = 0; c < 3; c++)
                    sum[3 * c + a] -= env->unit[3 * b + c][v] * r * g;
            }
        }
    for (int a = 0; a < 3; a++)
        forces[3 * i + a] += own[a];
    memcpy(virial, sum, sizeof sum);
}

static int block_evaluate(const evaluator *e, const descriptor *d, worker *w, const structure *structures,
                          int64_t block, const evaluation *what, collected *now)
{
    const int species = e->block_species[block], count = e->block_count[block];
    const int32_t *of = e->centre_structure + e->block_first[block], *atom = e->centre_atom + e->block_first[block];
    const int reverse = what->forces != NULL || what->virials != NULL;
    for (int v = 0; v < count; v++) {
        if (environment_gather(d, &structures[of[v]], atom[v], &w->env[v]))
            return OUT_OF_MEMORY;
        density_expand(d, &w->env[v], w->species_density, w->A);
        correlations_load(d, w->A, v, w->terms);
    }
    const double *weight = what->weights == NULL ? NULL : what->weights + (size_t)species * d->n_features;
    if (what->adjoint != NULL) {
        for (int v = 0; v < count; v++) {
            const double *row = what->adjoint + (size_t)(e->first_atom[of[v]] + atom[v]) * d->n_features;
            for (int f = 0; f < d->n_features; f++)
                w->weight[f][v] = row[f];
        }
        correlations_reverse(d, w->terms, w->weight, w->features, w->adjoint);
    } else {
        correlations_evaluate(d, w->terms, weight, w->features, reverse ? w->adjoint : NULL);
    }
    double energy[LANES];
    lanes *sum = what->sums == NULL ? NULL : collect(d, w, of, count, species, now);
    contract(d->n_features, w->features, weight, weight == NULL ? w->weight : NULL, sum, energy);
    for (int v = 0; what->atomic_energies != NULL && v < count; v++)
        what->atomic_energies[e->first_atom[of[v]] + atom[v]] =
            energy[v] + (weight == NULL ? 0 : w->env[v].core_energy);
    if (what->features != NULL)
        for (int v = 0; v < count; v++) {
            double *row = what->features + (size_t)(e->first_atom[of[v]] + atom[v]) * d->n_features;
            for (int f = 0; f < d->n_features; f++)
                row[f] = w->features[f][v];
        }
    for (int v = 0; reverse && v < count; v++) {
        const environment *env = &w->env[v];
        const size_t i = e->first_atom[of[v]] + atom[v];
        if (reserve((void **)&w->gradient, &w->gradient_capacity, env->n_blocks, 3 * sizeof(lanes), &w->n_allocations))
            return OUT_OF_MEMORY;
        if (weight == NULL && env->n_blocks > 0) /* any adjoint of the features: the core is not one of them */
            memset(env->core_slope, 0, env->n_blocks * sizeof(lanes));
        correlations_store(d, w->adjoint, v, w->A_adjoint);
        density_reverse(d, env, w->A_adjoint, w->species_density, w->gradient);
        scatter(env, w->gradient, atom[v], w->forces + 3 * e->first_atom[of[v]], e->atomic_virials + 9 * i);
    }
    return 0;
}

static int worker_begin(const evaluator *e, const descriptor *d, worker *w, size_t n_structures, const evaluation *what)
{
    const size_t n_atoms = e->first_atom[n_structures], n_sums = n_structures * d->n_species * d->n_features;
    if (worker_prepare(w, d))
        return OUT_OF_MEMORY;
    if (what->forces != NULL || what->virials != NULL) {
        if (reserve((void **)&w->forces, &w->forces_capacity, n_atoms, 3 * sizeof(double), &w->n_allocations))
            return OUT_OF_MEMORY;
        if (n_atoms > 0)
            memset(w->forces, 0, n_atoms * 3 * sizeof(double));
    }
    if (what->sums != NULL) {
        if (reserve((void **)&w->sums, &w->sums_capacity, n_sums, sizeof(double), &w->n_allocations))
            return OUT_OF_MEMORY;
        if (n_sums > 0)
            memset(w->sums, 0, n_sums * sizeof(double));
    }
    return 0;
}

int evaluate(evaluator *e, const descriptor *d, size_t n_structures, const structure *structures, int n_threads,
             const evaluation *what)
{
    int64_t n_blocks = arrange(e, d, n_structures, structures, n_threads);
    if (n_blocks < 0)
        return OUT_OF_MEMORY;
    if (n_threads > n_blocks)
        n_threads = n_blocks > 0 ? (int)n_blocks : 1;
    const int64_t n_atoms = e->first_atom[n_structures], n_sums = (int64_t)n_structures * d->n_species * d->n_features;
    int failed = 0;

#pragma omp parallel num_threads(n_threads)
    {
        /* the work is cut for the threads asked for, also where fewer come (OMP_THREAD_LIMIT, OMP_DYNAMIC) */
        for (int t = omp_get_thread_num(); t < n_threads; t += omp_get_num_threads()) {
            worker *w = &e->workers[t];
            collected now = {-1, -1};
            int error = worker_begin(e, d, w, n_structures, what);
            for (int64_t b = n_blocks * t / n_threads; !error && b < n_blocks * (t + 1) / n_threads; b++)
                error = block_evaluate(e, d, w, structures, b, what, &now);
            if (!error && what->sums != NULL)
                flush(d, w, &now);
            if (error) {
#pragma omp atomic write
                failed = 1;
            }
        }
#pragma omp barrier
        if (!failed && what->forces != NULL) {
#pragma omp for schedule(static)
            for (int64_t i = 0; i < 3 * n_atoms; i++) {
                double force = 0;
                for (int u = 0; u < n_threads; u++)
                    force += e->workers[u].forces[i];
                what->forces[i] = force;
            }
        }
        if (!failed && what->sums != NULL) {
#pragma omp for schedule(static)
            for (int64_t i = 0; i < n_sums; i++) {
                double sum = 0;
                for (int u = 0; u < n_threads; u++)
                    sum += e->workers[u].sums[i];
                what->sums[i] = sum;
            }
        }
    }
    if (failed)
        return OUT_OF_MEMORY;
    for (size_t s = 0; what->virials != NULL && s < n_structures; s++) {
        double virial[9] = {0};
        for (int64_t i = e->first_atom[s]; i < e->first_atom[s + 1]; i++)
            for (int a = 0; a < 9; a++)
                virial[a] += e->atomic_virials[9 * i + a];
        memcpy(what->virials + 9 * s, virial, sizeof virial);
    }
    return 0;
}
