"""Which correlations exist: the feature list, as data."""

from collections import Counter
from itertools import combinations_with_replacement

import numpy as np

N_COLUMNS = 10  # nu, q1, l1, q2, l2, q3, l3, q4, l4, L


def _row(order, channels):
    row = [order]
    for l, q in channels:
        row += [q, l]
    return row + [-1] * (N_COLUMNS - len(row))


def feature_list(n_channels, n_radial, n_max, l_max, degree, constant=True):
    r"""Symmetric correlations of order 0 to 3 that are linearly independent.

    For orders up to 3 the coupling of a set of channels :math:`(q, l)` to an even scalar is unique and symmetric,
    so that there is one feature for each multiset of channels that obeys the triangle rule with an even sum of l:
    nothing redundant is left to remove.

    Parameters
    ----------
    n_channels : int, number of pseudo-species K
    n_radial : int, radial functions of the density; q = k n_radial + n
    n_max, l_max : sequences of int for nu = 1, 2, 3: radial functions and angular momenta used at that order; an
        order with n_max = 0 is left out
    degree : sequence of (int or None) for nu = 1, 2, 3: bound on the sum of n + l over the factors, n from 0
    constant : bool, whether the feature of order 0, the constant 1, is there

    Returns
    -------
    (n_features, 10) int32 array of rows nu, q1, l1, q2, l2, q3, l3, q4, l4, L, filled with -1; factors are in the
    order of (l, q).

    Drautz, Phys. Rev. B 99, 014104 (2019); Nigam, Pozdnyakov, Ceriotti, J. Chem. Phys. 153, 121101 (2020).
    """
    rows = [_row(0, [])] if constant else []
    for order in (1, 2, 3):
        bound = degree[order - 1]
        channels = [
            (l, k * n_radial + n)
            for l in range(l_max[order - 1] + 1)
            for k in range(n_channels)
            for n in range(n_max[order - 1])
            if bound is None or n + l <= bound
        ]
        for chosen in combinations_with_replacement(channels, order):
            ls = [l for l, _ in chosen]
            if bound is not None and sum(l + q % n_radial for l, q in chosen) > bound:
                continue
            if order == 1 and ls[0] != 0:
                continue
            if order == 2 and ls[0] != ls[1]:
                continue
            if order == 3 and (sum(ls) % 2 or not abs(ls[0] - ls[1]) <= ls[2] <= ls[0] + ls[1]):
                continue
            rows.append(_row(order, chosen))
    return np.array(rows, np.int32).reshape(-1, N_COLUMNS)


def roughness(features, n_radial):
    """How fast each feature varies in space: the prior's scale for its weight, 1 for the smoothest.

    The sum over factors of (n + 1)² + l (l + 1), the Laplacian eigenvalue of the factor up to its unit; features of
    order 0 count as 1.
    """
    scale = np.ones(len(features))
    for column in (1, 3, 5, 7):
        q, l = features[:, column].astype(float), features[:, column + 1].astype(float)
        scale += np.where(q >= 0, (q % n_radial) ** 2 + l * (l + 1), 0)
    return scale


def total_degree(features, n_radial):
    """Sum of n + l over the factors of each feature, n from 0."""
    q, l = features[:, 1:9:2], features[:, 2:10:2]
    return np.where(q >= 0, q % n_radial + l, 0).sum(axis=1)


def describe(features):
    """Number of features of each correlation order, as a dictionary."""
    return {int(order): count for order, count in sorted(Counter(features[:, 0].tolist()).items())}
