#include "members.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

enum {
    TILE = 2,                     /* registers of members side by side */
    TOGETHER = LANES < 8 ? 1 : 2, /* neighbours side by side */
    CHUNK = LANES < 8 ? 5 : 13,   /* terms whose adjoints stay in registers */
    N_TABLE = 4                   /* gradient of a harmonic, and itself */
};

struct member_worker {
    environment env[LANES];
    lanes *terms; /* of a block of centres */
    real *A;
    double *plain;                    /* [n_terms + 1]: the terms of one centre, and 1 */
    lanes *adjoint, *product, *slots; /* [][TILE] */
    lanes *table;                     /* [(l_max + 1)^2][N_TABLE] of a block of neighbours */
    double *forces, *virials;         /* [n_atoms][3][n_columns], [n_structures][9][n_columns] */
    size_t forces_capacity, virials_capacity, n_allocations;
    int ready;
};

static int reserve(void **array, size_t *capacity, size_t n, size_t size, size_t *n_allocations)
{
    if (n <= *capacity)
        return 0;
    free(*array);
    *array = aligned_alloc(64, (n * size + 63) / 64 * 64);
    *capacity = *array == NULL ? 0 : n;
    (*n_allocations)++;
    return *array == NULL ? OUT_OF_MEMORY : 0;
}

static void worker_free(member_worker *w)
{
    for (int v = 0; v < LANES; v++)
        environment_free(&w->env[v]);
    void *arrays[] = {w->terms, w->A, w->plain, w->adjoint, w->product, w->slots, w->table, w->forces, w->virials};
    for (size_t a = 0; a < sizeof arrays / sizeof *arrays; a++)
        free(arrays[a]);
    *w = (member_worker){0};
}

void member_evaluator_free(member_evaluator *e)
{
    for (int t = 0; t < e->n_workers; t++)
        worker_free(&e->workers[t]);
    free(e->workers);
    free(e->centre_structure);
    free(e->first_atom);
    *e = (member_evaluator){0};
}

static int worker_prepare(member_worker *w, const descriptor *d, const member_program *program)
{
    if (w->ready)
        return 0;
    const size_t n_lm = (size_t)(d->l_max + 1) * (d->l_max + 1);
    size_t none[7] = {0}, *n = &w->n_allocations;
    const int failed = reserve((void **)&w->terms, &none[0], program->n_terms + 1, sizeof(lanes), n) ||
                       reserve((void **)&w->A, &none[1], d->n_density + 1, sizeof(real), n) ||
                       reserve((void **)&w->plain, &none[2], program->n_terms + 1, sizeof(double), n) ||
                       reserve((void **)&w->adjoint, &none[3], d->n_components + 1, TILE * sizeof(lanes), n) ||
                       reserve((void **)&w->product, &none[4], 4 * L_MAX + 1, TILE * sizeof(lanes), n) ||
                       reserve((void **)&w->slots, &none[5], program->most_slots + 1, TILE * sizeof(lanes), n) ||
                       reserve((void **)&w->table, &none[6], n_lm, N_TABLE * sizeof(lanes), n);
    if (failed) {
        worker_free(w);
        return OUT_OF_MEMORY;
    }
    memset(w->terms, 0, (program->n_terms + 1) * sizeof(lanes));
    w->ready = 1;
    return 0;
}

/* sum over the scalar products of a block: weights of the members times the other factor, for n of its terms. */
INLINE void gather_chunk(const member_program *program, int block, const double *terms, const double *weights,
                         size_t n_columns, int m_first, const int n, const int width, lanes *out)
{
    lanes sum[CHUNK * TILE];
    for (int i = 0; i < n * width; i++)
        sum[i] = (lanes){0};
    for (int e = program->dot_start[block]; e < program->dot_start[block + 1]; e++) {
        const double *other = terms + program->dot_other[e] + m_first;
        const lanes *weight = (const lanes *)(weights + (size_t)program->dot_feature[e] * n_columns);
        for (int m = 0; m < n; m++)
            for (int i = 0; i < width; i++)
                sum[m * width + i] += weight[i] * other[m];
    }
    for (int i = 0; i < n * width; i++)
        out[i] = sum[i];
}

