"""What a perturbation corrects: averages, differences between states, profiles; and what it says of the committee."""

from dataclasses import dataclass, replace

import numpy as np

from comitia.errors import SeriesError, UsageError
from comitia.thermodynamics.average import Average
from comitia.thermodynamics.energy_pairs import SMALLEST, EnergyPairs
from comitia.thermodynamics.ensembles import MemberEnsembles
from comitia.thermodynamics.perturbation import FreeEnergyDifference, perturb, worst_of
from comitia.thermodynamics.profiles import Profile, bin_fractions
from comitia.thermodynamics.resampling import estimate
from comitia.thermodynamics.time_series import as_series, block_sums, error_of_mean, statistical_inefficiency


def reweight_to_reference(
    observable, energy_model, energy_reference, temperature, bias=None, weights=None, chosen=None
):
    r"""Average of an observable in the ensemble of the reference, from frames sampled with the model.

    .. math:: \langle a \rangle_\mathrm{ref} = \langle a \rangle + \frac{\langle a\, e^{-\beta \Delta V}\rangle_c}
              {\langle e^{-\beta \Delta V}\rangle_c} - \langle a \rangle_c

    where c are the frames with reference energies and the first average is over all of the trajectory: what the
    few chosen frames must tell is the shift, which is known better than the average. Without `chosen` the first
    and the last cancel.

    Parameters
    ----------
    observable : (n_frames,) array, averaged over the beads of a path integral
    energy_model, energy_reference, temperature, weights : as for `perturb`, all beads of the chosen frames
    bias : (n_frames,) array, eV, or None
    chosen : (n_chosen,) increasing integer array, places of the frames with energies among all; or None

    Returns
    -------
    Average
        without a committee error: the members do not enter. Its error is that of sampling and perturbation
        together, from leaving out one block of the trajectory after the other.
    """
    observable = as_series(observable, "the observable")
    n_frames = len(observable)
    chosen = np.arange(n_frames) if chosen is None else np.asarray(chosen)
    of_chosen = None if bias is None else np.asarray(bias)[chosen]
    pairs = EnergyPairs(energy_model, energy_reference, temperature, of_chosen, weights)
    if observable.ndim != 1 or len(chosen) != pairs.n_frames or not 0 <= chosen.min() <= chosen.max() < n_frames:
        raise SeriesError(
            f"the observable has shape {observable.shape}, there are energies of {pairs.n_frames} frames; give one "
            "number for each, or for every frame of the trajectory, and the places of the chosen ones"
        )
    of_all = np.ones(n_frames)
    if bias is not None:
        of_all = np.exp(pairs.beta * (bias - np.max(bias)))
    tilted = np.exp(-pairs.beta * (pairs.difference - pairs.difference.min()))
    columns = np.zeros((n_frames, 3))
    columns[:, 0] = of_all * n_frames / of_all.sum()
    columns[chosen, 1] = pairs.n_frames * pairs.weights
    columns[chosen, 2] = pairs.n_frames * pairs.weights * tilted
    origin = observable.mean()
    sums = block_sums(np.hstack([columns, columns * (observable - origin)[:, None]]))

    def quantity(sums):
        left = sums[:, 2] > 1e-12 * sums[:, 2].max()  # else the one frame that counts is not there
        all_frames, sampled = sums[:, 3] / sums[:, 0], sums[:, 4] / sums[:, 1]
        return all_frames - sampled + np.divide(sums[:, 5], sums[:, 2], out=sampled.copy(), where=left)

    found = estimate(quantity, block_sums(np.ones(n_frames)), sums)
    mean = float(found.value) + origin
    _, influence = pairs.ensembles.averages(observable[chosen])
    common = {"members": np.array([mean]), "mean": mean, "committee_error": None, "n_frames": n_frames}
    common |= {"method": "direct", "second_order": None, "spread": pairs.ensembles.spread()}
    if np.ptp(observable) <= 1e-12 * np.abs(observable).max():
        size, reason = pairs.ensembles.effective_sample_size(), "the observable is the same in every frame"
        exact = {"statistical_error": None, "total_error": None, "verdict": "exact", "reason": reason}
        return Average(effective_sample_size=size, **exact, **common)
    inefficiency = float(statistical_inefficiency(influence[:, 0]))
    size = pairs.ensembles.effective_sample_size(inefficiency) / pairs.repeats
    error = float(found.error) * np.sqrt(pairs.repeats)
    verdict, reason, _ = worst_of([pairs.ensembles.overlap_verdict(size), *pairs.findings(inefficiency)])
    return Average(
        statistical_error=error, total_error=error, effective_sample_size=size, verdict=verdict, reason=reason, **common
    )


