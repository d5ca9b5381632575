#include "density.h"

#include <string.h>

/* Harmonics whose sums stay in registers, and radial functions in reverse: there are 32 with AVX-512, else 16. */
enum { EXPAND_TILE = REGISTERS / 2, REVERSE_TILE = REGISTERS / 4 };

/* A run of harmonics [begin, end) of one channel with the same radial functions: n of them from `function`. */
typedef struct {
    int begin, end, function, n;
} harmonics_run;

/* The harmonics, and the gradients of sums of them, for each l_max code without loops. */
#ifdef COMITIA_SINGLE
#define FOR_EACH_L_MAX(l_max, DO) DO(l_max)
#else
#define FOR_EACH_L_MAX(l_max, DO)                                                                                      \
    switch (l_max) {                                                                                                   \
    case 0: DO(0); break;                                                                                              \
    case 1: DO(1); break;                                                                                              \
    case 2: DO(2); break;                                                                                              \
    case 3: DO(3); break;                                                                                              \
    case 4: DO(4); break;                                                                                              \
    case 5: DO(5); break;                                                                                              \
    case 6: DO(6); break;                                                                                              \
    case 7: DO(7); break;                                                                                              \
    default: DO(L_MAX); break;                                                                                         \
    }
#endif

static void harmonics_at(const descriptor *d, const lanes *unit, harmonics_parts *part, lanes *values)
{
#define MAKE(l_max)                                                                                                    \
    harmonics_parts_of(&d->harmonics, l_max, unit[0], unit[1], unit[2], part), harmonics_values(l_max, part, values)
    FOR_EACH_L_MAX(d->l_max, MAKE);
}

#ifndef COMITIA_SINGLE
static void harmonics_back(const descriptor *d, const harmonics_parts *part, const lanes *adjoint, lanes *gradient)
{
#define REVERSE(l_max) harmonics_reverse(&d->harmonics, l_max, part, adjoint, gradient, gradient + 1, gradient + 2)
    FOR_EACH_L_MAX(d->l_max, REVERSE);
}
#endif

/* The run of channel k that starts at l; returns the l after it. */
INLINE int run_from(const descriptor *d, int k, int l, harmonics_run *run)
{
    const int32_t *n = d->channel_n + (size_t)k * (d->l_max + 1);
    const int begin = l;
    while (++l <= d->l_max && n[l] == n[begin] && d->radial_offset[l] == d->radial_offset[begin])
        ;
    *run = (harmonics_run){begin * begin, l * l, d->radial_offset[begin], n[begin]};
    return l;
}

/* sum_j u R[f ...] Y_lm of all neighbours, for `width` vectors of functions and `tile` harmonics from lm on. */
INLINE void expand_tile(const descriptor *d, const environment *env, int k, int f, int lm, const int width,
                        const int tile, real *A)
{
    const int n_lm = (d->l_max + 1) * (d->l_max + 1);
    const real *weight = (const real *)(env->weight + (size_t)k * env->n_blocks);
    int begin, end;
    channel_range(d, env, k, &begin, &end);
    lanes sum[EXPAND_TILE];
    for (int a = 0; a < tile * width; a++)
        sum[a] = (lanes){0};
    for (int j = begin; j < end; j++) {
        const real *functions = env->functions + (size_t)j * d->n_functions + f;
        const real *Y = (const real *)(env->harmonics + (size_t)(j / LANES) * n_lm + lm) + j % LANES;
        lanes R[2];
        for (int w = 0; w < width; w++)
            R[w] = weight[j] * *(const lanes *)(functions + w * LANES);
        for (int a = 0; a < tile; a++)
            for (int w = 0; w < width; w++)
                sum[a * width + w] += Y[a * LANES] * R[w];
    }
    for (int a = 0; a < tile; a++)
        for (int w = 0; w < width; w++)
            *(lanes *)(A + (size_t)(lm + a) * d->n_stride + w * LANES) = sum[a * width + w];
}

/* As many harmonics at a time as the registers hold. */
INLINE void expand_run(const descriptor *d, const environment *env, int k, int f, int lm, int end, const int width,
                       real *A)
{
    for (; EXPAND_TILE == 16 && lm + 16 <= end; lm += 16)
        expand_tile(d, env, k, f, lm, width, 16, A);
    for (; EXPAND_TILE == 8 && LANES == 8 && lm + 8 <= end; lm += 8)
        expand_tile(d, env, k, f, lm, width, 8, A);
    for (; lm + 4 <= end; lm += 4)
        expand_tile(d, env, k, f, lm, width, 4, A);
    for (; lm < end; lm++)
        expand_tile(d, env, k, f, lm, width, 1, A);
}

