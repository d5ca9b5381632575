// SPDX-License-Identifier: GPL-2.0-or-later
// The feature list, arranged for the kernel (ext/core/descriptor.h): the twin of comitia.density.program.
#ifndef COMITIA_PROGRAM_H
#define COMITIA_PROGRAM_H

#include <array>
#include <cstdint>
#include <vector>

namespace comitia
{

using feature_row = std::array<int, 10>; // nu, q1, l1, q2, l2, q3, l3, q4, l4, L; -1 where there is none
using integers = std::vector<int32_t>;

int padded(int n);

// Arrays and sizes named as in the descriptor.
struct program {
    int n_stride, n_density, n_components, n_order0, n_shared, n_terms, n_dense;
    integers feature, radial_offset, n_used, channel_n, channel_offset;
    integers component_source, component_function, component_lm, component_channel;
    integers order1_base, order1_place, order2_l, order2_first, order2_start, order2_second, scaled_start, scaled_by;
    integers run_l, run_coupling, run_start, run_of, product_first, product_second, product_base;
    integers order3_start, order3_third, order4_start, order4_other;
    integers mirrored_start, mirrored_other, mirrored_place, dense_n, dense_place;
    std::vector<double> coupling, scale;
};

// l_dependent: whether the radial functions differ from one l to the next.
program arrange(const std::vector<feature_row> &features, int n_channels, int n_radial, int l_max, bool l_dependent);

} // namespace comitia

#endif
