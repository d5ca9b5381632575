/* What training needs of the kernel: the tangent of the summed features, and the rows of the design matrix. */
#include "evaluate.h"
#include "jacobian.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    environment env;
    real *A, *tangent;
    double *terms, *features;
    jacobian_row *jacobian;
    lanes *slope; /* directions of the neighbours, or d(component)/dr of one block [n_components][3] */
    size_t slope_capacity;
} scratch;

static void scratch_free(scratch *w)
{
    environment_free(&w->env);
    void *arrays[] = {w->A, w->terms, w->tangent, w->features, w->jacobian, w->slope};
    for (size_t a = 0; a < sizeof arrays / sizeof *arrays; a++)
        free(arrays[a]);
}

static int scratch_reserve_slope(scratch *w, size_t n)
{
    if (n <= w->slope_capacity)
        return 0;
    free(w->slope);
    w->slope = aligned_alloc(64, (n * sizeof(lanes) + 63) / 64 * 64);
    w->slope_capacity = w->slope == NULL ? 0 : n;
    return w->slope == NULL ? OUT_OF_MEMORY : 0;
}

static int scratch_prepare(scratch *w, const descriptor *d)
{
    const size_t bytes = round_up(d->n_density) * sizeof(real);
    *w = (scratch){0};
    w->A = aligned_alloc(64, bytes);
    w->tangent = aligned_alloc(64, bytes);
    w->terms = malloc(d->n_terms * sizeof(double));
    w->features = malloc(d->n_features * sizeof(double));
    w->jacobian = malloc(d->n_features * sizeof(jacobian_row));
    if (!w->A || !w->tangent || !w->terms || !w->features || !w->jacobian)
        return OUT_OF_MEMORY;
    return scratch_reserve_slope(w, 3 * (size_t)d->n_components);
}

static int centre_jacobian(const descriptor *d, const structure *s, size_t i, scratch *w)
{
    if (environment_gather(d, s, i, NULL, &w->env))
        return OUT_OF_MEMORY;
    density_expand(d, &w->env, w->A);
    for (int c = 0; c < d->n_components; c++)
        w->terms[c] = w->A[d->component_source[c]];
    features_jacobian(d, w->terms, w->features, w->jacobian);
    return 0;
}

static int structure_tangent(const descriptor *d, const structure *s, const double *direction, const double *strain,
                             scratch *w, double *sums)
{
    memset(sums, 0, (size_t)d->n_species * d->n_features * sizeof(double));
    for (size_t i = 0; i < s->n_atoms; i++) {
        if (centre_jacobian(d, s, i, w) || scratch_reserve_slope(w, 3 * (size_t)w->env.n_blocks))
            return OUT_OF_MEMORY;
        for (int b = 0; b < w->env.n_blocks; b++)
            for (int a = 0; a < 3; a++)
                for (int v = 0; v < LANES; v++)
                    w->slope[3 * b + a][v] = direction[3 * w->env.index[b * LANES + v] + a] - direction[3 * i + a];
        for (int b = 0; strain && b < w->env.n_blocks; b++)
            for (int a = 0; a < 3; a++)
                for (int c = 0; c < 3; c++)
                    w->slope[3 * b + a] += strain[3 * a + c] * w->env.unit[3 * b + c] * w->env.distance[b];
        density_tangent(d, &w->env, w->slope, w->tangent);
        double *row = sums + (size_t)s->species[i] * d->n_features;
        for (int f = 0; f < d->n_features; f++) {
            const jacobian_row *jacobian = &w->jacobian[f];
            for (int k = 0; k < jacobian->count; k++)
                row[f] += jacobian->value[k] * w->tangent[d->component_source[jacobian->component[k]]];
        }
    }
    return 0;
}

int evaluate_tangent(const descriptor *d, size_t n_structures, const structure *structures, int n_threads,
                     const double *directions, const double *strains, double *sums)
{
    int failed = 0;
    size_t first = 0;
    size_t *first_atom = malloc((n_structures + 1) * sizeof(size_t));
    if (first_atom == NULL)
        return OUT_OF_MEMORY;
    for (size_t s = 0; s < n_structures; s++) {
        first_atom[s] = first;
        first += structures[s].n_atoms;
    }
#pragma omp parallel num_threads(n_threads)
    {
        scratch w;
        int error = scratch_prepare(&w, d);
#pragma omp for schedule(dynamic)
        for (int64_t s = 0; s < (int64_t)n_structures; s++)
            if (!error)
                error = structure_tangent(d, &structures[s], directions + 3 * first_atom[s],
                                          strains ? strains + 9 * s : NULL, &w,
                                          sums + (size_t)s * d->n_species * d->n_features);
        scratch_free(&w);
        if (error) {
#pragma omp atomic write
            failed = 1;
        }
    }
    free(first_atom);
    return failed ? OUT_OF_MEMORY : 0;
}

/* d(component)/dr of the neighbours of block b, three directions side by side. */
static void component_slopes(const descriptor *d, const environment *env, int b, lanes *slope)
{
    for (int a = 0; a < 3; a++) {
        density_block_tangent block;
        const lanes zero = {0}, one = zero + 1.0;
        block_tangent(d, env, b, a == 0 ? one : zero, a == 1 ? one : zero, a == 2 ? one : zero, &block);
        lanes u = zero;
        for (int c = 0, channel = -1; c < d->n_components; c++) {
            if (d->component_channel[c] != channel) {
                channel = d->component_channel[c];
                u = env->weight[channel * env->n_blocks + b];
            }
            const size_t function = (size_t)b * radial_rows(d) + d->component_function[c];
            const int lm = d->component_lm[c];
            slope[3 * c + a] = u * (env->radial[function] * block.angular[lm] +
                                    env->slope[function] * block.along * block.harmonics[lm]);
        }
    }
}