void density_expand(const descriptor *d, environment *env, real *A)
{
    const int n_lm = (d->l_max + 1) * (d->l_max + 1);
    for (int b = 0; b < env->n_blocks; b++) {
        harmonics_parts part;
        harmonics_at(d, env->unit + 3 * b, &part, env->harmonics + (size_t)b * n_lm);
    }
    for (int k = 0; k < d->n_channels; k++) {
        real *channel = A + d->channel_offset[k];
        harmonics_run run;
        for (int l = 0; l <= d->l_max;) {
            l = run_from(d, k, l, &run);
            int n = 0;
            for (; LANES < 8 && n + LANES < run.n; n += 2 * LANES)
                expand_run(d, env, k, run.function + n, run.begin, run.end, 2, channel + n);
            for (; n < run.n; n += LANES)
                expand_run(d, env, k, run.function + n, run.begin, run.end, 1, channel + n);
        }
    }
}

#ifdef COMITIA_SINGLE /* sums of few numbers, which are rounded less */
/* The adjoint of `tile` harmonics from lm on, and its part of dE/dr. */
INLINE void reverse_tile(const descriptor *d, const lanes *radial, const lanes *slope, const lanes *harmonics,
                         const real *adjoint, int n_end, const int tile, lanes weight, lanes *angular, lanes *along)
{
    lanes value[REVERSE_TILE], derivative[REVERSE_TILE], sum = {0};
    for (int a = 0; a < tile; a++)
        value[a] = derivative[a] = (lanes){0};
    for (int n = 0; n < n_end; n++)
        for (int a = 0; a < tile; a++) {
            const real g = adjoint[a * d->n_stride + n];
            value[a] += g * radial[n];
            derivative[a] += g * slope[n];
        }
    for (int a = 0; a < tile; a++) {
        angular[a] += weight * value[a];
        sum += derivative[a] * harmonics[a];
    }
    *along += weight * sum;
}

INLINE void reverse_run(const descriptor *d, const environment *env, int b, const harmonics_run *run,
                        const lanes *harmonics, const real *adjoint, lanes weight, lanes *angular, lanes *along)
{
    const lanes *radial = env->radial + (size_t)b * radial_rows(d) + run->function;
    const lanes *slope = env->slope + (size_t)b * radial_rows(d) + run->function;
    int lm = run->begin;
#define TILES(tile)                                                                                                    \
    for (; tile <= REVERSE_TILE && lm + tile <= run->end; lm += tile)                                                  \
        reverse_tile(d, radial, slope, harmonics + lm, adjoint + (size_t)lm * d->n_stride, run->n, tile, weight,       \
                     angular + lm, along);
    TILES(8)
    TILES(4)
    TILES(2)
    TILES(1)
#undef TILES
}

void density_reverse(const descriptor *d, const environment *env, real core, const real *adjoint, lanes *gradient)
{
    const int n_lm = (d->l_max + 1) * (d->l_max + 1);
    for (int b = 0; b < env->n_blocks; b++) {
        const lanes x = env->unit[3 * b], y = env->unit[3 * b + 1], z = env->unit[3 * b + 2];
        lanes harmonics[N_LM_MAX], angular[N_LM_MAX], along = core * env->core_slope[b], gx, gy, gz;
        harmonics_parts part;
        harmonics_parts_of(&d->harmonics, d->l_max, x, y, z, &part);
        harmonics_values(d->l_max, &part, harmonics);
        memset(angular, 0, n_lm * sizeof(lanes));
        for (int k = 0; k < d->n_channels; k++) {
            int begin, end;
            channel_range(d, env, k, &begin, &end);
            if (b * LANES >= end || (b + 1) * LANES <= begin)
                continue;
            const lanes weight = env->weight[k * env->n_blocks + b];
            harmonics_run run;
            for (int l = 0; l <= d->l_max;) {
                l = run_from(d, k, l, &run);
                reverse_run(d, env, b, &run, harmonics, adjoint + d->channel_offset[k], weight, angular, &along);
            }
        }
        harmonics_reverse(&d->harmonics, d->l_max, &part, angular, &gx, &gy, &gz);
        const lanes radial_part = along - (gx * x + gy * y + gz * z) * env->inverse_r[b];
        gradient[3 * b] = gx * env->inverse_r[b] + radial_part * x;
        gradient[3 * b + 1] = gy * env->inverse_r[b] + radial_part * y;
        gradient[3 * b + 2] = gz * env->inverse_r[b] + radial_part * z;
    }
}
#else
/* Of n_adjoints adjoints in turns, A[k][lm][n][s]: as many sums as there are adjoints, or one sum for both, which then
 * stand in turns in the lanes of half as many neighbours. */
