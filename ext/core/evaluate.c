#include "evaluate.h"
#include "linear.h"
#include "worker.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

void evaluator_free(evaluator *e)
{
    for (int t = 0; t < e->n_workers; t++)
        worker_free(&e->workers[t]);
    free(e->workers);
    free(e->coefficients);
    for (int t = 0; t < e->n_kept; t++)
        kept_free(&e->kept[t]);
    free(e->kept);
    free(e->kept_where);
#ifndef COMITIA_SINGLE /* which combinations are not made in */
    combination_workers_free(e);
#endif
    blocks_free(&e->blocks);
    parts_free(&e->parts);
    *e = (evaluator){0};
}

/* All of them, as nobody knows who will get which part. */
static int reserve_workers(evaluator *e, const descriptor *d, int n_threads)
{
    if (n_threads > e->n_workers) {
        worker *workers = realloc(e->workers, n_threads * sizeof(worker));
        if (workers == NULL)
            return OUT_OF_MEMORY;
        memset(workers + e->n_workers, 0, (n_threads - e->n_workers) * sizeof(worker));
        e->workers = workers;
        e->n_workers = n_threads;
        e->n_allocations++;
    }
    for (int t = 0; t < n_threads; t++)
        if (worker_prepare(&e->workers[t], d, e->blocks.most_neighbours, &e->n_allocations))
            return OUT_OF_MEMORY;
    return 0;
}

/* Memory for what is kept of all blocks. */
static int reserve_kept(evaluator *e, size_t n_blocks, int n_threads)
{
    if (n_threads > e->n_kept) {
        kept_memory *kept = realloc(e->kept, n_threads * sizeof(kept_memory));
        if (kept == NULL)
            return OUT_OF_MEMORY;
        memset(kept + e->n_kept, 0, (n_threads - e->n_kept) * sizeof(kept_memory));
        e->kept = kept;
        e->n_kept = n_threads;
        e->n_allocations++;
    }
    for (int t = 0; t < n_threads; t++)
        e->kept[t].used = 0;
    return reserve((void **)&e->kept_where, &e->kept_capacity, n_blocks, sizeof(int64_t), &e->n_allocations);
}

/* What is collected while structure and species of the centres stay the same; in single precision, from few of them. */
typedef struct {
    int32_t structure, species, n_times;
} collected;

enum { MOST_TIMES = sizeof(real) < sizeof(double) ? 32 : INT32_MAX };

static void flush(const evaluator *e, const descriptor *d, worker *w, const collected *now)
{
    if (now->structure < 0)
        return;
    double *sums = part_sums(w->part, &e->blocks, d->n_features, now->structure, now->species);
    if (d->n_dense) {
        quadratic_features(d, w->products, sums);
        return;
    }
    for (int place = 0; place < d->n_features; place++) {
        double total = 0;
        for (int v = 0; v < LANES; v++)
            total += w->sum[place][v];
        sums[d->feature[place]] += d->scale[place] * total;
    }
}

static void collect(const evaluator *e, const descriptor *d, worker *w, int32_t structure, int species, collected *now)
{
    if (structure == now->structure && species == now->species && ++now->n_times < MOST_TIMES)
        return;
    flush(e, d, w, now);
    *now = (collected){structure, species, 0};
    if (d->n_dense)
        memset(w->products, 0, quadratic_size(d) * sizeof(real));
    else
        memset(w->sum, 0, d->n_features * sizeof(lanes));
}

static int with_gradient(const evaluation *what)
{
    return what->forces != NULL || what->virials != NULL || what->atomic_virials != NULL;
}

/* Whether the features of each centre are asked for, or what is made of them. */
static int of_centres(const evaluation *what)
{
    return what->features != NULL || what->atomic_members != NULL;
}

/* Where the features of atom i go: zero. */
static double *begin_row(const descriptor *d, worker *w, const evaluation *what, size_t i)
{
    double *row = what->features == NULL ? w->row : what->features + i * d->n_features;
    memset(row, 0, d->n_features * sizeof(double));
    return row;
}

