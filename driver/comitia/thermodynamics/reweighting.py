"""Averages of an observable under every committee member, with their errors and a verdict."""

from dataclasses import dataclass, field

import numpy as np

from comitia.errors import SeriesError
from comitia.thermodynamics.ensembles import MemberEnsembles, committee_error
from comitia.thermodynamics.time_series import as_series, error_of_mean, statistical_inefficiency

VERDICTS = ("exact", "reliable", "doubtful", "unreliable")
"""From best to worst."""

FEWEST_INDEPENDENT_FRAMES = 20
"""With fewer independent frames than this the error bars themselves are not known."""


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
    method : "cea" or "direct"
    second_order : float, rms over members of the first term that the cumulant expansion leaves out
    spread : (n_members,) array, standard deviation of beta (V_k - V_d)
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
    second_order: float
    spread: np.ndarray = field(repr=False)

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

        n_members = len(self.members)
        factor = stdtrit(n_members - 1, 0.5 + level / 2) * np.sqrt(1 + 1 / (n_members * alpha**2))
        return float(factor * self.committee_error)

    def as_dict(self, unit):
        """The average as it stands in every JSON file; the effective sample size is that of the worst member."""
        return {
            "value": self.mean,
            "unit": unit,
            "statistical_error": self.statistical_error,
            "committee_error": self.committee_error,
            "total_error": self.total_error,
            "effective_sample_size": float(self.effective_sample_size.min()),
            "verdict": self.verdict,
        }


def _checked_observable(observable, n_frames, n_members):
    observable = as_series(observable, "the observable")
    if len(observable) != n_frames:
        raise SeriesError(
            f"the observable has {len(observable)} frames, the member energies have {n_frames}; "
            "give both for the same frames"
        )
    if observable.ndim == 2 and observable.shape[1] == 1:
        observable = observable[:, 0]
    if observable.ndim == 2 and observable.shape[1] != n_members:
        raise SeriesError(
            f"the observable has {observable.shape[1]} columns for {n_members} members; give one column, "
            "or one member estimator for each member"
        )
    return observable


def _second_order(ensembles, observable):
    r"""Rms over members of :math:`\frac{\beta^2}{2}\langle (a_k - \bar a_k)(\delta_k - \bar\delta_k)^2\rangle`."""
    columns = observable.reshape(ensembles.n_frames, -1)
    fluctuation = columns - ensembles.frame_weights @ columns
    square = (ensembles.beta * ensembles.deviation) ** 2
    terms = 0.5 * np.sum(ensembles.frame_weights[:, None] * fluctuation * square, axis=0)
    return float(np.sqrt(np.mean(terms**2)))


def _judge_expansion(second_order, error):
    ratio = second_order / error if error > 0 else np.inf if second_order > 0 else 0.0
    verdict = "reliable" if ratio < 0.5 else "doubtful" if ratio < 1 else "unreliable"
    return verdict, f"the second-order term of the expansion is {ratio:.2g} of the committee error"


def _worse(first, second):
    return max(first, second, key=lambda judgement: VERDICTS.index(judgement[0]))


def _judgement(ensembles, observable, sample_size, independent_frames, error, resolved):
    """Verdict and its reason: the worst of everything that speaks against the average."""
    if ensembles.method == "direct":
        judgement = ensembles.overlap_verdict(sample_size)
    elif error is not None:
        judgement = _judge_expansion(_second_order(ensembles, observable), error)
    else:
        judgement = ("reliable", "")
    if error is None:
        judgement = _worse(judgement, ("doubtful", "one member does not show the error of the potential"))
    elif not resolved:
        judgement = _worse(
            judgement, ("doubtful", "the spread of the members is within the sampling noise: sample longer")
        )
    if independent_frames < FEWEST_INDEPENDENT_FRAMES:
        few = f"only {independent_frames:.2g} frames are independent: sample longer"
        judgement = _worse(judgement, ("doubtful", few))
    return judgement


def reweight(observable, member_energies, temperature, method="cea", driving="mean", bias=None):
    r"""Average of an observable under every member of a committee, from one trajectory.

    With :math:`\delta_k = V_k - V_d`, the first order of the cumulant expansion (`method="cea"`) is

    .. math:: \langle a \rangle_k \approx \langle a_k \rangle
              - \beta\,[\langle a_k\,\delta_k \rangle - \langle a_k \rangle \langle \delta_k \rangle]

    and direct reweighting weighs frames by :math:`e^{-\beta\delta_k}` (log-sum-exp). Where there is a bias
    B, all averages carry :math:`e^{+\beta B}`. Path integrals: average energies and observable over beads
    first.

    Parameters
    ----------
    observable : (n_frames,) array, or (n_frames, n_members) array
        An observable that contains the potential (energy, virial, centroid-virial kinetic energy) is
        another observable for each member: give its member estimators, paired k = k. The average of the
        driving estimator alone has even the wrong sign of the shift.
    member_energies : (n_frames, n_members) array, eV
    temperature : float, K
    method : "cea" or "direct"
    driving : "mean", int or (n_frames,) array, eV
        what drove the sampling: the mean of the members, one of them (counted from 0), or any other
        potential energy
    bias : (n_frames,) array, eV
        reweighting bias of the frames (for metadynamics `rbias`, after the transient)

    Returns
    -------
    Average
        Its statistical error is that of the mean over members, from the statistical inefficiency of the
        influence of every frame; its committee error is the standard deviation over members (n - 1) with
        the sampling noise of the differences between members removed.

    Raises
    ------
    SeriesError
        if shapes do not fit each other, or there are too few frames.
    NumericalError
        if a number is not finite.
    UsageError
        if temperature, method or driving make no sense.

    Imbalzano et al., J. Chem. Phys. 154, 074102 (2021), doi:10.1063/5.0036522.
    """
    ensembles = MemberEnsembles(member_energies, temperature, method, driving, bias)
    observable = _checked_observable(observable, ensembles.n_frames, ensembles.n_members)
    members, influence = ensembles.averages(observable)
    if np.ptp(observable) <= 1e-12 * np.abs(observable).max():
        return Average(
            members=members,
            mean=float(members.mean()),
            statistical_error=None,
            committee_error=None,
            total_error=None,
            effective_sample_size=ensembles.effective_sample_size(),
            verdict="exact",
            reason="the observable is the same in every frame and for every member",
            n_frames=ensembles.n_frames,
            method=method,
            second_order=0.0,
            spread=ensembles.spread(),
        )
    mean_influence = influence.mean(axis=1)
    statistical_error = float(error_of_mean(mean_influence))
    error, resolved = committee_error(members, influence) if ensembles.n_members > 1 else (None, False)
    sample_size = ensembles.effective_sample_size(statistical_inefficiency(influence))
    kish = 1 / np.sum(ensembles.frame_weights**2)
    independent_frames = kish / statistical_inefficiency(mean_influence)
    verdict, reason = _judgement(ensembles, observable, sample_size, independent_frames, error, resolved)
    return Average(
        members=members,
        mean=float(members.mean()),
        statistical_error=statistical_error,
        committee_error=error,
        total_error=float(np.hypot(statistical_error, error or 0.0)),
        effective_sample_size=sample_size,
        verdict=verdict,
        reason=reason,
        n_frames=ensembles.n_frames,
        method=method,
        second_order=_second_order(ensembles, observable),
        spread=ensembles.spread(),
    )
