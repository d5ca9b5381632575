#include "members.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "correlations.h"

enum {
    TILE = 2,                     /* registers of members side by side */
    TOGETHER = LANES < 8 ? 1 : 2, /* neighbours side by side */
    CHUNK = LANES < 8 ? 5 : 13,   /* terms whose adjoints stay in registers */
    SIDE_BY_SIDE = 2,             /* harmonics */
    N_TABLE = 3                   /* gradient of a harmonic along theta and phi, and itself */
};

#define UNROLLED(i, n) _Pragma("GCC unroll 32") for (int i = 0; i < (n); i++)

struct member_worker {
    environment env[LANES];
    lanes *terms;             /* [n_terms + 1] of a block of centres */
    lanes *features, *walked; /* [n_features] in the order of the walk; [n_terms of the descriptor] */
    real *A;
    lanes *adjoint;           /* [LANES][n_components][TILE] of each centre */
    lanes *slots;             /* [most_slots][TILE] */
    lanes *table;             /* [(l_max + 1)^2][N_TABLE] of a block of neighbours */
    double *forces, *virials; /* [n_atoms][3][n_columns], [n_structures][9][n_columns] */
    size_t forces_capacity, virials_capacity, n_allocations;
    int ready;
};

static void worker_free(member_worker *w)
{
    for (int v = 0; v < LANES; v++)
        environment_free(&w->env[v]);
    void *arrays[] = {w->terms, w->features, w->walked, w->A, w->adjoint, w->slots, w->table, w->forces, w->virials};
    for (size_t a = 0; a < sizeof arrays / sizeof *arrays; a++)
        free(arrays[a]);
    *w = (member_worker){0};
}

void member_evaluator_free(member_evaluator *e)
{
    for (int t = 0; t < e->n_workers; t++)
        worker_free(&e->workers[t]);
    free(e->workers);
    free(e->coefficients);
    blocks_free(&e->blocks);
    parts_free(&e->parts);
    *e = (member_evaluator){0};
}

static int worker_prepare(member_worker *w, const descriptor *d, const member_program *program)
{
    if (w->ready)
        return 0;
    const size_t n_lm = (size_t)(d->l_max + 1) * (d->l_max + 1);
    size_t none[7] = {0}, *n = &w->n_allocations;
    if (reserve((void **)&w->terms, &none[0], program->n_terms + 1, sizeof(lanes), n) ||
        reserve((void **)&w->A, &none[1], LANES * density_stride(d, 1), sizeof(real), n) ||
        reserve((void **)&w->adjoint, &none[2], d->n_components + 1, LANES * TILE * sizeof(lanes), n) ||
        reserve((void **)&w->slots, &none[3], program->most_slots + 1, TILE * sizeof(lanes), n) ||
        reserve((void **)&w->table, &none[4], n_lm, N_TABLE * sizeof(lanes), n) ||
        reserve((void **)&w->features, &none[5], d->n_features, sizeof(lanes), n) ||
        reserve((void **)&w->walked, &none[6], d->n_terms, sizeof(lanes), n)) {
        worker_free(w);
        return OUT_OF_MEMORY;
    }
    memset(w->terms, 0, (program->n_terms + 1) * sizeof(lanes));
    memset(w->walked, 0, d->n_terms * sizeof(lanes));
    w->terms[program->n_terms] = (lanes){0} + 1.0;
    w->ready = 1;
    return 0;
}

/* --- adjoints of the channels ------------------------------------------------------------------------------------ */

/* For n terms of a channel from m_first on, and `together` centres from lane v on: weights of the members times other
 * terms, summed. */
