#include "jacobian.h"

#define NAME(function) function##_plain
#define NUMBER double
#define SCALAR double
#include "coupling.h"

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

static void append_channel(jacobian_row *row, int base, int n, double scale, const double *slope)
{
    double *value = append(row, base, n);
    for (int m = 0; m < n; m++)
        value[m] = scale * slope[m];
}

/* Appends the derivatives of the two channels of product p of run r. */
static void append_product(jacobian_row *row, const descriptor *d, const double *terms, int r, int p, double scale,
                           const double *slope)
{
    const int32_t *l = d->run_l + 3 * r;
    const int first = d->product_first[p], second = d->product_second[p];
    double scaled[TERMS_MAX];
    for (int m = 0; m <= 2 * l[2]; m++)
        scaled[m] = scale * slope[m];
    double *by_first = append(row, first, 2 * l[0] + 1), *by_second = append(row, second, 2 * l[1] + 1);
    couple_reverse_plain(l[0], l[1], l[2], d->coupling + d->run_coupling[r], terms + first, terms + second, scaled,
                         by_first, by_second);
}

static void product_plain(const descriptor *d, double *terms, int r, int p)
{
    const int32_t *l = d->run_l + 3 * r;
    couple_plain(l[0], l[1], l[2], d->coupling + d->run_coupling[r], terms + d->product_first[p],
                 terms + d->product_second[p], terms + d->product_base[p]);
}

static double dot_plain(int n, const double *a, const double *b)
{
    double sum = 0;
    for (int m = 0; m < n; m++)
        sum += a[m] * b[m];
    return sum;
}

/* The features of order 3 with the factors `first` and `second` of entry e of order 2. */
static void jacobian_scaled(const descriptor *d, const double *terms, int first, int second, int n, int e,
                            double *features, jacobian_row *jacobian)
{
    const double product = dot_plain(n, terms + first, terms + second);
    for (int x = d->scaled_start[e]; x < d->scaled_start[e + 1]; x++) {
        const int f = d->feature[scaled_places(d) + x], by = d->scaled_by[x];
        const double scale = d->scale[scaled_places(d) + x];
        features[f] = scale * terms[by] * product;
        append_channel(&jacobian[f], by, 1, scale, &product);
        append_channel(&jacobian[f], first, n, scale * terms[by], terms + second);
        append_channel(&jacobian[f], second, n, scale * terms[by], terms + first);
    }
}

void features_jacobian(const descriptor *d, double *terms, double *features, jacobian_row *jacobian)
{
    const int places3 = order3_places(d), places4 = order4_places(d);
    for (int f = 0; f < d->n_features; f++)
        jacobian[f].count = 0;
    int place = 0;
    for (int e = 0; e < d->n_order0; e++)
        features[d->feature[place++]] = 1;
    for (int e = 0; e < d->n_order1; e++) {
        const int f = d->feature[place++];
        features[f] = terms[d->order1_base[e]];
        *append(&jacobian[f], d->order1_base[e], 1) = 1;
    }
    for (int g = 0; g < d->n_order2; g++) {
        const int n = 2 * d->order2_l[g] + 1, first = d->order2_first[g];
        for (int e = d->order2_start[g]; e < d->order2_start[g + 1]; e++) {
            const double scale = d->scale[place];
            const int f = d->feature[place++], second = d->order2_second[e];
            features[f] = scale * dot_plain(n, terms + first, terms + second);
            append_channel(&jacobian[f], first, n, scale, terms + second);
            append_channel(&jacobian[f], second, n, scale, terms + first);
            jacobian_scaled(d, terms, first, second, n, e, features, jacobian);
        }
    }
    for (int r = 0; r < d->n_runs && d->run_start[r] < d->n_shared; r++)
        for (int p = d->run_start[r]; p < d->run_start[r + 1]; p++)
            product_plain(d, terms, r, p);
    for (int r = 0; r < d->n_runs; r++) {
        const int n = 2 * d->run_l[3 * r + 2] + 1;
        for (int p = d->run_start[r]; p < d->run_start[r + 1]; p++) {
            const double *mine = terms + d->product_base[p];
            if (p >= d->n_shared)
                product_plain(d, terms, r, p);
            for (int e = d->order3_start[p]; e < d->order3_start[p + 1]; e++) {
                const int f = d->feature[places3 + e], third = d->order3_third[e];
                features[f] = dot_plain(n, mine, terms + third);
                append_product(&jacobian[f], d, terms, r, p, 1, terms + third);
                append_channel(&jacobian[f], third, n, 1, mine);
            }
            for (int e = d->order4_start[p]; e < d->order4_start[p + 1]; e++) {
                const double scale = d->scale[places4 + e];
                const int f = d->feature[places4 + e], q = d->order4_other[e], other = d->product_base[q];
                features[f] = scale * dot_plain(n, mine, terms + other);
                append_product(&jacobian[f], d, terms, r, p, scale, terms + other);
                append_product(&jacobian[f], d, terms, d->run_of[q], q, scale, mine);
            }
        }
    }
}
