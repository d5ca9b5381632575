/* Which copy of the kernels runs: the widest instruction set of this CPU, unless another is asked for. */
#ifndef COMITIA_DISPATCH_H
#define COMITIA_DISPATCH_H

#include "evaluate.h"
#include "linear.h"
#include "members.h"

/* One copy of the kernels; the functions are those of the headers under their plain names. */
struct kernels {
    const char *instructions; /* avx512, avx2, baseline, or generic where there is only one copy */
    int n_lanes;
    void (*free_evaluator)(evaluator *);
    int (*evaluate_batch)(evaluator *, const descriptor *, size_t, const structure *, int, const evaluation *);
    int (*combinations)(evaluator *, const descriptor *, size_t, const structure *, int, const combination *);
    int (*tangent)(const descriptor *, size_t, const structure *, int, const double *, const double *, double *);
    int (*design)(const descriptor *, const structure *, double *, double *, double *);
    void (*members)(size_t, size_t, size_t, const double *, const double *, const double *, double *);
    int (*finite)(size_t, const double *);
    void (*free_members)(member_evaluator *);
    int (*forces_of_members)(member_evaluator *, const descriptor *, const member_program *, size_t, const structure *,
                             int, const member_evaluation *);
};
typedef struct kernels kernels;

enum { INSTRUCTIONS_UNKNOWN = -1, INSTRUCTIONS_MISSING = -2 };

/* The copies of this build that the CPU can run, the fastest first; NULL after the last. */
const kernels *kernels_available(int index);

/* Use the copy of this name from now on. Returns 0, INSTRUCTIONS_UNKNOWN or, where the CPU lacks them,
 * INSTRUCTIONS_MISSING. */
int kernels_use(const char *instructions);

const kernels *kernels_in_use(void);

#endif
