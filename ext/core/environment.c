#include "environment.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void environment_free(environment *env)
{
    void *arrays[] = {env->memory, env->species, env->harmonics, env->functions, env->gathered, env->neighbour};
    for (size_t a = 0; a < sizeof arrays / sizeof *arrays; a++)
        free(arrays[a]);
    *env = (environment){0};
}

/* Replaces an array by a larger one; nothing is kept. */
static int grow(void *array, size_t bytes)
{
    void *grown = aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (grown == NULL)
        return OUT_OF_MEMORY;
    free(*(void **)array);
    *(void **)array = grown;
    return 0;
}

static int reserve_gathered(environment *env, size_t n)
{
    if (n <= (size_t)env->gathered_capacity)
        return 0;
    n = n + n / 4 + 32;
    if (grow(&env->gathered, n * 4 * sizeof(double)) || grow(&env->neighbour, n * sizeof(int32_t)))
        return OUT_OF_MEMORY;
    env->gathered_capacity = (int)n;
    return 0;
}

/* What stands before the neighbours. */
typedef struct {
    int n, first[]; /* [n_species + 1] */
} head;

static size_t registers(size_t bytes)
{
    return (bytes + sizeof(lanes) - 1) / sizeof(lanes);
}

static size_t head_size(const descriptor *d)
{
    return registers(sizeof(head) + (d->n_species + 1) * sizeof(int));
}

size_t environment_size(const descriptor *d, size_t n)
{
    const size_t padded = (n + LANES - 1) / LANES * LANES;
    return head_size(d) + registers(padded * (3 * sizeof(double) + sizeof(int32_t)));
}

static size_t made_size(const descriptor *d, size_t n_blocks)
{
    return n_blocks * (6 + d->n_channels + 2 * (size_t)radial_rows(d));
}

static int reserve_blocks(const descriptor *d, environment *env, int n)
{
    if (n <= env->block_capacity)
        return 0;
    n += n / 4 + 2;
    const size_t one = n * sizeof(lanes), n_lm = (size_t)(d->l_max + 1) * (d->l_max + 1), n_functions = d->n_functions;
    const size_t neighbours = environment_size(d, (size_t)n * LANES), made = made_size(d, n);
    env->block_capacity = 0;
    if (grow(&env->memory, (neighbours + made) * sizeof(lanes)) || grow(&env->species, n * LANES * sizeof(int32_t)) ||
        grow(&env->harmonics, n_lm * one) || grow(&env->functions, n_functions * one))
        return OUT_OF_MEMORY;
    env->block_capacity = n;
    return 0;
}

