#include "correlations.h"

#include <string.h>

#define NAME(function) function##_lanes
#define NUMBER lanes
#define SCALAR real
#include "coupling.h"

void correlations_load(const descriptor *d, int count, const real *A, lanes *terms)
{
    for (int p = 0; p < d->n_rows * PADDING; p += LANES) {
        const int32_t *component = d->row_component + p;
        const real *place = A + d->row_place[p / PADDING] + p % PADDING;
        lanes row[LANES];
        for (int v = 0; v < LANES; v++)
            row[v] = v < count ? *(const lanes *)(place + v * density_stride(d, 1)) : (lanes){0};
        transpose(row);
        for (int i = 0; i < LANES; i++)
            if (component[i] >= 0)
                terms[component[i]] = row[i];
    }
}

INLINE void store(const descriptor *d, const int n_sets, const lanes *adjoint, int count, real *A)
{
    for (int p = 0; p < d->n_rows * PADDING * n_sets; p += LANES) {
        const int32_t *component = d->row_component + p / n_sets;
        real *place = A + (d->row_place[p / (PADDING * n_sets)] * n_sets) + p % (PADDING * n_sets);
        lanes row[LANES];
        for (int i = 0; i < LANES; i++) {
            const int c = component[i / n_sets];
            row[i] = c >= 0 ? adjoint[(size_t)(i % n_sets) * d->n_components + c] : (lanes){0};
        }
        transpose(row);
        for (int v = 0; v < count; v++)
            *(lanes *)(place + v * density_stride(d, n_sets)) = row[v];
    }
}

void correlations_store(const descriptor *d, int n_sets, const lanes *adjoint, int count, real *A)
{
    if (n_sets == 1)
        store(d, 1, adjoint, count, A);
    else
        store(d, 2, adjoint, count, A);
}

/* --- couplings of three l's: unrolled code for those that models have most, loops for the others --------------- */

/* clang-format off */
#define TRIPLES(X) \
    X(0, 0, 0) X(0, 1, 1) X(0, 2, 2) X(0, 3, 3) X(0, 4, 4) X(0, 5, 5) X(1, 1, 0) X(1, 1, 1) X(1, 1, 2) X(1, 2, 1) \
    X(1, 2, 2) X(1, 2, 3) X(1, 3, 2) X(1, 3, 3) X(1, 3, 4) X(1, 4, 3) X(1, 4, 4) X(1, 4, 5) X(1, 5, 4) X(1, 5, 5) \
    X(1, 5, 6) X(2, 2, 0) X(2, 2, 1) X(2, 2, 2) X(2, 2, 3) X(2, 2, 4) X(2, 3, 1) X(2, 3, 2) X(2, 3, 3) X(2, 3, 4) \
    X(2, 3, 5) X(2, 4, 2) X(2, 4, 3) X(2, 4, 4) X(2, 4, 5) X(2, 4, 6) X(2, 5, 3) X(2, 5, 4) X(2, 5, 5) X(2, 5, 6) \
    X(3, 3, 0) X(3, 3, 1) X(3, 3, 2) X(3, 3, 3) X(3, 3, 4) X(3, 3, 5) X(3, 3, 6) X(3, 4, 1) X(3, 4, 2) X(3, 4, 3) \
    X(3, 4, 4) X(3, 4, 5) X(3, 4, 6) X(4, 4, 0) X(4, 4, 1) X(4, 4, 2) X(4, 4, 3) X(4, 4, 4) X(4, 4, 5) X(4, 4, 6)
/* clang-format on */

typedef struct {
    void (*forward)(const int32_t *l, const double *c, const lanes *a, const lanes *b, lanes *out);
    void (*reverse)(const int32_t *l, const double *c, const lanes *a, const lanes *b, const lanes *t, lanes *a_adjoint,
                    lanes *b_adjoint);
} triple;

