#include "density.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int grow(void **array, size_t bytes)
{
    void *grown = aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (grown == NULL)
        return OUT_OF_MEMORY;
    free(*array);
    *array = grown;
    return 0;
}

void environment_free(environment *env)
{
    void *arrays[] = {env->species, env->count, env->index,      env->unit,   env->inverse_r,
                      env->radial,  env->slope, env->core_slope, env->vector, env->neighbour};
    for (size_t a = 0; a < sizeof arrays / sizeof *arrays; a++)
        free(arrays[a]);
    *env = (environment){0};
}

static int reserve_gathered(environment *env, size_t n)
{
    if (n <= (size_t)env->gathered_capacity)
        return 0;
    n = n + n / 4 + 32;
    if (grow((void **)&env->vector, n * 4 * sizeof(double)) || grow((void **)&env->neighbour, n * sizeof(int32_t)))
        return OUT_OF_MEMORY;
    env->gathered_capacity = (int)n;
    return 0;
}

static int reserve_blocks(const descriptor *d, environment *env, int n)
{
    if (n <= env->block_capacity)
        return 0;
    n += n / 4 + 2;
    if (grow((void **)&env->species, n * sizeof(int)) || grow((void **)&env->count, n * sizeof(int)) ||
        grow((void **)&env->index, n * LANES * sizeof(int32_t)) || grow((void **)&env->unit, n * 3 * sizeof(lanes)) ||
        grow((void **)&env->inverse_r, n * sizeof(lanes)) || grow((void **)&env->core_slope, n * sizeof(lanes)) ||
        grow((void **)&env->radial, (size_t)n * d->n_functions * sizeof(lanes)) ||
        grow((void **)&env->slope, (size_t)n * d->n_functions * sizeof(lanes)))
        return OUT_OF_MEMORY;
    env->block_capacity = n;
    return 0;
}

/* Half the repulsion of a pair and its slope: universal screened Coulomb potential (Ziegler, Biersack, Littmark,
 * The Stopping and Range of Ions in Solids, 1985), switched off by a septic between `inner` and `outer`. */
static double half_core(double z_i, double z_j, double inner, double outer, double r, double *slope)
{
    static const double weight[4] = {0.18175, 0.50986, 0.28022, 0.02817};
    static const double decay[4] = {3.19980, 0.94229, 0.40290, 0.20162};
    const double coulomb = 14.399645; /* e^2 / (4 pi epsilon_0), eV Å */
    double length = 0.46850 / (pow(z_i, 0.23) + pow(z_j, 0.23));
    double screening = 0, screening_slope = 0;
    for (int k = 0; k < 4; k++) {
        double term = weight[k] * exp(-decay[k] * r / length);
        screening += term;
        screening_slope -= decay[k] / length * term;
    }
    double prefactor = 0.5 * coulomb * z_i * z_j / r;
    double value = prefactor * screening, value_slope = prefactor * (screening_slope - screening / r);
    if (r <= inner) {
        *slope = value_slope;
        return value;
    }
    double x = (r - inner) / (outer - inner);
    double off = 1 - x * x * x * x * (35 - x * (84 - x * (70 - 20 * x)));
    double off_slope = -140 * x * x * x * (1 - x) * (1 - x) * (1 - x) / (outer - inner);
    *slope = value_slope * off + value * off_slope;
    return value * off;
}

