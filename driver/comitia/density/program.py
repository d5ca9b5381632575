"""The feature list, arranged for the kernel: features that share factors stand together (ext/core/descriptor.h)."""

import numpy as np

from comitia.density.couplings import real_coupling

LANES = 8


def _sparse(coupling):
    """Non-zero entries, (n, 3) indices and values, sorted by the last index."""
    index = np.argwhere(coupling)
    index = index[np.lexsort((index[:, 1], index[:, 0], index[:, 2]))]
    return index, coupling[tuple(index.T)]


def _flatten(groups):
    """CSR arrays of a dictionary key -> list of (base, feature)."""
    start = np.cumsum([0] + [len(entries) for entries in groups.values()])
    entries = [entry for entries in groups.values() for entry in entries]
    base, feature = zip(*entries, strict=True) if entries else ((), ())
    return start, base, feature


def arrange(features, n_channels, n_radial, l_max, l_dependent):
    """Arrays of the C descriptor that follow from the feature list.

    Parameters
    ----------
    features : (n_features, 10) int array, see `feature_list`
    n_channels, n_radial, l_max : int
    l_dependent : bool, whether the radial functions differ from one l to the next

    Returns
    -------
    dict of int32 arrays and ints, named as in ext/core/descriptor.h, and `coupling_value`.
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

    order0, order1, order2, order3, couplings = [], [], {}, {}, {}
    for f, row in enumerate(features.tolist()):
        order, q1, l1, q2, l2, q3, l3 = row[:7]
        if order == 0:
            order0.append(f)
        elif order == 1:
            order1.append((base[q1, l1], f))
        elif order == 2:
            order2.setdefault((l1, base[q1, l1]), []).append((base[q2, l2], f))
        elif order == 3:
            table = couplings.setdefault((l1, l2, l3), len(couplings))
            order3.setdefault((l3, base[q1, l1], base[q2, l2], table), []).append((base[q3, l3], f))
        else:
            raise ValueError(f"feature {f} has order {order}; this version evaluates orders 0 to 3")

    start2, second, feature2 = _flatten(order2)
    start3, third, feature3 = _flatten(order3)
    entries = [_sparse(real_coupling(*ls)) for ls in couplings]
    keys2, keys3 = np.array(list(order2)).reshape(-1, 2), np.array(list(order3)).reshape(-1, 4)
    bases1, features1 = zip(*order1, strict=True) if order1 else ((), ())
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
        "order2_l": keys2[:, 0],
        "order2_first": keys2[:, 1],
        "order2_start": start2,
        "order2_second": second,
        "order2_feature": feature2,
        "order3_l": keys3[:, 0],
        "order3_first": keys3[:, 1],
        "order3_second": keys3[:, 2],
        "order3_coupling": keys3[:, 3],
        "order3_start": start3,
        "order3_third": third,
        "order3_feature": feature3,
        "coupling_l": list(couplings),
        "coupling_start": np.cumsum([0] + [len(value) for _, value in entries]),
        "coupling_m": np.concatenate([m for m, _ in entries]) if entries else [],
    }
    arrays = {name: np.ascontiguousarray(np.ravel(value), np.int32) for name, value in integers.items()}
    arrays["coupling_value"] = np.concatenate([value for _, value in entries]) if entries else np.zeros(0)
    return arrays | {"n_stride": n_stride}
