/* A small model for the C tests: two species mixed into two channels, three radial functions, l to 3, features of
 * order 0 to 4. The radial functions (1 - x)^3 x^n, x = r / cutoff, are quintics, so the splines are exact. */
#ifndef COMITIA_TEST_MODEL_H
#define COMITIA_TEST_MODEL_H

#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "descriptor.h"

enum {
    MODEL_L_MAX = 3,
    MODEL_N_LM = (MODEL_L_MAX + 1) * (MODEL_L_MAX + 1),
    MODEL_N_RADIAL = 3,
    MODEL_N_SPECIES = 2,
    MODEL_N_CHANNELS = 2,
    MODEL_N_Q = MODEL_N_RADIAL * MODEL_N_CHANNELS,
    MODEL_N_INTERVALS = 7,
    MODEL_N_COMPONENTS = MODEL_N_Q * MODEL_N_LM,
    MODEL_MAX = 4000
};

typedef struct {
    descriptor d;
    _Alignas(64) double spline[MODEL_N_INTERVALS][6][PADDING];
    double contraction[MODEL_N_CHANNELS][MODEL_N_SPECIES];
    int32_t radial_offset[MODEL_L_MAX + 1], n_used[MODEL_L_MAX + 1];
    int32_t spline_start[MODEL_N_SPECIES], channel_species[2 * MODEL_N_CHANNELS], channel_offset[MODEL_N_CHANNELS],
        channel_n[MODEL_N_CHANNELS * (MODEL_L_MAX + 1)];
    int32_t component_source[MODEL_N_COMPONENTS], component_function[MODEL_N_COMPONENTS];
    int32_t row_place[MODEL_N_CHANNELS * MODEL_N_LM], row_component[MODEL_N_CHANNELS * MODEL_N_LM * PADDING];
    int32_t component_lm[MODEL_N_COMPONENTS], component_channel[MODEL_N_COMPONENTS];
    int32_t feature[MODEL_MAX], order1_base[MODEL_N_Q];
    double scale[MODEL_MAX];
    int32_t order2_l[MODEL_MAX], order2_first[MODEL_MAX], order2_start[MODEL_MAX];
    int32_t order2_second[MODEL_MAX];
    int32_t scaled_start[MODEL_MAX], scaled_by[MODEL_MAX];
    int32_t run_l[MODEL_MAX], run_coupling[MODEL_MAX], run_start[MODEL_MAX], run_of[MODEL_MAX];
    double coupling[MODEL_MAX];
    int32_t product_first[MODEL_MAX], product_second[MODEL_MAX], product_base[MODEL_MAX];
    int32_t order3_start[MODEL_MAX], order3_third[MODEL_MAX], order3_feature[MODEL_MAX];
    int32_t order4_start[MODEL_MAX], order4_other[MODEL_MAX], order4_feature[MODEL_MAX];
    int32_t mirrored_start[MODEL_MAX], mirrored_other[MODEL_MAX], mirrored_place[MODEL_MAX];
    double core_inner[MODEL_N_SPECIES][MODEL_N_SPECIES], core_outer[MODEL_N_SPECIES][MODEL_N_SPECIES];
    double nuclear_charge[MODEL_N_SPECIES];
} model;

/* Nodes of a quadrature on the sphere: Gauss-Legendre in z, equal steps in the azimuth; exact to degree 2 N - 1. */
enum { SPHERE_N = 20, SPHERE_POINTS = 2 * SPHERE_N * SPHERE_N };

static inline void sphere_points(double (*point)[3], double *weight)
{
    for (int a = 0, p = 0; a < SPHERE_N; a++) {
        double z = cos(M_PI * (a + 0.75) / (SPHERE_N + 0.5)), slope = 1;
        for (int newton = 0; newton < 12; newton++) { /* roots of the Legendre polynomial */
            double before = 1, now = z;
            for (int l = 2; l <= SPHERE_N; l++) {
                double next = ((2 * l - 1) * z * now - (l - 1) * before) / l;
                before = now;
                now = next;
            }
            slope = SPHERE_N * (z * now - before) / (z * z - 1);
            z -= now / slope;
        }
        for (int b = 0; b < 2 * SPHERE_N; b++, p++) {
            double phi = M_PI * (b + 0.5) / SPHERE_N, s = sqrt(1 - z * z);
            point[p][0] = s * cos(phi);
            point[p][1] = s * sin(phi);
            point[p][2] = z;
            weight[p] = 2 / ((1 - z * z) * slope * slope) * M_PI / SPHERE_N;
        }
    }
}