/* The adjoint of all terms of a block. */
INLINE void gather_block(const member_program *program, int block, const double *terms, const double *weights,
                         size_t n_columns, const int width, lanes *out)
{
    const int size = program->block_base[block + 1] - program->block_base[block];
    for (int m = 0; m < size; m += CHUNK) {
        const int left = size - m < CHUNK ? size - m : CHUNK;
#define CASE(n)                                                                                                        \
    case n:                                                                                                            \
        gather_chunk(program, block, terms, weights, n_columns, m, n <= CHUNK ? n : 1, width, out + m * width);        \
        break;
        switch (left) {
            CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) CASE(12) CASE(13)
        }
#undef CASE
    }
}

/* One side of a product: adjoint[m] += sum C other[m'] product[M], for all m of the channel. */
INLINE void product_side(const int32_t *row, const int32_t *start, const int32_t *factor, const int32_t *out,
                         const double *value, int table, const double *other, const lanes *product, const int width,
                         lanes *adjoint)
{
    for (int r = row[table], m = 0; r < row[table + 1]; r++, m++) {
        lanes sum[TILE];
        for (int i = 0; i < width; i++)
            sum[i] = adjoint[m * width + i];
        for (int e = start[r]; e < start[r + 1]; e++) {
            const double slope = value[e] * other[factor[e]];
            for (int i = 0; i < width; i++)
                sum[i] += slope * product[out[e] * width + i];
        }
        for (int i = 0; i < width; i++)
            adjoint[m * width + i] = sum[i];
    }
}

/* The adjoint of a product, carried on to its two channels. */
INLINE void product_reverse(const member_program *p, int product, const double *terms, const lanes *slope,
                            const int width, lanes *adjoint)
{
    const int table = p->product_coupling[product];
    const int first = p->product_first[product], second = p->product_second[product];
    product_side(p->first_row, p->first_start, p->first_factor, p->first_out, p->first_value, table, terms + second,
                 slope, width, adjoint + first * width);
    product_side(p->second_row, p->second_start, p->second_factor, p->second_out, p->second_value, table, terms + first,
                 slope, width, adjoint + second * width);
}

/* The products of a block of centres, behind their components. */
static void multiply(const member_program *p, lanes *terms)
{
    for (int product = 0; product < p->n_products; product++) {
        const int table = p->product_coupling[product], block = p->n_channels + product;
        const lanes *first = terms + p->product_first[product], *second = terms + p->product_second[product];
        lanes *out = terms + p->block_base[block];
        memset(out, 0, (p->block_base[block + 1] - p->block_base[block]) * sizeof(lanes));
        for (int r = p->first_row[table]; r < p->first_row[table + 1]; r++, first++)
            for (int e = p->first_start[r]; e < p->first_start[r + 1]; e++)
                out[p->first_out[e]] += p->first_value[e] * *first * second[p->first_factor[e]];
    }
}

/* What neighbours of one species see: adjoints of the channels, contracted over pseudo-species. */
INLINE void fill_slots(const member_program *program, int begin, int end, const lanes *adjoint, const int width,
                       lanes *slots)
{
    for (int s = begin; s < end; s++)
        for (int i = 0; i < width; i++) {
            lanes sum = {0};
            for (int e = program->source_start[s]; e < program->source_start[s + 1]; e++)
                sum += program->source_factor[e] * adjoint[program->source_component[e] * width + i];
            slots[(s - begin) * width + i] = sum;
        }
}

