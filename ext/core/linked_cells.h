/* Atoms in bins along the cell vectors, from which single ones can be taken and put elsewhere: neighbours of any point
 * at a cost that does not grow with the number of atoms. Hockney and Eastwood, Computer Simulation Using Particles
 * (1981), chapter 8. */
#ifndef COMITIA_LINKED_CELLS_H
#define COMITIA_LINKED_CELLS_H

#include "lattice.h"

/* Bin (a, b, c) has the number (a n[1] + b) n[2] + c; along vector d it is (fraction - origin[d]) scale[d]. */
typedef struct {
    lattice lattice;
    size_t n_atoms;
    double cutoff;
    int n[3];
    double origin[3], scale[3];
    double reach[3];          /* the cutoff in units of the cell vectors, rounded up */
    int32_t *first;           /* [n_bins] an atom of each bin, or -1 */
    int32_t *next, *previous; /* [n_atoms] others of its bin, or -1 */
    int32_t *bin;             /* [n_atoms] */
    double *wrapped;          /* [n_atoms][3] position moved into the cell */
    double *fraction;         /* [n_atoms][3] the same in units of the cell vectors */
    int32_t *image;           /* [n_atoms][3] the cell the position came from */
    size_t atom_capacity, bin_capacity, n_allocations;
} linked_cells;

/* Atoms closer than the cutoff to a point, every image for itself. */
typedef struct {
    int32_t *neighbour; /* [n] */
    int32_t *shift;     /* [n][3] lattice vectors to add to the position of the neighbour, as given */
    int n, capacity;
} linked_row;

void linked_cells_free(linked_cells *cells);

/* Sorts all atoms; arguments as those of neighbour_list_update. Returns 0 or a NEIGHBOURS_ERROR_... */
int linked_cells_fill(linked_cells *cells, double cutoff, size_t n_atoms, const double *positions, const double cell[9],
                      const int pbc[3]);

/* Takes an atom to another place. Returns 0 or a NEIGHBOURS_ERROR_..., and then the atom stays where it is. */
int linked_cells_move(linked_cells *cells, int32_t atom, const double position[3]);

/* Neighbours of an atom, added to the row. Returns 0 or NEIGHBOURS_ERROR_MEMORY. */
int linked_cells_neighbours(const linked_cells *cells, int32_t atom, linked_row *row);

/* One more neighbour. Returns 0 or NEIGHBOURS_ERROR_MEMORY. */
int linked_row_add(linked_row *row, int32_t neighbour, const int32_t shift[3]);

#endif
