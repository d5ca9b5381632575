"""The feature list, arranged for the kernel: features that share factors stand together (ext/core/descriptor.h)."""

import numpy as np

from comitia.density.couplings import real_coupling

PADDING = 8  # rows of radial functions, as in ext/core/lanes.h


def coefficients(l1, l2, l):
    """Coefficients of a coupling in the order in which the kernel meets them (ext/core/coupling.h).

    Of the entries of `real_coupling` with given absolute values of m, the kernel needs one: the others follow from it.
    """
    coupling, odd, found = real_coupling(l1, l2, l), (l1 + l2 + l) % 2, []
    for m1 in range(l1 + 1):
        for m2 in range(l2 + 1):
            for mu in (m1 + m2, abs(m1 - m2)) if m1 > 0 and m2 > 0 else (m1 + m2,):
                if mu > l or (odd and m1 == m2 == 0):
                    continue
                if not odd:
                    found.append(coupling[l1 + m1, l2 + m2, l + mu])
                elif mu > 0:
                    found.append(-coupling[l1 + m1, l2 + m2, l - mu])
                else:
                    found.append(coupling[l1 - m1, l2 + m2, l])
    return found


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


def _quadratic(features, n_channels, n_radial, l_max, n_stride, order2_feature):
    """Places of the features of orders 1 and 2 in matrices W_l[q', q] (ext/core/quadratic.h).

    `n_dense` is 0 where the kernel had better go from feature to feature: for higher orders, and where so few of the
    pairs q' q are features that the matrices would be more work.
    """
    order1 = features[features[:, 0] == 1]
    k, n = np.divmod(order1[:, 1], n_radial)
    arrays = {"order1_place": np.asarray(k * n_stride + n, np.int32)}
    dots = features[np.asarray(order2_feature, int)].reshape(-1, features.shape[1])
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


def _flatten(lists):
    """CSR arrays of lists of (number, feature)."""
    number, feature = _columns([entry for entries in lists for entry in entries], 2)
    return np.cumsum([0] + [len(entries) for entries in lists]), number, feature


def _scaled(features, base, entries):
    """Features of order 3 that are a channel with l = 0 times a scalar product of order 2.

    Parameters
    ----------
    entries : list of (base, base), the factors of the scalar products

    Returns
    -------
    for each entry, a list of (base of the channel, feature).
    """
    lists, index = [[] for _ in entries], {entry: e for e, entry in enumerate(entries)}
    for f in np.flatnonzero((features[:, 0] == 3) & (features[:, 2] == 0)):
        q1, l1, q2, l2, q3, l3 = features[f, 1:7].tolist()
        factors = base[q2, l2], base[q3, l3]
        e = index.get(factors, index.get(factors[::-1]))
        if e is not None:
            lists[e].append((base[q1, l1], int(f)))
    return lists


def _products(features, base, size, done):
    """Arrays of the features of orders 3 and 4: products in runs, and what is multiplied with each.

    Features in `done` are left out.

    Products of order 4 come first, and then those with the same L, so that a walk stays among the same components.
    """
    third, fourth = {}, {}  # products (l, l1, l2, channel, channel) -> features
    for f, row in enumerate(features.tolist()):
        factors = [(row[c], row[c + 1]) for c in range(1, 2 * row[0], 2)]
        if row[0] == 3 and f not in done:
            product = (row[6], row[2], row[4], *factors[:2])
            third.setdefault(product, []).append((base[factors[2]], f))
        elif row[0] == 4:
            product, other = (row[9], row[2], row[4], *factors[:2]), (row[9], row[6], row[8], *factors[2:])
            fourth.setdefault(product, []).append((other, f))
            fourth.setdefault(other, [])
    products = sorted(fourth) + sorted(set(third) - set(fourth))
    index = {product: p for p, product in enumerate(products)}
    others = [[(index[other], f) for other, f in fourth.get(product, [])] for product in products]
    thirds = [third.get(product, []) for product in products]
    mirrored, entry = [[] for _ in products], 0
    for p, entries in enumerate(others):
        for other, _ in entries:
            mirrored[other].append((p, entry))
            entry += 1

    runs, run_of, bases = [], [], []
    for p, (l, l1, l2, _, _) in enumerate(products):
        if not runs or runs[-1][:3] != (l1, l2, l) or p == len(fourth):
            runs.append((l1, l2, l, p))
        run_of.append(len(runs) - 1)
        bases.append(size)
        size += (2 * l + 1) * (p < len(fourth))
    values = [coefficients(*run[:3]) for run in runs]
    arrays = {
        "run_l": [run[:3] for run in runs],
        "run_coupling": np.cumsum([0] + [len(value) for value in values])[:-1],
        "run_start": [run[3] for run in runs] + [len(products)],
        "run_of": run_of,
        "product_first": [base[product[3]] for product in products],
        "product_second": [base[product[4]] for product in products],
        "product_base": bases,
    }
    arrays["order3_start"], arrays["order3_third"], features3 = _flatten(thirds)
    arrays["order4_start"], arrays["order4_other"], features4 = _flatten(others)
    arrays["mirrored_start"], arrays["mirrored_other"], entries4 = _flatten(mirrored)
    arrays["mirrored_place"] = len(features) - len(features4) + np.asarray(entries4, int)
    room = max((2 * product[0] + 1 for product in products), default=0)
    return arrays, [*features3, *features4], np.concatenate([np.zeros(0), *values]), len(fourth), size + room


