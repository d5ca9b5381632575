r"""Pseudo-species learned from the data: the contraction u by variable projection.

With the weights eliminated, the misfit of a small model on K pseudo-species is a function of the row space of u alone,

.. math:: f(u) = \min_w |y - X T(u) w|^2 + w^T \Lambda w ,
          \quad \partial f/\partial (T w) = 2 X^T (X T w - y) = 2 (G T w - b)

with the rows X on species, their moments G, b, and T(u) of first and second degree in u (order 1 and 2 of the density).
The first row is the total density, all species alike. The others, differences of species, are minimised over subspaces
by L-BFGS from several starts: the principal directions of the fit on species, and random ones.

Willatt, Musil, Ceriotti, Phys. Chem. Chem. Phys. 20, 29661 (2018); Lopanitsyna et al., Phys. Rev. Mater. 7, 045802
(2023); Golub, Pereyra, SIAM J. Numer. Anal. 10, 413 (1973).
"""

import numpy as np
import scipy.linalg
import scipy.optimize

from comitia.training.normal_equations import Factor
from comitia.training.resolved import resolved_moments

STRENGTH = 1e-7  # of the ridge, relative to the mean diagonal of each kind of column
N_STARTS, N_ITERATIONS = 8, 60
MOST_ROUNDS, SMALL_FALL = 3, 0.1  # another round of a search that lowered the misfit below this part


class Projection:
    """The misfit of the small model as a function of u, from the moments on species.

    Parameters
    ----------
    moments : ResolvedMoments
    strength : float, of the ridge
    """

    def __init__(self, moments, strength):
        self.moments, self.size = moments, moments.size
        size, diagonal = moments.size, np.diag(moments.gram)
        self.parts = (slice(size.n_species), slice(size.n_species, size.n_species + size.n_order1))
        self.parts += (slice(self.parts[1].stop, None),)
        n1, n2, l = np.arange(size.n_first), np.arange(size.n_second), np.arange(size.n_l)
        roughness = 1 + (n2**2)[:, None, None] + (n2**2)[:, None] + 2 * l * (l + 1)
        constant, first, second = (diagonal[part] for part in self.parts)
        self.penalty0 = np.full(size.n_species, 1e-8 * constant.max() + 1e-300)
        self.penalty1 = strength * (1 + n1**2) ** 2 * first.reshape(-1, size.n_first).sum(0) / size.n_species
        self.penalty2 = strength * roughness**2 * second.reshape(-1, size.n_l).sum(0)
        self.penalty2 /= size.n_species * size.n_centres * size.n_second**2

    def transformation(self, u):
        """T(u)^T of order 1 (channels of u, of species) and of order 2 (pairs of u, of species); and the pairs of u.

        Pairs of different channels carry a factor √2, so that the ridge does not depend on the basis of the row space.
        """
        order1, expanded = np.kron(u, np.eye(self.size.n_first)), np.kron(u, np.eye(self.size.n_second))
        (p, q), pairs = self.size.pairs(self.size.n_species).T, self.size.pairs(len(u))
        a, b = expanded[pairs[:, 0]], expanded[pairs[:, 1]]
        scale = np.where(pairs[:, 0] != pairs[:, 1], np.sqrt(2), 1.0)
        return order1, scale[:, None] * (a[:, p] * b[:, q] + (p != q) * a[:, q] * b[:, p]), pairs

    def reduce(self, columns, order1, order2):
        """T(u)^T times (n_columns, n)."""
        n, size = columns.shape[1], self.size
        zero, one, two = (columns[part] for part in self.parts)
        one = order1 @ one.reshape(size.n_species, -1, n)
        two = order2 @ two.reshape(size.n_centres, -1, size.n_l * n)
        return np.vstack([zero, one.reshape(-1, n), two.reshape(-1, n)])

    def solve(self, u):
        """Misfit, its weights on pseudo-species, and its gradient by the weights on species."""
        order1, order2, pairs = self.transformation(u)
        half = np.ascontiguousarray(self.reduce(self.moments.gram, order1, order2).T)
        matrix = self.reduce(half, order1, order2)
        rhs = self.reduce(self.moments.rhs[:, None], order1, order2)[:, 0]
        n = pairs % self.size.n_second
        penalty1 = np.tile(self.penalty1, self.size.n_species * len(u))
        penalty2 = np.tile(self.penalty2[n[:, 0], n[:, 1]].ravel(), self.size.n_centres)
        matrix[np.diag_indices_from(matrix)] += np.concatenate([self.penalty0, penalty1, penalty2])
        weights = Factor(matrix).solve(rhs)
        return self.moments.square - float(rhs @ weights), weights, 2 * (half @ weights - self.moments.rhs)

    def tensors(self, weights, n_channels, paired):
        """Order 1 (centre, channel, n) and order 2 (centre, l, channel n, channel n), symmetric, of some weights.

        Where `paired`, weights of a pair of different channels are those of the scaled pair: they are shared between
        the two entries of the matrix; else (a gradient) both entries have the value.
        """
        size, pairs = self.size, self.size.pairs(n_channels)
        first = size.n_species * n_channels * size.n_first
        one = weights[size.n_species :][:first].reshape(size.n_species, n_channels, size.n_first)
        two = weights[size.n_species + first :].reshape(size.n_centres, len(pairs), size.n_l).transpose(0, 2, 1)
        share = np.where((pairs[:, 0] != pairs[:, 1]) & paired, np.sqrt(0.5), 1.0)
        matrix = np.empty((size.n_centres, size.n_l) + 2 * (n_channels * size.n_second,))
        matrix[..., pairs[:, 0], pairs[:, 1]] = matrix[..., pairs[:, 1], pairs[:, 0]] = share * two
        return one, matrix

    def __call__(self, u):
        """f(u) and its gradient (K, S) for u with orthonormal rows."""
        value, weights, slope = self.solve(u)
        n_second = self.size.n_second
        one, two = self.tensors(weights, len(u), paired=True)
        slope_one, slope_two = self.tensors(slope, self.size.n_species, paired=False)
        expanded = np.kron(u, np.eye(n_second))
        by_expanded = 2 * np.einsum("clab,bq,clqp->ap", two, expanded, slope_two, optimize=True)
        gradient = np.einsum("ckn,csn->ks", one, slope_one)
        return value, gradient + np.einsum("knsn->ks", by_expanded.reshape(len(u), n_second, -1, n_second))