#define DEFINE(name, l1, l2, l3)                                                                                       \
    static void forward_##name(const int32_t *l, const double *c, const lanes *a, const lanes *b, lanes *out)          \
    {                                                                                                                  \
        (void)l;                                                                                                       \
        couple_lanes(l1, l2, l3, c, a, b, out);                                                                        \
    }                                                                                                                  \
    static void reverse_##name(const int32_t *l, const double *c, const lanes *a, const lanes *b, const lanes *t,      \
                               lanes *a_adjoint, lanes *b_adjoint)                                                     \
    {                                                                                                                  \
        (void)l;                                                                                                       \
        couple_reverse_lanes(l1, l2, l3, c, a, b, t, a_adjoint, b_adjoint);                                            \
    }
#define DEFINE_TRIPLE(l1, l2, l3) DEFINE(l1##l2##l3, l1, l2, l3)
TRIPLES(DEFINE_TRIPLE)
DEFINE(any, l[0], l[1], l[2])

#define LIST_TRIPLE(l1, l2, l3) [l1][l2][l3] = {forward_##l1##l2##l3, reverse_##l1##l2##l3},
static const triple triples[5][6][7] = {TRIPLES(LIST_TRIPLE)};

static triple triple_of(const int32_t *l)
{
    if (l[0] < 5 && l[1] < 6 && l[2] < 7 && triples[l[0]][l[1]][l[2]].forward != NULL)
        return triples[l[0]][l[1]][l[2]];
    return (triple){forward_any, reverse_any};
}

void correlations_couple(const int32_t *l, const double *coefficients, const lanes *a, const lanes *b, lanes *out)
{
    triple_of(l).forward(l, coefficients, a, b, out);
}

/* --- the walk over all features ---------------------------------------------------------------------------------- */

enum { SETS_MAX = 2 }; /* of weights at a time */

/* What it reads and writes. The ways to walk are constants where it is inlined: in reverse for so many sets of weights,
 * with a weight for each lane, adding up the features. */
typedef struct {
    const descriptor *d;
    lanes *terms, *features, *adjoint[SETS_MAX], *energy;
    const real *weight[SETS_MAX];
    const lanes *lane_weight;
} walk;

typedef struct {
    int n_sets, per_lane, keep;
} ways;

INLINE lanes weight_of(const walk *w, const ways way, int s, int place)
{
    return way.per_lane ? w->lane_weight[place] : (lanes){0} + w->weight[s][place];
}

INLINE lanes dot(const int n, const lanes *a, const lanes *b)
{
    lanes sum = {0};
    for (int m = 0; m < n; m++)
        sum += a[m] * b[m];
    return sum;
}

/* What the scalar product of `mine` [n] with another channel, or with a product, adds to the adjoints. */
INLINE void add_adjoints(const int n, const int channel, const lanes *restrict mine, const lanes *restrict other,
                         lanes weight, lanes *restrict gathered, lanes *restrict adjoint)
{
    for (int m = 0; m < n; m++) {
        gathered[m] += weight * other[m];
        if (channel)
            adjoint[m] += weight * mine[m];
    }
}

/* Entry `place` with the channel from `term` on, or with a product. */
INLINE void product_with(const walk *w, const ways way, const int n, const int channel, const lanes *mine, int term,
                         lanes gathered[][TERMS_MAX], int place)
{
    if (way.keep)
        w->features[place] += dot(n, mine, w->terms + term);
    for (int s = 0; s < way.n_sets; s++)
        add_adjoints(n, channel, mine, w->terms + term, weight_of(w, way, s, place), gathered[s],
                     channel ? w->adjoint[s] + term : NULL);
}

/* Features of order 3 that are the scalar product of entry e of order 2 times a channel with l = 0; adds to the weights
 * of the scalar product. */
INLINE void scaled_features(const walk *w, const ways way, int e, lanes product, lanes *weight)
{
    const descriptor *d = w->d;
    const int places = scaled_places(d);
    for (int x = d->scaled_start[e]; x < d->scaled_start[e + 1]; x++) {
        const lanes by = w->terms[d->scaled_by[x]];
        if (way.keep)
            w->features[places + x] += by * product;
        for (int s = 0; s < way.n_sets; s++) {
            weight[s] += weight_of(w, way, s, places + x) * by;
            w->adjoint[s][d->scaled_by[x]] += weight_of(w, way, s, places + x) * product;
        }
    }
}