/* Radial functions of one neighbour, LANES functions at a time, then turned into the lanes of its block. */
INLINE void radial_functions(const descriptor *d, double r, int lane, double *radial, double *slope)
{
    double position = r / d->cutoff * d->n_intervals;
    int interval = (int)position;
    if (interval >= d->n_intervals)
        interval = d->n_intervals - 1;
    double t = position - interval, scale = d->n_intervals / d->cutoff;
    const double *piece = d->spline + (size_t)interval * 6 * d->n_functions;
    for (int f = 0; f < d->n_functions; f += LANES) {
        lanes c[6], value, derivative;
        for (int p = 0; p < 6; p++)
            memcpy(&c[p], piece + (size_t)p * d->n_functions + f, sizeof(lanes));
        value = c[0] + t * (c[1] + t * (c[2] + t * (c[3] + t * (c[4] + t * c[5]))));
        derivative = scale * (c[1] + t * (2.0 * c[2] + t * (3.0 * c[3] + t * (4.0 * c[4] + t * 5.0 * c[5]))));
        for (int v = 0; v < LANES; v++) {
            radial[(f + v) * LANES + lane] = value[v];
            slope[(f + v) * LANES + lane] = derivative[v];
        }
    }
}

int environment_gather(const descriptor *d, const structure *s, size_t i, environment *env)
{
    const neighbour_list *list = s->list;
    const double *cell = s->cell, *centre = s->positions + 3 * i;
    const int64_t begin = list->start[i], end = list->start[i + 1];
    if (reserve_gathered(env, (size_t)(end - begin)))
        return OUT_OF_MEMORY;

    int n_of[128] = {0}; /* neighbours of each species: there are fewer than 128 elements */
    int n = 0;
    const double limit = d->cutoff * d->cutoff;
    for (int64_t p = begin; p < end; p++) {
        int32_t j = list->neighbour[p];
        const int32_t *shift = list->shift + 3 * p;
        double r[3], square = 0;
        for (int a = 0; a < 3; a++) {
            r[a] = s->positions[3 * j + a] - centre[a] + shift[0] * cell[a] + shift[1] * cell[3 + a] +
                   shift[2] * cell[6 + a];
            square += r[a] * r[a];
        }
        if (square >= limit)
            continue;
        memcpy(env->vector + 4 * n, r, sizeof r);
        env->vector[4 * n + 3] = square;
        env->neighbour[n++] = j;
        n_of[s->species[j]]++;
    }
    env->n_gathered = n;

    int first[128], n_blocks = 0;
    for (int t = 0; t < d->n_species; t++) {
        first[t] = n_blocks;
        n_blocks += (n_of[t] + LANES - 1) / LANES;
    }
    if (reserve_blocks(d, env, n_blocks))
        return OUT_OF_MEMORY;
    env->n_blocks = n_blocks;
    env->core_energy = 0;
    for (int t = 0; t < d->n_species; t++)
        for (int b = first[t], left = n_of[t]; left > 0; b++, left -= LANES) {
            env->species[b] = t;
            env->count[b] = left < LANES ? left : LANES;
            env->core_slope[b] = (lanes){0};
            if (left < LANES) { /* the empty lanes of the last block */
                for (int v = left; v < LANES; v++) {
                    env->index[b * LANES + v] = 0;
                    env->unit[3 * b][v] = env->unit[3 * b + 1][v] = 0;
                    env->unit[3 * b + 2][v] = 1;
                    env->inverse_r[b][v] = 0;
                }
                memset(env->radial + (size_t)b * d->n_functions, 0, d->n_functions * sizeof(lanes));
                memset(env->slope + (size_t)b * d->n_functions, 0, d->n_functions * sizeof(lanes));
            }
        }

    int placed[128] = {0};
    for (int g = 0; g < n; g++) {
        int32_t j = env->neighbour[g];
        int t = s->species[j];
        int b = first[t] + placed[t] / LANES, v = placed[t] % LANES;
        placed[t]++;
        double r = sqrt(env->vector[4 * g + 3]), inverse = 1 / r;
        env->index[b * LANES + v] = j;
        for (int a = 0; a < 3; a++)
            env->unit[3 * b + a][v] = env->vector[4 * g + a] * inverse;
        env->inverse_r[b][v] = inverse;
        radial_functions(d, r, v, (double *)(env->radial + (size_t)b * d->n_functions),
                         (double *)(env->slope + (size_t)b * d->n_functions));
        if (d->core_outer != NULL) {
            int c = s->species[i], pair = c * d->n_species + t;
            if (r < d->core_outer[pair]) {
                double slope;
                env->core_energy += half_core(d->nuclear_charge[c], d->nuclear_charge[t], d->core_inner[pair],
                                              d->core_outer[pair], r, &slope);
                env->core_slope[b][v] = slope;
            }
        }
    }
    return 0;
}