INLINE void gather_chunk(const member_program *program, int channel, const lanes *terms, int v, const double *weights,
                         size_t n_columns, int m_first, const int n, const int together, const int width, lanes *out,
                         size_t stride)
{
    lanes sum[CHUNK * TILE];
    UNROLLED (i, together * n * width)
        sum[i] = (lanes){0};
    for (size_t e = program->dot_start[channel]; e < (size_t)program->dot_start[channel + 1]; e++) {
        const double *other = (const double *)(terms + program->dot_other[e] + m_first) + v;
        const lanes *weight = (const lanes *)(weights + e * n_columns);
        UNROLLED (j, together)
            UNROLLED (m, n)
                UNROLLED (i, width)
                    sum[(j * n + m) * width + i] += weight[i] * other[m * LANES + j];
    }
    UNROLLED (j, together)
        UNROLLED (i, n * width)
            out[j * stride + i] = sum[j * n * width + i];
}

/* Terms [m_first, m_first + n) for all centres of a block: several of them at a time where there are few terms. */
INLINE void gather_terms(const member_program *program, int channel, const lanes *terms, const double *weights,
                         size_t n_columns, int m_first, const int n, const int width, lanes *out, size_t stride)
{
    const int fitting = CHUNK / n >= 4 ? 4 : CHUNK / n >= 2 ? 2 : 1, together = fitting < LANES ? fitting : LANES;
    for (int v = 0; v < LANES; v += together)
        gather_chunk(program, channel, terms, v, weights, n_columns, m_first, n, together, width, out + v * stride,
                     stride);
}

/* The adjoints of a channel, of all centres of a block. */
INLINE void gather_channel(const member_program *program, int channel, const lanes *terms, const double *weights,
                           size_t n_columns, const int width, lanes *out, size_t stride)
{
    const int size = program->channel_base[channel + 1] - program->channel_base[channel];
    for (int m = 0; m < size; m += CHUNK) {
#define CASE(n)                                                                                                        \
    case n:                                                                                                            \
        gather_terms(program, channel, terms, weights, n_columns, m, n <= CHUNK ? n : 1, width, out + m * width,       \
                     stride);                                                                                          \
        break;
        switch (size - m < CHUNK ? size - m : CHUNK) {
            CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) CASE(12) CASE(13)
        }
#undef CASE
    }
}

/* The products of a block of centres, behind their components. */
static void multiply(const member_program *p, lanes *terms)
{
    for (int i = 0; i < p->n_products; i++)
        correlations_couple(p->product_l + 3 * i, p->coupling + p->product_coupling[i], terms + p->product_first[i],
                            terms + p->product_second[i], terms + p->product_base[i]);
}

/* --- from adjoints to forces ------------------------------------------------------------------------------------- */

/* What neighbours of one species see: adjoints of the channels, contracted over pseudo-species where they are. */
INLINE const lanes *slots_of(const member_program *program, int species, const lanes *adjoint, const int width,
                             lanes *room)
{
    if (program->slot_start[species] == program->slot_start[species + 1])
        return adjoint;
    lanes *slots = room;
    for (int s = program->slot_start[species]; s < program->slot_start[species + 1]; s++, slots += width) {
        lanes sum[TILE];
        UNROLLED (i, width)
            sum[i] = (lanes){0};
        for (int e = program->source_start[s]; e < program->source_start[s + 1]; e++)
            UNROLLED (i, width)
                sum[i] += program->source_factor[e] * adjoint[program->source_component[e] * width + i];
        UNROLLED (i, width)
            slots[i] = sum[i];
    }
    return room;
}

/* `n_m` harmonics of one l from the m-th on, with which the table begins: adds what they give to the sums of
 * `together` neighbours from the lane on that radial functions, slopes and table begin with. */