def _scales(features):
    """What a feature is times its scalar product (ext/core/descriptor.h)."""
    order, l, coupled = features[:, 0], np.maximum(features[:, 2], 0), np.maximum(features[:, 9], 0)
    return np.select([order == 2, order == 4], [1 / np.sqrt(2 * l + 1), np.sqrt(2 * coupled + 1)], 1.0)


def arrange(features, n_channels, n_radial, l_max, l_dependent):
    """Arrays of the C descriptor that follow from the feature list.

    Parameters
    ----------
    features : (n_features, 10) int array, see `feature_list`
    n_channels, n_radial, l_max : int
    l_dependent : bool, whether the radial functions differ from one l to the next

    Returns
    -------
    dict of int32 arrays and ints, named as in ext/core/descriptor.h, and the reals `coupling`.
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

    order0, order1, order2 = [], [], {}
    for f, row in enumerate(features.tolist()):
        if row[0] == 0:
            order0.append(f)
        elif row[0] == 1:
            order1.append((base[row[1], row[2]], f))
        elif row[0] == 2:
            order2.setdefault((row[2], base[row[1], row[2]]), []).append((base[row[3], row[4]], f))
    bases1, features1 = _columns(order1, 2)
    l2, first2 = _columns(list(order2), 2)
    start2, second2, features2 = _flatten(list(order2.values()))
    pairs = [(first, second) for (_, first), entries in order2.items() for second, _ in entries]
    scaled_start, scaled_by, scaled = _flatten(_scaled(features, base, pairs))
    products, features34, coupling, n_shared, n_terms = _products(features, base, size, set(scaled))
    walk = [*order0, *features1, *features2, *scaled, *features34]
    scale = _scales(features[walk])
    scale[np.isin(walk, scaled)] = [coefficients(0, l, l)[0] for l in features[list(scaled), 4].tolist()]
    integers = {
        "feature": walk,
        "radial_offset": radial_offset,
        "n_used": used,
        "channel_n": channel_n,
        "channel_offset": channel_offset[:-1],
        "component_source": columns["source"],
        "component_function": columns["function"],
        "component_lm": columns["lm"],
        "component_channel": columns["channel"],
        "order1_base": bases1,
        "order2_l": l2,
        "order2_first": first2,
        "order2_start": start2,
        "order2_second": second2,
        "scaled_start": scaled_start,
        "scaled_by": scaled_by,
    } | products
    arrays = {name: np.ascontiguousarray(np.ravel(value), np.int32) for name, value in integers.items()}
    sizes = {"n_stride": n_stride, "n_density": int(channel_offset[-1]), "n_shared": n_shared, "n_terms": n_terms}
    sizes["n_order0"] = len(order0)
    quadratic = _quadratic(features, n_channels, n_radial, l_max, n_stride, features2)
    return arrays | sizes | quadratic | {"coupling": coupling, "scale": scale}
