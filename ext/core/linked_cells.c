#include "linked_cells.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "neighbours.h"

enum { NOBODY = -1 };

void linked_cells_free(linked_cells *cells)
{
    void *arrays[] = {cells->first,   cells->next,     cells->previous, cells->bin,
                      cells->wrapped, cells->fraction, cells->image};
    for (size_t a = 0; a < sizeof arrays / sizeof *arrays; a++)
        free(arrays[a]);
    *cells = (linked_cells){0};
}

static int reserve_atoms(linked_cells *cells, size_t n_atoms)
{
    if (n_atoms <= cells->atom_capacity)
        return 0;
    void *bins = cells->first;
    const size_t bin_capacity = cells->bin_capacity, n_allocations = cells->n_allocations;
    cells->first = NULL;
    linked_cells_free(cells);
    cells->first = bins;
    cells->bin_capacity = bin_capacity;
    cells->n_allocations = n_allocations + 6;
    cells->next = malloc(n_atoms * sizeof(int32_t));
    cells->previous = malloc(n_atoms * sizeof(int32_t));
    cells->bin = malloc(n_atoms * sizeof(int32_t));
    cells->wrapped = malloc(3 * n_atoms * sizeof(double));
    cells->fraction = malloc(3 * n_atoms * sizeof(double));
    cells->image = malloc(3 * n_atoms * sizeof(int32_t));
    if (!cells->next || !cells->previous || !cells->bin || !cells->wrapped || !cells->fraction || !cells->image) {
        linked_cells_free(cells);
        return NEIGHBOURS_ERROR_MEMORY;
    }
    cells->atom_capacity = n_atoms;
    return 0;
}

/* Bins of half the cutoff, but no more than a few for every atom, however empty the space.
 *   low, high  IN  [3] range of the fractions of the atoms */
static void choose_bins(linked_cells *cells, const double low[3], const double high[3], double largest)
{
    const lattice *lattice = &cells->lattice;
    double extent[3];
    for (int d = 0; d < 3; d++) {
        const double rounding = 1e-12 + 1e-15 * lattice->condition * (largest + cells->cutoff) / lattice->height[d];
        cells->reach[d] = cells->cutoff / lattice->height[d] * (1 + 1e-12) + rounding;
        cells->origin[d] = lattice->periodic[d] ? 0 : low[d];
        extent[d] = lattice->periodic[d] ? 1 : high[d] - low[d];
        const double fitting = 2 * extent[d] * lattice->height[d] / cells->cutoff;
        cells->n[d] = fitting > 1 ? (int)fmin(1e6, fitting) : 1;
    }
    while ((double)cells->n[0] * cells->n[1] * cells->n[2] > 4 * (double)cells->n_atoms + 8) {
        int most = cells->n[0] >= cells->n[1] ? 0 : 1;
        most = cells->n[2] > cells->n[most] ? 2 : most;
        cells->n[most] = (cells->n[most] + 1) / 2;
    }
    for (int d = 0; d < 3; d++)
        cells->scale[d] = cells->n[d] > 1 ? cells->n[d] / extent[d] : 0;
}

/* Never decreasing in `fraction`; those outside are in the outermost bins. */
static int bin_along(const linked_cells *cells, int d, double fraction)
{
    const double bin = (fraction - cells->origin[d]) * cells->scale[d];
    return bin <= 0 ? 0 : bin >= cells->n[d] ? cells->n[d] - 1 : (int)bin;
}

static void insert(linked_cells *cells, int32_t atom)
{
    int bin = 0;
    for (int d = 0; d < 3; d++)
        bin = bin * cells->n[d] + bin_along(cells, d, cells->fraction[3 * atom + d]);
    const int32_t next = cells->first[bin];
    cells->bin[atom] = bin;
    cells->next[atom] = next;
    cells->previous[atom] = NOBODY;
    if (next != NOBODY)
        cells->previous[next] = atom;
    cells->first[bin] = atom;
}

static void take(linked_cells *cells, int32_t atom)
{
    const int32_t next = cells->next[atom], previous = cells->previous[atom];
    if (next != NOBODY)
        cells->previous[next] = previous;
    if (previous != NOBODY)
        cells->next[previous] = next;
    else
        cells->first[cells->bin[atom]] = next;
}

int linked_cells_fill(linked_cells *cells, double cutoff, size_t n_atoms, const double *positions, const double cell[9],
                      const int pbc[3])
{
    double low[3] = {INFINITY, INFINITY, INFINITY}, high[3] = {-INFINITY, -INFINITY, -INFINITY}, largest = 0;
    size_t offending;
    int code = reserve_atoms(cells, n_atoms);
    if (code == 0)
        code = lattice_complete(cell, pbc, &cells->lattice);
    if (code == 0)
        code = lattice_wrap(&cells->lattice, n_atoms, positions, cells->wrapped, cells->fraction, cells->image,
                            &offending);
    if (code != 0)
        return code;
    cells->n_atoms = n_atoms;
    cells->cutoff = cutoff;
    for (size_t k = 0; k < 3 * n_atoms; k++) {
        low[k % 3] = fmin(low[k % 3], cells->fraction[k]);
        high[k % 3] = fmax(high[k % 3], cells->fraction[k]);
        largest = fmax(largest, fabs(cells->wrapped[k]));
    }
    choose_bins(cells, low, high, largest);
    const size_t n_bins = (size_t)cells->n[0] * cells->n[1] * cells->n[2];
    if (n_bins > cells->bin_capacity) {
        free(cells->first);
        cells->first = malloc(n_bins * sizeof *cells->first);
        cells->bin_capacity = cells->first == NULL ? 0 : n_bins;
        cells->n_allocations++;
        if (cells->first == NULL)
            return NEIGHBOURS_ERROR_MEMORY;
    }
    for (size_t bin = 0; bin < n_bins; bin++)
        cells->first[bin] = NOBODY;
    for (size_t i = n_atoms; i-- > 0;) /* backwards: each bin is then gone through in the order of the atoms */
        insert(cells, (int32_t)i);
    return 0;
}