INLINE void gradient_of_m(const double *radial, const double *slope, const int32_t *function, const int32_t *base,
                          int n_functions, const lanes *slots, const double *table, int first_m, const int n_m,
                          const int together, const int width, lanes *sum)
{
    lanes value[SIDE_BY_SIDE * TOGETHER * TILE], derivative[SIDE_BY_SIDE * TOGETHER * TILE];
    UNROLLED (i, n_m * together * width)
        value[i] = derivative[i] = (lanes){0};
    for (int f = 0; f < n_functions; f++) {
        const size_t of = (size_t)function[f] * LANES;
        const lanes *of_function = slots + (size_t)(base[f] + first_m) * width;
        UNROLLED (m, n_m)
            UNROLLED (i, width) {
                const lanes slot = of_function[m * width + i];
                UNROLLED (j, together) {
                    value[(m * together + j) * width + i] += radial[of + j] * slot;
                    derivative[(m * together + j) * width + i] += slope[of + j] * slot;
                }
            }
    }
    UNROLLED (m, n_m)
        UNROLLED (j, together)
            UNROLLED (i, width) {
                const double *row = table + m * N_TABLE * LANES + j;
                UNROLLED (a, 2)
                    sum[(j * N_TABLE + a) * width + i] += row[a * LANES] * value[(m * together + j) * width + i];
                sum[(j * N_TABLE + 2) * width + i] += row[2 * LANES] * derivative[(m * together + j) * width + i];
            }
}

/* The same for all harmonics of one l. */
INLINE void gradient_of_l(const double *radial, const double *slope, const int32_t *function, const int32_t *base,
                          int n_functions, int l, const lanes *slots, const double *table, const int together,
                          const int width, lanes *sum)
{
    lanes total[TOGETHER * N_TABLE * TILE];
    UNROLLED (i, together * N_TABLE * width)
        total[i] = sum[i];
    int m = 0;
    for (; m + SIDE_BY_SIDE <= 2 * l + 1; m += SIDE_BY_SIDE)
        gradient_of_m(radial, slope, function, base, n_functions, slots, table + m * N_TABLE * LANES, m, SIDE_BY_SIDE,
                      together, width, total);
    for (; m < 2 * l + 1; m++)
        gradient_of_m(radial, slope, function, base, n_functions, slots, table + m * N_TABLE * LANES, m, 1, together,
                      width, total);
    UNROLLED (i, together * N_TABLE * width)
        sum[i] = total[i];
}

/* Neighbours [begin, end) of block b, which are of one species: sum[lane][theta phi r], the parts of dE/dr_ij before
 * the first two are divided by r. */
INLINE void block_gradient(const descriptor *d, const member_program *program, const environment *env, int b, int begin,
                           int end, const lanes *slots, const lanes *table, const int width, lanes *sum)
{
    const int32_t *start = program->function_start + (size_t)env->species[b * LANES + begin] * (d->l_max + 2);
    const double *radial = (const double *)(env->radial + (size_t)b * radial_rows(d));
    const double *slope = (const double *)(env->slope + (size_t)b * radial_rows(d));
    memset(sum + begin * N_TABLE * width, 0, (end - begin) * N_TABLE * width * sizeof(lanes));
    for (int l = 0; l <= d->l_max; l++) {
        const int n = start[l + 1] - start[l], v_pairs = begin + (end - begin) / TOGETHER * TOGETHER;
        const int32_t *function = program->function + start[l], *base = program->function_base + start[l];
        const double *harmonics = (const double *)(table + l * l * N_TABLE);
        for (int v = begin; v < v_pairs; v += TOGETHER)
            gradient_of_l(radial + v, slope + v, function, base, n, l, slots, harmonics + v, TOGETHER, width,
                          sum + v * N_TABLE * width);
        for (int v = v_pairs; v < end; v++)
            gradient_of_l(radial + v, slope + v, function, base, n, l, slots, harmonics + v, 1, width,
                          sum + v * N_TABLE * width);
    }
}

/* Where the forces and virial of one centre go. */
typedef struct {
    lanes *forces, *virial; /* of the atoms of the structure [][3][n_columns]; [9][n_columns]; of the tile */
    size_t stride;          /* registers of all members */
    const lanes *core;      /* of the tile */
} destination;

