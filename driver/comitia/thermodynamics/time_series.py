"""Correlated time series: statistical inefficiency, error of a mean, blocking, and where equilibrium begins."""

import numpy as np

from comitia.errors import NumericalError, SeriesError

MINIMUM_FRAMES = 10
"""Fewer frames than this say nothing about their own correlation."""

MOST_BLOCKS = 256
"""Blocks into which a long series is cut: enough for an error known to a tenth, few enough to see slow motions."""


def as_series(values, name):
    """Float64 array whose first axis is time, checked for length and for numbers that are not finite.

    Parameters
    ----------
    values : (n_frames,) or (n_frames, n_series) array
    name : str
        what the array holds, for the message

    Raises
    ------
    SeriesError
        if there are fewer than `MINIMUM_FRAMES` frames, or the shape is another one.
    NumericalError
        if a number is not finite; the message names the first such frame.
    """
    values = np.asarray(values, dtype=float)
    if values.ndim not in (1, 2) or values.size == 0:
        raise SeriesError(f"{name} has shape {values.shape}; it must be (n_frames,) or (n_frames, n_series)")
    if len(values) < MINIMUM_FRAMES:
        raise SeriesError(
            f"{name}: {len(values)} frames, where an error bar needs at least {MINIMUM_FRAMES}; sample longer"
        )
    check_finite(values, name)
    return values


def check_finite(values, name, first=0):
    """Refuse numbers that are not finite; the message names the first one, counting frames from `first`.

    Raises
    ------
    NumericalError
    """
    if np.isfinite(np.sum(values)):
        return
    flat = values.reshape(len(values), -1)
    bad = np.argwhere(~np.isfinite(flat))
    if len(bad):
        frame, column = bad[0]
        where = f"frame {first + frame}" + (f", column {column}" if values.ndim > 1 else "")
        raise NumericalError(f"{name}, {where} (counted from 0) is {flat[frame, column]}")


