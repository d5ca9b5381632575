#include "harmonics.h"

#include <math.h>

static double norm(int l, int m)
{
    double factorials = 1.0; /* (l - m)! / (l + m)! */
    for (int k = l - m + 1; k <= l + m; k++)
        factorials /= k;
    return sqrt((2 * l + 1) / (4 * M_PI) * factorials * (m == 0 ? 1 : 2));
}

void harmonics_prepare(harmonics_table *table)
{
    *table = (harmonics_table){0};
    double double_factorial = 1.0; /* (2 m - 1)!! */
    for (int m = 0; m <= L_MAX; m++) {
        table->diagonal[m] = norm(m, m) * double_factorial;
        double_factorial *= 2 * m + 1;
        for (int l = m + 1; l <= L_MAX; l++) {
            table->ahead[l][m] = (2.0 * l - 1) / (l - m) * norm(l, m) / norm(l - 1, m);
            if (l > m + 1)
                table->behind[l][m] = (l + m - 1.0) / (l - m) * norm(l, m) / norm(l - 2, m);
            table->slope[l][m] = norm(l, m) / norm(l, m + 1);
        }
    }
}
