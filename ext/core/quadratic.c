#include "quadratic.h"

#include <string.h>

static real *order1_of(const real *all)
{
    return (real *)all + PADDING;
}

static real *order2_of(const descriptor *d, const real *all)
{
    return (real *)all + PADDING + (size_t)d->n_channels * d->n_stride;
}

size_t quadratic_size(const descriptor *d)
{
    return PADDING + (size_t)d->n_channels * d->n_stride + d->n_dense;
}

void quadratic_weights(const descriptor *d, const double *weight, real *coefficients)
{
    real *order1 = order1_of(coefficients), *order2 = order2_of(d, coefficients);
    memset(coefficients, 0, quadratic_size(d) * sizeof(real));
    int place = 0;
    for (int e = 0; e < d->n_order0; e++)
        coefficients[0] += (real)weight[d->feature[place++]];
    for (int e = 0; e < d->n_order1; e++)
        order1[d->order1_place[e]] += (real)weight[d->feature[place++]];
    for (int e = 0; place < d->n_features; e++, place++) {
        const real w = (real)(d->scale[place] * weight[d->feature[place]]);
        order2[d->dense_place[2 * e]] += w;
        order2[d->dense_place[2 * e + 1]] += w;
    }
}

void quadratic_features(const descriptor *d, const real *products, double *features)
{
    const real *order1 = order1_of(products), *order2 = order2_of(d, products);
    int place = 0;
    for (int e = 0; e < d->n_order0; e++)
        features[d->feature[place++]] += products[0];
    for (int e = 0; e < d->n_order1; e++)
        features[d->feature[place++]] += order1[d->order1_place[e]];
    for (int e = 0; place < d->n_features; e++, place++)
        features[d->feature[place]] += d->scale[place] * order2[d->dense_place[2 * e]];
}

/* adjoint = sum_q' W[q', q] A[q', lm] of `tile` harmonics of one l from lm on, for the LANES functions `column`;
 * returns adjoint . A. */
INLINE lanes energy_tile(const descriptor *d, int l, const real *W, int width, int k, int column, int lm,
                         const int tile, const real *A, real *adjoint)
{
    lanes sum[8], energy = {0};
    for (int a = 0; a < tile; a++)
        sum[a] = (lanes){0};
    for (int other = 0; other < d->n_channels; other++) {
        const real *row = A + d->channel_offset[other] + (size_t)lm * d->n_stride;
        const int n_end = d->dense_n[other * (d->l_max + 1) + l];
        for (int n = 0; n < n_end; n++, W += width) {
            const lanes w = *(const lanes *)W;
            for (int a = 0; a < tile; a++)
                sum[a] += w * row[a * d->n_stride + n];
        }
    }
    const size_t place = d->channel_offset[k] + (size_t)lm * d->n_stride + column;
    for (int a = 0; a < tile; a++) {
        energy += sum[a] * *(const lanes *)(A + place + (size_t)a * d->n_stride);
        if (adjoint != NULL)
            *(lanes *)(adjoint + place + (size_t)a * d->n_stride) += sum[a];
    }
    return energy;
}

/* The same from the products that are wanted: one row q' = (other, n) of them, for the functions `column`. */
INLINE void products_of_column(const descriptor *d, int l, int width, int k, int column, const real *A, real *P)
{
    const real *mine = A + d->channel_offset[k] + (size_t)l * l * d->n_stride + column;
    for (int other = 0; other < d->n_channels; other++) {
        const real *row = A + d->channel_offset[other] + (size_t)l * l * d->n_stride;
        const int n_end = d->dense_n[other * (d->l_max + 1) + l];
        for (int n = 0; n < n_end; n++, P += width) {
            lanes sum = *(const lanes *)P;
            for (int m = 0; m < 2 * l + 1; m++)
                sum += row[m * d->n_stride + n] * *(const lanes *)(mine + (size_t)m * d->n_stride);
            *(lanes *)P = sum;
        }
    }
}

/* Columns of W_l: all channels, each padded. */
INLINE int width_of(const descriptor *d, int l, int *n_rows)
{
    int width = 0;
    *n_rows = 0;
    for (int k = 0; k < d->n_channels; k++) {
        *n_rows += d->dense_n[k * (d->l_max + 1) + l];
        width += (int)round_up(d->dense_n[k * (d->l_max + 1) + l]);
    }
    return width;
}

double quadratic_energy(const descriptor *d, const real *coefficients, const real *A, real *adjoint)
{
    const real *order1 = order1_of(coefficients), *W = order2_of(d, coefficients);
    lanes linear = {0}, quadratic = {0};
    if (adjoint != NULL)
        memset(adjoint, 0, d->n_density * sizeof(real));
    for (int k = 0; k < d->n_channels; k++)
        for (int n = 0; n < d->channel_n[k * (d->l_max + 1)]; n += LANES) {
            const lanes w = *(const lanes *)(order1 + k * d->n_stride + n);
            linear += w * *(const lanes *)(A + d->channel_offset[k] + n);
            if (adjoint != NULL)
                *(lanes *)(adjoint + d->channel_offset[k] + n) = w;
        }
    for (int l = 0, n_rows; l <= d->l_max; l++) {
        const int width = width_of(d, l, &n_rows);
        const real *column = W;
        for (int k = 0; k < d->n_channels; k++) {
            const int n_end = d->dense_n[k * (d->l_max + 1) + l];
            for (int n = 0; n < n_end; n += LANES) {
                int lm = l * l;
                for (; lm + 8 <= (l + 1) * (l + 1); lm += 8)
                    quadratic += energy_tile(d, l, column + n, width, k, n, lm, 8, A, adjoint);
                for (; lm + 3 <= (l + 1) * (l + 1); lm += 3)
                    quadratic += energy_tile(d, l, column + n, width, k, n, lm, 3, A, adjoint);
                for (; lm < (l + 1) * (l + 1); lm++)
                    quadratic += energy_tile(d, l, column + n, width, k, n, lm, 1, A, adjoint);
            }
            column += round_up(n_end);
        }
        W += (size_t)width * n_rows;
    }
    lanes energy = linear + (real)0.5 * quadratic;
    double total = coefficients[0];
    for (int v = 0; v < LANES; v++)
        total += energy[v];
    return total;
}

void quadratic_products(const descriptor *d, const real *A, real *products)
{
    real *order1 = order1_of(products), *P = order2_of(d, products);
    products[0] += 1;
    for (int k = 0; k < d->n_channels; k++)
        for (int n = 0; n < d->channel_n[k * (d->l_max + 1)]; n += LANES)
            *(lanes *)(order1 + k * d->n_stride + n) += *(const lanes *)(A + d->channel_offset[k] + n);
    for (int l = 0, n_rows; l <= d->l_max; l++) {
        const int width = width_of(d, l, &n_rows);
        real *column = P;
        for (int k = 0; k < d->n_channels; k++) {
            const int n_end = d->dense_n[k * (d->l_max + 1) + l];
            for (int n = 0; n < n_end; n += LANES)
                products_of_column(d, l, width, k, n, A, column + n);
            column += round_up(n_end);
        }
        P += (size_t)width * n_rows;
    }
}
