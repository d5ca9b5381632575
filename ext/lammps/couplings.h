// SPDX-License-Identifier: GPL-2.0-or-later
// Couplings of real spherical harmonics, normalised like 3j symbols: the twin of comitia.density.couplings.
#ifndef COMITIA_COUPLINGS_H
#define COMITIA_COUPLINGS_H

#include <vector>

namespace comitia
{

// Coefficients of the coupling of l1 and l2 to l in the order in which the kernel meets them (ext/core/coupling.h).
std::vector<double> coupling_coefficients(int l1, int l2, int l);

} // namespace comitia

#endif