INLINE void order2_group(const walk *w, const ways way, const int n, int g)
{
    const descriptor *d = w->d;
    const int places = order2_places(d);
    lanes mine[TERMS_MAX], gathered[SETS_MAX][TERMS_MAX];
    for (int m = 0; m < n; m++) {
        mine[m] = w->terms[d->order2_first[g] + m];
        for (int s = 0; s < way.n_sets; s++)
            gathered[s][m] = (lanes){0};
    }
    for (int e = d->order2_start[g]; e < d->order2_start[g + 1]; e++) {
        const int scaled = d->scaled_start[e + 1] > d->scaled_start[e], second = d->order2_second[e];
        lanes product = {0}, weight[SETS_MAX];
        for (int s = 0; s < way.n_sets; s++)
            weight[s] = weight_of(w, way, s, places + e);
        if (way.keep || scaled)
            product = dot(n, mine, w->terms + second);
        if (way.keep)
            w->features[places + e] += product;
        if (scaled)
            scaled_features(w, way, e, product, weight);
        for (int s = 0; s < way.n_sets; s++)
            add_adjoints(n, 1, mine, w->terms + second, weight[s], gathered[s], w->adjoint[s] + second);
    }
    for (int s = 0; s < way.n_sets; s++) {
        w->energy[s] += dot(n, mine, gathered[s]);
        for (int m = 0; m < n; m++)
            w->adjoint[s][d->order2_first[g] + m] += gathered[s][m];
    }
}

/* The features of orders 3 and 4 of product p, and the adjoints of the product. */
INLINE void product_features(const walk *w, const ways way, const int n, int p, lanes adjoint[][TERMS_MAX])
{
    const descriptor *d = w->d;
    const int places3 = order3_places(d), places4 = order4_places(d);
    const ways back = {way.n_sets, way.per_lane, 0};
    lanes mine[TERMS_MAX], gathered[SETS_MAX][TERMS_MAX];
    for (int m = 0; m < n; m++) {
        mine[m] = w->terms[d->product_base[p] + m];
        for (int s = 0; s < way.n_sets; s++)
            gathered[s][m] = (lanes){0};
    }
    for (int e = d->order3_start[p]; e < d->order3_start[p + 1]; e++)
        product_with(w, way, n, 1, mine, d->order3_third[e], gathered, places3 + e);
    for (int e = d->order4_start[p]; e < d->order4_start[p + 1]; e++)
        product_with(w, way, n, 0, mine, d->product_base[d->order4_other[e]], gathered, places4 + e);
    for (int s = 0; s < way.n_sets; s++)
        w->energy[s] += dot(n, mine, gathered[s]);
    for (int e = d->mirrored_start[p]; e < d->mirrored_start[p + 1]; e++)
        product_with(w, back, n, 0, mine, d->product_base[d->mirrored_other[e]], gathered, d->mirrored_place[e]);
    for (int s = 0; s < way.n_sets; s++)
        for (int m = 0; m < n; m++)
            adjoint[s][m] = gathered[s][m];
}

INLINE void product_run(const walk *w, const ways way, const int n, int r)
{
    const descriptor *d = w->d;
    const int32_t *l = d->run_l + 3 * r;
    const double *c = d->coupling + d->run_coupling[r];
    const triple coupling = triple_of(l);
    for (int p = d->run_start[r]; p < d->run_start[r + 1]; p++) {
        const int first = d->product_first[p], second = d->product_second[p];
        lanes adjoint[SETS_MAX][TERMS_MAX];
        if (p >= d->n_shared)
            coupling.forward(l, c, w->terms + first, w->terms + second, w->terms + d->product_base[p]);
        product_features(w, way, n, p, adjoint);
        for (int s = 0; s < way.n_sets; s++)
            coupling.reverse(l, c, w->terms + first, w->terms + second, adjoint[s], w->adjoint[s] + first,
                             w->adjoint[s] + second);
    }
}

