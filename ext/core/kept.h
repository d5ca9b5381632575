/* What two evaluations of the same positions share: environments and densities of the centres, kept one behind the
 * other in memory of each thread that grows only, up to a bound; what does not fit is made again. */
#ifndef COMITIA_KEPT_H
#define COMITIA_KEPT_H

#include "environment.h"

#define NOT_KEPT ((int64_t)-1)

typedef struct {
    lanes *memory;
    size_t used, capacity, n_allocations; /* registers */
} kept_memory;

void kept_free(kept_memory *k);

/* Keeps what density_reverse needs of an environment, and `density`, which is n_density registers long, as long as this
 * takes not more than `most` bytes in all. Returns where, or NOT_KEPT. */
int64_t keep_centre(kept_memory *k, const descriptor *d, size_t most, const environment *env, const lanes *density,
                    size_t n_density);

/* Lets `env` point to what was kept there, and returns the density; both hold until more is kept. */
const lanes *kept_centre(const kept_memory *k, const descriptor *d, int64_t where, environment *env);

#endif
