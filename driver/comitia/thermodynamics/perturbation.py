"""Free-energy perturbation from the potential that was sampled to a reference method."""

from dataclasses import dataclass, field, replace

import numpy as np

from comitia.errors import UsageError
from comitia.thermodynamics.energy_pairs import EnergyPairs
from comitia.thermodynamics.time_series import statistical_inefficiency
from comitia.thermodynamics.verdicts import VERDICTS


@dataclass(frozen=True)
class FreeEnergyDifference:
    """F(reference) - F(model).

    Attributes
    ----------
    delta_f : float, eV, by `method`
    error : float, eV, statistical; None where the two potentials differ by a constant
    cumulants : (2,) array, eV, first and second: mean of dV, and -beta/2 times its variance; the second is nan
        where one bead of several is known
    effective_sample_size : float
    verdict : "exact", "reliable", "doubtful" or "unreliable"
    reason : str, one sentence on the verdict
    method : "exponential", "second cumulant", "first cumulant" or "acceptance ratio"
    cumulant_errors : (3,) array, eV, of the first, the second and their sum
    disagreement, disagreement_error : float, eV, of the exponential average from the sum of the cumulants
    spread : float, standard deviation of beta dV
    correlation : float, correlation coefficient of the energies of model and reference
    n_frames : int
    inefficiency : float, frames for every independent one
    findings : list of str, everything that speaks against the numbers
    """

    delta_f: float
    error: float | None
    cumulants: np.ndarray
    effective_sample_size: float
    verdict: str
    reason: str
    method: str = "exponential"
    cumulant_errors: np.ndarray = field(default_factory=lambda: np.zeros(3))
    disagreement: float | None = None
    disagreement_error: float | None = None
    spread: float = np.nan
    correlation: float = np.nan
    n_frames: int = 0
    inefficiency: float = 1.0
    findings: list[str] = field(default_factory=list)

    @property
    def more_frames(self):
        """Frames like these that would halve the error."""
        return 3 * self.n_frames

    def interval(self, level=0.95):
        """Ends of the interval that covers the truth with probability `level`, eV; None where it is exact."""
        if self.error is None:
            return None
        from scipy.special import ndtri

        half = float(ndtri(0.5 + level / 2)) * self.error
        return self.delta_f - half, self.delta_f + half

    def per(self, n):
        """The same for one of `n` atoms or molecules."""
        if not n > 0:
            raise UsageError(f"a free energy is divided by a number of atoms or molecules above 0, not by {n}")

        def share(value):
            return None if value is None else value / n

        return replace(
            self,
            delta_f=self.delta_f / n,
            error=share(self.error),
            cumulants=self.cumulants / n,
            cumulant_errors=self.cumulant_errors / n,
            disagreement=share(self.disagreement),
            disagreement_error=share(self.disagreement_error),
        )

    def as_dict(self):
        """The result as it stands in every JSON file, eV."""
        first, second = (None if np.isnan(value) else float(value) for value in self.cumulants)
        errors = [None if np.isnan(value) else float(value) for value in self.cumulant_errors]
        return {
            "value": self.delta_f,
            "unit": "eV",
            "statistical_error": self.error,
            "committee_error": None,
            "total_error": self.error,
            "effective_sample_size": self.effective_sample_size,
            "verdict": self.verdict,
            "reason": self.reason,
            "method": self.method,
            "interval_95": None if self.error is None else list(self.interval()),
            "cumulants": {
                "first": first,
                "first_error": errors[0],
                "second": second,
                "second_error": errors[1],
                "sum": None if second is None else first + second,
                "sum_error": errors[2],
            },
            "disagreement": self.disagreement,
            "disagreement_error": self.disagreement_error,
            "spread": None if np.isnan(self.spread) else self.spread,
            "correlation": self.correlation,
            "n_frames": self.n_frames,
            "inefficiency": self.inefficiency,
            "more_frames_to_halve_the_error": self.more_frames,
            "findings": self.findings,
        }


