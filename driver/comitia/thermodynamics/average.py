"""An average under every member of a committee, with its errors and a verdict."""

from dataclasses import dataclass, field

import numpy as np

from comitia.errors import NumericalError, SeriesError
from comitia.thermodynamics.checks import judge_copies
from comitia.thermodynamics.resampling import N_REPLICAS, bootstrap_counts, error_of_sum, run_length
from comitia.thermodynamics.time_series import MINIMUM_FRAMES
from comitia.thermodynamics.verdicts import (
    committee_error,
    judge_committee,
    judge_expansion,
    judge_overlap,
    judge_sampling,
    worst,
)


@dataclass(frozen=True)
class Average:
    """A thermodynamic average under every member of a committee.

    Attributes
    ----------
    members : (n_members,) array, the average under each member, in the unit of the observable
    mean : float, over members: the value to quote
    statistical_error : float, of the mean, from correlated data; None where the value is exact
    committee_error : float, standard deviation over members without its own sampling noise;
        None with one member, or where the value is exact
    total_error : float, the two in quadrature; None where the value is exact
    effective_sample_size : (n_members,) array
    verdict : "exact", "reliable", "doubtful" or "unreliable"
    reason : str, one sentence on the verdict
    n_frames : int
    method : "cea", "direct" or "mbar"
    second_order : float, rms over members of the first term that the cumulant expansion leaves out;
        None without an expansion
    spread : (n_members,) array, standard deviation of beta (V_k - V_d)
    contributions : (n_blocks, n_members) array, of blocks of frames to the deviation of `members`, as in `Estimate`;
        None where they are not kept
    """

    members: np.ndarray
    mean: float
    statistical_error: float | None
    committee_error: float | None
    total_error: float | None
    effective_sample_size: np.ndarray
    verdict: str
    reason: str
    n_frames: int
    method: str
    second_order: float | None
    spread: np.ndarray = field(repr=False)
    contributions: np.ndarray | None = field(default=None, repr=False)

    def committee_interval(self, alpha=1.0, level=0.95):
        r"""Half-width of the interval that the committee error stands for.

        .. math:: t_{M-1}\, \sigma \sqrt{1 + 1/(M \alpha^2)}

        Parameters
        ----------
        alpha : float, calibration factor by which the members were rescaled (in the model file)
        level : float, coverage

        Returns
        -------
        float, in the unit of the observable, or None where there is no committee error
        """
        if self.committee_error is None:
            return None
        from scipy.special import stdtrit

        return float(stdtrit(len(self.members) - 1, 0.5 + level / 2) * self._spread_of_truth(alpha))

    def _spread_of_truth(self, alpha):
        return self.committee_error * np.sqrt(1 + 1 / (len(self.members) * alpha**2))

    def interval(self, alpha=1.0, level=0.95, n_replicas=N_REPLICAS, seed=0):
        """Interval of the sampling and the committee error together, from one block bootstrap.

        Each replica is the mean over members of a series drawn from the blocks, moved by a draw of the
        potential's own error from the Student distribution of the committee.

        Parameters
        ----------
        alpha, level : as in `committee_interval`
        n_replicas, seed : int

        Returns
        -------
        low, high : floats, in the unit of the observable; both the value itself where it is exact
        """
        if self.statistical_error is None:
            return self.mean, self.mean
        rng = np.random.default_rng(seed)
        if self.contributions is None:
            deviation = rng.normal(size=n_replicas)
        else:
            contributions = self.contributions.mean(axis=1)
            counts = bootstrap_counts(len(contributions), run_length(contributions), n_replicas, seed)
            deviation = (counts - 1) @ contributions
        width = deviation.std()
        deviation *= self.statistical_error / width if width > 0 else 0.0
        if self.committee_error is not None:
            deviation += self._spread_of_truth(alpha) * rng.standard_t(len(self.members) - 1, size=n_replicas)
        low, high = self.mean + np.quantile(deviation, [0.5 - level / 2, 0.5 + level / 2])
        return float(low), float(high)

    def as_dict(self, unit):
        """The average as it stands in every JSON file."""
        return json_entry(self, unit)


def json_entry(average, unit):
    """What every JSON file says of an average; the effective sample size is that of the worst member."""
    errors = {name: getattr(average, name) for name in ("statistical_error", "committee_error", "total_error")}
    size = float(average.effective_sample_size.min())
    return {
        "value": average.mean,
        "unit": unit,
        **errors,
        "effective_sample_size": size,
        "verdict": average.verdict,
    }


