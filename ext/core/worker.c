#include "worker.h"

#include "density.h"
#include "quadratic.h"

#include <stdlib.h>
#include <string.h>

static void *allocate(size_t bytes)
{
    return aligned_alloc(64, (bytes + 64) / 64 * 64);
}

void worker_free(worker *w)
{
    for (int v = 0; v < LANES; v++)
        environment_free(&w->env[v]);
    void *arrays[] = {w->terms, w->adjoint,   w->features,     w->weight,   w->sum,          w->gradient,
                      w->A,     w->A_adjoint, w->coefficients, w->products, w->own_products, w->row};
    for (size_t a = 0; a < sizeof arrays / sizeof *arrays; a++)
        free(arrays[a]);
}

int worker_prepare(worker *w, const descriptor *d, size_t most_neighbours, size_t *n_allocations)
{
    if (reserve((void **)&w->gradient, &w->gradient_capacity, (most_neighbours + LANES - 1) / LANES, 3 * sizeof(lanes),
                n_allocations))
        return OUT_OF_MEMORY;
    if (w->ready)
        return 0;
    w->terms = allocate(d->n_terms * sizeof(lanes));
    w->adjoint = allocate(d->n_terms * sizeof(lanes));
    w->features = allocate(d->n_features * sizeof(lanes));
    w->weight = allocate(d->n_features * sizeof(lanes));
    w->sum = allocate(d->n_features * sizeof(lanes));
    w->A = allocate(LANES * density_stride(d, 1) * sizeof(real));
    w->A_adjoint = allocate(LANES * density_stride(d, 1) * sizeof(real));
    w->coefficients = allocate(quadratic_size(d) * sizeof(real));
    w->products = allocate(quadratic_size(d) * sizeof(real));
    w->own_products = allocate(quadratic_size(d) * sizeof(real));
    w->row = allocate(d->n_features * sizeof(double));
    *n_allocations += 11;
    if (!w->terms || !w->adjoint || !w->features || !w->weight || !w->sum || !w->A || !w->A_adjoint ||
        !w->coefficients || !w->products || !w->own_products || !w->row) {
        worker_free(w);
        *w = (worker){0};
        return OUT_OF_MEMORY;
    }
    memset(w->A_adjoint, 0, LANES * density_stride(d, 1) * sizeof(real)); /* stays so where no feature reads A */
    memset(w->terms, 0, d->n_terms * sizeof(lanes));
    w->ready = 1;
    return 0;
}
