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
    int32_t channel_offset[MODEL_N_CHANNELS], channel_n[MODEL_N_CHANNELS * (MODEL_L_MAX + 1)];
    int32_t component_source[MODEL_N_COMPONENTS], component_function[MODEL_N_COMPONENTS];
    int32_t component_lm[MODEL_N_COMPONENTS], component_channel[MODEL_N_COMPONENTS];
    int32_t order0_feature[1], order1_base[MODEL_N_Q], order1_feature[MODEL_N_Q];
    int32_t product_first[MODEL_MAX], product_second[MODEL_MAX], product_coupling[MODEL_MAX];
    int32_t product_base[MODEL_MAX], product_of[MODEL_MAX];
    int32_t dot_l[MODEL_MAX], dot_first[MODEL_MAX], dot_start[MODEL_MAX];
    double dot_scale[MODEL_MAX];
    int32_t dot_second[MODEL_MAX], dot_feature[MODEL_MAX];
    int32_t coupling_l[MODEL_MAX], coupling_start[MODEL_MAX], coupling_m[MODEL_MAX];
    double coupling_value[MODEL_MAX];
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

/* Products of some channels, each with its features of order 3, and with those of order 4 of the products after it. */
static inline void model_products(model *m, int n_tables)
{
    descriptor *d = &m->d;
    d->n_terms = d->n_components;
    for (int t = 0; t < n_tables; t++) {
        const int32_t *l = &m->coupling_l[3 * t];
        for (int first = 0; first < 2; first++) {
            for (int second = first; second < MODEL_N_Q; second += 2) {
                const int p = d->n_products++;
                m->product_first[p] = first * MODEL_N_LM + l[0] * l[0];
                m->product_second[p] = second * MODEL_N_LM + l[1] * l[1];
                m->product_coupling[p] = t;
                m->product_base[p] = d->n_terms;
                for (int c = 0; c <= 2 * l[2]; c++) {
                    m->product_of[d->n_terms++ - d->n_components] = p;
                }
            }
        }
    }
    for (int p = 0, e = m->dot_start[d->n_dots]; p < d->n_products; p++) {
        const int l = m->coupling_l[3 * m->product_coupling[p] + 2];
        for (int order = 3; order <= 4; order++) {
            const int g = d->n_dots++;
            m->dot_l[g] = l;
            m->dot_first[g] = m->product_base[p];
            m->dot_scale[g] = order == 3 ? 1 : sqrt(2 * l + 1);
            for (int third = p % 3; order == 3 && third < MODEL_N_Q; third++) {
                m->dot_second[e] = third * MODEL_N_LM + l * l;
                m->dot_feature[e++] = d->n_features++;
            }
            for (int other = p; order == 4 && other < d->n_products && other < p + 9; other += 2) {
                if (m->coupling_l[3 * m->product_coupling[other] + 2] == l) {
                    m->dot_second[e] = m->product_base[other];
                    m->dot_feature[e++] = d->n_features++;
                }
            }
            m->dot_start[g + 1] = e;
        }
    }
}

/* Couplings of three l with an even sum: integrals of three harmonics, with the sum of squares 1. */
static inline void model_couplings(model *m)
{
    static double point[SPHERE_POINTS][3], weight[SPHERE_POINTS], value[SPHERE_POINTS][MODEL_N_LM];
    sphere_points(point, weight);
    for (int p = 0; p < SPHERE_POINTS; p++) {
        harmonics_at(&m->d.harmonics, MODEL_L_MAX, point[p], value[p]);
    }
    int n_tables = 0, n_entries = 0;
    for (int a = 0; a <= MODEL_L_MAX; a++) {
        for (int b = a; b <= MODEL_L_MAX; b++) {
            for (int c = b; c <= a + b && c <= MODEL_L_MAX; c++) {
                if ((a + b + c) % 2 != 0) {
                    continue;
                }
                const int l[3] = {a, b, c};
                memcpy(&m->coupling_l[3 * n_tables], l, sizeof l);
                m->coupling_start[n_tables++] = n_entries;
                double squares = 0;
                int begin = n_entries;
                for (int w = 0; w <= 2 * c; w++) {
                    for (int u = 0; u <= 2 * a; u++) {
                        for (int v = 0; v <= 2 * b; v++) {
                            double integral = 0;
                            for (int p = 0; p < SPHERE_POINTS; p++) {
                                integral += weight[p] * value[p][a * a + u] * value[p][b * b + v] * value[p][c * c + w];
                            }
                            if (fabs(integral) < 1e-12) {
                                continue;
                            }
                            m->coupling_m[3 * n_entries] = u;
                            m->coupling_m[3 * n_entries + 1] = v;
                            m->coupling_m[3 * n_entries + 2] = w;
                            m->coupling_value[n_entries++] = integral;
                            squares += integral * integral;
                        }
                    }
                }
                for (int e = begin; e < n_entries; e++) {
                    m->coupling_value[e] /= sqrt(squares);
                }
            }
        }
    }
    m->coupling_start[n_tables] = n_entries;
    model_products(m, n_tables);
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
    for (int q = 0; q < MODEL_N_Q; q++) {
        for (int lm = 0; lm < MODEL_N_LM; lm++) {
            const int c = q * MODEL_N_LM + lm, k = q / MODEL_N_RADIAL, n = q % MODEL_N_RADIAL;
            m->component_source[c] = (k * MODEL_N_LM + lm) * PADDING + n;
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
    d->channel_n = m->channel_n;
    d->n_density = MODEL_N_CHANNELS * MODEL_N_LM * PADDING;
    d->component_source = m->component_source;
    d->component_function = m->component_function;
    d->component_lm = m->component_lm;
    d->component_channel = m->component_channel;

    int f = 0;
    m->order0_feature[d->n_order0++] = f++;
    for (int q = 0; q < MODEL_N_Q; q++) {
        m->order1_base[q] = q * MODEL_N_LM;
        m->order1_feature[d->n_order1++] = f++;
    }
    for (int l = 0, e = 0; l <= MODEL_L_MAX; l++) {
        for (int first = 0; first < MODEL_N_Q; first++) {
            const int g = d->n_dots++;
            m->dot_l[g] = l;
            m->dot_first[g] = first * MODEL_N_LM + l * l;
            m->dot_scale[g] = 1 / sqrt(2.0 * l + 1);
            for (int second = first; second < MODEL_N_Q; second++) {
                m->dot_second[e] = second * MODEL_N_LM + l * l;
                m->dot_feature[e++] = f++;
            }
            m->dot_start[g + 1] = e;
        }
    }
    d->n_features = f;
    model_couplings(m);
    d->order0_feature = m->order0_feature;
    d->order1_base = m->order1_base;
    d->order1_feature = m->order1_feature;
    d->product_first = m->product_first;
    d->product_second = m->product_second;
    d->product_coupling = m->product_coupling;
    d->product_base = m->product_base;
    d->product_of = m->product_of;
    d->dot_l = m->dot_l;
    d->dot_first = m->dot_first;
    d->dot_start = m->dot_start;
    d->dot_scale = m->dot_scale;
    d->dot_second = m->dot_second;
    d->dot_feature = m->dot_feature;
    d->coupling_l = m->coupling_l;
    d->coupling_start = m->coupling_start;
    d->coupling_m = m->coupling_m;
    d->coupling_value = m->coupling_value;
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