/* Y_lm of one direction, all l to l_max. */
static inline void harmonics_at(const harmonics_table *table, int l_max, const double u[3], double *value)
{
    harmonics_parts part;
    lanes y[N_LM_MAX], zero = {0};
    harmonics_parts_of(table, l_max, zero + u[0], zero + u[1], zero + u[2], &part);
    harmonics_values(l_max, &part, y);
    for (int lm = 0; lm < (l_max + 1) * (l_max + 1); lm++) {
        value[lm] = y[lm][LANES - 1];
    }
}

/* The product of two channels, one run for each, with features of order 3, and below n_shared of order 4: with itself
 * and the product before it. */
static inline void model_product(model *m, const int *l, int first, int second, int shared)
{
    descriptor *d = &m->d;
    const int p = d->n_products++, r = d->n_runs++;
    for (int a = 0; a < 3; a++) {
        m->run_l[3 * r + a] = l[a];
    }
    m->run_start[r + 1] = p + 1;
    m->run_of[p] = r;
    m->product_first[p] = first * MODEL_N_LM + l[0] * l[0];
    m->product_second[p] = second * MODEL_N_LM + l[1] * l[1];
    m->product_base[p] = d->n_terms;
    int e = m->order3_start[p], four = m->order4_start[p];
    for (int third = p % 3; third < MODEL_N_Q; third += 2, e++) {
        m->order3_third[e] = third * MODEL_N_LM + l[2] * l[2];
        m->order3_feature[e] = d->n_features++;
    }
    for (int other = p; shared && other >= 0 && other > p - 2 && m->run_l[3 * other + 2] == l[2]; other--, four++) {
        m->order4_other[four] = other;
        m->order4_feature[four] = d->n_features++;
    }
    m->order3_start[p + 1] = e;
    m->order4_start[p + 1] = four;
    d->n_shared += shared;
    d->n_terms += shared * (2 * l[2] + 1);
}

static inline void model_mirror(model *m)
{
    for (int p = 0, e = 0; p < m->d.n_products; p++) {
        for (int q = 0; q < m->d.n_products; q++) {
            for (int f = m->order4_start[q]; f < m->order4_start[q + 1]; f++) {
                if (m->order4_other[f] == p) {
                    m->mirrored_other[e] = q;
                    m->mirrored_place[e++] = order4_places(&m->d) + f;
                }
            }
        }
        m->mirrored_start[p + 1] = e;
    }
}

/* Coefficients of the coupling of three l with an even sum, in the order of coupling.h, behind n others: integrals of
 * three harmonics, all of them divided by the root of the sum of squares. */
static inline int model_coefficients(model *m, const int *l, int n)
{
    static double point[SPHERE_POINTS][3], weight[SPHERE_POINTS], value[SPHERE_POINTS][MODEL_N_LM];
    double integral[2 * MODEL_L_MAX + 1][2 * MODEL_L_MAX + 1][2 * MODEL_L_MAX + 1], squares = 0;
    if (weight[0] == 0) {
        sphere_points(point, weight);
        for (int p = 0; p < SPHERE_POINTS; p++) {
            harmonics_at(&m->d.harmonics, MODEL_L_MAX, point[p], value[p]);
        }
    }
    for (int u = 0; u <= 2 * l[0]; u++) {
        for (int v = 0; v <= 2 * l[1]; v++) {
            for (int w = 0; w <= 2 * l[2]; w++) {
                integral[u][v][w] = 0;
                for (int p = 0; p < SPHERE_POINTS; p++) {
                    integral[u][v][w] +=
                        weight[p] * value[p][l[0] * l[0] + u] * value[p][l[1] * l[1] + v] * value[p][l[2] * l[2] + w];
                }
                squares += integral[u][v][w] * integral[u][v][w];
            }
        }
    }
    for (int m1 = 0; m1 <= l[0]; m1++) {
        for (int m2 = 0; m2 <= l[1]; m2++) {
            for (int way = 0; way < (m1 > 0 && m2 > 0 ? 2 : 1); way++) {
                const int mu = way == 0 ? m1 + m2 : abs(m1 - m2);
                if (mu <= l[2]) {
                    m->coupling[n++] = integral[l[0] + m1][l[1] + m2][l[2] + mu] / sqrt(squares);
                }
            }
        }
    }
    return n;
}

