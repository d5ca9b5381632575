"""Errors of whatever is computed from averages: leave one block out, and the bootstrap over correlated blocks.

A quantity is a function of sums over frames (of weights, of weighted observables, of their products). The sums
are kept for blocks of consecutive frames (`time_series.block_sums`), and everything here is done with those.
"""

from dataclasses import dataclass

import numpy as np

from comitia.errors import SeriesError
from comitia.thermodynamics.time_series import MINIMUM_FRAMES, block_inefficiency

N_REPLICAS = 1000


@dataclass(frozen=True)
class Estimate:
    r"""A quantity computed from all frames, and what each block contributes to its deviation.

    Attributes
    ----------
    value : array of any shape
    contributions : (n_blocks, ...) array
        :math:`(1 - h_b)\,(f - f_{-b})` with :math:`f_{-b}` the quantity without block b and :math:`h_b` the
        share of its weight: to first order they add up to the deviation of `value` from what it estimates
    """

    value: np.ndarray
    contributions: np.ndarray

    @property
    def error(self):
        """Standard error of `value`, with the correlation between blocks; an array of its shape, or a float."""
        return error_of_sum(self.contributions)


def error_of_sum(contributions, skewed=True):
    r"""Standard error of a sum of correlated contributions of blocks.

    .. math:: \sigma^2 = \frac{n\,g}{n - g} \sum_b c_b^2\, \left(1 + \frac{7\,g\,\gamma^2}{4\,n}\right)

    with the statistical inefficiency g of the n blocks; the textbook error of the mean of independent blocks
    where g = 1. The bracket holds their skewness :math:`\gamma`: a series that has missed its rare large
    contributions is off and claims a small error at the same time, so that the deviation in units of the
    error has a larger variance than 1. Differences and averages of quantities from the same frames: the
    same of their contributions.

    Parameters
    ----------
    contributions : (n_blocks, ...) array
    skewed : bool
        False for the variance of the sum itself, to be subtracted from another one

    Returns
    -------
    (...) array, or a float

    R. C. Geary, Biometrika 34, 209 (1947), doi:10.1093/biomet/34.3-4.209.
    """
    n_blocks = len(contributions)
    columns = contributions.reshape(n_blocks, -1)
    columns = columns - columns.mean(axis=0)
    inefficiency = block_inefficiency(columns)
    square = np.sum(columns**2, axis=0)
    variance = n_blocks * inefficiency / (n_blocks - inefficiency) * square
    if skewed:
        cube = np.sum(columns**3, axis=0) ** 2  # of n gamma^2 square^3
        variance *= 1 + 1.75 * inefficiency * np.divide(cube, square**3, out=np.zeros_like(cube), where=square > 0)
    error = np.sqrt(variance)
    return error.reshape(contributions.shape[1:]) if contributions.ndim > 1 else float(error[0])


def estimate(quantity, weights, *sums, share=1.0):
    """A quantity from sums over all frames, and its error from leaving out one block after the other.

    Parameters
    ----------
    quantity : function of arrays (n_resamples, ...), one for each of `sums`, to an array (n_resamples, ...)
    weights : (n_blocks,) array, weight of each block: the number of its frames, or the sum of their weights
    *sums : (n_blocks, ...) arrays
    share : float, above 0 and at most 1
        of a block that is left out at a time; a small one (1e-3) is for quantities such as logarithms that
        a sum of nothing has not, and gives the first-order influence of the blocks

    Returns
    -------
    Estimate

    Quenouille, Biometrika 43, 353 (1956), doi:10.1093/biomet/43.3-4.353; Kunsch, Ann. Statist. 17, 1217
    (1989), doi:10.1214/aos/1176347265.
    """
    if len(weights) < MINIMUM_FRAMES:
        raise SeriesError(f"{len(weights)} blocks, where an error bar needs at least {MINIMUM_FRAMES}; sample longer")
    totals = [array.sum(axis=0, keepdims=True) for array in sums]
    value = quantity(*totals)[0]
    without = quantity(*(total - share * array for total, array in zip(totals, sums, strict=True)))
    kept = (1 - share * weights / weights.sum()) / share
    return Estimate(value, kept.reshape(-1, *[1] * value.ndim) * (value - without))


def run_length(contributions):
    """Consecutive blocks that the bootstrap draws together: one, or three times the typical correlated stretch."""
    n_blocks = len(contributions)
    columns = contributions.reshape(n_blocks, -1)
    typical = np.median(block_inefficiency(columns - columns.mean(axis=0)))
    return 1 if typical < 1.5 else min(int(np.ceil(3 * typical)), n_blocks // 4)


def bootstrap_counts(n_blocks, n_together, n_replicas=N_REPLICAS, seed=0):
    """How often each block stands in every replica of the series, drawn as runs of consecutive blocks.

    Runs begin anywhere and go round the end, so that every block is drawn equally often.

    Parameters
    ----------
    n_blocks, n_together, n_replicas : int
    seed : int, the same seed gives the same replicas, for quantities that are to be compared

    Returns
    -------
    (n_replicas, n_blocks) integer array, every row with the sum n_blocks

    Politis and Romano, in Exploring the Limits of Bootstrap (Wiley, 1992), p. 263.
    """
    rng = np.random.default_rng(seed)
    n_together = int(np.clip(n_together, 1, n_blocks))
    n_runs = -(-n_blocks // n_together)
    first = rng.integers(n_blocks, size=(n_replicas, n_runs))
    drawn = (first[:, :, None] + np.arange(n_together)) % n_blocks
    drawn = drawn.reshape(n_replicas, -1)[:, :n_blocks] + n_blocks * np.arange(n_replicas)[:, None]
    return np.bincount(drawn.ravel(), minlength=n_replicas * n_blocks).reshape(n_replicas, n_blocks)


def bootstrap(quantity, weights, *sums, n_replicas=N_REPLICAS, seed=0):
    """Replicas of a quantity as if the sampling had been repeated, with the error that `estimate` gives it.

    The shape of their distribution (its skewness, the correlation between the numbers of an array) is that of
    the block bootstrap; its width, which finite runs of correlated blocks make too small, is made that of
    `Estimate.error` number by number.

    Parameters
    ----------
    quantity, weights, *sums : as in `estimate`
    n_replicas, seed : int

    Returns
    -------
    found : Estimate
    replicas : (n_replicas, ...) array
    """
    found = estimate(quantity, weights, *sums)
    counts = bootstrap_counts(len(weights), run_length(found.contributions), n_replicas, seed)
    drawn = [np.tensordot(counts, array, axes=1) for array in sums]
    deviation = quantity(*drawn) - found.value
    width = deviation.std(axis=0)
    return found, found.value + deviation * np.divide(found.error, width, out=np.ones_like(width), where=width > 0)
