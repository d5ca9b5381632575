/* Real spherical harmonics of LANES unit vectors at once, and the reverse of that map.
 *
 *   Y[l, +m] = q[l, m](z) Re (x + iy)^m      Y[l, -m] = q[l, m](z) Im (x + iy)^m      index l^2 + l + m
 *
 * with q[l, m] = N[l, m] d^m P_l / dz^m: orthonormal, without the Condon-Shortley phase. The derivative of q is
 * again a q: dq[l, m]/dz = slope[l, m] q[l, m + 1], so that nothing but q and the powers of x + iy is needed. */
#ifndef COMITIA_HARMONICS_H
#define COMITIA_HARMONICS_H

#include <math.h>

#include "lanes.h"

typedef struct {
    double diagonal[L_MAX + 1];         /* q[m, m], a constant                                */
    double ahead[L_MAX + 1][L_MAX + 1]; /* q[l, m] = ahead z q[l-1, m] - behind q[l-2, m]     */
    double behind[L_MAX + 1][L_MAX + 1];
    double slope[L_MAX + 1][L_MAX + 1]; /* dq[l, m]/dz = slope q[l, m+1]                      */
} harmonics_table;

void harmonics_prepare(harmonics_table *table);

/* Loops over l and m have no branches left where l_max is a constant. */
#ifdef COMITIA_SINGLE
#define EACH for
#else
#define EACH _Pragma("GCC unroll 9") for
#endif

typedef struct {
    lanes q[L_MAX + 1][L_MAX + 2];
    lanes cosine[L_MAX + 1], sine[L_MAX + 1]; /* Re and Im of (x + iy)^m */
} harmonics_parts;

INLINE void harmonics_parts_of(const harmonics_table *table, int l_max, lanes x, lanes y, lanes z,
                               harmonics_parts *part)
{
    part->cosine[0] = (lanes){0} + 1.0;
    part->sine[0] = (lanes){0};
    EACH(int m = 1; m <= l_max; m++)
    {
        part->cosine[m] = x * part->cosine[m - 1] - y * part->sine[m - 1];
        part->sine[m] = x * part->sine[m - 1] + y * part->cosine[m - 1];
    }
    EACH(int l = 0; l <= l_max; l++)
    {
        EACH(int m = 0; m + 1 < l; m++)
        part->q[l][m] =
            (real)table->ahead[l][m] * z * part->q[l - 1][m] - (real)table->behind[l][m] * part->q[l - 2][m];
        if (l > 0)
            part->q[l][l - 1] = (real)table->ahead[l][l - 1] * z * part->q[l - 1][l - 1];
        part->q[l][l] = (lanes){0} + (real)table->diagonal[l];
        part->q[l][l + 1] = (lanes){0};
    }
}

INLINE void harmonics_values(int l_max, const harmonics_parts *part, lanes *value)
{
    EACH(int l = 0; l <= l_max; l++)
    {
        lanes *row = value + l * l + l;
        row[0] = part->q[l][0];
        EACH(int m = 1; m <= l; m++)
        {
            row[m] = part->q[l][m] * part->cosine[m];
            row[-m] = part->q[l][m] * part->sine[m];
        }
    }
}

/* Derivative of Y_lm along a tangential displacement (x, y, z) of the unit vector. */
INLINE void harmonics_tangent(const harmonics_table *table, int l_max, const harmonics_parts *part, lanes x, lanes y,
                              lanes z, lanes *value)
{
    for (int l = 0; l <= l_max; l++) {
        lanes *row = value + l * l + l;
        row[0] = (real)table->slope[l][0] * part->q[l][1] * z;
        for (int m = 1; m <= l; m++) {
            lanes q = (real)m * part->q[l][m], slope = (real)table->slope[l][m] * part->q[l][m + 1] * z;
            row[m] = q * (x * part->cosine[m - 1] - y * part->sine[m - 1]) + slope * part->cosine[m];
            row[-m] = q * (x * part->sine[m - 1] + y * part->cosine[m - 1]) + slope * part->sine[m];
        }
    }
}