/* Gradients and values of the harmonics of a block of neighbours: dY/dx, dY/dy, dY/dz, Y of every lm. */
static void harmonic_table(const descriptor *d, const environment *env, int b, lanes *table)
{
    const lanes zero = {0}, one = zero + 1.0;
    density_block_tangent block;
    for (int a = 0; a < 3; a++) {
        block_tangent(d, env, b, a == 0 ? one : zero, a == 1 ? one : zero, a == 2 ? one : zero, &block);
        for (int lm = 0; lm < (d->l_max + 1) * (d->l_max + 1); lm++) {
            table[lm * N_TABLE + a] = block.angular[lm];
            table[lm * N_TABLE + 3] = block.harmonics[lm];
        }
    }
}

/* dE/dr_ij (x, y, z) of `together` neighbours from lane v on, for the members in the lanes. */
INLINE void neighbour_gradient(const descriptor *d, const environment *env, int b, int v, const int32_t *slot_start,
                               const int32_t *function, const lanes *slots, const lanes *table, const int together,
                               const int width, lanes *gradient)
{
    const double *radial = (const double *)(env->radial + (size_t)b * d->n_functions) + v;
    const double *slope = (const double *)(env->slope + (size_t)b * d->n_functions) + v;
    lanes sum[TOGETHER * N_TABLE * TILE];
    for (int i = 0; i < together * N_TABLE * width; i++)
        sum[i] = (lanes){0};
    for (int lm = 0; lm < (d->l_max + 1) * (d->l_max + 1); lm++) {
        lanes value[TOGETHER * TILE], derivative[TOGETHER * TILE];
        for (int i = 0; i < together * width; i++)
            value[i] = derivative[i] = (lanes){0};
        for (int s = slot_start[lm]; s < slot_start[lm + 1]; s++) {
            const lanes *slot = slots + (s - slot_start[0]) * width;
            const size_t f = (size_t)function[s] * LANES;
            for (int j = 0; j < together; j++)
                for (int i = 0; i < width; i++) {
                    value[j * width + i] += radial[f + j] * slot[i];
                    derivative[j * width + i] += slope[f + j] * slot[i];
                }
        }
        const double *harmonic = (const double *)(table + lm * N_TABLE) + v;
        for (int j = 0; j < together; j++)
            for (int i = 0; i < width; i++) {
                lanes *g = sum + (j * N_TABLE) * width + i;
                for (int a = 0; a < 3; a++)
                    g[a * width] += harmonic[a * LANES + j] * value[j * width + i];
                g[3 * width] += harmonic[3 * LANES + j] * derivative[j * width + i];
            }
    }
    for (int j = 0; j < together; j++)
        for (int a = 0; a < 3; a++)
            for (int i = 0; i < width; i++)
                gradient[(j * 3 + a) * width + i] =
                    sum[(j * N_TABLE + a) * width + i] +
                    env->unit[3 * b + a][v + j] * (sum[(j * N_TABLE + 3) * width + i] + env->core_slope[b][v + j]);
}

/* Where the forces and virial of one centre go; the members of the tile begin at `column`. */
typedef struct {
    double *forces, *virial; /* of the atoms of the structure [][3][n_columns]; [9][n_columns] */
    size_t n_columns, column;
} destination;

INLINE void add(double *where, const lanes *what, const int width)
{
    lanes now[TILE];
    memcpy(now, where, width * sizeof(lanes));
    for (int i = 0; i < width; i++)
        now[i] += what[i];
    memcpy(where, now, width * sizeof(lanes));
}

