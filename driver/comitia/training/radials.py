"""Radial functions learned from the training structures, before the design matrix is made."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from comitia.density import Descriptor, optimal
from comitia.density.features import N_COLUMNS
from comitia.density.optimal import USUAL
from comitia.threads import default_threads


def _auto_correlations(n_channels, l_max):
    """Features of order 2 of all pairs of primitive functions of one channel and l, channel by channel."""
    first, second = np.triu_indices(optimal.N_PRIMITIVE)
    rows = np.full((n_channels, l_max + 1, len(first), N_COLUMNS), -1, np.int32)
    channel = optimal.N_PRIMITIVE * np.arange(n_channels)[:, None, None]
    l = np.arange(l_max + 1)[:, None]
    for column, value in enumerate((2, channel + first, l, channel + second, l)):
        rows[..., column] = value
    return rows.reshape(-1, N_COLUMNS)


def density_covariance(atoms, species, cutoff, l_max, contraction=None, n_threads=None, prior=USUAL):
    r"""Covariance of the coefficients of the primitive density of each channel, over centres and m.

    .. math:: C_{kl}[p, p'] = \frac{1}{(2l + 1) N} \sum_{i,\,m} A_i[k p, l m]\, A_i[k p', l m]

    Parameters
    ----------
    atoms : list of ase.Atoms; about `optimal.N_ATOMS` environments of them are visited
    species : (n_species,) atomic numbers
    cutoff : float, Å
    contraction : (n_channels, n_species) array, the identity when absent
    prior : FactorPrior

    Returns
    -------
    (n_channels, l_max + 1, N_PRIMITIVE, N_PRIMITIVE) array
    """
    size = optimal.N_PRIMITIVE
    contraction = np.eye(len(species)) if contraction is None else contraction
    features = _auto_correlations(len(contraction), l_max)
    descriptor = Descriptor(
        np.asarray(species, np.int64),
        float(cutoff),
        contraction,
        optimal.primitive_table(cutoff, prior),
        size,
        l_max,
        np.zeros(l_max + 1, np.int32),
        features,
    )
    visited = optimal.spread_over(atoms)
    with ThreadPoolExecutor(n_threads or default_threads()) as pool:  # over structures: any number gives the same bits
        total = sum(pool.map(lambda one: descriptor.sums([one], 1)[0], visited)) / sum(len(one) for one in visited)
    total = total.reshape(len(species), len(contraction), l_max + 1, -1).sum(axis=0)  # over species of centres
    covariance = np.empty((len(contraction), l_max + 1, size, size))
    first, second = np.triu_indices(size)
    covariance[..., first, second] = total / np.sqrt(2 * np.arange(l_max + 1) + 1)[:, None]
    covariance[..., second, first] = covariance[..., first, second]
    return covariance


def learn_radial(atoms, species, cutoff, basis, contraction=None, n_threads=None):
    """`OptimalRadial` of the training structures for a `Basis`.

    Where every species is a channel each has its own functions; channels that mix species share theirs.
    """
    covariance = density_covariance(atoms, species, cutoff, max(basis.l_max), contraction, n_threads, basis.factors)
    mixed = contraction is not None and not np.array_equal(contraction, np.eye(len(species)))
    return optimal.optimise(covariance, cutoff, max(basis.n_max), len(species) if mixed else None, basis.factors)
