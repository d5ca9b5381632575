#include "correlations.h"

#include <string.h>

enum { SIZE_MAX_L = 4 * L_MAX + 1 }; /* terms of the highest L of a product */

void correlations_load(const descriptor *d, const double *A, int lane, lanes *terms)
{
    double *out = (double *)terms + lane;
    for (int c = 0; c < d->n_components; c++)
        out[(size_t)c * LANES] = A[d->component_source[c]];
}

void correlations_store(const descriptor *d, const lanes *terms, int lane, double *A)
{
    const double *in = (const double *)terms + lane;
    for (int c = 0; c < d->n_components; c++)
        A[d->component_source[c]] = in[(size_t)c * LANES];
}

/* What a walk over the features reads and writes; one of the weights is there in the reverse direction. */
typedef struct {
    const descriptor *d;
    lanes *terms, *features, *adjoint;
    const double *weight;
    const lanes *lane_weight;
} walk;

INLINE lanes weight_of(const walk *w, const int per_lane, int f)
{
    return per_lane ? w->lane_weight[f] : (lanes){0} + w->weight[f];
}

/* All features of group g, the scalar products of one block of n terms with others. */
INLINE void dot_group(const walk *w, const int per_lane, const int reverse, int g, const int n)
{
    const descriptor *d = w->d;
    const double scale = d->dot_scale[g];
    lanes mine[SIZE_MAX_L], gathered[SIZE_MAX_L];
    for (int m = 0; m < n; m++) {
        mine[m] = scale * w->terms[d->dot_first[g] + m];
        gathered[m] = (lanes){0};
    }
    for (int e = d->dot_start[g]; e < d->dot_start[g + 1]; e++) {
        const int f = d->dot_feature[e], base = d->dot_second[e];
        const lanes *second = w->terms + base;
        lanes sum = {0};
        for (int m = 0; m < n; m++)
            sum += mine[m] * second[m];
        w->features[f] = sum;
        if (reverse) {
            const lanes weight = weight_of(w, per_lane, f);
            for (int m = 0; m < n; m++) {
                gathered[m] += weight * second[m];
                w->adjoint[base + m] += weight * mine[m];
            }
        }
    }
    if (reverse)
        for (int m = 0; m < n; m++)
            w->adjoint[d->dot_first[g] + m] += scale * gathered[m];
}

INLINE void dots(const walk *w, const int per_lane, const int reverse)
{
    for (int g = 0; g < w->d->n_dots; g++)
        switch (w->d->dot_l[g]) {
        case 0: dot_group(w, per_lane, reverse, g, 1); break;
        case 1: dot_group(w, per_lane, reverse, g, 3); break;
        case 2: dot_group(w, per_lane, reverse, g, 5); break;
        case 3: dot_group(w, per_lane, reverse, g, 7); break;
        case 4: dot_group(w, per_lane, reverse, g, 9); break;
        case 5: dot_group(w, per_lane, reverse, g, 11); break;
        case 6: dot_group(w, per_lane, reverse, g, 13); break;
        default: dot_group(w, per_lane, reverse, g, 2 * w->d->dot_l[g] + 1); break;
        }
}

INLINE void product(const descriptor *d, lanes *terms, int p)
{
    const int table = d->product_coupling[p];
    const lanes *first = terms + d->product_first[p], *second = terms + d->product_second[p];
    lanes *out = terms + d->product_base[p];
    for (int m = 0; m <= 2 * d->coupling_l[3 * table + 2]; m++)
        out[m] = (lanes){0};
    for (int e = d->coupling_start[table]; e < d->coupling_start[table + 1]; e++) {
        const int32_t *m = d->coupling_m + 3 * e;
        out[m[2]] += d->coupling_value[e] * first[m[0]] * second[m[1]];
    }
}

INLINE void product_reverse(const descriptor *d, const lanes *terms, int p, lanes *adjoint)
{
    const int table = d->product_coupling[p];
    const int a = d->product_first[p], b = d->product_second[p], c = d->product_base[p];
    for (int e = d->coupling_start[table]; e < d->coupling_start[table + 1]; e++) {
        const int32_t *m = d->coupling_m + 3 * e;
        const lanes slope = d->coupling_value[e] * adjoint[c + m[2]];
        adjoint[a + m[0]] += slope * terms[b + m[1]];
        adjoint[b + m[1]] += slope * terms[a + m[0]];
    }
}

