#include "dispatch.h"

#include <string.h>

#ifdef COMITIA_DISPATCH
extern const kernels kernels_avx512, kernels_avx2, kernels_baseline;
extern const kernels kernels_avx512_single, kernels_avx2_single, kernels_baseline_single;
static const kernels *const copies[] = {&kernels_avx512, &kernels_avx2, &kernels_baseline};
static const kernels *const single_copies[] = {&kernels_avx512_single, &kernels_avx2_single, &kernels_baseline_single};
#else
extern const kernels kernels_generic, kernels_generic_single;
static const kernels *const copies[] = {&kernels_generic};
static const kernels *const single_copies[] = {&kernels_generic_single};
#endif
enum { N_COPIES = sizeof copies / sizeof *copies };

static int runs_here(const kernels *copy)
{
#ifdef COMITIA_DISPATCH
    const int avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
                     __builtin_cpu_supports("bmi2");
    if (copy == &kernels_avx512)
        return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx512vl");
    return copy == &kernels_baseline || avx2;
#else
    return copy != NULL;
#endif
}

const kernels *kernels_available(int index)
{
    for (int c = 0; c < N_COPIES; c++)
        if (runs_here(copies[c]) && index-- == 0)
            return copies[c];
    return NULL;
}

static const kernels *chosen;

int kernels_use(const char *instructions)
{
    for (int c = 0; c < N_COPIES; c++)
        if (strcmp(copies[c]->instructions, instructions) == 0) {
            if (!runs_here(copies[c]))
                return INSTRUCTIONS_MISSING;
            chosen = copies[c];
            return 0;
        }
    return INSTRUCTIONS_UNKNOWN;
}

const kernels *kernels_in_use(void)
{
    return chosen != NULL ? chosen : kernels_available(0);
}

static const kernels *single_precision(const kernels *copy)
{
    int c = 0;
    while (copies[c] != copy)
        c++;
    return single_copies[c];
}

void evaluator_free(evaluator *e)
{
    if (e->made_by != NULL)
        e->made_by->free_evaluator(e);
    *e = (evaluator){0};
}

int evaluate(evaluator *e, const descriptor *d, size_t n_structures, const structure *structures, int n_threads,
             const evaluation *what)
{
    /* what is kept is for kernels of doubles, and members are made by them */
    const int single = d->spline_single != NULL && !what->keep && what->atomic_members == NULL;
    const kernels *copy = single ? single_precision(kernels_in_use()) : kernels_in_use();
    if (e->made_by != copy) { /* memory is laid out for one number of lanes */
        evaluator_free(e);
        e->made_by = copy;
    }
    return copy->evaluate_batch(e, d, n_structures, structures, n_threads, what);
}

int evaluate_combinations(evaluator *e, const descriptor *d, size_t n_structures, const structure *structures,
                          int n_threads, const combination *what)
{
    return e->made_by->combinations(e, d, n_structures, structures, n_threads, what);
}

int evaluate_tangent(const descriptor *d, size_t n_structures, const structure *structures, int n_threads,
                     const double *directions, const double *strains, double *sums)
{
    return kernels_in_use()->tangent(d, n_structures, structures, n_threads, directions, strains, sums);
}

int evaluate_design(const descriptor *d, const structure *s, double *features, double *forces, double *virial)
{
    return kernels_in_use()->design(d, s, features, forces, virial);
}

void linear_members(size_t n_structures, size_t n_members, size_t width, const double *sums, const double *deviations,
                    const double *mean, double *members)
{
    kernels_in_use()->members(n_structures, n_members, width, sums, deviations, mean, members);
}

void member_evaluator_free(member_evaluator *e)
{
    if (e->made_by != NULL)
        e->made_by->free_members(e);
    *e = (member_evaluator){0};
}

int evaluate_members(member_evaluator *e, const descriptor *d, const member_program *program, size_t n_structures,
                     const structure *structures, int n_threads, const member_evaluation *what)
{
    const kernels *copy = kernels_in_use();
    if (e->made_by != copy) {
        member_evaluator_free(e);
        e->made_by = copy;
    }
    return copy->forces_of_members(e, d, program, n_structures, structures, n_threads, what);
}

int linear_finite(size_t n, const double *values)
{
    return kernels_in_use()->finite(n, values);
}
