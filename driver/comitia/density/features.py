"""Which correlations exist: the feature list, as data."""

from collections import Counter

import numpy as np

from comitia.density.couplings import independent_intermediates, intermediates

MAX_ORDER = 4
N_COLUMNS = 10  # nu, q1, l1, q2, l2, q3, l3, q4, l4, L


def _row(order, channels, intermediate=-1):
    row = [order]
    for l, q in channels:
        row += [q, l]
    return row + [-1] * (N_COLUMNS - 1 - len(row)) + [intermediate]


def _multisets(degrees, size, bound, first=0):
    """Tuples of not decreasing indices whose degrees sum to at most `bound`; degrees do not decrease."""
    if size == 0:
        yield ()
        return
    for i in range(first, len(degrees)):
        if degrees[i] * size > bound:
            return
        for rest in _multisets(degrees, size - 1, bound - degrees[i], i):
            yield (i, *rest)


def _bounded(channels, degrees, size, bound):
    """Tuples of channels, repetition allowed, in their order, whose degrees sum to at most `bound`."""
    place = np.argsort(degrees, kind="stable").tolist()
    found = _multisets([degrees[i] for i in place], size, bound + 1e-9)
    return [tuple(channels[i] for i in chosen) for chosen in sorted(sorted(place[i] for i in c) for c in found)]


def couples(ls):
    """Whether angular momenta couple to a scalar that inversion leaves alone."""
    if len(ls) == 4:
        return len(intermediates(*ls)) > 0
    if len(ls) == 3:
        return sum(ls) % 2 == 0 and abs(ls[0] - ls[1]) <= ls[2] <= ls[0] + ls[1]
    return ls[0] == (ls[1] if len(ls) == 2 else 0)


def feature_list(n_channels, n_radial, n_max, l_max, degree, constant=True, factor_degree=None):
    r"""Symmetric correlations of order 0 to 4 that are linearly independent.

    For orders up to 3 the coupling of a set of channels :math:`(q, l)` to an even scalar is unique and symmetric,
    so that there is one feature for each multiset of channels that obeys the triangle rule with an even sum of l:
    nothing redundant is left to remove. At order 4 there is one for each intermediate L of
    `independent_intermediates`: all L, and fewer where a channel occurs twice.

    Parameters
    ----------
    n_channels : int, number of pseudo-species K; or a sequence, one for each order
    n_radial : int, radial functions of the density; q = k n_radial + n
    n_max, l_max : sequences of int for nu = 1, 2, 3, 4: radial functions and angular momenta used at that order; an
        order with n_max = 0, or beyond the end, is left out
    degree : sequence of (float or None) for nu = 1, 2, 3, 4: bound on the sum of the degrees of the factors
    constant : bool, whether the feature of order 0, the constant 1, is there
    factor_degree : (n_channels, n_l, n_radial) array, not negative, degree of a factor (k, l, n); by default n + l, n
        from 0

    Returns
    -------
    (n_features, 10) int32 array of rows nu, q1, l1, q2, l2, q3, l3, q4, l4, L, filled with -1; factors are in the
    order of (l, q). At order 4 the first two are coupled to L, and so are the last two.

    Drautz, Phys. Rev. B 99, 014104 (2019); Nigam, Pozdnyakov, Ceriotti, J. Chem. Phys. 153, 121101 (2020).
    """
    n_channels = np.broadcast_to(n_channels, len(n_max))
    rows = [_row(0, [])] if constant else []
    for order in range(1, len(n_max) + 1):
        channels = [
            (l, k * n_radial + n)
            for l in range(l_max[order - 1] + 1)
            for k in range(n_channels[order - 1])
            for n in range(n_max[order - 1])
        ]
        degrees = [_degree(q, l, n_radial, factor_degree) for l, q in channels]
        bound = degree[order - 1]
        for chosen in _bounded(channels, degrees, order, np.inf if bound is None else bound):
            ls = tuple(l for l, _ in chosen)
            if not couples(ls):
                continue
            if order == 4:
                labels = tuple(chosen.index(channel) for channel in chosen)
                rows += [_row(4, chosen, intermediate) for intermediate in independent_intermediates(ls, labels)]
            else:
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


def _degree(q, l, n_radial, factor_degree):
    return q % n_radial + l if factor_degree is None else factor_degree[q // n_radial, l, q % n_radial]


def total_degree(features, n_radial, factor_degree=None):
    """Sum of the degrees of the factors of each feature: of n + l, n from 0, or of `factor_degree` (k, l, n)."""
    q, l = features[:, 1:9:2], features[:, 2:10:2]
    return np.where(q >= 0, _degree(q, l, n_radial, factor_degree), 0).sum(axis=1)


def describe(features):
    """Number of features of each correlation order, as a dictionary."""
    return {int(order): count for order, count in sorted(Counter(features[:, 0].tolist()).items())}
