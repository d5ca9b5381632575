/* Real spherical harmonics: their definition, and the derivatives along and against the direction of the data. */
#include "harmonics.h"

#include <string.h>

#include "check.h"
#include "model.h"

static harmonics_table table;

static void random_direction(uint64_t *state, double u[3])
{
    double norm;
    do {
        norm = 0;
        for (int k = 0; k < 3; k++) {
            u[k] = random_between(state, -1, 1);
            norm += u[k] * u[k];
        }
    } while (norm > 1 || norm < 0.01);
    for (int k = 0; k < 3; k++) {
        u[k] /= sqrt(norm);
    }
}

static double legendre(int l, double x)
{
    double before = 1, now = x;
    if (l == 0) {
        return 1;
    }
    for (int k = 2; k <= l; k++) {
        double next = ((2 * k - 1) * x * now - (k - 1) * before) / k;
        before = now;
        now = next;
    }
    return now;
}

static void test_order_and_sign(void)
{
    const double u[3] = {0.36, 0.48, 0.8}, c = sqrt(3 / (4 * M_PI)), e = sqrt(15 / (4 * M_PI));
    double y[N_LM_MAX];
    harmonics_at(&table, L_MAX, u, y);
    CHECK_CLOSE(y[0], sqrt(1 / (4 * M_PI)), 1e-15);
    CHECK_CLOSE(y[1], c * u[1], 1e-15);
    CHECK_CLOSE(y[2], c * u[2], 1e-15);
    CHECK_CLOSE(y[3], c * u[0], 1e-15);
    CHECK_CLOSE(y[4], e * u[0] * u[1], 1e-15);
    CHECK_CLOSE(y[5], e * u[1] * u[2], 1e-15);
    CHECK_CLOSE(y[6], sqrt(5 / (16 * M_PI)) * (3 * u[2] * u[2] - 1), 1e-15);
    CHECK_CLOSE(y[7], e * u[0] * u[2], 1e-15);
    CHECK_CLOSE(y[8], e / 2 * (u[0] * u[0] - u[1] * u[1]), 1e-15);
}

static void test_addition_theorem(void)
{
    uint64_t state = 1;
    for (int trial = 0; trial < 200; trial++) {
        double a[3], b[3], y_a[N_LM_MAX], y_b[N_LM_MAX];
        random_direction(&state, a);
        random_direction(&state, b);
        if (trial < 6) { /* along the axes too */
            memset(a, 0, sizeof a);
            a[trial / 2] = trial % 2 ? -1 : 1;
        }
        harmonics_at(&table, L_MAX, a, y_a);
        harmonics_at(&table, L_MAX, b, y_b);
        for (int l = 0; l <= L_MAX; l++) {
            double sum = 0, cosine = a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
            for (int lm = l * l; lm < (l + 1) * (l + 1); lm++) {
                sum += y_a[lm] * y_b[lm];
            }
            CHECK_CLOSE(sum, (2 * l + 1) / (4 * M_PI) * legendre(l, cosine), 4e-14);
        }
    }
}

static void test_orthonormality(void)
{
    static double point[SPHERE_POINTS][3], weight[SPHERE_POINTS], overlap[N_LM_MAX][N_LM_MAX];
    sphere_points(point, weight);
    for (int p = 0; p < SPHERE_POINTS; p++) {
        double y[N_LM_MAX];
        harmonics_at(&table, L_MAX, point[p], y);
        for (int a = 0; a < N_LM_MAX; a++) {
            for (int b = 0; b < N_LM_MAX; b++) {
                overlap[a][b] += weight[p] * y[a] * y[b];
            }
        }
    }
    for (int a = 0; a < N_LM_MAX; a++) {
        for (int b = 0; b < N_LM_MAX; b++) {
            CHECK_CLOSE(overlap[a][b], (double)(a == b), 2e-13);
        }
    }
}

/* Along a tangential displacement the derivative is that of Y(u(t)) with |u| = 1, by differences of fourth order. */
static void test_tangent_and_reverse(void)
{
    uint64_t state = 2;
    for (int trial = 0; trial < 50; trial++) {
        double u[3], w[3], along = 0, adjoint[N_LM_MAX], numerical[N_LM_MAX] = {0};
        random_direction(&state, u);
        for (int k = 0; k < 3; k++) {
            w[k] = random_between(&state, -1, 1);
            along += w[k] * u[k];
        }
        for (int k = 0; k < 3; k++) {
            w[k] -= along * u[k];
        }
        const double h = 1e-3, factor[4] = {1, -8, 8, -1};
        for (int step = 0; step < 4; step++) {
            const double t = h * (step < 2 ? step - 2 : step - 1),
                         length = sqrt(w[0] * w[0] + w[1] * w[1] + w[2] * w[2]);
            double v[3], y[N_LM_MAX]; /* along the great circle */
            for (int k = 0; k < 3; k++) {
                v[k] = cos(t * length) * u[k] + sin(t * length) * w[k] / length;
            }
            harmonics_at(&table, L_MAX, v, y);
            for (int lm = 0; lm < N_LM_MAX; lm++) {
                numerical[lm] += factor[step] * y[lm] / (12 * h);
            }
        }
        harmonics_parts part;
        lanes zero = {0}, tangent[N_LM_MAX], back[N_LM_MAX], x, y, z;
        harmonics_parts_of(&table, L_MAX, zero + u[0], zero + u[1], zero + u[2], &part);
        harmonics_tangent(&table, L_MAX, &part, zero + w[0], zero + w[1], zero + w[2], tangent);
        double forward = 0;
        for (int lm = 0; lm < N_LM_MAX; lm++) {
            CHECK_CLOSE(tangent[lm][LANES - 1], numerical[lm], 5e-8);
            adjoint[lm] = random_between(&state, -1, 1);
            back[lm] = zero + adjoint[lm];
            forward += adjoint[lm] * tangent[lm][LANES - 1];
        }
        harmonics_reverse(&table, L_MAX, &part, back, &x, &y, &z);
        CHECK_CLOSE(x[LANES - 1] * w[0] + y[LANES - 1] * w[1] + z[LANES - 1] * w[2], forward, 1e-12);
    }
}

int main(void)
{
    use_requested_instructions();
    harmonics_prepare(&table);
    test_order_and_sign();
    test_addition_theorem();
    test_orthonormality();
    test_tangent_and_reverse();
    return checks_summary("harmonics");
}
