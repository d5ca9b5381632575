r"""Calibration of a committee: the factor between the spread of its members and its error.

For M members with raw variance s² (ddof = 1) and error e of their mean, over calibration structures (Musil et al.,
J. Chem. Theory Comput. 15, 906 (2019), doi:10.1021/acs.jctc.8b00959; Imbalzano et al., J. Chem. Phys. 154, 074102
(2021), doi:10.1063/5.0036522):

.. math:: \alpha^2 = -\frac{1}{M} + \frac{M-3}{M-1} \left\langle e^2 / s^2 \right\rangle

The −1/M is the noise of the mean of the members; it is absent where they were re-centred on a fit to all of the data.

Forces keep an error where all members agree: what no weights of this basis can describe is nobody's spread. Their
uncertainty, which need not be that of any member, has a floor f beside its own factor,

.. math:: \sigma_F^2 = f^2 + \alpha_F^2 s^2

both at maximum likelihood, e/σ_F being Student's t with M − 1 degrees of freedom. The likelihood of t rests on the many
errors of ordinary size; ⟨e²/s²⟩ would rest on the few atoms on which the members agree best.
"""

import dataclasses

import numpy as np
import scipy.optimize
from scipy import special

N_BINS, FEWEST_IN_BIN = 12, 15  # of the binned errors
CURVE = np.linspace(0.0, 1.0, 21)  # expected fractions at which the quantile curve is reported


@dataclasses.dataclass
class Calibration:
    """`alpha`, the number of errors it rests on, a sentence where the formula had to be replaced, and the `floor`."""

    alpha: float
    count: int
    warning: str | None = None
    floor: float = 0.0


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
    if n_members < 2 or not error[usable].any():
        return Calibration(1.0, 0, "no structure to calibrate on; alpha is 1")
    ratio = float(np.mean((error[usable] / spread[usable]) ** 2))
    count = int(usable.sum())
    squared = (n_members - 3) / (n_members - 1) * ratio - (0.0 if recentred else 1 / n_members)
    if n_members > 3 and squared > 0:
        return Calibration(float(np.sqrt(squared)), count)
    reason = "fewer than 4 members" if n_members <= 3 else "errors smaller than the noise of the mean"
    alpha = np.sqrt(ratio / (1.0 if recentred else 1 + 1 / n_members))
    return Calibration(float(alpha), count, f"{reason}: alpha without the finite-committee correction")


def calibrate_forces(error, spread, n_members, recentred):
    """Factor and floor of the uncertainty of force components, on structures that none of the members saw.

    Parameters and Returns
    ----------------------
    as of `calibrate`; eV/Å
    """
    error, spread = np.ravel(error), np.ravel(spread)
    usable = spread > 0
    if n_members <= 3 or not error[usable].any():
        return calibrate(error, spread, n_members, recentred)
    degrees, square, variance = n_members - 1, error[usable] ** 2, spread[usable] ** 2

    def negative(parameters):  # of ln α² and ln f²; mean negative log likelihood and its gradient
        slope, floor = np.exp(parameters)
        scale = floor + slope * variance
        value = 0.5 * np.log(scale) + 0.5 * (degrees + 1) * np.log1p(square / (degrees * scale))
        by_scale = 0.5 / scale * (1 - (degrees + 1) * square / (degrees * scale + square))
        return value.mean(), np.array([slope * np.mean(by_scale * variance), floor * by_scale.mean()])

    largest, typical = np.log(square.mean() / variance.mean()), np.log(square.mean())
    bounds = [(largest - 14, largest + 7), (typical - 28, typical + 7)]
    start = [largest - 0.7, typical - 0.7]
    found = scipy.optimize.minimize(negative, start, jac=True, method="L-BFGS-B", bounds=bounds)
    slope, floor = np.exp(found.x)
    squared, warning = slope - (0.0 if recentred else 1 / n_members), None
    if squared <= 0:
        squared = slope / (1 + 1 / n_members)
        warning = "force errors smaller than the noise of the mean: alpha without the finite-committee correction"
    return Calibration(float(np.sqrt(squared)), int(usable.sum()), warning, float(np.sqrt(floor)))