typedef struct {
    int n_adjoints, n_sums;
} ways;

INLINE lanes weight_of(const real *g, const ways way, int s)
{
    return way.n_sums < way.n_adjoints ? in_turns(g) : g[s] - (lanes){0};
}

/* Of a neighbour in each lane; or of as few as half of them, each of them in two lanes. */
INLINE lanes of_neighbours(lanes one, const ways way)
{
    lanes twice, rest;
    if (way.n_sums == way.n_adjoints)
        return one;
    interleave(one, one, &twice, &rest);
    return twice;
}

/* For n radial functions and the harmonics [begin, end): the adjoints of the harmonics, which are added to those that
 * are there where `add` says so, and what the functions add to dE/dr. */
INLINE void reverse_tile(const descriptor *d, const lanes *radial, const lanes *slope, const lanes *harmonics,
                         const real *adjoint, int begin, int end, const int n, const ways way, const int add,
                         lanes weight, lanes *angular, lanes *along)
{
    lanes R[REVERSE_TILE], sum[2 * REVERSE_TILE];
    for (int i = 0; i < n; i++)
        R[i] = weight * of_neighbours(radial[i], way);
    for (int i = 0; i < n * way.n_sums; i++)
        sum[i] = (lanes){0};
    for (int lm = begin; lm < end; lm++)
        for (int s = 0; s < way.n_sums; s++) {
            const real *row = adjoint + (size_t)lm * d->n_stride * way.n_adjoints;
            lanes value = {0};
            for (int i = 0; i < n; i++) {
                const lanes g = weight_of(row + i * way.n_adjoints, way, s);
                value += g * R[i];
                sum[s * n + i] += g * harmonics[lm];
            }
            angular[s * N_LM_MAX + lm] = add ? angular[s * N_LM_MAX + lm] + value : value;
        }
    for (int s = 0; s < way.n_sums; s++) {
        lanes total = {0};
        for (int i = 0; i < n; i++)
            total += sum[s * n + i] * of_neighbours(slope[i], way);
        along[s] += weight * total;
    }
}

/* As many functions at a time as the registers hold. */
INLINE void reverse_functions(const descriptor *d, const lanes *radial, const lanes *slope, const lanes *harmonics,
                              const real *adjoint, int begin, int end, int n_end, const ways way, int add, lanes weight,
                              lanes *angular, lanes *along)
{
#define TILE_ADDED(count, added)                                                                                       \
    reverse_tile(d, radial + n, slope + n, harmonics, adjoint + n * way.n_adjoints, begin, end, count, way, added,     \
                 weight, angular, along)
#define TILE(count)                                                                                                    \
    case count:                                                                                                        \
        if (count > REVERSE_TILE)                                                                                      \
            break;                                                                                                     \
        if (add)                                                                                                       \
            TILE_ADDED(count, 1);                                                                                      \
        else                                                                                                           \
            TILE_ADDED(count, 0);                                                                                      \
        break;
    for (int n = 0; n < n_end || !add; n += REVERSE_TILE, add = 1)
        switch (n_end - n < REVERSE_TILE ? n_end - n : REVERSE_TILE) {
            TILE(0) TILE(1) TILE(2) TILE(3) TILE(4) TILE(5) TILE(6) TILE(7) TILE(8)
        }
#undef TILE
#undef TILE_ADDED
}