int linked_cells_move(linked_cells *cells, int32_t atom, const double position[3])
{
    double wrapped[3], fraction[3];
    int32_t image[3];
    size_t offending;
    const int code = lattice_wrap(&cells->lattice, 1, position, wrapped, fraction, image, &offending);
    if (code != 0)
        return code;
    take(cells, atom);
    memcpy(&cells->wrapped[3 * atom], wrapped, sizeof wrapped);
    memcpy(&cells->fraction[3 * atom], fraction, sizeof fraction);
    memcpy(&cells->image[3 * atom], image, sizeof image);
    insert(cells, atom);
    return 0;
}

int linked_row_add(linked_row *row, int32_t neighbour, const int32_t shift[3])
{
    if (row->n == row->capacity) {
        const int room = 2 * row->capacity + 64;
        int32_t *neighbours = realloc(row->neighbour, room * sizeof *neighbours);
        if (neighbours == NULL)
            return NEIGHBOURS_ERROR_MEMORY;
        row->neighbour = neighbours;
        int32_t *shifts = realloc(row->shift, 3 * room * sizeof *shifts);
        if (shifts == NULL)
            return NEIGHBOURS_ERROR_MEMORY;
        row->shift = shifts;
        row->capacity = room;
    }
    row->neighbour[row->n] = neighbour;
    memcpy(&row->shift[3 * row->n], shift, 3 * sizeof *shift);
    row->n++;
    return 0;
}

/* Atoms of one bin, seen in the cell `image`, that are close enough to an atom. */
static int add_bin(const linked_cells *cells, int32_t atom, int bin, const int image[3], linked_row *row)
{
    const double (*vector)[3] = cells->lattice.vector, *r = &cells->wrapped[3 * atom];
    const double limit = cells->cutoff * cells->cutoff * (1 + 1e-9); /* whoever reads the row looks again */
    const int32_t *own = &cells->image[3 * atom];
    const int at_home = image[0] == 0 && image[1] == 0 && image[2] == 0;
    double from[3];
    for (int k = 0; k < 3; k++)
        from[k] = r[k] - (image[0] * vector[0][k] + image[1] * vector[1][k] + image[2] * vector[2][k]);
    for (int32_t j = cells->first[bin]; j != NOBODY; j = cells->next[j]) {
        const double *other = &cells->wrapped[3 * j];
        const double x = other[0] - from[0], y = other[1] - from[1], z = other[2] - from[2];
        if (!(x * x + y * y + z * z < limit) || (at_home && j == atom))
            continue;
        const int32_t *its = &cells->image[3 * j];
        const int32_t shift[3] = {image[0] - its[0] + own[0], image[1] - its[1] + own[1], image[2] - its[2] + own[2]};
        if (linked_row_add(row, j, shift))
            return NEIGHBOURS_ERROR_MEMORY;
    }
    return 0;
}

int linked_cells_neighbours(const linked_cells *cells, int32_t atom, linked_row *row)
{
    const double *fraction = &cells->fraction[3 * atom];
    int low[3], high[3], image[3], at[3], code = 0;
    for (int d = 0; d < 3; d++) {
        if (cells->lattice.periodic[d]) {
            low[d] = (int)floor((fraction[d] - cells->reach[d]) * cells->n[d]);
            high[d] = (int)floor((fraction[d] + cells->reach[d]) * cells->n[d]);
        } else {
            low[d] = bin_along(cells, d, fraction[d] - cells->reach[d]);
            high[d] = bin_along(cells, d, fraction[d] + cells->reach[d]);
        }
    }
    for (int a = low[0]; code == 0 && a <= high[0]; a++) {
        image[0] = (int)floor((double)a / cells->n[0]);
        at[0] = a - image[0] * cells->n[0];
        for (int b = low[1]; code == 0 && b <= high[1]; b++) {
            image[1] = (int)floor((double)b / cells->n[1]);
            at[1] = b - image[1] * cells->n[1];
            for (int c = low[2]; code == 0 && c <= high[2]; c++) {
                image[2] = (int)floor((double)c / cells->n[2]);
                at[2] = c - image[2] * cells->n[2];
                code = add_bin(cells, atom, (at[0] * cells->n[1] + at[1]) * cells->n[2] + at[2], image, row);
            }
        }
    }
    return code;
}
