#include "correlations.h"

#include <math.h>
#include <string.h>

void correlations_load(const descriptor *d, const double *A, int lane, lanes *component)
{
    double *out = (double *)component + lane;
    for (int c = 0; c < d->n_components; c++)
        out[(size_t)c * LANES] = A[d->component_source[c]];
}

void correlations_store(const descriptor *d, const lanes *component, int lane, double *A)
{
    const double *in = (const double *)component + lane;
    for (int c = 0; c < d->n_components; c++)
        A[d->component_source[c]] = in[(size_t)c * LANES];
}

/* One group of order 2: all features A[first] . A[second] that share `first`; N = 2 l + 1 numbers each. */
#define ORDER2_GROUP(N)                                                                                                \
    {                                                                                                                  \
        lanes mine[N], gathered[N];                                                                                    \
        for (int m = 0; m < N; m++) {                                                                                  \
            mine[m] = first[m];                                                                                        \
            gathered[m] = (lanes){0};                                                                                  \
        }                                                                                                              \
        for (int e = d->order2_start[g]; e < d->order2_start[g + 1]; e++) {                                            \
            const int f = d->order2_feature[e], base = d->order2_second[e];                                            \
            const lanes *second = component + base;                                                                    \
            lanes sum = {0};                                                                                           \
            for (int m = 0; m < N; m++)                                                                                \
                sum += mine[m] * second[m];                                                                            \
            features[f] = scale * sum;                                                                                 \
            if (reverse) {                                                                                             \
                lanes w = scale * WEIGHT(f);                                                                           \
                for (int m = 0; m < N; m++) {                                                                          \
                    gathered[m] += w * second[m];                                                                      \
                    adjoint[base + m] += w * mine[m];                                                                  \
                }                                                                                                      \
            }                                                                                                          \
        }                                                                                                              \
        if (reverse)                                                                                                   \
            for (int m = 0; m < N; m++)                                                                                \
                adjoint[d->order2_first[g] + m] += gathered[m];                                                        \
    }

/* The features of order 3 of one group: T . A[third], and the adjoint of T. */
#define ORDER3_GROUP(N)                                                                                                \
    {                                                                                                                  \
        lanes mine[N], gathered[N];                                                                                    \
        for (int m = 0; m < N; m++) {                                                                                  \
            mine[m] = product[m];                                                                                      \
            gathered[m] = (lanes){0};                                                                                  \
        }                                                                                                              \
        for (int e = d->order3_start[g]; e < d->order3_start[g + 1]; e++) {                                            \
            const int f = d->order3_feature[e], base = d->order3_third[e];                                             \
            const lanes *third = component + base;                                                                     \
            lanes sum = {0};                                                                                           \
            for (int m = 0; m < N; m++)                                                                                \
                sum += mine[m] * third[m];                                                                             \
            features[f] = sum;                                                                                         \
            if (reverse) {                                                                                             \
                lanes w = WEIGHT(f);                                                                                   \
                for (int m = 0; m < N; m++) {                                                                          \
                    gathered[m] += w * third[m];                                                                       \
                    adjoint[base + m] += w * mine[m];                                                                  \
                }                                                                                                      \
            }                                                                                                          \
        }                                                                                                              \
        for (int m = 0; m < N; m++)                                                                                    \
            product_adjoint[m] = gathered[m];                                                                          \
    }

#define FOR_EACH_L(GROUP, l)                                                                                           \
    switch (l) {                                                                                                       \
    case 0: GROUP(1) break;                                                                                            \
    case 1: GROUP(3) break;                                                                                            \
    case 2: GROUP(5) break;                                                                                            \
    case 3: GROUP(7) break;                                                                                            \
    case 4: GROUP(9) break;                                                                                            \
    case 5: GROUP(11) break;                                                                                           \
    case 6: GROUP(13) break;                                                                                           \
    case 7: GROUP(15) break;                                                                                           \
    default: GROUP(17) break;                                                                                          \
    }

#define WEIGHT(f) (per_lane ? lane_weight[f] : (lanes){0} + weight[f])