static void end_row(const descriptor *d, const evaluation *what, size_t i, int species, const double *row)
{
#ifndef COMITIA_SINGLE /* which members are not made in */
    const size_t n_members = what->n_members, n_features = d->n_features;
    const double mean = 0;
    if (what->atomic_members != NULL)
        linear_members(1, n_members, n_features, row, what->deviations + species * n_members * n_features, &mean,
                       what->atomic_members + i * n_members);
#else
    (void)d, (void)what, (void)i, (void)species, (void)row;
#endif
}

/* Energies of the lanes. */
static lanes weigh(int n_features, const lanes *features, const real *weight, const lanes *lane_weight)
{
    lanes energy = {0};
    for (int place = 0; place < n_features; place++)
        energy += (lane_weight == NULL ? (lanes){0} + weight[place] : lane_weight[place]) * features[place];
    return energy;
}

/* Adds the features of one lane of a block. */
static void add_lane(const descriptor *d, const lanes *features, int lane, double *sums)
{
    const real *value = (const real *)features + lane;
    for (int place = 0; place < d->n_features; place++)
        sums[d->feature[place]] += d->scale[place] * value[(size_t)place * LANES];
}

/* Forces and virial of one centre from the adjoint of its density. */
static void reverse(const evaluator *e, const descriptor *d, worker *w, const environment *env, int32_t structure,
                    int32_t atom, int with_core, int with_atomic_virials, const real *A_adjoint)
{
    density_reverse(d, env, with_core, A_adjoint, w->gradient);
    const int64_t first = e->blocks.first_atom[structure];
    environment_scatter(env, w->gradient, atom, w->part->forces + 3 * first, w->part->virials + 9 * (size_t)structure,
                        with_atomic_virials ? w->part->atomic_virials + 9 * first : NULL);
}

/* Where n registers of densities of a block are kept, and its environments behind them; NULL where they are not. */
static lanes *keep_block(const evaluator *e, const descriptor *d, worker *w, const structure *structures, int64_t block,
                         size_t n, const evaluation *what)
{
    if (!what->keep)
        return NULL;
    lanes *room = kept_block(w->kept, d, &e->blocks, structures, block, n, what->keep);
    e->kept_where[block] = room == NULL ? NOT_KEPT : room - w->kept->memory;
    return room;
}

/* Asks for a part of where the next block will be kept, for each centre v of this one, which takes about as much as the
 * one before. */
static void fetch_next(const evaluator *e, const worker *w, int64_t block, int v)
{
    const int64_t *where = e->kept_where;
    if (w->kept == NULL || block == w->part->begin || where[block] == NOT_KEPT || where[block - 1] == NOT_KEPT)
        return;
    const size_t size = where[block] - where[block - 1];
    kept_fetch(w->kept, where[block] + size, size, v, e->blocks.count[block]);
}

/* A block of centres of a model of orders 0 to 2, one after the other. */
static int block_quadratic(const evaluator *e, const descriptor *d, worker *w, const structure *structures,
                           int64_t block, const evaluation *what, collected *now)
{
    const int species = e->blocks.species[block];
    const int gradient = with_gradient(what);
    const size_t n_kept = d->n_density / LANES * e->blocks.count[block];
    lanes *kept = keep_block(e, d, w, structures, block, n_kept, what), *room = kept == NULL ? NULL : kept + n_kept;
    environment *env = &w->env[0];
    real *A = w->A;
    for (int64_t c = e->blocks.first[block]; c < e->blocks.first[block] + e->blocks.count[block]; c++) {
        const int32_t structure = e->blocks.centre_structure[c], atom = e->blocks.centre_atom[c];
        const size_t i = e->blocks.first_atom[structure] + atom;
        fetch_next(e, w, block, (int)(c - e->blocks.first[block]));
        if (environment_gather(d, &structures[structure], atom, room, env))
            return OUT_OF_MEMORY;
        if (kept != NULL) {
            A = (real *)kept + (c - e->blocks.first[block]) * d->n_density;
            room += environment_size(d, env->n);
        }
        density_expand(d, env, A);
        const real *coefficients = (const real *)e->coefficients + (size_t)species * quadratic_size(d);
        if (what->adjoint != NULL) {
            quadratic_weights(d, what->adjoint + i * d->n_features, w->coefficients);
            coefficients = w->coefficients;
        }
        double energy = 0;
        if (what->weights != NULL || what->adjoint != NULL)
            energy = quadratic_energy(d, coefficients, A, gradient ? w->A_adjoint : NULL);
        if (what->atomic_energies != NULL)
            what->atomic_energies[i] = energy + (what->weights == NULL ? 0 : env->core_energy);
        if (what->sums != NULL) {
            collect(e, d, w, structure, species, now);
            quadratic_products(d, A, w->products);
        }
        if (of_centres(what)) {
            double *row = begin_row(d, w, what, i);
            memset(w->own_products, 0, quadratic_size(d) * sizeof(real));
            quadratic_products(d, A, w->own_products);
            quadratic_features(d, w->own_products, row);
            end_row(d, what, i, species, row);
        }
        if (gradient)
            reverse(e, d, w, env, structure, atom, what->weights != NULL, what->atomic_virials != NULL, w->A_adjoint);
    }
    if (kept != NULL)
        w->kept->used = room - w->kept->memory;
    return 0;
}