def perturb(energy_model, energy_reference, temperature, bias=None, weights=None, n_beads=None):
    r"""Free-energy difference to a reference method, from frames sampled with the model.

    .. math:: \Delta F = -kT \ln \langle e^{-\beta (V_\mathrm{ref} - V_\mathrm{model})} \rangle_\mathrm{model}

    The largest exponent is taken out of the sum and the mean of the differences is added back, so that
    energies of any size lose no digits. The energies of path integrals are averaged over beads inside the
    exponent, which takes all beads of a frame; from two or more of P beads drawn at random comes the second
    cumulant, with :math:`\mathrm{Var}/P + (1 - 1/P)\,\mathrm{Cov}(b \neq b')` in place of the variance of the
    bead mean, and from one the first cumulant alone. The same constant must be in the reference energies of
    everything that is compared.

    Parameters
    ----------
    energy_model : (n_frames,) or (n_frames, n_given) array, eV, of the very coordinates given to the reference
    energy_reference : array of the same shape, eV
    temperature : float, K
    bias : (n_frames,) array, eV, or None
    weights : (n_frames,) array, how many frames of the trajectory each one stands for, or None
    n_beads : int, of the path integral; by default all its beads are there

    Returns
    -------
    FreeEnergyDifference
        Its errors come from leaving out one block of frames after the other.

    Raises
    ------
    SeriesError
        if shapes do not fit each other, or there are too few frames.
    NumericalError
        if an energy is not finite.

    Zwanzig, J. Chem. Phys. 22, 1420 (1954), doi:10.1063/1.1740409.
    """
    pairs = EnergyPairs(energy_model, energy_reference, temperature, bias, weights, n_beads)
    if pairs.is_exact:
        return _exact(pairs)
    if not pairs.complete:
        return _from_some_beads(pairs)
    ensembles, beta = pairs.ensembles, pairs.beta
    logarithm, influence = ensembles.exponential_average()
    inefficiency = statistical_inefficiency(influence[:, 0])
    errors = pairs.errors(with_exponential=True)
    delta_f = float(pairs.weights @ pairs.difference) - float(logarithm[0]) / beta
    cumulants = np.array([float(pairs.weights @ pairs.difference), -0.5 * beta * pairs.variance])
    sample_size = float(ensembles.effective_sample_size(inefficiency)[0]) / pairs.repeats
    judgement = ensembles.overlap_verdict(np.array([sample_size]))
    return _judged(
        [judgement, *pairs.findings(inefficiency)],
        delta_f=delta_f,
        error=errors["exponential"],
        cumulants=cumulants,
        effective_sample_size=sample_size,
        cumulant_errors=np.array([errors["first"], errors["second"], errors["sum"]]),
        disagreement=delta_f - float(cumulants.sum()),
        disagreement_error=errors["disagreement"],
        spread=beta * np.sqrt(pairs.variance),
        correlation=pairs.correlation,
        n_frames=pairs.n_frames,
        inefficiency=inefficiency,
    )


def worst_of(judgements):
    """The worst of (verdict, sentence) judgements, and the sentences of all that speak against the number."""
    verdict, reason = max(judgements, key=lambda judgement: VERDICTS.index(judgement[0]))
    return verdict, reason, [sentence for level, sentence in judgements if level in VERDICTS[2:]]


def _judged(judgements, **found):
    verdict, reason, findings = worst_of(judgements)
    return FreeEnergyDifference(verdict=verdict, reason=reason, findings=findings, **found)


def _exact(pairs):
    """Two potentials that differ by a constant."""
    constant = float(pairs.difference.mean())
    return FreeEnergyDifference(
        delta_f=constant,
        error=None,
        cumulants=np.array([constant, 0.0]),
        effective_sample_size=1 / np.sum(pairs.weights**2),
        verdict="exact",
        reason="reference and model differ by the same constant in every frame",
        cumulant_errors=np.full(3, np.nan),
        spread=0.0,
        correlation=pairs.correlation,
        n_frames=pairs.n_frames,
    )


def _from_some_beads(pairs):
    """Cumulants from some beads of each frame; the exponential average is not to be had from them."""
    beta, known = pairs.beta, pairs.square is not None
    shifted = pairs.difference - pairs.origin
    mean = pairs.weights @ shifted
    inefficiency = statistical_inefficiency(pairs.weights * (shifted - mean))
    errors = pairs.errors()
    cumulants = np.array([pairs.origin + mean, -0.5 * beta * pairs.variance if known else np.nan])
    error = errors["sum"] if known else errors["first"]
    if known:
        spread = beta * np.sqrt(max(pairs.variance, 0.0))
        level = "doubtful" if spread <= 1 else "unreliable"
        reason = (
            f"from some beads of each frame come two cumulants, not the exponential (spread of beta dV {spread:.2g})"
        )
    else:
        spread = np.nan
        most = 0.5 * beta * float(pairs.weights @ (shifted - mean) ** 2)  # a bead varies more than the mean of beads
        level = "doubtful" if most <= error else "unreliable"
        reason = f"one bead of each frame gives the first cumulant alone; the second may be as low as {-most:.2g} eV"
    return _judged(
        [(level, reason), *pairs.findings(inefficiency)],
        delta_f=float(np.nansum(cumulants)),
        error=error,
        cumulants=cumulants,
        effective_sample_size=1 / np.sum(pairs.weights**2) / inefficiency / pairs.repeats,
        method="second cumulant" if known else "first cumulant",
        cumulant_errors=np.array([errors[name] for name in ("first", "second", "sum")]),
        spread=spread,
        correlation=pairs.correlation,
        n_frames=pairs.n_frames,
        inefficiency=inefficiency,
    )