/* Products of each three l with an even sum: first those with features of order 4, then the others. */
static inline void model_products(model *m)
{
    static int start[MODEL_L_MAX + 1][MODEL_L_MAX + 1][MODEL_L_MAX + 1];
    int n_coefficients = 0;
    m->d.n_terms = m->d.n_components;
    for (int shared = 1; shared >= 0; shared--) {
        for (int c = 0; c <= MODEL_L_MAX; c++) {
            for (int a = 0; a <= MODEL_L_MAX; a++) {
                for (int b = a; b <= MODEL_L_MAX; b++) {
                    if ((a + b + c) % 2 != 0 || c > a + b || b > a + c) {
                        continue;
                    }
                    if (shared) {
                        start[a][b][c] = n_coefficients;
                        n_coefficients = model_coefficients(m, (int[3]){a, b, c}, n_coefficients);
                    }
                    for (int first = 0; first < 2; first++) {
                        m->run_coupling[m->d.n_runs] = start[a][b][c];
                        model_product(m, (int[3]){a, b, c}, first, first + 2 * shared, shared);
                    }
                }
            }
        }
    }
    m->d.n_terms += 2 * MODEL_L_MAX + 1;
    for (int p = 0; p < m->d.n_products; p++) {
        for (int e = m->order3_start[p]; e < m->order3_start[p + 1]; e++) {
            m->feature[order3_places(&m->d) + e] = m->order3_feature[e];
            m->scale[order3_places(&m->d) + e] = 1;
        }
        for (int e = m->order4_start[p]; e < m->order4_start[p + 1]; e++) {
            m->feature[order4_places(&m->d) + e] = m->order4_feature[e];
            m->scale[order4_places(&m->d) + e] = sqrt(2 * m->run_l[3 * m->run_of[p] + 2] + 1);
        }
    }
    model_mirror(m);
}

static inline void model_radial(model *m, double cutoff)
{
    for (int interval = 0; interval < MODEL_N_INTERVALS; interval++) {
        const double x0 = (double)interval / MODEL_N_INTERVALS, h = 1.0 / MODEL_N_INTERVALS;
        for (int n = 0; n < MODEL_N_RADIAL; n++) {
            double power[6] = {1, 0, 0, 0, 0, 0}; /* multiply out the factors, each linear in t */
            int degree = 0;
            for (int factor = 0; factor < 3 + n; factor++) {
                const double c0 = factor < 3 ? 1 - x0 : x0, c1 = factor < 3 ? -h : h;
                degree++;
                for (int p = degree; p > 0; p--) {
                    power[p] = c0 * power[p] + c1 * power[p - 1];
                }
                power[0] *= c0;
            }
            for (int p = 0; p < 6; p++) {
                m->spline[interval][p][n] = power[p] * (1 + n);
            }
        }
    }
    m->d.cutoff = cutoff;
    m->d.n_intervals = MODEL_N_INTERVALS;
    m->d.n_functions = m->d.n_stride = PADDING;
    m->d.spline = &m->spline[0][0][0];
    m->d.spline_start = m->spline_start;
}