def _orthonormal(b):
    """(b b^T)^(-1/2) b, and the factor."""
    value, vector = np.linalg.eigh(b @ b.T)
    factor = (vector / np.sqrt(value)) @ vector.T
    return factor @ b, factor


def total_and(differences):
    """u of the total density, all species alike, and of differences (n, n_species) orthogonal to it."""
    n_species = differences.shape[1]
    return np.vstack([np.full((1, n_species), 1 / np.sqrt(n_species)), differences])


def _spread(projection, u):
    """(K, K) second moment, over centres and radial functions, of the weights of order 1 on the rows of u."""
    _, weights, _ = projection.solve(u)
    one, _ = projection.tensors(weights, len(u), paired=True)
    return np.einsum("csn,ctn,n->st", one, one, projection.penalty1)


def _by_spread(projection, differences):
    """Rows that span the same differences, by how much the weights of order 1 on them weigh; largest entries > 0."""
    spread = _spread(projection, total_and(differences))[1:, 1:]
    rows = np.linalg.eigh(spread)[1][:, ::-1].T @ differences
    return rows * np.sign(np.take_along_axis(rows, np.abs(rows).argmax(axis=1)[:, None], axis=1))


def _minimise(projection, start, basis):
    """Orthonormal differences at the local minimum of the misfit next to `start`, and the misfit.

    The misfit counts in units of its value at the start of a round; where data are described almost exactly it falls by
    decades, and another round resolves what is left of it.

    Parameters
    ----------
    projection : Projection
    start : (n, n_species - 1) array, coordinates in `basis`
    basis : (n_species - 1, n_species) array, all differences
    """

    def objective(b, unit):
        v, factor = _orthonormal(b.reshape(start.shape))
        value, gradient = projection(total_and(v @ basis))
        gradient = gradient[1:] @ basis.T
        along = factor @ (gradient - (gradient @ v.T) @ v)  # inside the row space nothing changes
        return value / unit, along.ravel() / unit

    v, options = _orthonormal(start)[0], {"maxiter": N_ITERATIONS, "maxfun": N_ITERATIONS, "ftol": 1e-9}
    value = projection.solve(total_and(v @ basis))[0]
    for _ in range(MOST_ROUNDS):
        unit = max(value, 1e-300)
        found = scipy.optimize.minimize(objective, v.ravel(), (unit,), "L-BFGS-B", jac=True, options=options)
        v, value = _orthonormal(found.x.reshape(start.shape))[0], found.fun * unit
        if found.fun > SMALL_FALL:
            break
    return v @ basis, value


def learn_contraction(structures, target_of, species, cutoff, channels, stage):
    """Contraction of the species to the total density and the differences that a small model needs most.

    The subspace is searched for the number of pseudo-species of the orders 2 and higher; rows that only order 1 asks
    for complete it. The total density is always there: in surroundings of species that no structure has shown together,
    a neighbour of which nothing is known acts as the average one does.

    Parameters
    ----------
    structures, target_of, species, cutoff : as in `resolved_moments`
    channels : sequence of int, number of pseudo-species of each order, 0 for an order that is left out
    stage : function of a name and a number of steps that gives a context whose value is called after every step

    Returns
    -------
    (max(channels), n_species) array with orthonormal rows, the first the total density; the identity where no order
    asks for fewer channels than species
    """
    n_species = len(species)
    fewer = [k for k in channels[1:] if 0 < k < n_species] or [k for k in channels if 0 < k < n_species]
    if not fewer:
        return np.eye(n_species)
    if max(channels) == 1:
        return total_and(np.empty((0, n_species)))
    with stage("species", len(structures)) as step:
        projection = Projection(resolved_moments(structures, target_of, species, cutoff, step), STRENGTH)
    basis, n_differences = scipy.linalg.helmert(n_species), max(fewer) - 1
    starts = [_by_spread(projection, basis)[:n_differences] @ basis.T]
    rng = np.random.default_rng(0)
    starts += [rng.normal(size=(n_differences, n_species - 1)) for _ in range(N_STARTS - 1)]
    found = []
    with stage("contraction", N_STARTS) as step:
        for start in starts if n_differences else []:
            found.append(_minimise(projection, start, basis))
            step()
    differences = min(found, key=lambda pair: pair[1])[0] if found else np.empty((0, n_species))
    more = max(channels) - len(differences) - 1
    rest = np.linalg.svd(total_and(differences))[2][len(differences) + 1 :]
    parts = [_by_spread(projection, rows) if len(rows) else rows for rows in (differences, rest)]
    return total_and(np.vstack([parts[0], parts[1][:more]]))