/* dE/dr_ij of the neighbour in lane v from its parts, added to the sums of the centre and to the neighbour's force. */
INLINE void add_neighbour(const environment *env, const harmonics_frame *frame, int b, int v, const lanes *part,
                          const destination *to, const int width, lanes *own, lanes *virial)
{
    const double r = env->distance[b][v], inverse_r = env->inverse_r[b][v], core = env->core_slope[b][v];
    const double cosine = frame->cosine[v] * inverse_r, sine = frame->sine[v] * inverse_r;
    const double unit[3] = {env->unit[3 * b][v], env->unit[3 * b + 1][v], env->unit[3 * b + 2][v]};
    const double theta[3] = {unit[2] * cosine, unit[2] * sine, -frame->rho[v] * inverse_r};
    lanes *force = to->forces + 3 * (size_t)env->index[b * LANES + v] * to->stride;
    UNROLLED (i, width) {
        const lanes along_theta = part[i], along_phi = part[width + i],
                    along_r = part[2 * width + i] + core * to->core[i];
        const lanes gradient[3] = {theta[0] * along_theta - sine * along_phi + unit[0] * along_r,
                                   theta[1] * along_theta + cosine * along_phi + unit[1] * along_r,
                                   theta[2] * along_theta + unit[2] * along_r};
        UNROLLED (a, 3) {
            own[a * width + i] += gradient[a];
            force[a * to->stride + i] -= gradient[a];
            UNROLLED (c, 3)
                virial[(3 * c + a) * width + i] -= unit[c] * r * gradient[a];
        }
    }
}

/* Forces and virial of one centre, `width` registers of members. */
INLINE void centre_forces(const descriptor *d, const member_program *program, const member_worker *w,
                          const environment *env, const lanes *adjoint, int i_atom, const destination *to,
                          const int width)
{
    lanes own[3 * TILE], virial[9 * TILE], sum[LANES * N_TABLE * TILE];
    const lanes *slots = NULL;
    int last_species = -1;
    memset(own, 0, sizeof own);
    memset(virial, 0, sizeof virial);
    for (int b = 0; b < env->n_blocks; b++) {
        const int count = real_neighbours(env, b);
        const int32_t *species = env->species + b * LANES;
        harmonics_parts parts;
        harmonics_parts_of(&d->harmonics, d->l_max, env->unit[3 * b], env->unit[3 * b + 1], env->unit[3 * b + 2],
                           &parts);
        const harmonics_frame frame = harmonics_frame_at(env->unit[3 * b], env->unit[3 * b + 1]);
        harmonics_gradient(&d->harmonics, d->l_max, &parts, &frame, env->unit[3 * b + 2], w->table);
        for (int v = 0, end; v < count; v = end) {
            if (species[v] != last_species)
                slots = slots_of(program, species[v], adjoint, width, w->slots);
            last_species = species[v];
            for (end = v + 1; end < count && species[end] == last_species; end++)
                ;
            block_gradient(d, program, env, b, v, end, slots, w->table, width, sum);
        }
        for (int v = 0; v < count; v++)
            add_neighbour(env, &frame, b, v, sum + v * N_TABLE * width, to, width, own, virial);
    }
    for (int a = 0; a < 3; a++)
        for (int i = 0; i < width; i++)
            to->forces[(3 * (size_t)i_atom + a) * to->stride + i] += own[a * width + i];
    for (int a = 0; a < 9; a++)
        for (int i = 0; i < width; i++)
            to->virial[a * to->stride + i] += virial[a * width + i];
}

/* --- blocks of centres ---------------------------------------------------------------------------------------------
 */

/* `width` registers of members from the first-th on, for the block of centres in w->env and w->terms. */
INLINE void block_members(const member_evaluator *e, const descriptor *d, const member_program *program,
                          member_worker *w, int64_t block, size_t n_columns, const double *weights, const double *core,
                          size_t first, const int width)
{
    const size_t stride = (size_t)d->n_components * width;
    const centre_blocks *blocks = &e->blocks;
    for (int channel = 0; channel < program->n_channels; channel++)
        gather_channel(program, channel, w->terms, weights + first * LANES, n_columns, width,
                       w->adjoint + program->channel_base[channel] * width, stride);
    for (int v = 0; v < blocks->count[block]; v++) {
        const int64_t centre = blocks->first[block] + v;
        const int32_t structure = blocks->centre_structure[centre];
        const size_t n_registers = n_columns / LANES;
        const destination to = {(lanes *)w->forces + 3 * (size_t)blocks->first_atom[structure] * n_registers + first,
                                (lanes *)w->virials + 9 * (size_t)structure * n_registers + first, n_registers,
                                (const lanes *)core + first};
        centre_forces(d, program, w, &w->env[v], w->adjoint + v * stride, blocks->centre_atom[centre], &to, width);
    }
}

