"""The feature list, arranged for the kernel: features that share factors stand together (ext/core/descriptor.h)."""

import numpy as np

from comitia.density.couplings import real_coupling

PADDING = 8  # rows of radial functions, as in ext/core/lanes.h


def _sparse(coupling):
    """Non-zero entries, (n, 3) indices and values, sorted by the last index."""
    index = np.argwhere(coupling)
    index = index[np.lexsort((index[:, 1], index[:, 0], index[:, 2]))]
    return index, coupling[tuple(index.T)]


def _columns(rows, n):
    """The columns of a list of tuples of n numbers; n empty ones where there are none."""
    return list(zip(*rows, strict=True)) if rows else [()] * n


def _padded(n):
    return -(-n // PADDING) * PADDING


def _radial_functions(channels, n_channels, n_radial, l_max):
    """(n_channels, l_max + 1) number of radial functions that (l, q) in `channels` ask of each pseudo-species."""
    number = np.zeros((n_channels, l_max + 1), int)
    for l, q in channels:
        k, n = divmod(q, n_radial)
        number[k, l] = max(number[k, l], n + 1)
    return number


def _quadratic(features, n_channels, n_radial, l_max, n_stride, dot_feature):
    """Places of the features of orders 1 and 2 in matrices W_l[q', q] (ext/core/quadratic.h).

    `n_dense` is 0 where the kernel had better go from feature to feature: for higher orders, and where so few of the
    pairs q' q are features that the matrices would be more work.
    """
    order1 = features[features[:, 0] == 1]
    k, n = np.divmod(order1[:, 1], n_radial)
    arrays = {"order1_place": np.asarray(k * n_stride + n, np.int32)}
    dots = features[np.asarray(dot_feature, int)].reshape(-1, features.shape[1])
    pairs = {(int(l), int(q)) for row in dots for q, l in ((row[1], row[2]), (row[3], row[4]))}
    dense_n = _radial_functions(pairs, n_channels, n_radial, l_max)
    arrays["dense_n"] = np.asarray(dense_n.ravel(), np.int32)
    columns = _padded(dense_n)  # of each pseudo-species at each l
    rows, widths = dense_n.sum(axis=0), columns.sum(axis=0)
    multiplications = (2 * np.arange(l_max + 1) + 1) @ (rows * widths)
    if features[:, 0].max() > 2 or multiplications > 6 * (2 * dots[:, 2] + 1).sum():
        return arrays | {"n_dense": 0, "dense_place": np.zeros(0, np.int32)}
    start = np.append(0, np.cumsum(rows * widths))
    first_row = np.cumsum(dense_n, axis=0) - dense_n
    first_column = np.cumsum(columns, axis=0) - columns
    l = dots[:, 2]
    k, n = np.divmod(dots[:, [1, 3]].T, n_radial)
    row, column = first_row[k, l] + n, first_column[k, l] + n
    place = start[l] + row * widths[l] + column[::-1]
    return arrays | {"n_dense": int(start[-1]), "dense_place": np.asarray(place.T.ravel(), np.int32)}


class _Products:
    """Products of two channels coupled to L, each made once; their terms follow `size` other terms."""

    def __init__(self, base, size):
        self.channel_base, self.n_terms = base, size
        self.base, self.couplings, self.of = {}, {}, []

    def __call__(self, first, second, l):
        """First term of the product of two channels (q, l)."""
        table = self.couplings.setdefault((first[1], second[1], l), len(self.couplings))
        key = (self.channel_base[first], self.channel_base[second], table)
        if key not in self.base:
            self.of += [len(self.base)] * (2 * l + 1)
            self.base[key] = self.n_terms
            self.n_terms += 2 * l + 1
        return self.base[key]


def arrange(features, n_channels, n_radial, l_max, l_dependent):
    """Arrays of the C descriptor that follow from the feature list.

    Parameters
    ----------
    features : (n_features, 10) int array, see `feature_list`
    n_channels, n_radial, l_max : int
    l_dependent : bool, whether the radial functions differ from one l to the next

    Returns
    -------
    dict of int32 arrays and ints, named as in ext/core/descriptor.h, and the reals `coupling_value`, `dot_scale`.
    """
    channels = sorted({(int(row[c + 1]), int(row[c])) for row in features for c in (1, 3, 5, 7) if row[c] >= 0})
    channel_n = _radial_functions(channels, n_channels, n_radial, l_max)
    used = np.maximum.accumulate(channel_n.max(axis=0)[::-1])[::-1]  # not increasing with l
    n_stride = _padded(max(used.max(), 1))
    n_l = np.where(channel_n > 0, np.arange(1, l_max + 2), 0).max(axis=1)
    channel_offset = np.append(0, np.cumsum(n_l**2 * n_stride))

    base, size = {}, 0
    columns = {"source": [], "function": [], "lm": [], "channel": []}
    radial_offset = np.arange(l_max + 1) * n_stride * int(l_dependent)
    for l, q in channels:
        base[q, l] = size
        k, n = divmod(q, n_radial)
        for lm in range(l * l, (l + 1) ** 2):
            columns["source"].append(channel_offset[k] + lm * n_stride + n)
            columns["function"].append(radial_offset[l] + n)
            columns["lm"].append(lm)
            columns["channel"].append(k)
        size += 2 * l + 1

    product = _Products(base, size)
    order0, order1, dots = [], [], {}
    for f, row in enumerate(features.tolist()):
        order, l = row[0], row[2 * row[0]]  # l: that of the last factor
        factors = [(row[c], row[c + 1]) for c in range(1, 2 * order, 2)]
        if order == 0:
            order0.append(f)
        elif order == 1:
            order1.append((base[factors[0]], f))
        elif order == 2:
            dots.setdefault((l, base[factors[0]], 1 / np.sqrt(2 * l + 1)), []).append((base[factors[1]], f))
        elif order == 3:
            dots.setdefault((l, product(*factors[:2], l), 1.0), []).append((base[factors[2]], f))
        else:
            l = row[9]
            pair = product(*factors[:2], l)
            dots.setdefault((l, pair, np.sqrt(2 * l + 1)), []).append((product(*factors[2:], l), f))

    bases1, features1 = _columns(order1, 2)
    first, second, tables = _columns(list(product.base), 3)
    dot_l, dot_first, dot_scale = _columns(list(dots), 3)
    dot_second, dot_feature = _columns([entry for entries in dots.values() for entry in entries], 2)
    entries = [_sparse(real_coupling(*ls)) for ls in product.couplings]
    integers = {
        "radial_offset": radial_offset,
        "n_used": used,
        "channel_n": channel_n,
        "channel_offset": channel_offset[:-1],
        "component_source": columns["source"],
        "component_function": columns["function"],
        "component_lm": columns["lm"],
        "component_channel": columns["channel"],
        "order0_feature": order0,
        "order1_base": bases1,
        "order1_feature": features1,
        "product_first": first,
        "product_second": second,
        "product_coupling": tables,
        "product_base": list(product.base.values()),
        "product_of": product.of,
        "dot_l": dot_l,
        "dot_first": dot_first,
        "dot_start": np.cumsum([0] + [len(entries) for entries in dots.values()]),
        "dot_second": dot_second,
        "dot_feature": dot_feature,
        "coupling_l": list(product.couplings),
        "coupling_start": np.cumsum([0] + [len(value) for _, value in entries]),
        "coupling_m": np.concatenate([m for m, _ in entries]) if entries else [],
    }
    arrays = {name: np.ascontiguousarray(np.ravel(value), np.int32) for name, value in integers.items()}
    arrays["coupling_value"] = np.concatenate([value for _, value in entries]) if entries else np.zeros(0)
    arrays["dot_scale"] = np.array(dot_scale, float)
    sizes = {"n_stride": n_stride, "n_density": int(channel_offset[-1]), "n_terms": product.n_terms}
    return arrays | sizes | _quadratic(features, n_channels, n_radial, l_max, n_stride, dot_feature)