INLINE void correlate(const walk *w, const int per_lane, const int reverse)
{
    const descriptor *d = w->d;
    if (reverse)
        memset(w->adjoint, 0, d->n_terms * sizeof(lanes));
    for (int e = 0; e < d->n_order0; e++)
        w->features[d->order0_feature[e]] = (lanes){0} + 1.0;
    for (int e = 0; e < d->n_order1; e++) {
        const int f = d->order1_feature[e];
        w->features[f] = w->terms[d->order1_base[e]];
        if (reverse)
            w->adjoint[d->order1_base[e]] += weight_of(w, per_lane, f);
    }
    for (int p = 0; p < d->n_products; p++)
        product(d, w->terms, p);
    dots(w, per_lane, reverse);
    for (int p = 0; reverse && p < d->n_products; p++)
        product_reverse(d, w->terms, p, w->adjoint);
}

void correlations_evaluate(const descriptor *d, lanes *terms, const double *weight, lanes *features, lanes *adjoint)
{
    const walk w = {d, terms, features, adjoint, weight, NULL};
    if (adjoint != NULL)
        correlate(&w, 0, 1);
    else
        correlate(&w, 0, 0);
}

void correlations_reverse(const descriptor *d, lanes *terms, const lanes *weight, lanes *features, lanes *adjoint)
{
    const walk w = {d, terms, features, adjoint, NULL, weight};
    correlate(&w, 1, 1);
}

/* Appends the derivatives of one channel to a row. */
static double *append(jacobian_row *row, int base, int n)
{
    double *value = row->value + row->count;
    for (int m = 0; m < n; m++) {
        row->component[row->count] = base + m;
        row->value[row->count++] = 0;
    }
    return value;
}

/* Adds slope . d(n terms that start at base) to a row: those of a channel, or of the two channels of a product. */
static void append_terms(const descriptor *d, const double *terms, int base, int n, double scale, const double *slope,
                         jacobian_row *row)
{
    if (base < d->n_components) {
        double *value = append(row, base, n);
        for (int m = 0; m < n; m++)
            value[m] = scale * slope[m];
        return;
    }
    const int p = d->product_of[base - d->n_components], table = d->product_coupling[p];
    const int a = d->product_first[p], b = d->product_second[p];
    double *by_first = append(row, a, 2 * d->coupling_l[3 * table] + 1);
    double *by_second = append(row, b, 2 * d->coupling_l[3 * table + 1] + 1);
    for (int e = d->coupling_start[table]; e < d->coupling_start[table + 1]; e++) {
        const int32_t *m = d->coupling_m + 3 * e;
        const double value = scale * d->coupling_value[e] * slope[m[2]];
        by_first[m[0]] += value * terms[b + m[1]];
        by_second[m[1]] += value * terms[a + m[0]];
    }
}

void correlations_jacobian(const descriptor *d, double *terms, double *features, jacobian_row *jacobian)
{
    for (int f = 0; f < d->n_features; f++)
        jacobian[f].count = 0;
    for (int e = 0; e < d->n_order0; e++)
        features[d->order0_feature[e]] = 1;
    for (int e = 0; e < d->n_order1; e++) {
        const int f = d->order1_feature[e];
        features[f] = terms[d->order1_base[e]];
        *append(&jacobian[f], d->order1_base[e], 1) = 1;
    }
    memset(terms + d->n_components, 0, (d->n_terms - d->n_components) * sizeof(double));
    for (int p = 0; p < d->n_products; p++) {
        const int table = d->product_coupling[p];
        const double *first = terms + d->product_first[p], *second = terms + d->product_second[p];
        for (int e = d->coupling_start[table]; e < d->coupling_start[table + 1]; e++) {
            const int32_t *m = d->coupling_m + 3 * e;
            terms[d->product_base[p] + m[2]] += d->coupling_value[e] * first[m[0]] * second[m[1]];
        }
    }
    for (int g = 0; g < d->n_dots; g++) {
        const int n = 2 * d->dot_l[g] + 1, first = d->dot_first[g];
        for (int e = d->dot_start[g]; e < d->dot_start[g + 1]; e++) {
            const int f = d->dot_feature[e], second = d->dot_second[e];
            double sum = 0;
            for (int m = 0; m < n; m++)
                sum += terms[first + m] * terms[second + m];
            features[f] = d->dot_scale[g] * sum;
            append_terms(d, terms, first, n, d->dot_scale[g], terms + second, &jacobian[f]);
            append_terms(d, terms, second, n, d->dot_scale[g], terms + first, &jacobian[f]);
        }
    }
}