/* Unit vectors along increasing theta (cosine z, sine z, -rho) and phi (-sine, cosine, 0) at points of the unit sphere;
 * at the poles, phi is 0. */
typedef struct {
    lanes cosine, sine, rho;
} harmonics_frame;

INLINE harmonics_frame harmonics_frame_at(lanes x, lanes y)
{
    harmonics_frame frame;
    for (int v = 0; v < LANES; v++) {
        const real rho = (real)sqrt(x[v] * x[v] + y[v] * y[v]);
        const int at_pole = rho < (real)1e-18;
        frame.rho[v] = rho;
        frame.cosine[v] = at_pole ? 1 : x[v] / rho;
        frame.sine[v] = at_pole ? 0 : y[v] / rho;
    }
    return frame;
}

/* Rows of three for every lm: the derivatives of Y_lm along theta and phi, and Y_lm. With rho^m in Y_lm, none of them
 * is divided by rho. */
INLINE void harmonics_gradient(const harmonics_table *table, int l_max, const harmonics_parts *part,
                               const harmonics_frame *frame, lanes z, lanes *rows)
{
    lanes cosine[L_MAX + 2], sine[L_MAX + 2]; /* of m phi, times rho^(m - 1) */
    const lanes x = frame->rho * frame->cosine, y = frame->rho * frame->sine;
    cosine[1] = frame->cosine;
    sine[1] = frame->sine;
    for (int m = 1; m < l_max; m++) {
        cosine[m + 1] = x * cosine[m] - y * sine[m];
        sine[m + 1] = x * sine[m] + y * cosine[m];
    }
    for (int l = 0; l <= l_max; l++) {
        lanes *plus = rows + 3 * (l * l + l), *minus = plus;
        plus[0] = -(real)table->slope[l][0] * part->q[l][1] * frame->rho;
        plus[1] = (lanes){0};
        plus[2] = part->q[l][0];
        for (int m = 1; m <= l; m++) {
            const lanes phi = (real)m * part->q[l][m], value = frame->rho * part->q[l][m];
            const lanes theta = z * phi - frame->rho * frame->rho * ((real)table->slope[l][m] * part->q[l][m + 1]);
            plus += 3;
            minus -= 3;
            plus[0] = theta * cosine[m];
            plus[1] = -phi * sine[m];
            plus[2] = value * cosine[m];
            minus[0] = theta * sine[m];
            minus[1] = phi * cosine[m];
            minus[2] = value * sine[m];
        }
    }
}

/* Gradient of sum_lm adjoint[lm] Y_lm with respect to the unit vector, before it is made tangential. */
INLINE void harmonics_reverse(const harmonics_table *table, int l_max, const harmonics_parts *part,
                              const lanes *adjoint, lanes *x, lanes *y, lanes *z)
{
    lanes gx = {0}, gy = {0}, gz = {0};
    EACH(int l = 1; l <= l_max; l++)
    gz += (real)table->slope[l][0] * part->q[l][1] * adjoint[l * l + l];
    EACH(int m = 1; m <= l_max; m++)
    {
        lanes plus = {0}, minus = {0}, plus_z = {0}, minus_z = {0};
        EACH(int l = m; l <= l_max; l++)
        {
            const lanes *row = adjoint + l * l + l;
            plus += part->q[l][m] * row[m];
            minus += part->q[l][m] * row[-m];
            if (l > m) {
                lanes slope = (real)table->slope[l][m] * part->q[l][m + 1];
                plus_z += slope * row[m];
                minus_z += slope * row[-m];
            }
        }
        gx += (real)m * (plus * part->cosine[m - 1] + minus * part->sine[m - 1]);
        gy += (real)m * (minus * part->cosine[m - 1] - plus * part->sine[m - 1]);
        gz += plus_z * part->cosine[m] + minus_z * part->sine[m];
    }
    *x = gx;
    *y = gy;
    *z = gz;
}

#endif