def averages(moments, quantity=None, findings=()):
    """Every average that the sums of a series hold.

    Parameters
    ----------
    moments : MemberMoments
    quantity : function of (n_resamples, n_observables, n_members) averages to (n_resamples, n_quantities,
        n_members), computed from the averages of one member at a time; None for the averages themselves
    findings : (verdict, sentence) pairs, what else speaks against the averages (`check_sampling`)

    Returns
    -------
    list of Average, observables before estimators

    Raises
    ------
    SeriesError
        for too few frames.
    NumericalError
        where a quantity is not finite, as the logarithm of an average that is negative under one member.
    """
    if moments.n_frames < MINIMUM_FRAMES:
        raise SeriesError(
            f"the member energies: {moments.n_frames} frames, where an error bar needs at least {MINIMUM_FRAMES}; "
            "sample longer"
        )
    found = moments.estimate(quantity)
    _refuse_non_finite(found)
    second_order = _second_order(moments, quantity, found.value)
    inefficiency = moments.inefficiency()
    if quantity is not None:  # of the slowest observable that goes into it
        inefficiency = np.broadcast_to(inefficiency.max(axis=0), found.value.shape)
    members_kish, sampling_kish = moments.sample_size()
    repeats = moments.repeats  # copies of frames add nothing: errors are those of the frames without them
    constant = moments.constant() if quantity is None else np.zeros(len(found.value), dtype=bool)
    spread = moments.spread()
    agreement = []

    def cumulants_agree():
        if not agreement:
            agreement.append(moments.cumulants_agree())
        return agreement[0]

    result = []
    for i, members in enumerate(found.value):
        size = members_kish / (1 if constant[i] else inefficiency[i] * repeats)
        judgements = [judge_copies(repeats), *findings]
        if moments.method == "direct":
            judgements.append(judge_overlap(size, spread, cumulants_agree))
        result.append(
            judged_average(
                members,
                found.contributions[:, i] * np.sqrt(repeats),
                size,
                judgements,
                sampling_kish / inefficiency[i].mean() / repeats,
                exact=constant[i],
                n_frames=moments.n_frames,
                method=moments.method,
                second_order=None if second_order is None else float(second_order[i]),
                spread=spread,
            )
        )
    return result


def judged_average(members, contributions, sample_size, judgements, independent_frames, exact=False, **facts):
    """An average from what each block of frames contributes to it: its errors, and the worst that is said of it.

    Parameters
    ----------
    members, contributions, sample_size : as in `Average`
    judgements : list of (verdict, reason), what speaks against it beside its own numbers
    independent_frames : float
    exact : bool, whether the observable is the same in every frame and for every member
    **facts : `n_frames`, `method`, `second_order` and `spread` of `Average`

    Returns
    -------
    Average
    """
    facts |= {"members": members, "mean": float(members.mean()), "effective_sample_size": sample_size}
    facts |= {"contributions": contributions}
    if exact:
        reason = "the observable is the same in every frame and for every member"
        errors = dict.fromkeys(("statistical_error", "committee_error", "total_error"))
        return Average(**facts, **errors, verdict="exact", reason=reason)
    statistical = error_of_sum(contributions.mean(axis=1))
    error, resolved = committee_error(members, contributions) if len(members) > 1 else (None, False)
    if facts["second_order"] is not None and error is not None:
        judgements = [*judgements, judge_expansion(facts["second_order"], error)]
    verdict, reason = worst([*judgements, judge_committee(error, resolved), judge_sampling(independent_frames)])
    return Average(
        **facts,
        statistical_error=statistical,
        committee_error=error,
        total_error=float(np.hypot(statistical, error or 0.0)),
        verdict=verdict,
        reason=reason,
    )


def _refuse_non_finite(found):
    """Refuse estimates (value, contributions of the blocks) that are not finite under some member."""
    finite = np.isfinite(found.value) & np.isfinite(found.contributions).all(axis=0)
    if not finite.all():
        number, member = np.argwhere(~finite)[0]
        raise NumericalError(
            f"quantity {number} is not finite under member {member}, or without one block of frames; compute it of "
            "averages for which it is defined"
        )


def _second_order(moments, quantity, value):
    """Rms over members of what the expansion leaves out, (n_quantities,) array; None with direct reweighting.

    Infinite where the quantity is not defined for the averages with it.
    """
    if moments.method == "direct":
        return None
    terms = moments.second_order()
    if quantity is not None:
        averages = moments.estimate().value
        with np.errstate(invalid="ignore", divide="ignore"):
            terms = quantity((averages + terms)[None])[0] - value
        terms = np.where(np.isfinite(terms), terms, np.inf)
    return np.sqrt(np.mean(terms**2, axis=1))