/* For l = 0 ... 6, and for any other. */
#define FOR_EACH_L(l, DO)                                                                                              \
    switch (l) {                                                                                                       \
    case 0: DO(1); break;                                                                                              \
    case 1: DO(3); break;                                                                                              \
    case 2: DO(5); break;                                                                                              \
    case 3: DO(7); break;                                                                                              \
    case 4: DO(9); break;                                                                                              \
    case 5: DO(11); break;                                                                                             \
    case 6: DO(13); break;                                                                                             \
    default: DO(2 * (l) + 1); break;                                                                                   \
    }

INLINE void correlate(const walk *w, const ways way)
{
    const descriptor *d = w->d;
    for (int s = 0; s < way.n_sets; s++) {
        w->energy[s] = (lanes){0};
        memset(w->adjoint[s], 0, d->n_components * sizeof(lanes));
    }
    for (int e = 0; e < d->n_order0; e++) {
        if (way.keep)
            w->features[e] += 1.0;
        for (int s = 0; s < way.n_sets; s++)
            w->energy[s] += weight_of(w, way, s, e);
    }
    for (int e = 0; e < d->n_order1; e++) {
        const int place = order1_places(d) + e, base = d->order1_base[e];
        if (way.keep)
            w->features[place] += w->terms[base];
        for (int s = 0; s < way.n_sets; s++) {
            w->adjoint[s][base] += weight_of(w, way, s, place);
            w->energy[s] += weight_of(w, way, s, place) * w->terms[base];
        }
    }
    for (int g = 0; g < d->n_order2; g++) {
#define GROUP(n) order2_group(w, way, n, g)
        FOR_EACH_L(d->order2_l[g], GROUP)
    }
    for (int r = 0; r < d->n_runs && d->run_start[r] < d->n_shared; r++) {
        const int32_t *l = d->run_l + 3 * r;
        const triple coupling = triple_of(l);
        for (int p = d->run_start[r]; p < d->run_start[r + 1]; p++)
            coupling.forward(l, d->coupling + d->run_coupling[r], w->terms + d->product_first[p],
                             w->terms + d->product_second[p], w->terms + d->product_base[p]);
    }
    for (int r = 0; r < d->n_runs; r++) {
#define RUN(n) product_run(w, way, n, r)
        FOR_EACH_L(d->run_l[3 * r + 2], RUN)
    }
}

void correlations_weights(const descriptor *d, const double *weight, real *ordered)
{
    for (int place = 0; place < d->n_features; place++)
        ordered[place] = (real)(d->scale[place] * weight[d->feature[place]]);
}

void correlations_evaluate(const descriptor *d, lanes *terms, const real *weight, lanes *features, lanes *adjoint,
                           lanes *energy)
{
    const walk w = {d, terms, features, {adjoint}, energy, {weight}, NULL};
    if (adjoint == NULL)
        correlate(&w, (ways){0, 0, 1});
    else if (features == NULL)
        correlate(&w, (ways){1, 0, 0});
    else
        correlate(&w, (ways){1, 0, 1});
}

void correlations_evaluate_two(const descriptor *d, lanes *terms, const real *const *weight, lanes *adjoint,
                               lanes *energy)
{
    const walk w = {
        d, terms, NULL, {adjoint,   adjoint + d->n_components},
           energy, {weight[0], weight[1]                },
           NULL
    };
    correlate(&w, (ways){2, 0, 0});
}

void correlations_reverse(const descriptor *d, lanes *terms, const lanes *weight, lanes *features, lanes *adjoint,
                          lanes *energy)
{
    const walk w = {d, terms, features, {adjoint}, energy, {NULL}, weight};
    correlate(&w, (ways){1, 1, 1});
}