/* A block of centres of any model, side by side in lanes. */
static int block_correlations(const evaluator *e, const descriptor *d, worker *w, const structure *structures,
                              int64_t block, const evaluation *what, collected *now)
{
    const int species = e->blocks.species[block], count = e->blocks.count[block];
    const int32_t *of = e->blocks.centre_structure + e->blocks.first[block],
                  *atom = e->blocks.centre_atom + e->blocks.first[block];
    const int gradient = with_gradient(what);
    const real *weight = what->weights == NULL ? NULL : (real *)e->coefficients + (size_t)species * d->n_features;
    const int weigh_features = !gradient && what->atomic_energies != NULL;
    const int read_again = gradient || weigh_features; /* else one environment serves all centres */
    lanes *kept = keep_block(e, d, w, structures, block, d->n_terms, what);
    lanes *room = kept == NULL ? NULL : kept + d->n_terms, *terms = kept == NULL ? w->terms : kept;
    lanes energy, *features = NULL;
    int one_structure = 1;
    for (int v = 0; v < count; v++) {
        environment *env = &w->env[read_again ? v : 0];
        fetch_next(e, w, block, v);
        if (environment_gather(d, &structures[of[v]], atom[v], room, env))
            return OUT_OF_MEMORY;
        if (room != NULL)
            room += environment_size(d, env->n);
        density_expand(d, env, w->A + v * density_stride(d, 1));
        one_structure &= of[v] == of[0];
    }
    correlations_load(d, count, w->A, terms);
    if (kept != NULL)
        w->kept->used = room - w->kept->memory;
    if (weigh_features || what->adjoint != NULL || of_centres(what) || (what->sums != NULL && !one_structure)) {
        features = w->features;
        memset(features, 0, d->n_features * sizeof(lanes));
    } else if (what->sums != NULL) { /* added up over the blocks of one structure before the lanes are */
        features = w->sum;
        collect(e, d, w, of[0], species, now);
        for (int place = 0; place < d->n_order0; place++)
            for (int v = count; v < LANES; v++)
                features[place][v] -= 1;
    }
    if (what->adjoint != NULL) {
        for (int v = 0; v < count; v++) {
            const double *row = what->adjoint + (size_t)(e->blocks.first_atom[of[v]] + atom[v]) * d->n_features;
            for (int place = 0; place < d->n_features; place++)
                w->weight[place][v] = (real)(d->scale[place] * row[d->feature[place]]);
        }
        correlations_reverse(d, terms, w->weight, features, w->adjoint, &energy);
    } else {
        correlations_evaluate(d, terms, weight, features, gradient ? w->adjoint : NULL, &energy);
    }
    if (weigh_features)
        energy = weigh(d->n_features, features, weight, weight == NULL ? w->weight : NULL);
    for (int v = 0; what->sums != NULL && features == w->features && v < count; v++)
        add_lane(d, features, v, part_sums(w->part, &e->blocks, d->n_features, of[v], species));
    for (int v = 0; what->atomic_energies != NULL && v < count; v++)
        what->atomic_energies[e->blocks.first_atom[of[v]] + atom[v]] =
            energy[v] + (weight == NULL ? 0 : w->env[v].core_energy);
    for (int v = 0; of_centres(what) && v < count; v++) {
        const size_t i = e->blocks.first_atom[of[v]] + atom[v];
        double *row = begin_row(d, w, what, i);
        add_lane(d, features, v, row);
        end_row(d, what, i, species, row);
    }
    if (gradient)
        correlations_store(d, 1, w->adjoint, count, w->A_adjoint);
    for (int v = 0; gradient && v < count; v++)
        reverse(e, d, w, &w->env[v], of[v], atom[v], weight != NULL, what->atomic_virials != NULL,
                w->A_adjoint + v * density_stride(d, 1));
    return 0;
}

