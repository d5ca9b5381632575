/* The small model without its orders 3 and 4, also in the form of quadratic.h. */
#ifndef COMITIA_TEST_ORDER2_H
#define COMITIA_TEST_ORDER2_H

#include "model.h"

/* A model of orders 0 to 2 in both forms: n_dense of `dense` is not 0. Of the highest l only the first radial functions
 * are in use, so that the matrices differ in size. */
typedef struct {
    model *m;
    descriptor dense;
    int32_t dense_n[MODEL_N_CHANNELS * (MODEL_L_MAX + 1)], dense_place[2 * MODEL_MAX], order1_place[MODEL_N_Q];
    int32_t q1[MODEL_MAX], q2[MODEL_MAX], l[MODEL_MAX]; /* factors of the features of order 2 */
    int n_order2;
} pair_model;

static inline int radial_functions(int l)
{
    return l == MODEL_L_MAX ? MODEL_N_RADIAL - 1 : MODEL_N_RADIAL;
}

static inline void fill_order2(pair_model *p)
{
    model *m = p->m;
    descriptor *d = &m->d;
    d->n_order2 = p->n_order2 = 0;
    for (int l = 0; l <= MODEL_L_MAX; l++) {
        for (int first = 0; first < MODEL_N_Q; first++) {
            if (first % MODEL_N_RADIAL >= radial_functions(l)) {
                continue;
            }
            m->order2_l[d->n_order2] = l;
            m->order2_first[d->n_order2] = first * MODEL_N_LM + l * l;
            for (int second = first; second < MODEL_N_Q; second++) {
                const int e = p->n_order2, place = order2_places(d) + e;
                if (second % MODEL_N_RADIAL >= radial_functions(l) || (first + second + l) % 5 == 4) {
                    continue; /* some pairs are no features */
                }
                m->order2_second[e] = second * MODEL_N_LM + l * l;
                m->feature[place] = place;
                m->scale[place] = 1 / sqrt(2 * l + 1);
                p->q1[e] = first;
                p->q2[e] = second;
                p->l[e] = l;
                p->n_order2++;
            }
            m->order2_start[++d->n_order2] = p->n_order2;
        }
    }
    memset(m->scaled_start, 0, sizeof m->scaled_start);
    d->n_runs = d->n_products = d->n_shared = 0;
    d->n_features = order2_places(d) + p->n_order2;
}

static inline pair_model *pair_model_new(int core)
{
    pair_model *p = calloc(1, sizeof *p);
    p->m = model_new(4.0, core);
    fill_order2(p);
    p->dense = p->m->d;
    int start = 0;
    for (int l = 0, e = 0; l <= MODEL_L_MAX; l++) {
        const int n = radial_functions(l), width = MODEL_N_CHANNELS * PADDING;
        for (int k = 0; k < MODEL_N_CHANNELS; k++) {
            p->dense_n[k * (MODEL_L_MAX + 1) + l] = n;
        }
        for (; e < p->n_order2 && p->l[e] == l; e++) {
            const int q[2] = {p->q1[e], p->q2[e]};
            for (int side = 0; side < 2; side++) {
                const int row = q[side] / MODEL_N_RADIAL * n + q[side] % MODEL_N_RADIAL,
                          column = q[!side] / MODEL_N_RADIAL * PADDING + q[!side] % MODEL_N_RADIAL;
                p->dense_place[2 * e + side] = start + row * width + column;
            }
        }
        start += MODEL_N_CHANNELS * n * width;
    }
    for (int q = 0; q < MODEL_N_Q; q++) {
        p->order1_place[q] = q / MODEL_N_RADIAL * PADDING + q % MODEL_N_RADIAL;
    }
    p->dense.n_dense = start;
    p->dense.dense_n = p->dense_n;
    p->dense.dense_place = p->dense_place;
    p->dense.order1_place = p->order1_place;
    return p;
}

static inline void pair_model_free(pair_model *p)
{
    free(p->m);
    free(p);
}

#endif
