/* Neighbour list of any structure: periodic in none to three directions, any cell (triclinic, left-handed,
 * smaller than the cutoff), atoms wherever they are. The list is full (i -> j and j -> i), counts every image
 * as a pair of its own, an atom's own images included, and is ordered: for each atom by neighbour index, then
 * by shift. The vector of a pair is
 *     r_ij = r_j - r_i + shift @ cell        (positions as given, cell vectors in rows)                        */
#ifndef COMITIA_NEIGHBOURS_H
#define COMITIA_NEIGHBOURS_H

#include <stddef.h>
#include <stdint.h>

#define NEIGHBOURS_ERROR_MEMORY (-1)    /* no memory left */
#define NEIGHBOURS_ERROR_CELL (-2)      /* the vectors of the periodic directions do not span them */
#define NEIGHBOURS_ERROR_NONFINITE (-3) /* a position or a periodic cell vector is not finite */
#define NEIGHBOURS_ERROR_TOO_MANY (-4)  /* too many atoms, images or pairs */
#define NEIGHBOURS_ERROR_FAR (-5)       /* a position so far away that its distances have no digits left */
#define NEIGHBOURS_ERROR_CUTOFF (-6)    /* the cutoff or the skin is negative or not finite */

/* What one thread finds of the pairs, each once, at the atom with the higher index: those of a run of atoms. */
typedef struct {
    size_t begin, end; /* atoms */
    int32_t *copy;     /* [count] the copy that is the neighbour */
    size_t count, capacity, n_allocations;
} half_pairs;

typedef struct {
    size_t n_atoms, n_pairs;
    int64_t *start;     /* [n_atoms + 1]  pairs start[i] to start[i + 1] - 1 belong to atom i */
    int32_t *neighbour; /* [n_pairs]      j */
    int32_t *shift;     /* [n_pairs][3]   lattice vectors to add to r_j; zero where not periodic */
    size_t atom_capacity, pair_capacity;

    double cutoff, skin;     /* Angstrom; pairs closer than cutoff + skin are listed */
    int n_threads;           /* that may search together; 1 unless it is set */
    double *positions_built; /* [n_atoms][3] the positions that the list was made from */
    double cell_built[9];    /* rows */
    int pbc_built[3];
    int valid;             /* the list is that of positions_built */
    size_t offending_atom; /* the atom an error is about, or n_atoms where it is about none */
    size_t n_allocations;  /* how often memory was taken since the start: stays put at a given size */

    /* scratch, kept from build to build */
    double *wrapped;     /* [n_atoms][3] position moved into the cell */
    double *fraction;    /* [n_atoms][3] the same in units of the cell vectors */
    int32_t *image;      /* [n_atoms][3] the cell the position came from */
    int32_t *n_upper;    /* [n_atoms] pairs in which the atom has the lower index */
    int64_t *half_start; /* [n_atoms + 1] each pair once, counted through the parts */
    int64_t *fill;       /* [n_atoms] next free place in the atom's part of the list */
    half_pairs *half;    /* [n_parts] */
    int n_parts, part_capacity;
    int32_t *copy_atom, *copy_shift, *copy_bin; /* copies of the atoms in reach of the cell, as they come */
    double *bin_x, *bin_y, *bin_z;              /* the same copies in the order of the bins */
    int32_t *bin_key, *bin_shift;
    size_t copy_capacity;
    int32_t *bin_start; /* [n_bins + 1] */
    size_t bin_capacity;
} neighbour_list;

void neighbour_list_init(neighbour_list *list, double cutoff, double skin);
void neighbour_list_free(neighbour_list *list);

/* Bring the list up to date: it is rebuilt when the number of atoms, the periodicity or a periodic cell vector
 * changed, or an atom moved more than half the skin since it was built.
 *   positions  IN  [n_atoms][3]   Angstrom
 *   cell       IN  [3][3]         Angstrom, rows; a row is ignored where pbc is 0
 *   pbc        IN  [3]            periodic or not
 * Returns 0 when the old list still holds, 1 when it was rebuilt, or a negative NEIGHBOURS_ERROR_...; then nothing
 * in the list but offending_atom means anything, until the next call that succeeds.                             */
int neighbour_list_update(neighbour_list *list, size_t n_atoms, const double *positions, const double cell[9],
                          const int pbc[3]);

/* One sentence for an error code. */
const char *neighbour_error(int code);

#endif