INLINE void centre_forces(const descriptor *d, const member_program *program, member_worker *w, const environment *env,
                          int i_atom, const destination *to, const int width)
{
    const int n_lm = (d->l_max + 1) * (d->l_max + 1);
    lanes own[3 * TILE], virial[9 * TILE];
    for (int i = 0; i < 3 * width; i++)
        own[i] = (lanes){0};
    for (int i = 0; i < 9 * width; i++)
        virial[i] = (lanes){0};
    int last_species = -1, together;
    const int32_t *slot_start = NULL;
    for (int b = 0; b < env->n_blocks; b++) {
        const int count = real_neighbours(env, b);
        const int32_t *species = env->species + b * LANES;
        harmonic_table(d, env, b, w->table);
        for (int v = 0; v < count; v += together) {
            if (species[v] != last_species) {
                last_species = species[v];
                slot_start = program->slot_start + (size_t)last_species * (n_lm + 1);
                fill_slots(program, slot_start[0], slot_start[n_lm], w->adjoint, width, w->slots);
            }
            lanes gradient[TOGETHER * 3 * TILE];
            together = v + TOGETHER <= count && species[v + TOGETHER - 1] == last_species ? TOGETHER : 1;
            if (together == TOGETHER)
                neighbour_gradient(d, env, b, v, slot_start, program->slot_function, w->slots, w->table, TOGETHER,
                                   width, gradient);
            else
                neighbour_gradient(d, env, b, v, slot_start, program->slot_function, w->slots, w->table, 1, width,
                                   gradient);
            for (int j = 0; j < together; j++) {
                double *force = to->forces + 3 * (size_t)env->index[b * LANES + v + j] * to->n_columns + to->column;
                const double r = env->distance[b][v + j];
                for (int a = 0; a < 3; a++) {
                    lanes *g = gradient + (j * 3 + a) * width;
                    for (int i = 0; i < width; i++)
                        own[a * width + i] += g[i];
                    for (int c = 0; c < 3; c++)
                        for (int i = 0; i < width; i++)
                            virial[(3 * c + a) * width + i] -= env->unit[3 * b + c][v + j] * r * g[i];
                    for (int i = 0; i < width; i++)
                        g[i] = -g[i];
                    add(force + a * to->n_columns, g, width);
                }
            }
        }
    }
    for (int a = 0; a < 3; a++)
        add(to->forces + (3 * (size_t)i_atom + a) * to->n_columns + to->column, own + a * width, width);
    for (int a = 0; a < 9; a++)
        add(to->virial + a * to->n_columns + to->column, virial + a * width, width);
}

/* One centre, `width` registers of members. */
INLINE void centre_members(const descriptor *d, const member_program *program, member_worker *w, const environment *env,
                           int i_atom, const double *weights, const destination *to, const int width)
{
    for (int block = 0; block < program->n_channels; block++)
        gather_block(program, block, w->plain, weights, to->n_columns, width,
                     w->adjoint + program->block_base[block] * width);
    for (int p = 0; p < program->n_products; p++) {
        gather_block(program, program->n_channels + p, w->plain, weights, to->n_columns, width, w->product);
        product_reverse(program, p, w->plain, w->product, width, w->adjoint);
    }
    centre_forces(d, program, w, env, i_atom, to, width);
}

static int centres(const member_evaluator *e, const descriptor *d, const member_program *program, member_worker *w,
                   const structure *structures, int64_t first, int count, size_t n_columns, const double *weights)
{
    const int32_t *of = e->centre_structure + first;
    for (int v = 0; v < count; v++) {
        const int64_t i = first + v - e->first_atom[of[v]];
        if (environment_gather(d, &structures[of[v]], i, &w->env[v]))
            return OUT_OF_MEMORY;
        density_expand(d, &w->env[v], w->A);
        for (int c = 0; c < d->n_components; c++)
            w->terms[c][v] = w->A[d->component_source[c]];
    }
    multiply(program, w->terms);
    for (int v = 0; v < count; v++) {
        const int i = (int)(first + v - e->first_atom[of[v]]);
        const int species = structures[of[v]].species[i];
        for (int c = 0; c < program->n_terms; c++)
            w->plain[c] = w->terms[c][v];
        w->plain[program->n_terms] = 1;
        destination to = {w->forces + 3 * (size_t)e->first_atom[of[v]] * n_columns,
                          w->virials + 9 * (size_t)of[v] * n_columns, n_columns, 0};
        const double *own = weights + (size_t)species * d->n_features * n_columns;
        while (to.column + TILE * LANES <= n_columns) {
            centre_members(d, program, w, &w->env[v], i, own + to.column, &to, TILE);
            to.column += TILE * LANES;
        }
        for (; to.column < n_columns; to.column += LANES)
            centre_members(d, program, w, &w->env[v], i, own + to.column, &to, 1);
    }
    return 0;
}