/* A part of the work by one thread. */
static int evaluate_part(const evaluator *e, const descriptor *d, worker *w, const structure *structures, int p,
                         const evaluation *what)
{
    collected now = {-1, -1, 0};
    w->part = &e->parts.part[p];
    w->kept = what->keep ? &e->kept[p] : NULL;
    if (part_begin(w->part, &e->blocks, structures, d->n_features, with_gradient(what), what->atomic_virials != NULL,
                   what->sums != NULL))
        return OUT_OF_MEMORY;
    for (int64_t b = w->part->begin; b < w->part->end; b++)
        if (d->n_dense ? block_quadratic(e, d, w, structures, b, what, &now)
                       : block_correlations(e, d, w, structures, b, what, &now))
            return OUT_OF_MEMORY;
    if (what->sums != NULL)
        flush(e, d, w, &now);
    return 0;
}

/* The weights in the order in which the kernel reads them. */
static int prepare_coefficients(evaluator *e, const descriptor *d, const double *weights)
{
    const size_t size = d->n_dense ? quadratic_size(d) : (size_t)d->n_features;
    if (reserve(&e->coefficients, &e->coefficients_capacity, d->n_species * size, sizeof(real), &e->n_allocations))
        return OUT_OF_MEMORY;
    for (int t = 0; t < d->n_species; t++) {
        real *ordered = (real *)e->coefficients + t * size;
        (d->n_dense ? quadratic_weights : correlations_weights)(d, weights + (size_t)t * d->n_features, ordered);
    }
    return 0;
}

int evaluate(evaluator *e, const descriptor *d, size_t n_structures, const structure *structures, int n_threads,
             const evaluation *what)
{
    const int64_t n_blocks = blocks_arrange(&e->blocks, d->n_species, n_structures, structures, &e->n_allocations);
    if (n_blocks < 0)
        return OUT_OF_MEMORY;
    if (n_threads > n_blocks)
        n_threads = n_blocks > 0 ? (int)n_blocks : 1;
    if (reserve_workers(e, d, n_threads))
        return OUT_OF_MEMORY;
    if (what->weights != NULL && prepare_coefficients(e, d, what->weights))
        return OUT_OF_MEMORY;
    if (what->keep && reserve_kept(e, n_blocks, n_threads))
        return OUT_OF_MEMORY;
    if (parts_cut(&e->parts, n_blocks, n_threads, what->keep != 0, &e->n_allocations))
        return OUT_OF_MEMORY;
    int failed = 0;

#pragma omp parallel num_threads(n_threads)
    {
#pragma omp for schedule(dynamic, 1)
        for (int p = 0; p < e->parts.n; p++)
            if (evaluate_part(e, d, &e->workers[omp_get_thread_num()], structures, p, what)) {
#pragma omp atomic write
                failed = 1;
            }
        if (!failed)
            parts_add_up(&e->parts, &e->blocks, d->n_species, d->n_features, what->forces, what->virials,
                         what->atomic_virials, what->sums);
    }
    for (int p = 0; p < e->parts.n; p++) {
        e->n_allocations += e->parts.part[p].n_allocations + (what->keep ? e->kept[p].n_allocations : 0);
        e->parts.part[p].n_allocations = 0;
        if (what->keep)
            e->kept[p].n_allocations = 0;
    }
    return failed ? OUT_OF_MEMORY : 0;
}
