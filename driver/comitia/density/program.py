"""The feature list, arranged for the kernel: features that share factors stand together (ext/core/descriptor.h)."""

import numpy as np

from comitia.density.couplings import real_coupling

LANES = 8


def _sparse(coupling):
    """Non-zero entries, (n, 3) indices and values, sorted by the last index."""
    index = np.argwhere(coupling)
    index = index[np.lexsort((index[:, 1], index[:, 0], index[:, 2]))]
    return index, coupling[tuple(index.T)]


def _columns(rows, n):
    """The columns of a list of tuples of n numbers; n empty ones where there are none."""
    return list(zip(*rows, strict=True)) if rows else [()] * n


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
    n_lm = (l_max + 1) ** 2
    channels = sorted({(int(row[c + 1]), int(row[c])) for row in features for c in (1, 3, 5, 7) if row[c] >= 0})
    used = np.zeros(l_max + 1, int)  # radial functions in use at each l
    for l, q in channels:
        used[l] = max(used[l], q % n_radial + 1)
    used = np.maximum.accumulate(used[::-1])[::-1]  # not increasing with l, as the kernel wants
    n_blocks = -(-used // LANES)
    n_stride = int(LANES * max(n_blocks.max(), 1))

    base, size = {}, 0
    columns = {"source": [], "function": [], "lm": [], "channel": []}
    radial_offset = np.arange(l_max + 1) * n_stride * int(l_dependent)
    for l, q in channels:
        base[q, l] = size
        k, n = divmod(q, n_radial)
        for lm in range(l * l, (l + 1) ** 2):
            columns["source"].append((k * n_lm + lm) * n_stride + n)
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
        "n_blocks": n_blocks,
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
    return arrays | {"n_stride": n_stride, "n_terms": product.n_terms}