def block_length(n_frames):
    """Frames in a block: the smallest power of two that makes at most `MOST_BLOCKS` blocks of all frames."""
    length = 1
    while -(-n_frames // length) > MOST_BLOCKS:
        length *= 2
    return length


def block_sums(values):
    """Sums over blocks of consecutive frames, of `block_length` frames each (the last one may be shorter).

    Parameters
    ----------
    values : (n_frames, ...) array

    Returns
    -------
    (n_blocks, ...) array
    """
    return np.add.reduceat(values, np.arange(0, len(values), block_length(len(values))), axis=0)


def block_inefficiency(sums):
    r"""Blocks per independent block, from the initial monotone positive sequence of the autocorrelation.

    .. math:: g = -1 + 2 \sum_{m=0}^{m_0} \Gamma_m, \qquad \Gamma_m = \rho(2m) + \rho(2m+1)

    Sums of neighbouring pairs are positive and decreasing for a reversible dynamics; the sum ends at the
    first pair that is not above its own noise, :math:`\sqrt{2/n}` for n uncorrelated blocks, and each pair is at
    most the one before. The result is at most half the number of blocks, and at least

    .. math:: 1 - \frac{2}{\sqrt n} \left(1 - \frac{32}{n}\right), \qquad n > 32

    one standard error of :math:`2 \rho(1)` below 1 for many uncorrelated blocks: an estimate cut at 1 would be
    8 % too large on average for 256 of them. The cut is at 1 for 32 and fewer, where the noise of the variance
    itself asks for a larger error. Anticorrelation beyond that noise is not made use of.

    Parameters
    ----------
    sums : (n_blocks, n_series) array, of fluctuations about the average over all frames

    Returns
    -------
    (n_series,) array; 1 for a series that does not move

    C. J. Geyer, Statist. Sci. 7, 473 (1992), doi:10.1214/ss/1177011137.
    """
    n_blocks = len(sums)
    variance = np.einsum("bi,bi->i", sums, sums)
    noise = np.sqrt(2 / n_blocks) * variance
    total, least_pair = np.zeros(sums.shape[1]), np.full(sums.shape[1], np.inf)
    going = np.flatnonzero(variance)
    for lag in range(0, n_blocks // 2 * 2, 2):
        pair = _covariance(sums, lag, going) + _covariance(sums, lag + 1, going)
        above = pair > noise[going]
        going, pair = going[above], pair[above]
        if len(going) == 0:
            break
        least_pair[going] = np.minimum(least_pair[going], pair)
        total[going] += least_pair[going]
    moves = variance > 0
    least = 1 - 2 / np.sqrt(n_blocks) * max(0.0, 1 - 32 / n_blocks)
    return np.clip(np.where(moves, -1 + 2 * total / np.where(moves, variance, 1), 1), least, n_blocks / 2)


def _covariance(sums, lag, columns):
    """Sum over t of s(t) s(t + lag), an array over the columns."""
    if len(columns) < sums.shape[1]:
        sums = sums[:, columns]
    return np.einsum("bi,bi->i", sums[: len(sums) - lag], sums[lag:])


def statistical_inefficiency(series):
    r"""Frames per independent frame, from the sums of at most `MOST_BLOCKS` blocks.

    The autocorrelation is summed over blocks, not over frames: in a series of many frames a slow motion of
    small amplitude is below the noise of its autocorrelation at every single lag, and the sum over frames
    would end before it has begun. The result lies between 1 (anticorrelation is not made use of) and half
    the number of frames.

    Parameters
    ----------
    series : (n_frames,) or (n_frames, n_series) array

    Returns
    -------
    float or (n_series,) array; 1 for a series that does not move.
    """
    series = as_series(series, "the time series")
    columns = series.reshape(len(series), -1)
    n_frames = len(columns)
    fluctuation = columns - columns.mean(axis=0)
    variance = np.mean(fluctuation**2, axis=0)
    moves = variance > (1e-14 * np.abs(columns).max(axis=0)) ** 2
    sums = block_sums(fluctuation)
    inefficiency = block_inefficiency(sums) * np.sum(sums**2, axis=0) / np.where(moves, n_frames * variance, 1)
    inefficiency = np.clip(np.where(moves, inefficiency, 1), 1, n_frames / 2)
    return float(inefficiency[0]) if series.ndim == 1 else inefficiency


def error_of_mean(series):
    r"""Standard error of the mean of correlated data.

    .. math:: \sigma^2 = \frac{g\,s^2}{N - g}, \qquad s^2 = \frac 1N \sum_t (a_t - \bar a)^2

    which is the textbook :math:`s^2/(N-1)` where frames are independent (g = 1).

    Parameters
    ----------
    series : (n_frames,) or (n_frames, n_series) array

    Returns
    -------
    float or (n_series,) array, in the unit of the series
    """
    series = as_series(series, "the time series")
    inefficiency = statistical_inefficiency(series)
    error = np.sqrt(inefficiency * series.var(axis=0) / (len(series) - inefficiency))
    return float(error) if series.ndim == 1 else error


def blocked_errors(series):
    r"""Standard error of the mean against block length; it levels off where blocks are independent.

    Parameters
    ----------
    series : (n_frames,) array

    Returns
    -------
    length : (n_levels,) integer array, 1, 2, 4, … frames in a block, at least 8 blocks
    error : (n_levels,) array, from the variance of the block means
    uncertainty : (n_levels,) array, of `error` itself, :math:`\sigma / \sqrt{2 (n_\mathrm{blocks} - 1)}`

    H. Flyvbjerg, H. G. Petersen, J. Chem. Phys. 91, 461 (1989), doi:10.1063/1.457480.
    """
    series = as_series(series, "the time series")
    if series.ndim != 1:
        raise SeriesError(f"blocking takes one series at a time; this array has shape {series.shape}")
    lengths = [1]
    while len(series) // (2 * lengths[-1]) >= 8:
        lengths.append(2 * lengths[-1])
    error, uncertainty = [], []
    for length in lengths:
        n_blocks = len(series) // length
        means = series[: n_blocks * length].reshape(n_blocks, length).mean(axis=1)
        error.append(means.std(ddof=1) / np.sqrt(n_blocks))
        uncertainty.append(error[-1] / np.sqrt(2 * (n_blocks - 1)))
    return np.array(lengths), np.array(error), np.array(uncertainty)


def equilibration(series, n_candidates=40):
    r"""First frame of the equilibrated part: the one that leaves the most independent frames.

    .. math:: t_0 = \arg\max_t \frac{N - t}{g_t}

    Parameters
    ----------
    series : (n_frames,) array
    n_candidates : int
        starting frames that are tried, evenly spaced over the first 90 %

    Returns
    -------
    start : int, frames before it are the approach to equilibrium
    inefficiency : float, of what follows
    n_independent : float, independent frames in what follows

    J. D. Chodera, J. Chem. Theory Comput. 12, 1799 (2016), doi:10.1021/acs.jctc.5b00784.
    """
    series = as_series(series, "the time series")
    if series.ndim != 1:
        raise SeriesError(f"equilibration is sought in one series at a time; this array has shape {series.shape}")
    last = max(0, min(int(0.9 * len(series)), len(series) - MINIMUM_FRAMES))
    best = None
    for start in np.unique(np.linspace(0, last, n_candidates).astype(int)):
        inefficiency = statistical_inefficiency(series[start:])
        n_independent = (len(series) - start) / inefficiency
        if best is None or n_independent > best[2]:
            best = (int(start), inefficiency, n_independent)
    return best
