// SPDX-License-Identifier: GPL-2.0-or-later
#include "couplings.h"

#include <cmath>
#include <complex>
#include <cstdlib>

namespace comitia
{
namespace
{

using complex = std::complex<long double>;

long double factorial(int n)
{
    long double product = 1;
    for (int factor = 2; factor <= n; factor++)
        product *= factor;
    return product;
}

int sign(int power)
{
    return power % 2 == 0 ? 1 : -1;
}

// Wigner 3j symbol by Racah's formula, m1 + m2 + m3 = 0 and the triangle rule taken for granted.
long double wigner_3j(int l1, int l2, int l3, int m1, int m2, int m3)
{
    long double total = 0;
    for (int t = 0; t <= l1 + l2 - l3; t++) {
        const int others[] = {t, l1 + l2 - l3 - t, l1 - m1 - t, l2 + m2 - t, l3 - l2 + m1 + t, l3 - l1 - m2 + t};
        long double product = 1;
        for (int n : others)
            product *= n < 0 ? 0 : factorial(n);
        total += product == 0 ? 0 : sign(t) / product;
    }
    long double square = factorial(l1 + l2 - l3) * factorial(l1 - l2 + l3) * factorial(-l1 + l2 + l3);
    const int l[] = {l1, l2, l3}, m[] = {m1, m2, m3};
    for (int i = 0; i < 3; i++)
        square *= factorial(l[i] + m[i]) * factorial(l[i] - m[i]);
    return sign(l1 - l2 - m3) * total * std::sqrt(square / factorial(l1 + l2 + l3 + 1));
}

// U[mu][m] with Y_complex[mu] = sum_m U[mu][m] Y_real[m], the complex ones with the Condon-Shortley phase; m = +-mu.
complex from_real(int mu, int m)
{
    const long double half = std::sqrt(0.5L);
    if (mu == 0)
        return 1;
    if (mu > 0)
        return m > 0 ? complex(sign(mu) * half, 0) : complex(0, sign(mu) * half);
    return m > 0 ? complex(half, 0) : complex(0, -half);
}

struct coupling_table {
    int l1, l2, l3;
    std::vector<long double> values; // [2 l1 + 1][2 l2 + 1][2 l3 + 1]

    long double &at(int m1, int m2, int m3)
    {
        return values[((l1 + m1) * (2 * l2 + 1) + l2 + m2) * (2 * l3 + 1) + l3 + m3];
    }
};

coupling_table real_coupling(int l1, int l2, int l3)
{
    coupling_table table{l1, l2, l3, std::vector<long double>((2 * l1 + 1) * (2 * l2 + 1) * (2 * l3 + 1))};
    for (int mu1 = -l1; mu1 <= l1; mu1++)
        for (int mu2 = -l2; mu2 <= l2; mu2++) {
            const int mu3 = -mu1 - mu2;
            if (std::abs(mu3) > l3)
                continue;
            const long double symbol = wigner_3j(l1, l2, l3, mu1, mu2, mu3);
            for (int which = 0; which < 8; which++) {
                if ((which & 1 && mu1 == 0) || (which & 2 && mu2 == 0) || (which & 4 && mu3 == 0))
                    continue;
                const int m1 = which & 1 ? -mu1 : mu1, m2 = which & 2 ? -mu2 : mu2, m3 = which & 4 ? -mu3 : mu3;
                const complex term = symbol * from_real(mu1, m1) * from_real(mu2, m2) * from_real(mu3, m3);
                table.at(m1, m2, m3) += (l1 + l2 + l3) % 2 ? term.imag() : term.real();
            }
        }
    return table;
}

} // namespace

std::vector<double> coupling_coefficients(int l1, int l2, int l)
{
    coupling_table table = real_coupling(l1, l2, l);
    const bool odd = (l1 + l2 + l) % 2;
    std::vector<double> found;
    for (int m1 = 0; m1 <= l1; m1++)
        for (int m2 = 0; m2 <= l2; m2++)
            for (int which = 0; which < (m1 > 0 && m2 > 0 ? 2 : 1); which++) {
                const int mu = which == 0 ? m1 + m2 : std::abs(m1 - m2);
                if (mu > l || (odd && m1 == 0 && m2 == 0))
                    continue;
                long double value = table.at(m1, m2, mu);
                if (odd)
                    value = mu > 0 ? -table.at(m1, m2, -mu) : table.at(-m1, m2, 0);
                found.push_back(std::abs(value) > 1e-14L ? static_cast<double>(value) : 0.0);
            }
    return found;
}

} // namespace comitia
