/* Memory of one thread that evaluates blocks of centres. */
#ifndef COMITIA_WORKER_H
#define COMITIA_WORKER_H

#include "kept.h"
#include "parts.h"

typedef struct worker {
    environment env[LANES];
    lanes *terms, *adjoint, *features, *weight, *sum, *gradient;
    real *A, *A_adjoint;                          /* [LANES][density_stride] */
    real *coefficients, *products, *own_products; /* see quadratic.h */
    double *row;                                  /* [n_features] of one centre */
    size_t gradient_capacity;
    part *part;
    kept_memory *kept;
    int ready;
} worker;

void worker_free(worker *w);

/* For centres with so many neighbours. Returns 0 or OUT_OF_MEMORY. */
int worker_prepare(worker *w, const descriptor *d, size_t most_neighbours, size_t *n_allocations);

#endif