def predictive_sigma(sigma, n_members, alpha, recentred, floor=0.0):
    """Scale of the error of the mean: √(f² + σ² (1 + 1/(M α²))), without 1/(M α²) where the mean is a fit to all data.

    Parameters
    ----------
    sigma : (n,) array, calibrated uncertainty without its floor f

    Returns
    -------
    (n,) array; error / scale is z, Student's t with M − 1 degrees of freedom
    """
    return np.hypot(floor, np.asarray(sigma) * (1.0 if recentred else np.sqrt(1 + 1 / (n_members * alpha**2))))


def negative_log_likelihood(error, sigma, n_members=None):
    """−ln p(e) of each error: Student's t of scale σ with M − 1 degrees of freedom, Gaussian where M is None.

    Returns
    -------
    (n,) array, in units where the error has the unit it came in
    """
    error, sigma = np.asarray(error), np.asarray(sigma)
    if n_members is None:
        return 0.5 * (error / sigma) ** 2 + np.log(sigma) + 0.5 * np.log(2 * np.pi)
    nu = n_members - 1
    constant = special.gammaln(nu / 2) - special.gammaln((nu + 1) / 2) + 0.5 * np.log(nu * np.pi)
    return 0.5 * (nu + 1) * np.log1p((error / sigma) ** 2 / nu) + np.log(sigma) + constant


def miscalibration_area(scores, n_members=None):
    """Mean of |observed − expected| along the quantile curve of the standard scores; 0 is perfect, 0.5 the worst.

    Parameters
    ----------
    scores : (n,) array of z
    n_members : int or None; Student's t with M − 1 degrees of freedom, Gaussian where None

    Tran et al., Mach. Learn.: Sci. Technol. 1, 025006 (2020), doi:10.1088/2632-2153/ab7e1a.
    """
    expected = np.linspace(0.0, 1.0, 201)
    return float(np.mean(np.abs(observed_fraction(scores, expected, n_members) - expected)))


def observed_fraction(scores, expected, n_members=None):
    """Fraction of scores inside the central interval that should hold each of the `expected` fractions."""
    size = np.abs(scores)
    below = special.ndtr(size) if n_members is None else special.stdtr(n_members - 1, size)
    inside = np.sort(2 * below - 1)
    return np.searchsorted(inside, expected, side="right") / len(inside)


def binned_errors(error, scale, n_members, n_bins=N_BINS):
    """RMSE against what the uncertainty expects, in bins of equally many errors sorted by scale.

    Returns
    -------
    expected, observed : lists of root mean squares; that of Student's t is scale √(ν/(ν − 2)), ν = M − 1
    """
    order = np.argsort(scale, kind="stable")
    parts = [part for part in np.array_split(order, min(n_bins, max(1, len(order) // FEWEST_IN_BIN))) if len(part)]
    widen = np.sqrt((n_members - 1) / (n_members - 3)) if n_members > 3 else 1.0
    expected = [float(widen * np.sqrt(np.mean(scale[part] ** 2))) for part in parts]
    return expected, [float(np.sqrt(np.mean(error[part] ** 2))) for part in parts]


def _ranks(values):
    """(n,) places in increasing order, equal values sharing the mean of theirs."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - 0.5 * count)[place]


def _rank_correlation(scale, size):
    """Spearman's coefficient, or None where one of the two is the same everywhere."""
    if np.ptp(scale) == 0 or np.ptp(size) == 0:
        return None
    return float(np.corrcoef(_ranks(scale), _ranks(size))[0, 1])


def summarise(error, scale, n_members, size=None):
    """Calibration in numbers: scores, NLL beside that of a constant σ, miscalibration area, and the two curves.

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
    expected_rmse, rmse = binned_errors(error, scale, n_members)
    return {
        "count": len(error),
        "rms_z": float(np.sqrt(np.mean(scores**2)) * shrink),
        "nll": float(committee.mean()),
        "nll_constant_sigma": float(constant.mean()),
        "nll_difference": float(difference.mean()),
        "nll_difference_error": float(difference.std(ddof=1) / np.sqrt(len(difference))),
        "miscalibration_area": miscalibration_area(scores, n_members),
        "rank_correlation": _rank_correlation(scale, np.abs(error)),
        "curve": {"expected": CURVE.tolist(), "observed": observed_fraction(scores, CURVE, n_members).tolist()},
        "bins": {"expected_rmse": expected_rmse, "rmse": rmse},
    }