/* `core`: with the repulsion of two elements, Si and O. */
static inline model *model_new(double cutoff, int core)
{
    model *m = aligned_alloc(64, (sizeof *m + 63) / 64 * 64);
    memset(m, 0, sizeof *m);
    descriptor *d = &m->d;
    harmonics_prepare(&d->harmonics);
    d->n_species = MODEL_N_SPECIES;
    d->n_channels = MODEL_N_CHANNELS;
    d->l_max = MODEL_L_MAX;
    model_radial(m, cutoff);
    const double u[2][2] = {
        {1.0,  0.4},
        {-0.3, 0.9}
    };
    memcpy(m->contraction, u, sizeof u);
    d->contraction = &m->contraction[0][0];
    for (int l = 0; l <= MODEL_L_MAX; l++) {
        m->n_used[l] = m->channel_n[l] = m->channel_n[MODEL_L_MAX + 1 + l] = MODEL_N_RADIAL;
    }
    d->n_rows = MODEL_N_CHANNELS * MODEL_N_LM;
    for (int r = 0; r < d->n_rows; r++)
        m->row_place[r] = r * PADDING;
    memset(m->row_component, -1, sizeof m->row_component);
    for (int q = 0; q < MODEL_N_Q; q++) {
        for (int lm = 0; lm < MODEL_N_LM; lm++) {
            const int c = q * MODEL_N_LM + lm, k = q / MODEL_N_RADIAL, n = q % MODEL_N_RADIAL;
            m->component_source[c] = (k * MODEL_N_LM + lm) * PADDING + n;
            m->row_component[m->component_source[c]] = c;
            m->component_function[c] = n;
            m->component_lm[c] = lm;
            m->component_channel[c] = k;
        }
    }
    d->n_components = MODEL_N_COMPONENTS;
    d->radial_offset = m->radial_offset;
    d->n_used = m->n_used;
    m->channel_offset[1] = MODEL_N_LM * PADDING;
    d->channel_offset = m->channel_offset;
    m->channel_species[1] = m->channel_species[3] = MODEL_N_SPECIES;
    d->channel_species = m->channel_species;
    d->channel_n = m->channel_n;
    d->n_density = MODEL_N_CHANNELS * MODEL_N_LM * PADDING;
    d->component_source = m->component_source;
    d->row_place = m->row_place;
    d->row_component = m->row_component;
    d->component_function = m->component_function;
    d->component_lm = m->component_lm;
    d->component_channel = m->component_channel;

    int f = 0;
    d->n_order0 = 1;
    m->feature[f] = f;
    m->scale[f++] = 1;
    for (int q = 0; q < MODEL_N_Q; q++) {
        m->order1_base[q] = q * MODEL_N_LM;
        d->n_order1++;
        m->feature[f] = f;
        m->scale[f++] = 1;
    }
    for (int l = 0, e = 0; l <= MODEL_L_MAX; l++) {
        for (int first = 0; first < MODEL_N_Q; first++) {
            const int g = d->n_order2++;
            m->order2_l[g] = l;
            m->order2_first[g] = first * MODEL_N_LM + l * l;
            for (int second = first; second < MODEL_N_Q; second++) {
                m->order2_second[e] = second * MODEL_N_LM + l * l;
                m->feature[f] = f;
                m->scale[f++] = 1 / sqrt(2 * l + 1);
                e++;
            }
            m->order2_start[g + 1] = e;
        }
    }
    for (int e = 0, scaled = 0; e < m->order2_start[d->n_order2]; e++) {
        for (int by = e % 3; by < 2; by++) { /* two channels, one or none */
            m->scaled_by[scaled++] = by * MODEL_N_LM;
            m->feature[f] = f;
            m->scale[f++] = 0.3;
        }
        m->scaled_start[e + 1] = scaled;
    }
    d->n_features = f;
    d->feature = m->feature;
    d->scale = m->scale;
    d->order1_base = m->order1_base;
    d->order2_l = m->order2_l;
    d->order2_first = m->order2_first;
    d->order2_start = m->order2_start;
    d->order2_second = m->order2_second;
    d->scaled_start = m->scaled_start;
    d->scaled_by = m->scaled_by;
    d->run_l = m->run_l;
    d->run_coupling = m->run_coupling;
    d->run_start = m->run_start;
    d->coupling = m->coupling;
    d->product_first = m->product_first;
    d->product_second = m->product_second;
    d->product_base = m->product_base;
    d->run_of = m->run_of;
    d->order3_start = m->order3_start;
    d->order3_third = m->order3_third;
    d->order4_start = m->order4_start;
    d->order4_other = m->order4_other;
    d->mirrored_start = m->mirrored_start;
    d->mirrored_other = m->mirrored_other;
    d->mirrored_place = m->mirrored_place;
    model_products(m);
    if (core) {
        const double inner[2][2] =
            {
                {0.8, 0.7},
                {0.7, 0.5}
        },
                     outer[2][2] = {{2.2, 1.9}, {1.9, 1.6}};
        memcpy(m->core_inner, inner, sizeof inner);
        memcpy(m->core_outer, outer, sizeof outer);
        m->nuclear_charge[0] = 14;
        m->nuclear_charge[1] = 8;
        d->core_inner = &m->core_inner[0][0];
        d->core_outer = &m->core_outer[0][0];
        d->nuclear_charge = m->nuclear_charge;
    }
    return m;
}

#endif