/* dE/dr_ij [n_sums][3] of the neighbours of a block. */
INLINE void reverse_block(const descriptor *d, const environment *env, int b, const lanes *core, const real *adjoint,
                          const ways way, lanes *gradient)
{
    const int n_lm = (d->l_max + 1) * (d->l_max + 1);
    const lanes *radial = env->radial + (size_t)b * radial_rows(d), *slope = env->slope + (size_t)b * radial_rows(d);
    const lanes inverse_r = of_neighbours(env->inverse_r[b], way);
    lanes unit[3], harmonics[N_LM_MAX], angular[2 * N_LM_MAX], along[2];
    harmonics_parts part;
    for (int a = 0; a < 3; a++)
        unit[a] = of_neighbours(env->unit[3 * b + a], way);
    harmonics_at(d, unit, &part, harmonics);
    for (int s = 0; s < way.n_sums; s++)
        along[s] = core[s] * of_neighbours(env->core_slope[b], way);
    int filled = 0; /* harmonics whose adjoints are there */
    for (int k = 0; k < d->n_channels; k++) {
        int begin, end;
        channel_range(d, env, k, &begin, &end);
        if (b * LANES >= end || (b + 1) * LANES <= begin)
            continue;
        const lanes weight = of_neighbours(env->weight[k * env->n_blocks + b], way);
        harmonics_run run;
        for (int l = 0; l <= d->l_max;) {
            l = run_from(d, k, l, &run);
            for (int first = run.begin, last; first < run.end; first = last) {
                last = first < filled && filled < run.end ? filled : run.end;
                reverse_functions(d, radial + run.function, slope + run.function, harmonics,
                                  adjoint + (size_t)d->channel_offset[k] * way.n_adjoints, first, last, run.n, way,
                                  first < filled, weight, angular, along);
                filled = last > filled ? last : filled;
            }
        }
    }
    for (; filled < n_lm; filled++) /* of neighbours that are in no channel */
        for (int s = 0; s < way.n_sums; s++)
            angular[s * N_LM_MAX + filled] = (lanes){0};
    for (int s = 0; s < way.n_sums; s++) {
        lanes *g = gradient + 3 * s;
        harmonics_back(d, &part, angular + s * N_LM_MAX, g);
        const lanes radial_part = along[s] - (g[0] * unit[0] + g[1] * unit[1] + g[2] * unit[2]) * inverse_r;
        for (int a = 0; a < 3; a++)
            g[a] = g[a] * inverse_r + radial_part * unit[a];
    }
}

void density_reverse(const descriptor *d, const environment *env, real core, const real *adjoint, lanes *gradient)
{
    const lanes cores = core - (lanes){0};
    for (int b = 0; b < env->n_blocks; b++)
        reverse_block(d, env, b, &cores, adjoint, (ways){1, 1}, gradient + 3 * b);
}

void density_reverse_two(const descriptor *d, const environment *env, const real *core, const real *adjoint,
                         lanes *gradient)
{
    const lanes cores[2] = {core[0] - (lanes){0}, core[1] - (lanes){0}}, both = in_turns(core);
    for (int b = 0; b < env->n_blocks; b++) {
        lanes *first = gradient + 3 * b, *second = gradient + 3 * ((size_t)env->n_blocks + b), g[6];
        if (real_neighbours(env, b) > LANES / 2) {
            reverse_block(d, env, b, cores, adjoint, (ways){2, 2}, g);
            memcpy(first, g, 3 * sizeof(lanes));
            memcpy(second, g + 3, 3 * sizeof(lanes));
            continue;
        }
        reverse_block(d, env, b, &both, adjoint, (ways){2, 1}, g);
        for (int a = 0; a < 3; a++)
            for (int v = 0; v < LANES; v++) {
                first[a][v] = 2 * v < LANES ? g[a][2 * v] : 0;
                second[a][v] = 2 * v < LANES ? g[a][2 * v + 1] : 0;
            }
    }
}
#endif

void density_tangent(const descriptor *d, const environment *env, const lanes *direction, real *tangent)
{
    memset(tangent, 0, d->n_density * sizeof(real));
    for (int b = 0; b < env->n_blocks; b++) {
        density_block_tangent block;
        const lanes *t = direction + 3 * b;
        block_tangent(d, env, b, t[0], t[1], t[2], &block);
        for (int k = 0; k < d->n_channels; k++) {
            const lanes weight = env->weight[k * env->n_blocks + b];
            for (int l = 0; l <= d->l_max; l++) {
                const lanes *radial = env->radial + (size_t)b * radial_rows(d) + d->radial_offset[l];
                const lanes *slope = env->slope + (size_t)b * radial_rows(d) + d->radial_offset[l];
                for (int lm = l * l; lm < (l + 1) * (l + 1); lm++)
                    for (int n = 0; n < d->channel_n[k * (d->l_max + 1) + l]; n++) {
                        lanes term = radial[n] * block.angular[lm] + slope[n] * block.along * block.harmonics[lm];
                        term *= weight;
                        for (int v = 0; v < LANES; v++)
                            tangent[d->channel_offset[k] + (size_t)lm * d->n_stride + n] += term[v];
                    }
            }
        }
    }
}
