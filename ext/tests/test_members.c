/* Forces of all members in one pass against one evaluation for each member. */
#include "members.h"

#include "sample.h"

enum { N_Q_L = MODEL_N_Q * (MODEL_L_MAX + 1), MOST_DOTS = 4000, MOST_PRODUCTS = 1000, TAKEN = 4 };

/* What the member kernel needs of a model, of the features of order 1, 2 and, one in TAKEN, 3. */
typedef struct {
    member_program p;
    model *couplings; /* with those of the three l of each product */
    int coupling_start[MODEL_L_MAX + 1][MODEL_L_MAX + 1][MODEL_L_MAX + 1], n_couplings;
    int32_t channel_base[N_Q_L + 1], dot_start[N_Q_L + 1], dot_other[MOST_DOTS];
    int32_t product_l[3 * MOST_PRODUCTS], product_first[MOST_PRODUCTS], product_second[MOST_PRODUCTS],
        product_base[MOST_PRODUCTS], product_coupling[MOST_PRODUCTS];
    int32_t function_start[MODEL_N_SPECIES * (MODEL_L_MAX + 2)],
        function[MODEL_N_SPECIES * (MODEL_L_MAX + 1) * MODEL_N_RADIAL],
        function_base[MODEL_N_SPECIES * (MODEL_L_MAX + 1) * MODEL_N_RADIAL];
    int32_t slot_start[MODEL_N_SPECIES + 1], source_start[MODEL_N_SPECIES * MODEL_N_LM * MODEL_N_RADIAL + 1],
        source_component[MODEL_N_SPECIES * MODEL_N_LM * MODEL_N_RADIAL * MODEL_N_CHANNELS];
    double source_factor[MODEL_N_SPECIES * MODEL_N_LM * MODEL_N_RADIAL * MODEL_N_CHANNELS];
    int32_t dot_feature[MOST_DOTS]; /* whose weight, times this factor, is that of the dot */
    double dot_factor[MOST_DOTS];
    int n_dots;
    struct {
        int channel, other, feature;
        double factor;
    } dot[MOST_DOTS]; /* in any order */
    int taken[MODEL_MAX];
} members_model;

/* Blocks of terms are q (l_max + 1)^2 + l^2. */
static int channel_of(int base)
{
    int l = 0;
    while ((l + 1) * (l + 1) <= base % MODEL_N_LM) {
        l++;
    }
    return base / MODEL_N_LM * (MODEL_L_MAX + 1) + l;
}

static int l_of(int base)
{
    return channel_of(base) % (MODEL_L_MAX + 1);
}

static void add_dot(members_model *mm, int base, int other, int feature, double factor)
{
    mm->dot[mm->n_dots].channel = channel_of(base);
    mm->dot[mm->n_dots].other = other;
    mm->dot[mm->n_dots].feature = feature;
    mm->dot[mm->n_dots++].factor = factor;
    mm->taken[feature] = 1;
    CHECK(mm->n_dots <= MOST_DOTS, "%d dots", mm->n_dots);
}

/* The product of two blocks of terms coupled to l; returns its terms. */
static int add_product(members_model *mm, int first, int second, int l)
{
    const int triple[3] = {l_of(first), l_of(second), l}, n = mm->p.n_products++;
    int *start = &mm->coupling_start[triple[0]][triple[1]][triple[2]];
    CHECK(mm->p.n_products <= MOST_PRODUCTS, "%d products", mm->p.n_products);
    if (*start < 0) {
        *start = mm->n_couplings;
        mm->n_couplings = model_coefficients(mm->couplings, triple, mm->n_couplings);
    }
    for (int a = 0; a < 3; a++) {
        mm->product_l[3 * n + a] = triple[a];
    }
    mm->product_first[n] = first;
    mm->product_second[n] = second;
    mm->product_coupling[n] = *start;
    mm->product_base[n] = mm->p.n_terms;
    mm->p.n_terms += 2 * l + 1;
    return mm->product_base[n];
}

/* The adjoint of every factor of a feature is the product of the others. */
static void add_features(members_model *mm, const model *m)
{
    const descriptor *d = &m->d;
    for (int e = 0, place = order1_places(d); e < d->n_order1; e++, place++) {
        add_dot(mm, m->order1_base[e], -1, m->feature[place], m->scale[place]);
    }
    for (int g = 0, place = order2_places(d); g < d->n_order2; g++) {
        for (int e = m->order2_start[g]; e < m->order2_start[g + 1]; e++, place++) {
            add_dot(mm, m->order2_first[g], m->order2_second[e], m->feature[place], m->scale[place]);
            add_dot(mm, m->order2_second[e], m->order2_first[g], m->feature[place], m->scale[place]);
        }
    }
    for (int p = 0; p < d->n_products; p++) {
        const int first = m->product_first[p], second = m->product_second[p];
        for (int e = m->order3_start[p]; e < m->order3_start[p + 1]; e++) {
            const int third = m->order3_third[e], place = order3_places(d) + e, feature = m->feature[place];
            if (e % TAKEN == 0) {
                add_dot(mm, third, add_product(mm, first, second, l_of(third)), feature, m->scale[place]);
                add_dot(mm, first, add_product(mm, second, third, l_of(first)), feature, m->scale[place]);
                add_dot(mm, second, add_product(mm, first, third, l_of(second)), feature, m->scale[place]);
            }
        }
    }
}