/* Neighbours go to `room`, the rest behind where they would be in memory of `env`. */
static void point_to(const descriptor *d, lanes *room, environment *env)
{
    const size_t n = env->n_blocks;
    lanes **arrays[] = {&env->unit,   &env->distance, &env->inverse_r, &env->core_slope,
                        &env->weight, &env->radial,   &env->slope};
    const size_t sizes[] = {3, 1, 1, 1, d->n_channels, radial_rows(d), radial_rows(d)};
    lanes *memory = env->memory + environment_size(d, n * LANES);
    room = room == NULL ? env->memory : room;
    env->vector = (double *)(room + head_size(d));
    env->index = (int32_t *)(env->vector + 3 * n * LANES);
    for (int a = 0; a < 7; a++) {
        *arrays[a] = memory;
        memory += sizes[a] * n;
    }
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

static void add_core(const descriptor *d, int species, environment *env, int b)
{
    for (int v = 0; v < real_neighbours(env, b); v++) {
        const int t = env->species[b * LANES + v], pair = species * d->n_species + t;
        if (env->distance[b][v] < d->core_outer[pair]) {
            double slope;
            env->core_energy += half_core(d->nuclear_charge[species], d->nuclear_charge[t], d->core_inner[pair],
                                          d->core_outer[pair], env->distance[b][v], &slope);
            env->core_slope[b][v] = slope;
        }
    }
}

/* Finds the neighbours inside the cutoff; returns their number. */
INLINE int within_cutoff(const descriptor *d, const structure *s, size_t i, const int shifted, environment *env,
                         int *n_of)
{
    const neighbour_list *list = s->list;
    const double *cell = s->cell, *centre = s->positions + 3 * i, limit = d->cutoff * d->cutoff;
    int n = 0;
    for (int64_t p = list->start[i]; p < list->start[i + 1]; p++) {
        const int32_t j = list->neighbour[p];
        double *r = env->gathered + 4 * n, square = 0;
        for (int a = 0; a < 3; a++) {
            r[a] = s->positions[3 * j + a] - centre[a];
            if (shifted) {
                const int32_t *shift = list->shift + 3 * p;
                r[a] = r[a] + shift[0] * cell[a] + shift[1] * cell[3 + a] + shift[2] * cell[6 + a];
            }
            square += r[a] * r[a];
        }
        r[3] = square;
        env->neighbour[n] = j;
        if (square < limit) {
            n++;
            n_of[s->species[j]]++;
        }
    }
    return n;
}

/* Sorts the neighbours by species and pads the last block. */
static void sort(const descriptor *d, const structure *s, int n, const int *n_of, environment *env)
{
    int next[MAX_SPECIES];
    const int padded = env->n_blocks * LANES;
    double *x = env->vector, *y = x + padded, *z = y + padded;
    env->first[0] = 0;
    for (int t = 0; t < d->n_species; t++) {
        next[t] = env->first[t];
        env->first[t + 1] = env->first[t] + n_of[t];
    }
    for (int g = 0; g < n; g++) {
        const int32_t j = env->neighbour[g];
        const int place = next[s->species[j]]++;
        env->index[place] = j;
        x[place] = env->gathered[4 * g];
        y[place] = env->gathered[4 * g + 1];
        z[place] = env->gathered[4 * g + 2];
    }
    for (int place = n; place < padded; place++) {
        env->index[place] = 0;
        x[place] = y[place] = 0;
        z[place] = 1;
    }
}

/* Species and weights of the sorted neighbours. */
static void spread_species(const descriptor *d, environment *env)
{
    const int padded = env->n_blocks * LANES;
    real *weight = (real *)env->weight;
    for (int t = 0; t < d->n_species; t++)
        for (int place = env->first[t]; place < env->first[t + 1]; place++) {
            env->species[place] = t;
            for (int k = 0; k < d->n_channels; k++)
                weight[k * padded + place] = (real)d->contraction[k * d->n_species + t];
        }
    for (int place = env->n; place < padded; place++) {
        env->species[place] = env->species[env->n - 1];
        for (int k = 0; k < d->n_channels; k++)
            weight[k * padded + place] = 0;
    }
}

/* Directions and distances of a block; position: where the distances lie on the splines. */
static void fill_geometry(const descriptor *d, environment *env, int b, double *position)
{
    const int padded = env->n_blocks * LANES;
    const double *x = env->vector + b * LANES, *y = x + padded, *z = y + padded;
    const double per_r = d->n_intervals / d->cutoff;
    lanes unit[3], distance, inverse_r;
    for (int v = 0; v < LANES; v++) {
        const double r = sqrt(x[v] * x[v] + y[v] * y[v] + z[v] * z[v]), inverse = 1 / r;
        position[v] = r * per_r;
        unit[0][v] = x[v] * inverse;
        unit[1][v] = y[v] * inverse;
        unit[2][v] = z[v] * inverse;
        distance[v] = r;
        inverse_r[v] = inverse;
    }
    for (int v = real_neighbours(env, b); v < LANES; v++)
        distance[v] = inverse_r[v] = 0;
    memcpy(env->unit + 3 * b, unit, sizeof unit);
    env->distance[b] = distance;
    env->inverse_r[b] = inverse_r;
    env->core_slope[b] = (lanes){0};
}

/* Values and slopes of LANES functions at position t inside one piece of the spline, by Horner. */
INLINE void spline_at(const real *piece, int n_functions, real t, real scale, lanes *value, lanes *slope)
{
    lanes c[6];
    for (int p = 0; p < 6; p++)
        c[p] = *(const lanes *)(piece + (size_t)p * n_functions);
    lanes sum = c[5], derivative = c[5];
    for (int p = 4; p > 0; p--) {
        sum = sum * t + c[p];
        derivative = derivative * t + sum;
    }
    *value = sum * t + c[0];
    *slope = scale * derivative;
}

/* Radial functions of a block for density_expand, for density_reverse, or both. */
INLINE void fill_functions(const descriptor *d, environment *env, int b, const double *position, const int expand,
                           const int reverse)
{
    const int count = real_neighbours(env, b), last = functions_of_each_l(d) ? d->l_max : 0;
    const real per_r = (real)(d->n_intervals / d->cutoff);
    real *functions = env->functions + (size_t)b * LANES * d->n_functions;
    for (int l = 0; l <= last; l++)
        for (int f = d->radial_offset[l]; f < d->radial_offset[l] + d->n_used[l]; f += LANES) {
            lanes value[LANES], slope[LANES];
            for (int v = 0; v < LANES; v++) {
                const int interval = (int)position[v] < d->n_intervals ? (int)position[v] : d->n_intervals - 1;
                const real *table = d->SPLINE + d->spline_start[env->species[b * LANES + v]];
                if (v < count)
                    spline_at(table + (size_t)interval * 6 * d->n_functions + f, d->n_functions,
                              (real)(position[v] - interval), per_r, &value[v], &slope[v]);
                else
                    value[v] = slope[v] = (lanes){0};
                if (expand)
                    *(lanes *)(functions + (size_t)v * d->n_functions + f) = value[v];
            }
            if (!reverse)
                continue;
            const int n = d->radial_offset[l] + d->n_used[l] - f;
            transpose(value);
            transpose(slope);
            for (int i = 0; i < LANES && i < n; i++) {
                env->radial[(size_t)b * radial_rows(d) + f + i] = value[i];
                env->slope[(size_t)b * radial_rows(d) + f + i] = slope[i];
            }
        }
}

/* What is made of the neighbours. */
INLINE void fill(const descriptor *d, environment *env, int species, const int expand, const int reverse)
{
    env->core_energy = 0;
    spread_species(d, env);
    for (int b = 0; b < env->n_blocks; b++) {
        double position[LANES];
        fill_geometry(d, env, b, position);
        fill_functions(d, env, b, position, expand, reverse);
        if (d->core_outer != NULL)
            add_core(d, species, env, b);
    }
}

int environment_gather(const descriptor *d, const structure *s, size_t i, lanes *room, environment *env)
{
    int n_of[MAX_SPECIES] = {0};
    if (reserve_gathered(env, (size_t)(s->list->start[i + 1] - s->list->start[i]) + 1))
        return OUT_OF_MEMORY;
    env->n = s->list->shift == NULL ? within_cutoff(d, s, i, 0, env, n_of) : within_cutoff(d, s, i, 1, env, n_of);
    env->n_blocks = (env->n + LANES - 1) / LANES;
    if (reserve_blocks(d, env, env->n_blocks))
        return OUT_OF_MEMORY;
    point_to(d, room, env);
    sort(d, s, env->n, n_of, env);
    if (room == NULL) {
        fill(d, env, s->species[i], 1, 1);
        return 0;
    }
    head *written = (head *)room;
    written->n = env->n;
    memcpy(written->first, env->first, (d->n_species + 1) * sizeof(int));
    fill(d, env, s->species[i], 1, 0);
    return 0;
}

int environment_read(const descriptor *d, int species, lanes *room, environment *env)
{
    const head *written = (const head *)room;
    env->n = written->n;
    env->n_blocks = (env->n + LANES - 1) / LANES;
    memcpy(env->first, written->first, (d->n_species + 1) * sizeof(int));
    if (reserve_blocks(d, env, env->n_blocks))
        return OUT_OF_MEMORY;
    point_to(d, room, env);
    fill(d, env, species, 0, 1);
    return 0;
}

/* Adds r_ij times the force on j to the virials of the neighbours. */
static void scatter_virials(const environment *env, const lanes *gradient, double *atomic_virials)
{
    for (int b = 0; b < env->n_blocks; b++)
        for (int v = 0; v < real_neighbours(env, b); v++) {
            double *virial = atomic_virials + 9 * (size_t)env->index[b * LANES + v];
            for (int c = 0; c < 3; c++)
                for (int a = 0; a < 3; a++)
                    virial[3 * c + a] -= env->unit[3 * b + c][v] * env->distance[b][v] * gradient[3 * b + a][v];
        }
}

void environment_scatter(const environment *env, const lanes *gradient, size_t i, double *forces, double *virial,
                         double *atomic_virials)
{
    double own[3] = {0, 0, 0};
    lanes sum[9];
    for (int p = 0; p < 9; p++)
        sum[p] = (lanes){0};
    for (int b = 0; b < env->n_blocks; b++) {
        const lanes *g = gradient + 3 * b;
        for (int c = 0; c < 3; c++) {
            const lanes x = env->unit[3 * b + c] * env->distance[b];
            for (int a = 0; a < 3; a++)
                sum[3 * c + a] += x * g[a];
        }
        for (int v = 0; v < real_neighbours(env, b); v++) {
            double *f = forces + 3 * env->index[b * LANES + v];
            for (int a = 0; a < 3; a++) {
                f[a] -= g[a][v];
                own[a] += g[a][v];
            }
        }
    }
    for (int a = 0; a < 3; a++)
        forces[3 * i + a] += own[a];
    for (int p = 0; p < 9; p++)
        for (int v = 0; v < LANES; v++)
            virial[p] -= sum[p][v];
    if (atomic_virials != NULL)
        scatter_virials(env, gradient, atomic_virials);
}