/* Adds sum_j R[n](j) Y[lm](j) of one block to `density` for LANES radial functions, TILE harmonics at a time. */
#define ACCUMULATE(TILE)                                                                                               \
    {                                                                                                                  \
        lanes sum[TILE];                                                                                               \
        for (int a = 0; a < TILE; a++)                                                                                 \
            sum[a] = *(const lanes *)(density + (size_t)(lm + a) * stride);                                            \
        for (int v = 0; v < count; v++)                                                                                \
            for (int a = 0; a < TILE; a++)                                                                             \
                sum[a] += harmonics[lm + a][v] * radial[v];                                                            \
        for (int a = 0; a < TILE; a++)                                                                                 \
            *(lanes *)(density + (size_t)(lm + a) * stride) = sum[a];                                                  \
        lm += TILE;                                                                                                    \
    }

INLINE void accumulate(int count, int lm, int lm_end, int stride, const lanes *harmonics, const lanes *radial,
                       double *density)
{
    while (lm + 16 <= lm_end)
        ACCUMULATE(16)
    while (lm + 4 <= lm_end)
        ACCUMULATE(4)
    while (lm < lm_end)
        ACCUMULATE(1)
}

/* LANES functions of a block, from a function in the lanes of neighbours to a neighbour in the lanes of functions. */
INLINE void transpose(const lanes *in, lanes *out)
{
    for (int v = 0; v < LANES; v++)
        for (int f = 0; f < LANES; f++)
            out[v][f] = in[f][v];
}

/* Adds harmonics[lm] radial[n] of one block to A_s[lm][n]. Radial functions in use do not increase with l. */
INLINE void expand_block(const descriptor *d, int count, const lanes *radial, const lanes *harmonics, double *density)
{
    const int each_l = d->l_max > 0 && d->radial_offset[1] != d->radial_offset[0];
    for (int block = 0; block * LANES < d->n_blocks[0] * PADDING; block++) {
        int l_end = 0; /* harmonics below this l use this block of functions */
        while (l_end <= d->l_max && d->n_blocks[l_end] * PADDING > block * LANES)
            l_end++;
        for (int l = 0; l < l_end; l += each_l ? 1 : l_end) {
            lanes turned[LANES];
            transpose(radial + d->radial_offset[l] + block * LANES, turned);
            accumulate(count, l * l, each_l ? (l + 1) * (l + 1) : l_end * l_end, d->n_stride, harmonics, turned,
                       density + block * LANES);
        }
    }
}

void density_expand(const descriptor *d, const environment *env, double *species_density, double *A)
{
    const size_t size = (size_t)(d->l_max + 1) * (d->l_max + 1) * d->n_stride;
    memset(A, 0, d->n_channels * size * sizeof(double));
    for (int b = 0; b < env->n_blocks;) {
        const int species = env->species[b];
        memset(species_density, 0, size * sizeof(double));
        for (; b < env->n_blocks && env->species[b] == species; b++) {
            harmonics_parts part;
            lanes harmonics[N_LM_MAX];
            harmonics_parts_of(&d->harmonics, d->l_max, env->unit[3 * b], env->unit[3 * b + 1], env->unit[3 * b + 2],
                               &part);
            harmonics_values(d->l_max, &part, harmonics);
            expand_block(d, env->count[b], env->radial + (size_t)b * d->n_functions, harmonics, species_density);
        }
        for (int k = 0; k < d->n_channels; k++) {
            double u = d->contraction[k * d->n_species + species];
            if (u != 0)
                for (size_t a = 0; a < size; a++)
                    A[k * size + a] += u * species_density[a];
        }
    }
}