static void arrange_dots(members_model *mm)
{
    int n = 0;
    for (int channel = 0; channel < N_Q_L; channel++) {
        const int l = channel % (MODEL_L_MAX + 1);
        mm->channel_base[channel] = channel / (MODEL_L_MAX + 1) * MODEL_N_LM + l * l;
        for (int e = 0; e < mm->n_dots; e++) {
            if (mm->dot[e].channel == channel) {
                mm->dot_other[n] = mm->dot[e].other < 0 ? mm->p.n_terms : mm->dot[e].other;
                mm->dot_feature[n] = mm->dot[e].feature;
                mm->dot_factor[n++] = mm->dot[e].factor;
            }
        }
        mm->dot_start[channel + 1] = n;
    }
    mm->channel_base[N_Q_L] = MODEL_N_COMPONENTS;
}

/* Slots of a neighbour's species: [l][n][m], each the sum over the channels that the species is part of. */
static void fill_sources(members_model *mm, const model *m)
{
    int n_slots = 0, n_sources = 0, n_functions = 0;
    for (int species = 0; species < MODEL_N_SPECIES; species++) {
        for (int l = 0; l <= MODEL_L_MAX; l++) {
            mm->function_start[species * (MODEL_L_MAX + 2) + l] = n_functions;
            for (int n = 0; n < MODEL_N_RADIAL; n++) {
                mm->function_base[n_functions] = n_slots - mm->slot_start[species];
                mm->function[n_functions++] = n;
                for (int lm = l * l; lm < (l + 1) * (l + 1); lm++) {
                    for (int k = 0; k < MODEL_N_CHANNELS; k++) {
                        mm->source_component[n_sources] = (k * MODEL_N_RADIAL + n) * MODEL_N_LM + lm;
                        mm->source_factor[n_sources++] = m->contraction[k][species];
                    }
                    mm->source_start[++n_slots] = n_sources;
                }
            }
        }
        mm->function_start[species * (MODEL_L_MAX + 2) + MODEL_L_MAX + 1] = n_functions;
        mm->slot_start[species + 1] = n_slots;
    }
}

static members_model *members_model_new(const model *m)
{
    members_model *mm = calloc(1, sizeof *mm);
    mm->couplings = model_new(4.0, 0);
    memset(mm->coupling_start, -1, sizeof mm->coupling_start);
    mm->p.n_channels = N_Q_L;
    mm->p.n_terms = MODEL_N_COMPONENTS;
    mm->p.most_slots = MODEL_N_LM * MODEL_N_RADIAL;
    add_features(mm, m);
    arrange_dots(mm);
    fill_sources(mm, m);
    mm->p.channel_base = mm->channel_base;
    mm->p.dot_start = mm->dot_start;
    mm->p.dot_other = mm->dot_other;
    mm->p.product_l = mm->product_l;
    mm->p.product_first = mm->product_first;
    mm->p.product_second = mm->product_second;
    mm->p.product_base = mm->product_base;
    mm->p.product_coupling = mm->product_coupling;
    mm->p.coupling = mm->couplings->coupling;
    mm->p.function_start = mm->function_start;
    mm->p.function = mm->function;
    mm->p.function_base = mm->function_base;
    mm->p.slot_start = mm->slot_start;
    mm->p.source_start = mm->source_start;
    mm->p.source_component = mm->source_component;
    mm->p.source_factor = mm->source_factor;
    return mm;
}

static double *aligned_numbers(size_t n)
{
    double *numbers = aligned_alloc(64, (n * sizeof *numbers + 63) / 64 * 64);
    memset(numbers, 0, n * sizeof *numbers);
    return numbers;
}

/* Weights of one member as the kernel for all reads them. */
static void set_column(const members_model *mm, const double *weights, size_t n_features, size_t n_columns, size_t k,
                       double *rows)
{
    for (int species = 0; species < MODEL_N_SPECIES; species++) {
        for (int e = 0; e < mm->n_dots; e++) {
            rows[((size_t)species * mm->n_dots + e) * n_columns + k] =
                weights[(size_t)species * n_features + mm->dot_feature[e]] * mm->dot_factor[e];
        }
    }
}

/* Forces and virials of one member; without weights those of the repulsive core alone. */
static void one_member(const model *m, batch *all, const double *weights, double *forces, double *virials)
{
    double *zero = calloc(MODEL_N_SPECIES * (size_t)m->d.n_features, sizeof *zero);
    evaluator e = {0};
    evaluation what = {.weights = weights == NULL ? zero : weights, .forces = forces, .virials = virials};
    CHECK(evaluate(&e, &m->d, N_BATCH, all->structure, 1, &what) == 0, "evaluate");
    evaluator_free(&e);
    free(zero);
}

