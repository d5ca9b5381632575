// SPDX-License-Identifier: GPL-2.0-or-later
#include "program.h"

#include "couplings.h"
#include "lanes.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <tuple>
#include <utility>

namespace comitia
{
namespace
{

using channel = std::pair<int, int>; // l, q
using entry = std::pair<int, int>;   // a number, and a feature or what it belongs to
using lists = std::vector<std::vector<entry>>;
using product = std::tuple<int, int, int, channel, channel>; // L, l1, l2 and two channels

channel factor(const feature_row &row, int place)
{
    return {row[2 * place + 2], row[2 * place + 1]};
}

// [n_channels][l_max + 1] how many radial functions channels ask of each pseudo-species.
integers radial_functions(const std::set<channel> &channels, int n_channels, int n_radial, int l_max)
{
    integers number(n_channels * (l_max + 1), 0);
    for (const auto &[l, q] : channels) {
        int32_t &n = number[q / n_radial * (l_max + 1) + l];
        n = std::max(n, q % n_radial + 1);
    }
    return number;
}

// Rows one behind the other: where each begins, and both halves of the entries.
std::pair<integers, integers> flatten(const lists &rows, integers &start)
{
    std::pair<integers, integers> found;
    start.assign(1, 0);
    for (const auto &row : rows) {
        for (const auto &[number, feature] : row) {
            found.first.push_back(number);
            found.second.push_back(feature);
        }
        start.push_back(static_cast<int32_t>(found.first.size()));
    }
    return found;
}

void append(integers &to, const integers &from)
{
    to.insert(to.end(), from.begin(), from.end());
}

// Features of order 3 that are a channel with l = 0 times a scalar product of order 2, for each of those.
lists scaled_features(const std::vector<feature_row> &features, std::map<channel, int> &base,
                      const std::vector<entry> &pairs)
{
    lists found(pairs.size());
    std::map<entry, size_t> index;
    for (size_t e = 0; e < pairs.size(); e++)
        index[pairs[e]] = e;
    for (size_t f = 0; f < features.size(); f++) {
        const feature_row &row = features[f];
        if (row[0] != 3 || row[2] != 0)
            continue;
        const int second = base[factor(row, 1)], third = base[factor(row, 2)];
        auto place = index.find({second, third});
        place = place == index.end() ? index.find({third, second}) : place;
        if (place != index.end())
            found[place->second].push_back({base[factor(row, 0)], static_cast<int>(f)});
    }
    return found;
}

// Features of orders 1 and 2 as places in matrices; n_dense is 0 where that does not serve.
void arrange_quadratic(const std::vector<feature_row> &features, int n_channels, int n_radial, int l_max,
                       const integers &order2_feature, program &p)
{
    int highest = 0, multiplications = 0, needed = 0;
    std::set<channel> factors;
    for (const feature_row &row : features) {
        highest = std::max(highest, row[0]);
        if (row[0] == 1)
            p.order1_place.push_back(row[1] / n_radial * p.n_stride + row[1] % n_radial);
    }
    for (int f : order2_feature) {
        factors.insert({factor(features[f], 0), factor(features[f], 1)});
        needed += 2 * features[f][2] + 1;
    }
    p.dense_n = radial_functions(factors, n_channels, n_radial, l_max);
    const int n_l = l_max + 1;
    integers rows(n_l, 0), widths(n_l, 0), start(n_l + 1, 0), first_row(p.dense_n), first_column(p.dense_n);
    for (int l = 0; l < n_l; l++) {
        for (int k = 0; k < n_channels; k++) {
            first_row[k * n_l + l] = rows[l];
            first_column[k * n_l + l] = widths[l];
            rows[l] += p.dense_n[k * n_l + l];
            widths[l] += padded(p.dense_n[k * n_l + l]);
        }
        start[l + 1] = start[l] + rows[l] * widths[l];
        multiplications += (2 * l + 1) * rows[l] * widths[l];
    }
    p.n_dense = 0;
    if (highest > 2 || multiplications > 6 * needed)
        return;
    p.n_dense = start[n_l];
    for (int f : order2_feature) {
        const int l = features[f][2];
        int row[2], column[2];
        for (int side = 0; side < 2; side++) {
            const int q = features[f][1 + 2 * side], k = q / n_radial * n_l + l;
            row[side] = first_row[k] + q % n_radial;
            column[side] = first_column[k] + q % n_radial;
        }
        for (int side = 0; side < 2; side++)
            p.dense_place.push_back(start[l] + row[side] * widths[l] + column[1 - side]);
    }
}

// Features of orders 3 and 4, but those that are done: products in runs, and what is multiplied with each.
void arrange_products(const std::vector<feature_row> &features, std::map<channel, int> &base, const std::set<int> &done,
                      program &p)
{
    std::map<product, std::vector<entry>> third;
    std::map<product, std::vector<std::pair<product, int>>> fourth;
    for (size_t f = 0; f < features.size(); f++) {
        const feature_row &row = features[f];
        if (row[0] == 3 && done.count(static_cast<int>(f)) == 0) {
            const product of{row[6], row[2], row[4], factor(row, 0), factor(row, 1)};
            third[of].push_back({base[factor(row, 2)], static_cast<int>(f)});
        } else if (row[0] == 4) {
            const product of{row[9], row[2], row[4], factor(row, 0), factor(row, 1)};
            const product other{row[9], row[6], row[8], factor(row, 2), factor(row, 3)};
            fourth[of].push_back({other, static_cast<int>(f)});
            fourth[other];
        }
    }
    std::vector<product> products;
    std::map<product, int> index;
    for (const auto &[of, ignored] : fourth)
        products.push_back(of);
    for (const auto &[of, ignored] : third)
        if (fourth.count(of) == 0)
            products.push_back(of);
    for (const product &of : products)
        index[of] = static_cast<int>(index.size());

    const int n_fourth = static_cast<int>(fourth.size()), n_products = static_cast<int>(products.size());
    lists thirds(n_products), others(n_products), mirrored(n_products);
    int n_entries = 0, room = 0;
    p.n_terms = p.n_components;
    for (int i = 0; i < n_products; i++) {
        const auto &[l, l1, l2, first, second] = products[i];
        if (third.count(products[i]))
            thirds[i] = third[products[i]];
        for (const auto &[other, feature] : i < n_fourth ? fourth[products[i]] : decltype(fourth)::mapped_type())
            others[i].push_back({index[other], feature});
        const size_t n = p.run_l.size();
        if (n == 0 || i == n_fourth || p.run_l[n - 3] != l1 || p.run_l[n - 2] != l2 || p.run_l[n - 1] != l) {
            append(p.run_l, {l1, l2, l});
            p.run_start.push_back(i);
            p.run_coupling.push_back(static_cast<int32_t>(p.coupling.size()));
            const std::vector<double> values = coupling_coefficients(l1, l2, l);
            p.coupling.insert(p.coupling.end(), values.begin(), values.end());
        }
        p.run_of.push_back(static_cast<int32_t>(p.run_start.size()) - 1);
        p.product_first.push_back(base[first]);
        p.product_second.push_back(base[second]);
        p.product_base.push_back(p.n_terms);
        p.n_terms += i < n_fourth ? 2 * l + 1 : 0;
        room = std::max(room, 2 * l + 1);
    }
    for (int i = 0; i < n_products; i++)
        for (const auto &[other, ignored] : others[i])
            mirrored[other].push_back({i, n_entries++});
    p.run_start.push_back(n_products);
    p.n_shared = n_fourth;
    p.n_terms += room;
    const auto [third_base, features3] = flatten(thirds, p.order3_start);
    const auto [other, features4] = flatten(others, p.order4_start);
    const auto [mirrored_other, place] = flatten(mirrored, p.mirrored_start);
    p.order3_third = third_base;
    p.order4_other = other;
    p.mirrored_other = mirrored_other;
    for (int e : place)
        p.mirrored_place.push_back(static_cast<int32_t>(features.size() - features4.size()) + e);
    append(p.feature, features3);
    append(p.feature, features4);
}

// Features of order 2 by their first factor, and those that are one of them scaled.
void arrange_scalar_products(const std::vector<feature_row> &features, std::map<channel, int> &base, program &p,
                             std::set<int> &scaled, integers &order2_feature)
{
    lists groups;
    std::map<entry, size_t> group_of; // l, base of the first factor
    std::vector<entry> pairs;
    for (size_t f = 0; f < features.size(); f++) {
        const feature_row &row = features[f];
        if (row[0] != 2)
            continue;
        const int first = base[factor(row, 0)];
        const auto [place, is_new] = group_of.insert({
            {row[2], first},
            groups.size()
        });
        if (is_new) {
            groups.emplace_back();
            p.order2_l.push_back(row[2]);
            p.order2_first.push_back(first);
        }
        groups[place->second].push_back({base[factor(row, 1)], static_cast<int>(f)});
    }
    for (size_t g = 0; g < groups.size(); g++)
        for (const auto &[second, ignored] : groups[g])
            pairs.push_back({p.order2_first[g], second});
    const auto [second, feature] = flatten(groups, p.order2_start);
    p.order2_second = second;
    order2_feature = feature;
    append(p.feature, feature);
    const auto [by, scaled_feature] = flatten(scaled_features(features, base, pairs), p.scaled_start);
    p.scaled_by = by;
    append(p.feature, scaled_feature);
    scaled.insert(scaled_feature.begin(), scaled_feature.end());
}

double scale_of(const feature_row &row, bool is_scaled)
{
    if (is_scaled)
        return coupling_coefficients(0, row[4], row[4])[0];
    return row[0] == 2 ? 1 / std::sqrt(2.0 * row[2] + 1) : row[0] == 4 ? std::sqrt(2.0 * row[9] + 1) : 1;
}

} // namespace

int padded(int n)
{
    return (n + PADDING - 1) / PADDING * PADDING;
}

program arrange(const std::vector<feature_row> &features, int n_channels, int n_radial, int l_max, bool l_dependent)
{
    program p{};
    std::set<channel> channels;
    std::map<channel, int> base;
    for (const feature_row &row : features)
        for (int place = 0; place < row[0]; place++)
            channels.insert(factor(row, place));
    p.channel_n = radial_functions(channels, n_channels, n_radial, l_max);
    p.n_used.assign(l_max + 1, 0);
    for (int l = l_max; l >= 0; l--) {
        p.n_used[l] = l < l_max ? p.n_used[l + 1] : 0;
        for (int k = 0; k < n_channels; k++)
            p.n_used[l] = std::max(p.n_used[l], p.channel_n[k * (l_max + 1) + l]);
    }
    p.n_stride = padded(std::max<int>(p.n_used[0], 1));
    for (int k = 0; k < n_channels; k++) {
        int n_l = 0;
        for (int l = 0; l <= l_max; l++)
            n_l = p.channel_n[k * (l_max + 1) + l] > 0 ? l + 1 : n_l;
        p.channel_offset.push_back(p.n_density);
        p.n_density += n_l * n_l * p.n_stride;
    }
    for (int l = 0; l <= l_max; l++)
        p.radial_offset.push_back(l_dependent ? l * p.n_stride : 0);
    for (const auto &[l, q] : channels) {
        base[{l, q}] = p.n_components;
        for (int lm = l * l; lm < (l + 1) * (l + 1); lm++) {
            p.component_source.push_back(p.channel_offset[q / n_radial] + lm * p.n_stride + q % n_radial);
            p.component_function.push_back(p.radial_offset[l] + q % n_radial);
            p.component_lm.push_back(lm);
            p.component_channel.push_back(q / n_radial);
            p.n_components++;
        }
    }
    for (size_t f = 0; f < features.size(); f++)
        if (features[f][0] == 0)
            p.feature.push_back(static_cast<int32_t>(f));
    p.n_order0 = static_cast<int>(p.feature.size());
    for (size_t f = 0; f < features.size(); f++)
        if (features[f][0] == 1) {
            p.feature.push_back(static_cast<int32_t>(f));
            p.order1_base.push_back(base[factor(features[f], 0)]);
        }
    std::set<int> scaled;
    integers order2_feature;
    arrange_scalar_products(features, base, p, scaled, order2_feature);
    arrange_products(features, base, scaled, p);
    arrange_quadratic(features, n_channels, n_radial, l_max, order2_feature, p);
    for (int f : p.feature)
        p.scale.push_back(scale_of(features[f], scaled.count(f) > 0));
    return p;
}

} // namespace comitia
