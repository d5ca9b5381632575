"""Free-energy difference of two potentials that were both sampled."""

import numpy as np

from comitia.errors import SeriesError
from comitia.thermodynamics.energy_pairs import SMALLEST, EnergyPairs
from comitia.thermodynamics.perturbation import FreeEnergyDifference, worst_of
from comitia.thermodynamics.time_series import error_of_mean, statistical_inefficiency


def perturb_both_ends(model_end, reference_end, temperature):
    r"""Free-energy difference to a reference method, from frames sampled with the model and with the reference.

    .. math:: \sum_{i \in \mathrm{model}} \frac{1}{1 + e^{\beta(\Delta V_i - \Delta F) + M}}
              = \sum_{j \in \mathrm{ref}} \frac{1}{1 + e^{-\beta(\Delta V_j - \Delta F) - M}},
              \qquad M = \ln\frac{n_\mathrm{model}}{n_\mathrm{ref}}

    with the numbers of frames for n. It is what MBAR is for two states, and has the least error of all that can
    be made from both.

    Parameters
    ----------
    model_end : (energy_model, energy_reference) of the frames sampled with the model, eV, as for `perturb`
    reference_end : the same of the frames sampled with the reference
    temperature : float, K

    Returns
    -------
    FreeEnergyDifference
        Its disagreement is that of the exponential averages from the two ends, its cumulants are those at the
        model's end, and its effective sample size is the number of independent frames at the smaller end.

    C. H. Bennett, J. Comput. Phys. 22, 245 (1976), doi:10.1016/0021-9991(76)90078-4.
    """
    model, reference = (EnergyPairs(*end, temperature) for end in (model_end, reference_end))
    if not (model.complete and reference.complete):
        raise SeriesError("the acceptance ratio takes all beads of every frame")
    from scipy.special import logsumexp

    beta, origin = model.beta, model.origin
    forward, backward = (beta * (pairs.difference - origin) for pairs in (model, reference))
    inefficiencies = statistical_inefficiency(forward), statistical_inefficiency(backward)
    independent = min(len(forward) / inefficiencies[0], len(backward) / inefficiencies[1])
    reduced, left, right = _acceptance_ratio(forward, backward)
    slope = np.sum(left * (1 - left)) + np.sum(right * (1 - right))
    overlap = float(slope * (1 / len(forward) + 1 / len(backward)))
    errors = error_of_mean(len(forward) * left), error_of_mean(len(backward) * right)
    ends = -logsumexp(-forward, b=1 / len(forward)), logsumexp(backward, b=1 / len(backward))
    error = float(np.hypot(*errors)) / slope if slope > SMALLEST else 0.0
    if not error > 0:  # no frame of either end is possible at the other
        error = abs(float(ends[0] - ends[1]))
    verdict, reason, findings = worst_of(
        [_judge(independent, overlap), *model.findings(inefficiencies[0]), *reference.findings(inefficiencies[1])]
    )
    variance = model.variance
    return FreeEnergyDifference(
        delta_f=reduced / beta + origin,
        error=error / beta,
        cumulants=np.array([float(model.difference.mean()), -0.5 * beta * variance]),
        effective_sample_size=float(independent),
        verdict=verdict,
        reason=reason,
        method="acceptance ratio",
        cumulant_errors=np.full(3, np.nan),
        disagreement=float(ends[0] - ends[1]) / beta,
        spread=float(beta * np.sqrt(variance)),
        correlation=model.correlation,
        n_frames=model.n_frames + reference.n_frames,
        inefficiency=max(inefficiencies),
        findings=findings,
    )


def _acceptance_ratio(forward, backward):
    r"""Root of the equation of Bennett in units of kT, and the two terms of it for every frame."""
    from scipy.optimize import brentq
    from scipy.special import expit

    log_ratio = np.log(len(forward) / len(backward))

    def terms(reduced):
        return expit(reduced - forward - log_ratio), expit(backward - reduced + log_ratio)

    def excess(reduced):
        left, right = terms(reduced)
        return left.sum() - right.sum()

    lowest = min(forward.min(), backward.min()) - abs(log_ratio) - 50
    highest = max(forward.max(), backward.max()) + abs(log_ratio) + 50
    root = float(brentq(excess, lowest, highest, xtol=1e-13, rtol=1e-14))
    return root, *terms(root)


def _judge(independent, overlap):
    """Verdict and its reason; `overlap` is 1 for two equal distributions, 0 where no frame is possible in both."""
    reason = f"{independent:.3g} frames are independent at the smaller end, the ensembles overlap by {overlap:.2g}"
    if independent >= 50 and overlap >= 0.2:
        return "reliable", reason
    return "doubtful" if independent >= 20 and overlap >= 0.06 else "unreliable", reason
