#include "density.h"

#include <string.h>

/* Harmonics whose sums stay in registers: there are 32 with AVX-512, else 16. */
enum { EXPAND_TILE = LANES == 8 ? 16 : 8, REVERSE_TILE = LANES == 8 ? 8 : 4 };

/* A run of harmonics [begin, end) of one channel with the same radial functions: n of them from `function`. */
typedef struct {
    int begin, end, function, n;
} harmonics_run;

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
    for (; LANES == 8 && lm + 16 <= end; lm += 16)
        expand_tile(d, env, k, f, lm, width, 16, A);
    for (; lm + 4 <= end; lm += 4)
        expand_tile(d, env, k, f, lm, width, 4, A);
    for (; lm < end; lm++)
        expand_tile(d, env, k, f, lm, width, 1, A);
}

void density_expand(const descriptor *d, environment *env, real *A)
{
    const int n_lm = (d->l_max + 1) * (d->l_max + 1);
    for (int b = 0; b < env->n_blocks; b++) {
        const lanes *unit = env->unit + 3 * b;
        harmonics_parts part;
        harmonics_parts_of(&d->harmonics, d->l_max, unit[0], unit[1], unit[2], &part);
        harmonics_values(d->l_max, &part, env->harmonics + (size_t)b * n_lm);
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

/* Adjoint of `tile` harmonics from lm on, and its part of dE/dr. */
INLINE lanes reverse_tile(const descriptor *d, const lanes *radial, const lanes *slope, const lanes *harmonics,
                          const real *adjoint, int n_end, const int tile, lanes weight, lanes *angular)
{
    lanes value[REVERSE_TILE], derivative[REVERSE_TILE], along = {0};
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
        along += derivative[a] * harmonics[a];
    }
    return along;
}

INLINE lanes reverse_run(const descriptor *d, const environment *env, int b, const harmonics_run *run,
                         const real *adjoint, lanes weight, lanes *angular)
{
    const lanes *radial = env->radial + (size_t)b * d->n_functions + run->function;
    const lanes *slope = env->slope + (size_t)b * d->n_functions + run->function;
    const lanes *harmonics = env->harmonics + (size_t)b * (d->l_max + 1) * (d->l_max + 1);
    lanes along = {0};
    int lm = run->begin;
    for (; REVERSE_TILE > 4 && lm + 8 <= run->end; lm += 8)
        along += reverse_tile(d, radial, slope, harmonics + lm, adjoint + (size_t)lm * d->n_stride, run->n, 8, weight,
                              angular + lm);
    for (; lm + 4 <= run->end; lm += 4)
        along += reverse_tile(d, radial, slope, harmonics + lm, adjoint + (size_t)lm * d->n_stride, run->n, 4, weight,
                              angular + lm);
    for (; lm < run->end; lm++)
        along += reverse_tile(d, radial, slope, harmonics + lm, adjoint + (size_t)lm * d->n_stride, run->n, 1, weight,
                              angular + lm);
    return along;
}

void density_reverse(const descriptor *d, const environment *env, const real *adjoint, lanes *gradient)
{
    const int n_lm = (d->l_max + 1) * (d->l_max + 1);
    for (int b = 0; b < env->n_blocks; b++) {
        const lanes x = env->unit[3 * b], y = env->unit[3 * b + 1], z = env->unit[3 * b + 2];
        lanes angular[N_LM_MAX], along = env->core_slope[b];
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
                along += weight * reverse_run(d, env, b, &run, adjoint + d->channel_offset[k], weight, angular);
            }
        }
        harmonics_parts part;
        lanes gx, gy, gz;
        harmonics_parts_of(&d->harmonics, d->l_max, x, y, z, &part);
        harmonics_reverse(&d->harmonics, d->l_max, &part, angular, &gx, &gy, &gz);
        lanes radial_part = along - (gx * x + gy * y + gz * z) * env->inverse_r[b];
        gradient[3 * b] = gx * env->inverse_r[b] + radial_part * x;
        gradient[3 * b + 1] = gy * env->inverse_r[b] + radial_part * y;
        gradient[3 * b + 2] = gz * env->inverse_r[b] + radial_part * z;
    }
}

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
                const lanes *radial = env->radial + (size_t)b * d->n_functions + d->radial_offset[l];
                const lanes *slope = env->slope + (size_t)b * d->n_functions + d->radial_offset[l];
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