/* Features of the block of centres in w->env and w->terms: energies of the first column, and sums. */
static void block_features(const member_evaluator *e, const descriptor *d, member_worker *w, const part *one,
                           int64_t block, const member_evaluation *what)
{
    const int species = e->blocks.species[block];
    const double *weight = e->coefficients + (size_t)species * d->n_features;
    lanes energy = {0};
    memcpy(w->walked, w->terms, d->n_components * sizeof(lanes));
    memset(w->features, 0, d->n_features * sizeof(lanes));
    correlations_evaluate(d, w->walked, NULL, w->features, NULL, NULL);
    for (int place = 0; place < d->n_features; place++)
        energy += weight[place] * w->features[place];
    for (int v = 0, end; v < e->blocks.count[block]; v = end) { /* centres of one structure */
        const int64_t first = e->blocks.first[block];
        const int32_t structure = e->blocks.centre_structure[first + v];
        double *sums = part_sums(one, &e->blocks, d->n_features, structure, species);
        for (end = v; end < e->blocks.count[block] && e->blocks.centre_structure[first + end] == structure; end++)
            what->atomic_energies[e->blocks.first_atom[structure] + e->blocks.centre_atom[first + end]] =
                energy[end] + what->core[0] * w->env[end].core_energy;
        for (int place = 0; place < d->n_features; place++) {
            double total = 0;
            if (end - v == LANES)
                for (int u = 0; u < LANES; u++)
                    total += w->features[place][u];
            else
                for (int u = v; u < end; u++)
                    total += w->features[place][u];
            sums[d->feature[place]] += d->scale[place] * total;
        }
    }
}

static int evaluate_block(const member_evaluator *e, const descriptor *d, const member_program *program,
                          member_worker *w, const structure *structures, const part *one, int64_t block,
                          const member_evaluation *what)
{
    const size_t n_registers = what->n_columns / LANES;
    for (int v = 0; v < e->blocks.count[block]; v++) {
        const int64_t centre = e->blocks.first[block] + v;
        if (environment_gather(d, &structures[e->blocks.centre_structure[centre]], e->blocks.centre_atom[centre], NULL,
                               &w->env[v]))
            return OUT_OF_MEMORY;
        density_expand(d, &w->env[v], w->A + v * density_stride(d, 1));
    }
    correlations_load(d, e->blocks.count[block], w->A, w->terms);
    block_features(e, d, w, one, block, what);
    multiply(program, w->terms);
    const double *weights =
        what->weights + (size_t)e->blocks.species[block] * program->dot_start[program->n_channels] * what->n_columns;
    size_t first = 0;
    for (; first + TILE <= n_registers; first += TILE)
        block_members(e, d, program, w, block, what->n_columns, weights, what->core, first, TILE);
    for (; first < n_registers; first++)
        block_members(e, d, program, w, block, what->n_columns, weights, what->core, first, 1);
    return 0;
}

static int reserve_workers(member_evaluator *e, int n_threads)
{
    if (n_threads <= e->n_workers)
        return 0;
    member_worker *workers = realloc(e->workers, n_threads * sizeof(member_worker));
    if (workers == NULL)
        return OUT_OF_MEMORY;
    memset(workers + e->n_workers, 0, (n_threads - e->n_workers) * sizeof(member_worker));
    e->workers = workers;
    e->n_workers = n_threads;
    e->n_allocations++;
    return 0;
}

