#include "lattice.h"

#include <math.h>

#include "neighbours.h"

#define MAX_POSITION 1e12             /* Angstrom: four decimals are left */
#define MAX_IMAGE ((double)(1 << 29)) /* a shift, the difference of two, fits an int32 */
#define MIN_RELATIVE_VOLUME 1e-10     /* of the cell, against the product of its edges */

static void cross(const double a[3], const double b[3], double c[3])
{
    c[0] = a[1] * b[2] - a[2] * b[1];
    c[1] = a[2] * b[0] - a[0] * b[2];
    c[2] = a[0] * b[1] - a[1] * b[0];
}

static double length(const double a[3])
{
    return sqrt(a[0] * a[0] + a[1] * a[1] + a[2] * a[2]);
}

/* A unit vector along a x b; 0 when they are parallel. */
static int unit_normal(const double a[3], const double b[3], double normal[3])
{
    cross(a, b, normal);
    double norm = length(normal);
    if (!(norm > MIN_RELATIVE_VOLUME * length(a) * length(b))) {
        return 0;
    }
    for (int k = 0; k < 3; k++) {
        normal[k] /= norm;
    }
    return 1;
}

int lattice_complete(const double cell[9], const int pbc[3], lattice *out)
{
    int n_periodic = 0;
    for (int d = 0; d < 3; d++) {
        for (int k = 0; k < 3; k++) {
            out->vector[d][k] = pbc[d] ? cell[3 * d + k] : (double)(d == k);
            if (!isfinite(out->vector[d][k])) {
                return NEIGHBOURS_ERROR_NONFINITE;
            }
        }
        double edge = length(out->vector[d]);
        if (!(edge > 1e-50 && edge < 1e50)) { /* the square of an area must be a number */
            return NEIGHBOURS_ERROR_CELL;
        }
        out->periodic[d] = pbc[d] != 0;
        n_periodic += out->periodic[d];
    }
    if (n_periodic == 2) {
        int free_direction = !pbc[0] ? 0 : !pbc[1] ? 1 : 2;
        if (!unit_normal(out->vector[(free_direction + 1) % 3], out->vector[(free_direction + 2) % 3],
                         out->vector[free_direction])) {
            return NEIGHBOURS_ERROR_CELL;
        }
    } else if (n_periodic == 1) {
        int direction = pbc[0] ? 0 : pbc[1] ? 1 : 2;
        const double *axis = out->vector[direction];
        double *first = out->vector[(direction + 1) % 3], *second = out->vector[(direction + 2) % 3];
        int smallest = 0;
        for (int k = 1; k < 3; k++) {
            smallest = fabs(axis[k]) < fabs(axis[smallest]) ? k : smallest;
        }
        double aside[3] = {smallest == 0, smallest == 1, smallest == 2};
        unit_normal(axis, aside, first);
        unit_normal(axis, first, second);
    }

    double area[3][3], edges = 1;
    for (int d = 0; d < 3; d++) {
        cross(out->vector[(d + 1) % 3], out->vector[(d + 2) % 3], area[d]);
        edges *= length(out->vector[d]);
    }
    double volume = 0;
    for (int k = 0; k < 3; k++) {
        volume += out->vector[0][k] * area[0][k];
    }
    if (!(fabs(volume) > MIN_RELATIVE_VOLUME * edges) || !isfinite(edges)) {
        return NEIGHBOURS_ERROR_CELL;
    }
    for (int d = 0; d < 3; d++) {
        for (int k = 0; k < 3; k++) {
            out->inverse[k][d] = area[d][k] / volume;
        }
        out->height[d] = fabs(volume) / length(area[d]);
    }
    out->condition = edges / fabs(volume);
    return 0;
}

static inline void fraction_of(const lattice *lattice, const double r[3], double s[3])
{
    for (int d = 0; d < 3; d++) {
        s[d] = r[0] * lattice->inverse[0][d] + r[1] * lattice->inverse[1][d] + r[2] * lattice->inverse[2][d];
    }
}

int lattice_wrap(const lattice *lattice, size_t n_atoms, const double *positions, double *wrapped, double *fraction,
                 int32_t *image, size_t *atom)
{
    for (size_t i = 0; i < n_atoms; i++) {
        double *r = &wrapped[3 * i], *s = &fraction[3 * i];
        double cells[3] = {0, 0, 0};
        *atom = i;
        for (int k = 0; k < 3; k++) {
            r[k] = positions[3 * i + k];
            if (!isfinite(r[k])) {
                return NEIGHBOURS_ERROR_NONFINITE;
            }
            if (fabs(r[k]) > MAX_POSITION) {
                return NEIGHBOURS_ERROR_FAR;
            }
        }
        /* twice: far from the cell, the first time leaves the rounding error of a large number */
        for (int pass = 0; pass < 2; pass++) {
            fraction_of(lattice, r, s);
            for (int d = 0; d < 3; d++) {
                double whole = lattice->periodic[d] ? floor(s[d]) : 0;
                if (whole != 0) {
                    cells[d] += whole;
                    s[d] -= whole;
                    for (int k = 0; k < 3; k++) {
                        r[k] -= whole * lattice->vector[d][k];
                    }
                }
            }
        }
        for (int d = 0; d < 3; d++) {
            if (!(fabs(cells[d]) < MAX_IMAGE)) {
                return NEIGHBOURS_ERROR_FAR;
            }
            image[3 * i + d] = (int32_t)cells[d];
        }
    }
    *atom = n_atoms;
    return 0;
}