def difference(first, second):
    """`first` less `second`: a correction of two phases, or of two states, that holds no energy constant.

    Parameters
    ----------
    first, second : FreeEnergyDifference, from independent trajectories, for the same number of atoms or molecules

    Returns
    -------
    FreeEnergyDifference, its error that of the two together
    """
    verdict, reason, _ = worst_of([(one.verdict, one.reason) for one in (first, second)])
    errors = [one.error or 0.0 for one in (first, second)]
    return FreeEnergyDifference(
        delta_f=first.delta_f - second.delta_f,
        error=None if first.error is None and second.error is None else float(np.hypot(*errors)),
        cumulants=first.cumulants - second.cumulants,
        effective_sample_size=min(first.effective_sample_size, second.effective_sample_size),
        verdict=verdict,
        reason=reason,
        method=first.method if first.method == second.method else f"{first.method}, {second.method}",
        cumulant_errors=np.hypot(first.cumulant_errors, second.cumulant_errors),
        spread=max(first.spread, second.spread),
        correlation=min(first.correlation, second.correlation),
        n_frames=first.n_frames + second.n_frames,
        inefficiency=max(first.inefficiency, second.inefficiency),
        findings=[*first.findings, *second.findings],
    )


def difference_of_states(energy_model, energy_reference, temperature, state, bias=None, weights=None):
    r"""Correction of the free-energy difference of two states that one trajectory visits.

    .. math:: \Delta\Delta F = \Delta F_1 - \Delta F_0, \qquad
              \Delta F_s = -kT \ln\langle e^{-\beta\Delta V}\rangle_s

    Parameters
    ----------
    state : (n_frames,) integer array: 1, 0, or -1 for frames in neither
    the others : as for `perturb`, all beads

    Returns
    -------
    FreeEnergyDifference, of state 1 less state 0; frames that are close in time and in different states are
        correlated, and the error knows it
    """
    state = np.asarray(state)
    if state.shape != np.shape(energy_model)[:1] or not np.isin(state, (-1, 0, 1)).all():
        raise UsageError("state must hold 1, 0 or -1 for every frame")

    def part(values, chosen):
        return None if values is None else np.asarray(values)[chosen]

    found = []
    for one in (1, 0):
        chosen = state == one
        energies = part(energy_model, chosen), part(energy_reference, chosen)
        found.append(perturb(*energies, temperature, part(bias, chosen), part(weights, chosen)))
    pairs = EnergyPairs(energy_model, energy_reference, temperature, bias, weights)
    tilted = np.exp(-pairs.beta * (pairs.difference - pairs.difference.min()))
    inside = pairs.n_frames * pairs.weights[:, None] * np.stack([state == 1, state == 0], axis=1)
    sums = block_sums(np.hstack([inside, inside * tilted[:, None]]))

    def quantity(sums):
        logarithms = np.log(np.maximum(sums[:, 2:] / sums[:, :2], SMALLEST))
        return (logarithms[:, 1] - logarithms[:, 0]) / pairs.beta

    error = estimate(quantity, block_sums(pairs.weights), sums).error
    return replace(difference(*found), error=float(error * np.sqrt(pairs.repeats)))


@dataclass(frozen=True)
class CalibrationTest:
    """Whether the shift of the free energy to the reference is one that the committee allows.

    Attributes
    ----------
    shift : float, eV, F(reference) - F(model), and `error`, eV, its statistical one
    members : (n_members,) array, eV, F(member) - F(model)
    spread : float, eV, standard deviation of the members' shifts
    z : float, shift over the error that the spread and the statistics stand for
    probability : float, of a shift at least as large, by Student's distribution with n_members - 1
    verdict : "consistent" or "inconsistent", at 5 %
    """

    shift: float
    error: float
    members: np.ndarray
    spread: float
    z: float
    probability: float
    verdict: str

    def as_dict(self):
        """The test as it stands in JSON files, eV."""
        numbers = {name: float(getattr(self, name)) for name in ("shift", "error", "spread", "z", "probability")}
        return numbers | {"members": self.members.tolist(), "unit": "eV", "verdict": self.verdict}


