"""Whether an average can be trusted, and why."""

import numpy as np

from comitia.thermodynamics.resampling import error_of_sum

VERDICTS = ("exact", "reliable", "doubtful", "unreliable")
"""From best to worst."""

FEWEST_INDEPENDENT_FRAMES = 20
"""With fewer independent frames than this the error bars themselves are not known."""


def worst(judgements):
    """The worst of several (verdict, reason); of equals, the first that gives one."""
    return max(judgements, key=lambda judgement: (VERDICTS.index(judgement[0]), bool(judgement[1])))


def judge_overlap(sample_size, spread, cumulants_agree):
    """Verdict on weights that are exponentials, and its reason.

    Parameters
    ----------
    sample_size : (n_members,) array, effective, correlation included
    spread : (n_members,) array, standard deviation of beta dV
    cumulants_agree : function without arguments, called where it matters
        whether exponential average and second cumulant agree within two errors
    """
    smallest, widest = np.min(sample_size), np.max(spread)
    reason = f"the smallest effective sample size is {smallest:.3g}, the largest spread of beta dV is {widest:.2g}"
    if smallest >= 50 and widest <= 1:
        return "reliable", reason
    if smallest >= 20 and widest <= 2.5:
        if cumulants_agree():
            return "doubtful", reason
        return "unreliable", f"{reason}, and exponential and second cumulant disagree"
    return "unreliable", reason


def within_two_errors(differences, errors):
    """Whether differences of all members are zero within two of their errors, rms over members."""
    return bool(np.sqrt(np.mean((differences / np.maximum(errors, 1e-12)) ** 2)) <= 2)


def judge_expansion(second_order, error):
    """Verdict on a cumulant expansion from the rms over members of its second order, and its reason."""
    ratio = second_order / error if error > 0 else np.inf if second_order > 0 else 0.0
    verdict = "reliable" if ratio < 0.5 else "doubtful" if ratio < 1 else "unreliable"
    return verdict, f"the second-order term of the expansion is {ratio:.2g} of the committee error"


def judge_committee(error, resolved):
    """What one member, or members within their noise, do not show."""
    if error is None:
        return "doubtful", "one member does not show the error of the potential"
    if not resolved:
        return "doubtful", "the spread of the members is within the sampling noise: sample longer"
    return "reliable", ""


def judge_sampling(independent_frames):
    """Too few independent frames, whatever their weights."""
    if independent_frames < FEWEST_INDEPENDENT_FRAMES:
        return "doubtful", f"only {independent_frames:.2g} frames are independent: sample longer"
    return "reliable", ""


def committee_error(members, contributions):
    r"""Error of an average that comes from the spread of the committee, without its own sampling noise.

    .. math:: \sigma^2 = \mathrm{Var}_k \langle a\rangle_k
              - \frac{1}{M - 1} \sum_k \mathrm{Var}_\mathrm{stat}(\langle a\rangle_k - \langle a\rangle)

    where :math:`\langle a\rangle` is the mean over members; noise that all members share cancels in the
    differences, as it does in the variance. Where the noise is the larger one, the committee error cannot
    be resolved and the level of the noise is returned in its place.

    Parameters
    ----------
    members : (n_members,) array, at least two
    contributions : (n_blocks, n_members) array, as in `Estimate`

    Returns
    -------
    error : float, in the unit of the average
    resolved : bool, False where the error is the level of the noise
    """
    n_members = len(members)
    noise = np.sum(error_of_sum(contributions - contributions.mean(axis=1, keepdims=True), skewed=False) ** 2) / (
        n_members - 1
    )
    remainder = members.var(ddof=1) - noise
    rounding = 1e-12 * max(len(contributions) * np.abs(contributions).max(), np.abs(members).max())
    if remainder > rounding**2:
        return float(np.sqrt(remainder)), True
    return float(np.sqrt(noise)), False
