r"""Calibration of a committee: the factor between the spread of its members and its error.

For M members with raw variance s² (ddof = 1) and error e of their mean, over calibration structures (Musil et al.,
J. Chem. Theory Comput. 15, 906 (2019), doi:10.1021/acs.jctc.8b00959; Imbalzano et al., J. Chem. Phys. 154, 074102
(2021), doi:10.1063/5.0036522):

.. math:: \alpha^2 = -\frac{1}{M} + \frac{M-3}{M-1} \left\langle e^2 / s^2 \right\rangle

The −1/M is the noise of the mean of the members; it is absent where they were re-centred on a fit to all of the data.
"""

import dataclasses

import numpy as np
from scipy import stats


@dataclasses.dataclass
class Calibration:
    """`alpha`, the number of errors it rests on, and a sentence where the formula had to be replaced."""

    alpha: float
    count: int
    warning: str | None = None


def calibrate(error, spread, n_members, recentred):
    """Scale factor of a committee from its errors on structures that none of its members saw.

    Parameters
    ----------
    error : (n,) array, y − V̄, any unit
    spread : (n,) array, raw standard deviation over members (ddof = 1), same unit
    n_members : int
    recentred : bool, whether the mean of the members is the fit to all of the data

    Returns
    -------
    Calibration
    """
    error, spread = np.ravel(error), np.ravel(spread)
    usable = spread > 0
    if n_members < 2 or not usable.any():
        return Calibration(1.0, 0, "no structure to calibrate on; alpha is 1")
    ratio = float(np.mean((error[usable] / spread[usable]) ** 2))
    count = int(usable.sum())
    squared = (n_members - 3) / (n_members - 1) * ratio - (0.0 if recentred else 1 / n_members)
    if n_members > 3 and squared > 0:
        return Calibration(float(np.sqrt(squared)), count)
    reason = "fewer than 4 members" if n_members <= 3 else "errors smaller than the noise of the mean"
    alpha = np.sqrt(ratio / (1.0 if recentred else 1 + 1 / n_members))
    return Calibration(float(alpha), count, f"{reason}: alpha without the finite-committee correction")


def predictive_sigma(sigma, n_members, alpha, recentred):
    """Scale of the error of the mean: σ √(1 + 1/(M α²)), the root absent where the mean is a fit to all of the data.

    Parameters
    ----------
    sigma : (n,) array, calibrated uncertainty

    Returns
    -------
    (n,) array; error / scale is z, Student's t with M − 1 degrees of freedom
    """
    return np.asarray(sigma) * (1.0 if recentred else np.sqrt(1 + 1 / (n_members * alpha**2)))


def negative_log_likelihood(error, sigma, n_members=None):
    """−ln p(e) of each error: Student's t of scale σ with M − 1 degrees of freedom, Gaussian where M is None.

    Returns
    -------
    (n,) array, in units where the error has the unit it came in
    """
    if n_members is None:
        return -stats.norm.logpdf(error, scale=sigma)
    return -stats.t.logpdf(error, df=n_members - 1, scale=sigma)


def miscalibration_area(scores, n_members=None):
    """Mean of |observed − expected| along the quantile curve of the standard scores; 0 is perfect, 0.5 the worst.

    Parameters
    ----------
    scores : (n,) array of z
    n_members : int or None; Student's t with M − 1 degrees of freedom, Gaussian where None

    Tran et al., Mach. Learn.: Sci. Technol. 1, 025006 (2020), doi:10.1088/2632-2153/ab7e1a.
    """
    scores = np.asarray(scores)
    distribution = stats.norm if n_members is None else stats.t(df=n_members - 1)
    observed = np.sort(2 * distribution.cdf(np.abs(scores)) - 1)  # expected fraction inside each interval
    expected = np.linspace(0.0, 1.0, 201)
    return float(np.mean(np.abs(np.searchsorted(observed, expected, side="right") / len(observed) - expected)))


def _rank_correlation(scale, size):
    """Spearman's coefficient, or None where one of the two is the same everywhere."""
    if np.ptp(scale) == 0 or np.ptp(size) == 0:
        return None
    return float(stats.spearmanr(scale, size).statistic)


def summarise(error, scale, n_members, size=None):
    """Calibration in numbers: scores, NLL beside that of a constant σ, miscalibration area.

    Parameters
    ----------
    error, scale : (n,) arrays; errors of energies and their predictive scale, eV; or of force components, eV/Å
    size : (n,) array or None; the constant σ is constant in error / size (number of atoms for energies)

    Returns
    -------
    dict, JSON-able
    """
    error, scale = np.ravel(error), np.ravel(scale)
    size = np.ones(len(error)) if size is None else np.asarray(size, dtype=float)
    usable = scale > 0
    error, scale = error[usable] / size[usable], scale[usable] / size[usable]
    if len(error) < 3:
        return None
    scores = error / scale
    shrink = np.sqrt((n_members - 3) / (n_members - 1)) if n_members > 3 else 1.0
    committee = negative_log_likelihood(error, scale, n_members)
    constant = negative_log_likelihood(error, np.sqrt(np.mean(error**2)))
    difference = committee - constant
    return {
        "count": len(error),
        "rms_z": float(np.sqrt(np.mean(scores**2)) * shrink),
        "nll": float(committee.mean()),
        "nll_constant_sigma": float(constant.mean()),
        "nll_difference": float(difference.mean()),
        "nll_difference_error": float(difference.std(ddof=1) / np.sqrt(len(difference))),
        "miscalibration_area": miscalibration_area(scores, n_members),
        "rank_correlation": _rank_correlation(scale, np.abs(error)),
    }
