/* The cell as the neighbour list needs it. */
#ifndef COMITIA_LATTICE_H
#define COMITIA_LATTICE_H

#include <stddef.h>
#include <stdint.h>

/* The cell with a unit vector, normal to the others, in place of every vector that is not periodic. */
typedef struct {
    int periodic[3];
    double vector[3][3];  /* rows */
    double inverse[3][3]; /* fraction[d] = sum_k position[k] inverse[k][d] */
    double height[3];     /* distance between the two faces that vector d joins */
    double condition;     /* product of the edges over the volume, 1 for an orthogonal cell */
} lattice;

/* Returns 0 or a NEIGHBOURS_ERROR_... */
int lattice_complete(const double cell[9], const int pbc[3], lattice *out);

/* Move every atom into the cell along the periodic directions: wrapped = positions - image @ cell.
 *   positions  IN   [n_atoms][3]
 *   wrapped    OUT  [n_atoms][3]
 *   fraction   OUT  [n_atoms][3]  wrapped in units of the cell vectors, 0 to 1 but for rounding
 *   image      OUT  [n_atoms][3]
 *   atom       OUT  the one that cannot be moved, when there is one
 * Returns 0 or a NEIGHBOURS_ERROR_...                                                                            */
int lattice_wrap(const lattice *lattice, size_t n_atoms, const double *positions, double *wrapped, double *fraction,
                 int32_t *image, size_t *atom);

#endif