static int prepare(member_evaluator *e, size_t n_structures, const structure *structures, int n_threads)
{
    size_t n_atoms = 0;
    for (size_t s = 0; s < n_structures; s++)
        n_atoms += structures[s].n_atoms;
    if (reserve((void **)&e->centre_structure, &e->centre_capacity, n_atoms, sizeof(int32_t), &e->n_allocations) ||
        reserve((void **)&e->first_atom, &e->structure_capacity, n_structures + 1, sizeof(int64_t), &e->n_allocations))
        return OUT_OF_MEMORY;
    if (n_threads > e->n_workers) {
        member_worker *workers = realloc(e->workers, n_threads * sizeof(member_worker));
        if (workers == NULL)
            return OUT_OF_MEMORY;
        memset(workers + e->n_workers, 0, (n_threads - e->n_workers) * sizeof(member_worker));
        e->workers = workers;
        e->n_workers = n_threads;
        e->n_allocations++;
    }
    e->first_atom[0] = 0;
    for (size_t s = 0, place = 0; s < n_structures; s++) {
        e->first_atom[s + 1] = e->first_atom[s] + (int64_t)structures[s].n_atoms;
        for (size_t i = 0; i < structures[s].n_atoms; i++)
            e->centre_structure[place++] = (int32_t)s;
    }
    return 0;
}

/* out[i] = the sum over threads, in their order, of the arrays at this offset in their workers. */
#define ADD_UP(name, n)                                                                                                \
    _Pragma("omp for schedule(static)") for (int64_t i = 0; i < (int64_t)(n); i++)                                     \
    {                                                                                                                  \
        double sum = 0;                                                                                                \
        for (int u = 0; u < n_threads; u++)                                                                            \
            sum += e->workers[u].name[i];                                                                              \
        name[i] = sum;                                                                                                 \
    }

int evaluate_members(member_evaluator *e, const descriptor *d, const member_program *program, size_t n_structures,
                     const structure *structures, int n_threads, size_t n_columns, const double *weights,
                     double *forces, double *virials)
{
    if (prepare(e, n_structures, structures, n_threads))
        return OUT_OF_MEMORY;
    const int64_t n_atoms = e->first_atom[n_structures], n_blocks = (n_atoms + LANES - 1) / LANES;
    const size_t n_forces = 3 * (size_t)n_atoms * n_columns, n_virials = 9 * n_structures * n_columns;
    int failed = 0;
    if (n_threads > n_blocks)
        n_threads = n_blocks > 0 ? (int)n_blocks : 1;
#pragma omp parallel num_threads(n_threads)
    {
        /* the work is cut for the threads asked for, also where fewer come (OMP_THREAD_LIMIT, OMP_DYNAMIC) */
        for (int t = omp_get_thread_num(); t < n_threads; t += omp_get_num_threads()) {
            member_worker *w = &e->workers[t];
            int error =
                worker_prepare(w, d, program) ||
                reserve((void **)&w->forces, &w->forces_capacity, n_forces, sizeof(double), &w->n_allocations) ||
                reserve((void **)&w->virials, &w->virials_capacity, n_virials, sizeof(double), &w->n_allocations);
            if (!error) {
                memset(w->forces, 0, n_forces * sizeof(double));
                memset(w->virials, 0, n_virials * sizeof(double));
            }
            for (int64_t b = n_blocks * t / n_threads; !error && b < n_blocks * (t + 1) / n_threads; b++) {
                const int64_t left = n_atoms - b * LANES;
                error = centres(e, d, program, w, structures, b * LANES, left < LANES ? (int)left : LANES, n_columns,
                                weights);
            }
            if (error) {
#pragma omp atomic write
                failed = 1;
            }
        }
#pragma omp barrier
        if (!failed) {
            ADD_UP(forces, n_forces)
            ADD_UP(virials, n_virials)
        }
    }
    return failed ? OUT_OF_MEMORY : 0;
}