INLINE void walk(const descriptor *d, const lanes *component, const double *weight, const lanes *lane_weight,
                 const int per_lane, const int reverse, lanes *features, lanes *adjoint)
{
    if (reverse)
        memset(adjoint, 0, d->n_components * sizeof(lanes));
    for (int e = 0; e < d->n_order0; e++)
        features[d->order0_feature[e]] = (lanes){0} + 1.0;
    for (int e = 0; e < d->n_order1; e++) {
        const int f = d->order1_feature[e];
        features[f] = component[d->order1_base[e]];
        if (reverse)
            adjoint[d->order1_base[e]] += WEIGHT(f);
    }
    for (int g = 0; g < d->n_order2; g++) {
        const lanes *first = component + d->order2_first[g];
        const double scale = 1 / sqrt(2.0 * d->order2_l[g] + 1);
        FOR_EACH_L(ORDER2_GROUP, d->order2_l[g])
    }
    for (int g = 0; g < d->n_order3; g++) {
        const lanes *first = component + d->order3_first[g], *second = component + d->order3_second[g];
        const int begin = d->coupling_start[d->order3_coupling[g]], end = d->coupling_start[d->order3_coupling[g] + 1];
        lanes product[2 * L_MAX + 1], product_adjoint[2 * L_MAX + 1];
        for (int m = 0; m <= 2 * d->order3_l[g]; m++)
            product[m] = (lanes){0};
        for (int e = begin; e < end; e++) {
            const int32_t *m = d->coupling_m + 3 * e;
            product[m[2]] += d->coupling_value[e] * first[m[0]] * second[m[1]];
        }
        FOR_EACH_L(ORDER3_GROUP, d->order3_l[g])
        if (reverse) {
            lanes *first_adjoint = adjoint + d->order3_first[g], *second_adjoint = adjoint + d->order3_second[g];
            for (int e = begin; e < end; e++) {
                const int32_t *m = d->coupling_m + 3 * e;
                const lanes w = d->coupling_value[e] * product_adjoint[m[2]];
                first_adjoint[m[0]] += w * second[m[1]];
                second_adjoint[m[1]] += w * first[m[0]];
            }
        }
    }
}

KERNEL void correlations_evaluate(const descriptor *d, const lanes *component, const double *weight, lanes *features,
                                  lanes *adjoint)
{
    if (adjoint != NULL)
        walk(d, component, weight, NULL, 0, 1, features, adjoint);
    else
        walk(d, component, weight, NULL, 0, 0, features, NULL);
}

KERNEL void correlations_reverse(const descriptor *d, const lanes *component, const lanes *weight, lanes *features,
                                 lanes *adjoint)
{
    walk(d, component, NULL, weight, 1, 1, features, adjoint);
}

/* Appends the entries of one factor of a feature. */
static double *factor(jacobian_row *row, int base, int l)
{
    double *value = row->value + row->count;
    for (int m = 0; m <= 2 * l; m++) {
        row->component[row->count] = base + m;
        row->value[row->count++] = 0;
    }
    return value;
}

void correlations_jacobian(const descriptor *d, const double *component, double *features, jacobian_row *jacobian)
{
    for (int f = 0; f < d->n_features; f++)
        jacobian[f].count = 0;
    for (int e = 0; e < d->n_order0; e++)
        features[d->order0_feature[e]] = 1;
    for (int e = 0; e < d->n_order1; e++) {
        const int f = d->order1_feature[e];
        features[f] = component[d->order1_base[e]];
        *factor(&jacobian[f], d->order1_base[e], 0) = 1;
    }
    for (int g = 0; g < d->n_order2; g++) {
        const int l = d->order2_l[g], first = d->order2_first[g];
        const double scale = 1 / sqrt(2.0 * l + 1);
        for (int e = d->order2_start[g]; e < d->order2_start[g + 1]; e++) {
            const int f = d->order2_feature[e], second = d->order2_second[e];
            double *by_first = factor(&jacobian[f], first, l), *by_second = factor(&jacobian[f], second, l), sum = 0;
            for (int m = 0; m <= 2 * l; m++) {
                sum += component[first + m] * component[second + m];
                by_first[m] = scale * component[second + m];
                by_second[m] = scale * component[first + m];
            }
            features[f] = scale * sum;
        }
    }
    for (int g = 0; g < d->n_order3; g++) {
        const int table = d->order3_coupling[g];
        const int32_t *l = d->coupling_l + 3 * table;
        const double *a = component + d->order3_first[g], *b = component + d->order3_second[g];
        for (int e = d->order3_start[g]; e < d->order3_start[g + 1]; e++) {
            const int f = d->order3_feature[e];
            const double *c = component + d->order3_third[e];
            double *by_first = factor(&jacobian[f], d->order3_first[g], l[0]);
            double *by_second = factor(&jacobian[f], d->order3_second[g], l[1]);
            double *by_third = factor(&jacobian[f], d->order3_third[e], l[2]), sum = 0;
            for (int t = d->coupling_start[table]; t < d->coupling_start[table + 1]; t++) {
                const int32_t *m = d->coupling_m + 3 * t;
                const double value = d->coupling_value[t];
                by_first[m[0]] += value * b[m[1]] * c[m[2]];
                by_second[m[1]] += value * a[m[0]] * c[m[2]];
                by_third[m[2]] += value * a[m[0]] * b[m[1]];
                sum += value * a[m[0]] * b[m[1]] * c[m[2]];
            }
            features[f] = sum;
        }
    }
}