/* The kernel for all has the core as often as asked for, evaluate() has it once. */
static void compare_member(const double *found, size_t n_columns, size_t k, const double *expected, const double *core,
                           double times, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const double value = expected[i] + (times - 1) * core[i];
        CHECK_CLOSE(found[i * n_columns + k], value, 1e-11 * (1 + fabs(value) + fabs(core[i])));
    }
}

/* Energies of the first member, which has no core, and sums of features are those of evaluate(). */
static void check_energies(const model *m, batch *all, const member_evaluation *asked)
{
    const size_t n_weights = MODEL_N_SPECIES * (size_t)m->d.n_features, n_sums = N_BATCH * n_weights;
    double *zero = calloc(n_weights, sizeof *zero), *sums = malloc(n_sums * sizeof *sums),
           *energies = malloc(all->n_atoms * sizeof *energies), *core = malloc(all->n_atoms * sizeof *core);
    evaluator e = {0};
    const evaluation what = {.weights = asked->first, .atomic_energies = energies, .sums = sums},
                     core_only = {.weights = zero, .atomic_energies = core};
    CHECK(evaluate(&e, &m->d, N_BATCH, all->structure, 1, &what) == 0, "evaluate");
    CHECK(evaluate(&e, &m->d, N_BATCH, all->structure, 1, &core_only) == 0, "evaluate");
    for (size_t i = 0; i < all->n_atoms; i++) {
        CHECK_CLOSE(asked->atomic_energies[i], energies[i] - core[i], 1e-11 * (1 + fabs(energies[i]) + fabs(core[i])));
    }
    for (size_t i = 0; i < n_sums; i++) {
        CHECK_CLOSE(asked->sums[i], sums[i], 1e-11 * (1 + fabs(sums[i])));
    }
    evaluator_free(&e);
    free(zero);
    free(sums);
    free(energies);
    free(core);
}

/* A number of members that fills no register, and one that needs tiles and a register more. */
static void test_members_one_by_one(void)
{
    static const size_t numbers[] = {5, 2 * PADDING + 3};
    uint64_t state = 21;
    model *m = model_new(4.0, 1);
    members_model *mm = members_model_new(m);
    const size_t n_features = (size_t)m->d.n_features;
    batch all;
    fill_batch(&all, 4.0, &state);
    const size_t n_forces = 3 * all.n_atoms, n_virials = 9 * N_BATCH;
    double *one_forces = aligned_numbers(n_forces), *one_virials = aligned_numbers(n_virials),
           *core_forces = aligned_numbers(n_forces), *core_virials = aligned_numbers(n_virials);
    double *energies = aligned_numbers(all.n_atoms), *sums = aligned_numbers(N_BATCH * MODEL_N_SPECIES * n_features);
    one_member(m, &all, NULL, core_forces, core_virials);
    for (int which = 0; which < 2; which++) {
        const size_t n_members = numbers[which], n_columns = round_up(n_members);
        double *rows = aligned_numbers(MODEL_N_SPECIES * (size_t)mm->n_dots * n_columns),
               *core = aligned_numbers(n_columns), *weights[2 * PADDING + 3];
        double *forces = malloc(n_forces * n_columns * sizeof *forces),
               *virials = malloc(n_virials * n_columns * sizeof *virials);
        for (size_t k = 0; k < n_members; k++) {
            weights[k] = random_numbers(&state, MODEL_N_SPECIES * n_features);
            for (size_t f = 0; f < MODEL_N_SPECIES * n_features; f++) {
                weights[k][f] *= mm->taken[f % n_features]; /* order 0 has no forces */
            }
            core[k] = (double)k / 2;
            set_column(mm, weights[k], n_features, n_columns, k, rows);
        }
        member_evaluator e = {0};
        const member_evaluation asked = {n_columns, rows, core, weights[0], forces, virials, energies, sums};
        for (int n_threads = 1; n_threads <= 3; n_threads++) {
            CHECK(evaluate_members(&e, &m->d, &mm->p, N_BATCH, all.structure, n_threads, &asked) == 0, "members");
            check_energies(m, &all, &asked);
            for (size_t k = 0; k < n_members; k++) {
                one_member(m, &all, weights[k], one_forces, one_virials);
                compare_member(forces, n_columns, k, one_forces, core_forces, core[k], n_forces);
                compare_member(virials, n_columns, k, one_virials, core_virials, core[k], n_virials);
            }
        }
        member_evaluator_free(&e);
        for (size_t k = 0; k < n_members; k++) {
            free(weights[k]);
        }
        free(rows);
        free(core);
        free(forces);
        free(virials);
    }
    free(energies);
    free(sums);
    free(one_forces);
    free(one_virials);
    free(core_forces);
    free(core_virials);
    free_batch(&all);
    free(mm->couplings);
    free(mm);
    free(m);
}

int main(void)
{
    use_requested_instructions();
    test_members_one_by_one();
    return checks_summary("members");
}
