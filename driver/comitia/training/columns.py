"""Which columns of a long feature list are fitted: those that depend least on one another over the training structures.

Where few atoms of a species are around a centre, or all structures are of one molecule, most products of densities are
nearly sums of others. Of each species of centres, the columns of forces are taken by pivoting: always the one with the
largest variance a priori that those before it leave unexplained (a Cholesky factorisation with diagonal pivoting of
their Gram matrix, scaled by the prior). All species share the room by that variance.

Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., SIAM (2002), §10.3; Imbalzano et al., J. Chem. Phys.
148, 241730 (2018), doi:10.1063/1.5024611.
"""

import dataclasses

import numpy as np
from scipy.linalg import lapack

ROWS = 1  # rows of forces for each feature, about, that the choice rests on
EXPONENTS = 0.6, 0.7  # of roughness² and of the mean square of a column in the prior; what the evidence finds
ORDER_DECAY = 2.0  # −ln of the variance a priori of an order over that of the one below it, beside that of its columns
NOTHING_LEFT = 1e-14  # of the largest variance: rounding
CHUNK = 2048  # rows of a product, about


def spread_over(structures, n_rows):
    """Structures at even intervals that have about so many components of forces."""
    stride = max(1, int(sum(3 * len(s.atoms) for s in structures) / n_rows))
    return structures[stride // 2 :: stride] or structures[:1]


def gram_of_species(descriptor, structures):
    """Gram matrices (n_species, n_features, n_features) of the columns of forces of each species of centres."""
    n = descriptor.n_features
    gram, waiting, count = np.zeros((descriptor.n_species, n, n)), [], 0
    for number, structure in enumerate(structures, 1):
        waiting.append(descriptor.design(structure.atoms, True, False).forces)
        count += len(waiting[-1])
        if count >= CHUNK or number == len(structures):
            rows = np.vstack(waiting)
            for s in range(descriptor.n_species):
                part = rows[:, s * n : (s + 1) * n]
                gram[s] += part.T @ part
            waiting, count = [], 0
    return gram


def pivoted(gram):
    """Columns in the order of pivoting and the variance that was left of each, without those that depend on others."""
    factor, pivots, rank, _ = lapack.dpstrf(gram, tol=NOTHING_LEFT * np.diag(gram).max())
    return pivots[:rank] - 1, np.diag(factor)[:rank] ** 2


def choose_columns(descriptor, structures, most):
    """At most so many columns of the design matrix, and the descriptor without the features that nothing needs.

    Parameters
    ----------
    descriptor : Descriptor
    structures : list of LabelledStructure, the training set
    most : int

    Returns
    -------
    Descriptor
    columns : increasing (n_columns,) int array, into the columns of that descriptor
    """
    if most >= descriptor.width:
        return descriptor, np.arange(descriptor.width)
    n, order = descriptor.n_features, descriptor.features[:, 0]
    free = np.flatnonzero(order > 0)
    of_roughness, of_column = EXPONENTS
    log_prior = -2 * of_roughness * np.log(descriptor.smoothness[free]) - ORDER_DECAY * order[free]
    columns, left = [], []
    for s, gram in enumerate(gram_of_species(descriptor, spread_over(structures, ROWS * n))):
        diagonal = np.diag(gram)[free]
        some = diagonal > 1e-12 * diagonal.max()
        if not some.any():
            continue
        scale = np.exp(0.5 * log_prior[some]) * diagonal[some] ** (-0.5 * of_column)
        found, variance = pivoted(scale[:, None] * gram[np.ix_(free[some], free[some])] * scale)
        columns.append(s * n + free[some][found])
        left.append(variance)
    columns, left = np.concatenate(columns), np.concatenate(left)
    constant = (np.arange(descriptor.n_species)[:, None] * n + np.flatnonzero(order == 0)).ravel()
    room = max(most - len(constant), 1)
    columns = np.concatenate([constant, columns[np.argsort(-left, kind="stable")[:room]]])
    return without_idle(descriptor, np.sort(columns))


def without_idle(descriptor, columns):
    """The descriptor without the features of which no column is kept, and the columns counted in it."""
    species, feature = np.divmod(columns, descriptor.n_features)
    used, place = np.unique(feature, return_inverse=True)
    features = descriptor.features[used]
    l_max = int(max(features[:, [2, 4, 6, 8]].max(), 0))
    offset = np.ascontiguousarray(descriptor.radial_offset[..., : l_max + 1])
    shorter = dataclasses.replace(descriptor, features=features, l_max=l_max, radial_offset=offset)
    return shorter, species * len(used) + place


def used_columns(weights, descriptor):
    """Columns that a model was fitted with: the others' weights are 0. (n_columns,) int array."""
    constant = np.tile(descriptor.features[:, 0] == 0, descriptor.n_species)
    return np.flatnonzero(np.any(weights != 0, axis=0) | constant)