def calibration_test(member_energies, energy_model, energy_reference, temperature, alpha=1.0, bias=None, weights=None):
    r"""Thermodynamic test of the calibration: the reference is one more member.

    .. math:: z = \frac{F_\mathrm{ref} - F_{\bar V}}{\sqrt{\sigma_F^2 (1 + 1/(M\alpha^2)) + \sigma_\mathrm{stat}^2}}

    with the standard deviation :math:`\sigma_F` of :math:`F_k - F_{\bar V}` over members. It means something for
    the method that the model was trained on, whose energies have the constant of the model.

    Parameters
    ----------
    member_energies : (n_frames, n_members) array, eV, averaged over beads
    energy_model, energy_reference, temperature, bias, weights : as for `perturb`, all beads
    alpha : float, calibration factor of the members (in the model file)

    Returns
    -------
    CalibrationTest
    """
    from scipy.special import stdtr

    found = perturb(energy_model, energy_reference, temperature, bias, weights)
    pairs = EnergyPairs(energy_model, energy_reference, temperature, bias, weights)
    energies = as_series(member_energies, "the member energies")
    if energies.ndim != 2 or energies.shape[1] < 2 or len(energies) != pairs.n_frames:
        raise SeriesError(f"the member energies have shape {energies.shape}; give two members or more for every frame")
    shifts = energies - pairs.model[:, None]
    ensembles = MemberEnsembles(shifts, temperature, np.zeros(pairs.n_frames), pairs.bias)
    logarithm, _ = ensembles.exponential_average()
    members = pairs.weights @ shifts - logarithm / pairs.beta
    n_members = len(members)
    spread = float(members.std(ddof=1))
    error = found.error or 0.0
    scale = float(np.hypot(spread * np.sqrt(1 + 1 / (n_members * alpha**2)), error))
    z = found.delta_f / scale if scale > 0 else np.inf * np.sign(found.delta_f)
    probability = float(2 * stdtr(n_members - 1, -abs(z)))
    verdict = "consistent" if probability >= 0.05 else "inconsistent"
    return CalibrationTest(found.delta_f, error, members, spread, float(z), probability, verdict)


def corrected_profile(profile, samples, edges, energy_model, energy_reference, temperature, symmetric=False, **given):
    r"""A free-energy profile carried to the reference by perturbation within each bin.

    .. math:: F_\mathrm{ref}(x) = F(x) - kT \ln \frac{\langle e^{-\beta\Delta V}\rangle_x}
              {\langle e^{-\beta\Delta V}\rangle}

    The profile comes from the whole trajectory, the correction from the few frames with reference energies, so
    that what they do not know, how often x is visited, is not asked of them.

    Parameters
    ----------
    profile : Profile, of the trajectory, in the same bins
    samples : (n_frames,) or (n_frames, n_samples) array, the collective variable in the frames of the reference
    edges : (n_bins + 1,) increasing array
    energy_model, energy_reference, temperature : as for `perturb`, all beads
    symmetric : bool, as for `profile`
    given : `bias` and `weights`, as for `perturb`

    Returns
    -------
    Profile
        its errors are those of the trajectory and of the correction together, without a committee error; bins
        without at least two of the frames hold nan.
    """
    pairs = EnergyPairs(energy_model, energy_reference, temperature, **given)
    edges = np.asarray(edges, dtype=float)
    fractions = bin_fractions(samples, edges, symmetric)
    if len(fractions) != pairs.n_frames or fractions.shape[1] != len(profile.x):
        raise SeriesError("the collective variable, the energies and the profile must be of the same frames and bins")
    tilted = np.exp(-pairs.beta * (pairs.difference - pairs.difference.min()))
    before, after = pairs.weights @ fractions, (pairs.weights * tilted) @ fractions
    total = pairs.weights @ tilted
    seen = (fractions > 0).sum(axis=0) >= 2
    shift, error = np.full(len(profile.x), np.nan), np.full(len(profile.x), np.nan)
    shift[seen] = -np.log(np.maximum(after[seen] / before[seen] / total, SMALLEST)) / pairs.beta
    scale = pairs.n_frames * pairs.weights / pairs.beta
    for i in np.flatnonzero(seen):
        influence = fractions[:, i] * (tilted / max(after[i], SMALLEST) - 1 / before[i]) - tilted / total
        error[i] = error_of_mean(scale * influence) * np.sqrt(pairs.repeats)
    value = profile.value + shift
    lowest = np.nanmin(value) if np.isfinite(value).any() else 0.0
    statistical = np.hypot(profile.statistical_error, error)
    return Profile(
        x=profile.x,
        value=value - lowest,
        statistical_error=statistical,
        committee_error=None,
        total_error=statistical.copy(),
        members=(value - lowest)[None, :],
        density=profile.density,
    )
