// SPDX-License-Identifier: GPL-2.0-or-later
#include "model.h"

#include "program.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <new>

namespace comitia
{
namespace
{

constexpr int FORMAT_VERSION = 1, MAX_ORDER = 4, HEAVIEST = 118;

void require(bool sound)
{
    if (!sound)
        throw model_error("its tensors do not fit together");
}

bool triangle(int l1, int l2, int l3)
{
    return std::abs(l1 - l2) <= l3 && l3 <= l1 + l2;
}

// Whether the factors of a feature exist and couple to a scalar, through its L at order 4.
bool is_sound(const feature_row &row, int n_factors, int l_max)
{
    if (row[0] < 0 || row[0] > MAX_ORDER)
        return false;
    for (int place = 0; place < row[0]; place++)
        if (row[2 * place + 1] < 0 || row[2 * place + 1] >= n_factors || row[2 * place + 2] < 0 ||
            row[2 * place + 2] > l_max)
            return false;
    const int l1 = row[2], l2 = row[4], l3 = row[6], l4 = row[8];
    switch (row[0]) {
    case 1: return l1 == 0;
    case 2: return l1 == l2;
    case 3: return (l1 + l2 + l3) % 2 == 0 && triangle(l1, l2, l3);
    case 4: return (l1 + l2 + l3 + l4) % 2 == 0 && triangle(l1, l2, row[9]) && triangle(l3, l4, row[9]);
    default: return true;
    }
}

} // namespace

model::model(std::string content)
{
    const tensor_file file(std::move(content));
    if (!file.has("format_version") || file.integer("format_version") != FORMAT_VERSION)
        throw model_error("it is of a format version that this plugin does not read");
    const json_value *baseline = file.metadata.find("baseline");
    is_correction = baseline != nullptr && baseline->kind != json_value::null;
    for (int64_t z : file.integers("species", 1)) {
        require(z > (species.empty() ? 0 : species.back()) && z <= HEAVIEST);
        species.push_back(static_cast<int>(z));
    }
    describe(file);
    weigh(file);
}

void *model::keep(const void *numbers, size_t bytes)
{
    void *memory = std::aligned_alloc(64, (bytes + 127) / 64 * 64);
    if (memory == nullptr)
        throw std::bad_alloc();
    kept.emplace_back(memory);
    std::memset(memory, 0, (bytes + 127) / 64 * 64);
    if (bytes > 0)
        std::memcpy(memory, numbers, bytes);
    return memory;
}

const double *model::reals(const std::vector<double> &numbers)
{
    return static_cast<const double *>(keep(numbers.data(), numbers.size() * sizeof(double)));
}

const int32_t *model::integers(const std::vector<int32_t> &numbers)
{
    return static_cast<const int32_t *>(keep(numbers.data(), numbers.size() * sizeof(int32_t)));
}

void model::describe(const tensor_file &file)
{
    const std::vector<double> contraction = file.reals("contraction", 2), spline = file.reals("spline", 3);
    const auto &pseudo = file.shape("contraction"), &pieces = file.shape("spline"), &rows = file.shape("features");
    const std::vector<int64_t> numbers = file.integers("features", 2);
    const int64_t l_max = file.integer("l_max"), n_radial = file.integer("n_radial");
    const size_t n_functions = pieces[2], n_tables = file.shape("radial_offset").size() == 2 ? pseudo[1] : 1;
    const std::vector<int64_t> offset =
        file.integers("radial_offset", n_tables == 1 && file.shape("radial_offset").size() == 1 ? 1 : 2);
    kernel.cutoff = file.real("cutoff");
    require(pseudo[1] == species.size() && pseudo[0] > 0 && !species.empty() && species.size() <= MAX_SPECIES);
    require(0 <= l_max && l_max <= L_MAX && n_radial > 0 && n_radial <= static_cast<int64_t>(n_functions));
    require(pieces[0] > 0 && pieces[1] == 6 && kernel.cutoff > 0 && rows[0] > 0 && rows[1] == 10);
    require(offset.size() == n_tables * (l_max + 1));
    for (int64_t first : offset)
        require(first >= 0 && first + n_radial <= static_cast<int64_t>(n_functions));

    const int n_channels = static_cast<int>(pseudo[0]), n_species = static_cast<int>(pseudo[1]);
    std::vector<feature_row> features(rows[0]);
    for (size_t f = 0; f < features.size(); f++) {
        std::copy_n(numbers.begin() + 10 * f, 10, features[f].begin());
        require(is_sound(features[f], n_channels * static_cast<int>(n_radial), static_cast<int>(l_max)));
    }
    bool l_dependent = false;
    for (size_t place = 0; place < offset.size(); place++)
        l_dependent |= offset[place] != offset[place / (l_max + 1) * (l_max + 1)];
    const program p = arrange(features, n_channels, static_cast<int>(n_radial), static_cast<int>(l_max), l_dependent);

    // the kernel's own padded copy of the splines: n_stride functions for each l, zero where unused
    const int n_l = l_dependent ? static_cast<int>(l_max) + 1 : 1, n = std::min<int>(n_radial, p.n_stride);
    kernel.n_intervals = static_cast<int>(pieces[0]);
    kernel.n_functions = n_l * p.n_stride;
    std::vector<double> table(n_tables * pieces[0] * 6 * kernel.n_functions, 0.0);
    std::vector<int32_t> table_start;
    for (size_t t = 0; t < n_tables; t++)
        for (size_t row = 0; row < pieces[0] * 6; row++)
            for (int l = 0; l < n_l; l++)
                std::copy_n(spline.begin() + row * n_functions + offset[t * (l_max + 1) + l], n,
                            table.begin() + (t * pieces[0] * 6 + row) * kernel.n_functions + l * p.n_stride);
    for (int t = 0; t < n_species; t++)
        table_start.push_back(static_cast<int32_t>(t % n_tables * pieces[0] * 6 * kernel.n_functions));

    std::vector<int32_t> channel_species;
    for (int k = 0; k < n_channels; k++) {
        int first = 0, behind = 0;
        for (int t = n_species - 1; t >= 0; t--)
            if (contraction[k * n_species + t] != 0) {
                first = t;
                behind = std::max(behind, t + 1);
            }
        channel_species.insert(channel_species.end(), {first, behind});
    }
    std::vector<int32_t> component_of(p.n_density, -1), row_place, row_component;
    for (int c = 0; c < p.n_components; c++)
        component_of[p.component_source[c]] = c;
    for (int place = 0; place < p.n_density; place += PADDING) {
        const auto row = component_of.begin() + place;
        if (std::all_of(row, row + PADDING, [](int32_t c) { return c < 0; }))
            continue;
        row_place.push_back(place);
        row_component.insert(row_component.end(), row, row + PADDING);
    }

    kernel.n_species = n_species;
    kernel.n_channels = n_channels;
    kernel.l_max = static_cast<int>(l_max);
    kernel.spline = reals(table);
    kernel.spline_start = integers(table_start);
    kernel.n_stride = p.n_stride;
    kernel.radial_offset = integers(p.radial_offset);
    kernel.n_used = integers(p.n_used);
    kernel.contraction = reals(contraction);
    kernel.n_density = p.n_density;
    kernel.channel_offset = integers(p.channel_offset);
    kernel.channel_n = integers(p.channel_n);
    kernel.channel_species = integers(channel_species);
    kernel.n_features = static_cast<int>(features.size());
    kernel.n_components = p.n_components;
    kernel.feature = integers(p.feature);
    kernel.scale = reals(p.scale);
    kernel.component_source = integers(p.component_source);
    kernel.n_rows = static_cast<int>(row_place.size());
    kernel.row_place = integers(row_place);
    kernel.row_component = integers(row_component);
    kernel.component_function = integers(p.component_function);
    kernel.component_lm = integers(p.component_lm);
    kernel.component_channel = integers(p.component_channel);
    kernel.n_order0 = p.n_order0;
    kernel.n_order1 = static_cast<int>(p.order1_base.size());
    kernel.order1_base = integers(p.order1_base);
    kernel.order1_place = integers(p.order1_place);
    kernel.n_order2 = static_cast<int>(p.order2_l.size());
    kernel.order2_l = integers(p.order2_l);
    kernel.order2_first = integers(p.order2_first);
    kernel.order2_start = integers(p.order2_start);
    kernel.order2_second = integers(p.order2_second);
    kernel.scaled_start = integers(p.scaled_start);
    kernel.scaled_by = integers(p.scaled_by);
    kernel.n_runs = static_cast<int>(p.run_coupling.size());
    kernel.n_products = static_cast<int>(p.product_first.size());
    kernel.n_shared = p.n_shared;
    kernel.n_terms = p.n_terms;
    kernel.run_l = integers(p.run_l);
    kernel.run_coupling = integers(p.run_coupling);
    kernel.run_start = integers(p.run_start);
    kernel.coupling = reals(p.coupling);
    kernel.product_first = integers(p.product_first);
    kernel.product_second = integers(p.product_second);
    kernel.product_base = integers(p.product_base);
    kernel.run_of = integers(p.run_of);
    kernel.order3_start = integers(p.order3_start);
    kernel.order3_third = integers(p.order3_third);
    kernel.order4_start = integers(p.order4_start);
    kernel.order4_other = integers(p.order4_other);
    kernel.mirrored_start = integers(p.mirrored_start);
    kernel.mirrored_other = integers(p.mirrored_other);
    kernel.mirrored_place = integers(p.mirrored_place);
    kernel.n_dense = p.n_dense;
    kernel.dense_n = integers(p.dense_n);
    kernel.dense_place = integers(p.dense_place);
    if (file.has("core_outer")) {
        const std::vector<double> inner = file.reals("core_inner", 2), outer = file.reals("core_outer", 2);
        require(inner.size() == species.size() * species.size() && outer.size() == inner.size());
        for (size_t pair = 0; pair < outer.size(); pair++)
            require(outer[pair] <= kernel.cutoff &&
                    (outer[pair] <= 0 || (inner[pair] >= 0 && inner[pair] < outer[pair])));
        kernel.core_inner = reals(inner);
        kernel.core_outer = reals(outer);
        kernel.nuclear_charge = reals(std::vector<double>(species.begin(), species.end()));
    }
    harmonics_prepare(&kernel.harmonics);
}

void model::weigh(const tensor_file &file)
{
    const std::vector<double> weights = file.reals("weights", 2), alpha = file.reals("alpha", 1);
    const size_t n_features = kernel.n_features, n_species = species.size(), n = n_species * n_features;
    reference_energies = file.reals("reference_energies", 1);
    members = static_cast<int>(file.shape("weights")[0]);
    require(members > 0 && file.shape("weights")[1] == n && reference_energies.size() == n_species);
    require(alpha.size() == 2 && alpha[0] > 0 && alpha[1] > 0);
    mean.assign(n, 0.0);
    for (int k = 0; k < members; k++)
        for (size_t f = 0; f < n; f++)
            mean[f] += weights[k * n + f];
    for (double &weight : mean)
        weight /= members;
    deviations.resize(weights.size());
    atomic_deviations.resize(weights.size());
    for (int k = 0; k < members; k++)
        for (size_t f = 0; f < n; f++) {
            const double apart = alpha[0] * (weights[k * n + f] - mean[f]);
            deviations[k * n + f] = apart;
            atomic_deviations[(f / n_features * members + k) * n_features + f % n_features] = apart;
        }
}

} // namespace comitia