/* The weights of the first column in the order in which features are walked. */
static int prepare_coefficients(member_evaluator *e, const descriptor *d, const double *first)
{
    if (reserve((void **)&e->coefficients, &e->coefficients_capacity, d->n_species * (size_t)d->n_features,
                sizeof(double), &e->n_allocations))
        return OUT_OF_MEMORY;
    for (size_t t = 0; t < (size_t)d->n_species; t++)
        correlations_weights(d, first + t * d->n_features, e->coefficients + t * d->n_features);
    return 0;
}

/* The part of a thread. */
static int evaluate_part(member_evaluator *e, const descriptor *d, const member_program *program, member_worker *w,
                         const structure *structures, part *one, const member_evaluation *what)
{
    const size_t n_structures = e->blocks.n_structures,
                 n_forces = 3 * (size_t)e->blocks.first_atom[n_structures] * what->n_columns,
                 n_virials = 9 * n_structures * what->n_columns;
    if (worker_prepare(w, d, program) || part_begin(one, &e->blocks, structures, d->n_features, 0, 0, 1) ||
        reserve((void **)&w->forces, &w->forces_capacity, n_forces, sizeof(double), &w->n_allocations) ||
        reserve((void **)&w->virials, &w->virials_capacity, n_virials, sizeof(double), &w->n_allocations))
        return OUT_OF_MEMORY;
    memset(w->forces, 0, n_forces * sizeof(double));
    memset(w->virials, 0, n_virials * sizeof(double));
    for (int64_t b = one->begin; b < one->end; b++)
        if (evaluate_block(e, d, program, w, structures, one, b, what))
            return OUT_OF_MEMORY;
    return 0;
}

/* out[i] = the sum over threads, in their order, of the arrays at this offset in their workers. */
#define ADD_UP(name, n)                                                                                                \
    _Pragma("omp for schedule(static)") for (int64_t i = 0; i < (int64_t)(n); i++)                                     \
    {                                                                                                                  \
        double sum = 0;                                                                                                \
        for (int u = 0; u < n_threads; u++)                                                                            \
            sum += e->workers[u].name[i];                                                                              \
        what->name[i] = sum;                                                                                           \
    }

int evaluate_members(member_evaluator *e, const descriptor *d, const member_program *program, size_t n_structures,
                     const structure *structures, int n_threads, const member_evaluation *what)
{
    const int64_t n_blocks = blocks_arrange(&e->blocks, d->n_species, n_structures, structures, &e->n_allocations);
    if (n_threads > n_blocks)
        n_threads = n_blocks > 0 ? (int)n_blocks : 1;
    if (n_blocks < 0 || reserve_workers(e, n_threads) || prepare_coefficients(e, d, what->first) ||
        parts_cut(&e->parts, n_blocks, n_threads, 1, &e->n_allocations))
        return OUT_OF_MEMORY;
    int failed = 0;
#pragma omp parallel num_threads(n_threads)
    {
        /* the work is cut for the threads asked for, also where fewer come (OMP_THREAD_LIMIT, OMP_DYNAMIC) */
        for (int t = omp_get_thread_num(); t < n_threads; t += omp_get_num_threads())
            if (evaluate_part(e, d, program, &e->workers[t], structures, &e->parts.part[t], what)) {
#pragma omp atomic write
                failed = 1;
            }
#pragma omp barrier
        if (!failed) {
            ADD_UP(forces, 3 * (size_t)e->blocks.first_atom[n_structures] * what->n_columns)
            ADD_UP(virials, 9 * n_structures * what->n_columns)
            parts_add_up(&e->parts, &e->blocks, d->n_species, d->n_features, NULL, NULL, NULL, what->sums);
        }
    }
    for (int t = 0; t < n_threads; t++) {
        e->n_allocations += e->workers[t].n_allocations + e->parts.part[t].n_allocations;
        e->workers[t].n_allocations = e->parts.part[t].n_allocations = 0;
    }
    return failed ? OUT_OF_MEMORY : 0;
}