void density_reverse(const descriptor *d, const environment *env, const double *adjoint, double *species_density,
                     lanes *gradient)
{
    const size_t size = (size_t)(d->l_max + 1) * (d->l_max + 1) * d->n_stride;
    int last_species = -1;
    for (int b = 0; b < env->n_blocks; b++) {
        if (env->species[b] != last_species) { /* the adjoint of A_s, contracted over pseudo-species */
            last_species = env->species[b];
            memset(species_density, 0, size * sizeof(double));
            for (int k = 0; k < d->n_channels; k++) {
                double u = d->contraction[k * d->n_species + last_species];
                if (u != 0)
                    for (size_t a = 0; a < size; a++)
                        species_density[a] += u * adjoint[k * size + a];
            }
        }
        const lanes x = env->unit[3 * b], y = env->unit[3 * b + 1], z = env->unit[3 * b + 2];
        harmonics_parts part;
        lanes harmonics[N_LM_MAX], angular[N_LM_MAX], along = env->core_slope[b];
        harmonics_parts_of(&d->harmonics, d->l_max, x, y, z, &part);
        harmonics_values(d->l_max, &part, harmonics);
        for (int l = 0; l <= d->l_max; l++) {
            const int n_end = d->n_blocks[l] * PADDING;
            const lanes *radial = env->radial + (size_t)b * d->n_functions + d->radial_offset[l];
            const lanes *slope = env->slope + (size_t)b * d->n_functions + d->radial_offset[l];
            for (int lm = l * l; lm < (l + 1) * (l + 1); lm++) {
                const double *row = species_density + (size_t)lm * d->n_stride;
                lanes value = {0}, derivative = {0};
                for (int n = 0; n < n_end; n++) {
                    value += row[n] * radial[n];
                    derivative += row[n] * slope[n];
                }
                angular[lm] = value;
                along += derivative * harmonics[lm];
            }
        }
        lanes gx, gy, gz;
        harmonics_reverse(&d->harmonics, d->l_max, &part, angular, &gx, &gy, &gz);
        lanes radial_part = along - (gx * x + gy * y + gz * z) * env->inverse_r[b];
        gradient[3 * b] = gx * env->inverse_r[b] + radial_part * x;
        gradient[3 * b + 1] = gy * env->inverse_r[b] + radial_part * y;
        gradient[3 * b + 2] = gz * env->inverse_r[b] + radial_part * z;
    }
}

void density_tangent(const descriptor *d, const environment *env, const lanes *direction, double *tangent)
{
    const size_t size = (size_t)(d->l_max + 1) * (d->l_max + 1) * d->n_stride;
    memset(tangent, 0, d->n_channels * size * sizeof(double));
    for (int b = 0; b < env->n_blocks; b++) {
        density_block_tangent block;
        const lanes *t = direction + 3 * b;
        block_tangent(d, env, b, t[0], t[1], t[2], &block);
        for (int l = 0; l <= d->l_max; l++) {
            const lanes *radial = env->radial + (size_t)b * d->n_functions + d->radial_offset[l];
            const lanes *slope = env->slope + (size_t)b * d->n_functions + d->radial_offset[l];
            for (int lm = l * l; lm < (l + 1) * (l + 1); lm++)
                for (int n = 0; n < d->n_blocks[l] * PADDING; n++) {
                    lanes term = radial[n] * block.angular[lm] + slope[n] * block.along * block.harmonics[lm];
                    double sum = 0;
                    for (int v = 0; v < env->count[b]; v++)
                        sum += term[v];
                    for (int k = 0; k < d->n_channels; k++)
                        tangent[k * size + (size_t)lm * d->n_stride + n] +=
                            d->contraction[k * d->n_species + env->species[b]] * sum;
                }
        }
    }
}