enum { TILE = 32, CHUNKS = TILE / LANES };

/* dB/dr of LANES neighbours for n features, out[3][TILE]; 0 beyond. */
static void feature_slopes(const jacobian_row *jacobian, int n, const lanes *slope, lanes *out)
{
    const lanes zero = {0};
    for (int f = 0; f < n; f++) {
        lanes x = zero, y = zero, z = zero;
        for (int k = 0; k < jacobian[f].count; k++) {
            const lanes *s = slope + 3 * jacobian[f].component[k];
            x += jacobian[f].value[k] * s[0];
            y += jacobian[f].value[k] * s[1];
            z += jacobian[f].value[k] * s[2];
        }
        out[f] = x;
        out[TILE + f] = y;
        out[2 * TILE + f] = z;
    }
    for (int f = n; f < TILE; f++)
        out[f] = out[TILE + f] = out[2 * TILE + f] = zero;
}

/* Features side by side instead of neighbours: rows[3][LANES][TILE] from slopes[3][TILE] of LANES neighbours. */
static void turn(const lanes *slopes, lanes *rows)
{
    for (int a = 0; a < 3; a++)
        for (int chunk = 0; chunk < CHUNKS; chunk++) {
            lanes x[LANES], y[LANES];
            memcpy(x, slopes + a * TILE + chunk * LANES, sizeof x);
            for (int stage = 1; stage < LANES; stage *= 2) {
                for (int v = 0; v < LANES / 2; v++)
                    interleave(x[v], x[v + LANES / 2], &y[2 * v], &y[2 * v + 1]);
                memcpy(x, y, sizeof x);
            }
            for (int v = 0; v < LANES; v++)
                rows[(a * LANES + v) * CHUNKS + chunk] = x[v];
        }
}

static void add_to(double *restrict row, int n, double factor, const lanes *restrict tile)
{
    const double *value = (const double *)tile;
    if (n == TILE) {
        for (int f = 0; f < TILE; f++)
            row[f] += factor * value[f];
        return;
    }
    for (int f = 0; f < n; f++)
        row[f] += factor * value[f];
}

/* Rows of the forces on centre i and on the neighbours of block b; `column` is the first of the tile. */
static void add_forces(const environment *env, int b, size_t i, int n, const lanes *rows, size_t width, double *column)
{
    for (int a = 0; a < 3; a++) {
        lanes own[CHUNKS] = {{0}};
        for (int v = 0; v < real_neighbours(env, b); v++) {
            const lanes *tile = rows + (a * LANES + v) * CHUNKS;
            for (int chunk = 0; chunk < CHUNKS; chunk++)
                own[chunk] += tile[chunk];
            add_to(column + (3 * (size_t)env->index[b * LANES + v] + a) * width, n, -1.0, tile);
        }
        add_to(column + (3 * i + a) * width, n, 1.0, own);
    }
}

static void add_virial(const environment *env, int b, int n, const lanes *rows, size_t width, double *column)
{
    static const int voigt[6][2] = {
        {0, 0},
        {1, 1},
        {2, 2},
        {1, 2},
        {0, 2},
        {0, 1}
    };
    for (int p = 0; p < 6; p++) {
        const lanes x = env->unit[3 * b + voigt[p][0]] * env->distance[b];
        lanes sum[CHUNKS] = {{0}};
        for (int v = 0; v < real_neighbours(env, b); v++)
            for (int chunk = 0; chunk < CHUNKS; chunk++)
                sum[chunk] += x[v] * rows[(voigt[p][1] * LANES + v) * CHUNKS + chunk];
        add_to(column + p * width, n, -1.0, sum);
    }
}

int evaluate_design(const descriptor *d, const structure *s, double *features, double *forces, double *virial)
{
    const size_t width = (size_t)d->n_species * d->n_features;
    scratch w;
    memset(features, 0, width * sizeof(double));
    if (forces != NULL)
        memset(forces, 0, 3 * s->n_atoms * width * sizeof(double));
    if (virial != NULL)
        memset(virial, 0, 6 * width * sizeof(double));
    int error = scratch_prepare(&w, d);
    for (size_t i = 0; !error && i < s->n_atoms; i++) {
        if ((error = centre_jacobian(d, s, i, &w)))
            break;
        const size_t column = (size_t)s->species[i] * d->n_features;
        for (int f = 0; f < d->n_features; f++)
            features[column + f] += w.features[f];
        const environment *env = &w.env;
        for (int b = 0; (forces || virial) && b < env->n_blocks; b++) {
            component_slopes(d, env, b, w.slope);
            for (int tile = 0; tile < d->n_features; tile += TILE) {
                const int n = d->n_features - tile < TILE ? d->n_features - tile : TILE;
                lanes slopes[3 * TILE], rows[3 * TILE];
                feature_slopes(w.jacobian + tile, n, w.slope, slopes);
                turn(slopes, rows);
                if (forces)
                    add_forces(env, b, i, n, rows, width, forces + column + tile);
                if (virial)
                    add_virial(env, b, n, rows, width, virial + column + tile);
            }
        }
    }
    scratch_free(&w);
    return error;
}
