/* Linear heads: energies of all members from the summed features of each structure. */
#ifndef COMITIA_LINEAR_H
#define COMITIA_LINEAR_H

#include "lanes.h"

/* members[s][k] = mean[s] + sum_f deviations[k][f] sums[s][f]
 *   sums        IN  [n_structures][width]
 *   deviations  IN  [n_members][width]
 *   mean        IN  [n_structures]
 *   members     OUT [n_structures][n_members]                                                              */
void linear_members(size_t n_structures, size_t n_members, size_t width, const double *sums, const double *deviations,
                    const double *mean, double *members);

/* Whether all n values are finite. */
int linear_finite(size_t n, const double *values);

#endif
