"""Energies of the same frames by the potential that was sampled and by a reference, and the faults that they show."""

import numpy as np

from comitia.errors import SeriesError, UsageError
from comitia.thermodynamics.checks import judge_copies, shift_that_fits
from comitia.thermodynamics.ensembles import MemberEnsembles
from comitia.thermodynamics.resampling import estimate
from comitia.thermodynamics.time_series import as_series, block_sums, error_of_mean
from comitia.units import HARTREE, KB

_UNITS = {"hartree": HARTREE, "rydberg": HARTREE / 2, "kcal/mol": 1 / 23.060548, "kJ/mol": 1 / 96.485332}  # eV
_FACTORS = {1 / factor: f"is it in {unit}" for unit, factor in _UNITS.items()}
_FACTORS |= {factor: f"is the model in {unit}" for unit, factor in _UNITS.items()}


SMALLEST = 1e-300
"""What remains of an exponential average without the block of the one frame that counts; its error is then large."""


class EnergyPairs:
    r"""Energies of every frame by the model and by the reference, and :math:`\Delta V` between them.

    Parameters
    ----------
    energy_model, energy_reference : (n_frames,) or (n_frames, n_given) arrays, eV
        of a path integral, the energies of all its beads, or of some of them drawn at random
    temperature : float, K
    bias : (n_frames,) array, eV, or None
    weights : (n_frames,) array of how many frames of the trajectory each one stands for, or None
    n_beads : int, of the path integral; by default the number of energies given for a frame

    Attributes
    ----------
    model, reference : (n_frames,) arrays, eV, means over the beads that were given
    difference : (n_frames,) array, eV, :math:`\Delta V = V_\mathrm{ref} - V_\mathrm{model}`, likewise
    square : (n_frames,) array, eV², whose average less the square of that of `difference`, both taken from
        `origin`, is the variance of the bead mean; None with one bead of several
    origin : float, eV
    complete : bool, whether all beads are there
    bias : (n_frames,) array, eV, with that which stands for the weights, or None
    ensembles : MemberEnsembles, one member: the reference, driven by the model
    """

    def __init__(self, energy_model, energy_reference, temperature, bias=None, weights=None, n_beads=None):
        model = as_series(energy_model, "the model energies")
        reference = as_series(energy_reference, "the reference energies")
        if model.shape != reference.shape:
            raise SeriesError(
                f"the model energies have shape {model.shape}, the reference energies {reference.shape}; "
                "give one of each for every frame and bead"
            )
        model, reference = model.reshape(len(model), -1), reference.reshape(len(model), -1)
        self.n_frames, n_given = model.shape
        self.n_beads = n_given if n_beads is None else n_beads
        if not 1 <= n_given <= self.n_beads:
            raise UsageError(f"n_beads is {self.n_beads}, but every frame has the energies of {n_given} beads")
        self.complete = n_given == self.n_beads
        self.model, self.reference = model.mean(axis=1), reference.mean(axis=1)
        if np.ptp(self.model) == 0:
            raise SeriesError("the model energies are the same in every frame; give those of different frames")
        of_beads = reference - model
        self.difference = of_beads.mean(axis=1)
        self.origin = float(self.difference.mean())
        self.square = self._square(of_beads - self.origin)
        self.bias = self._bias(bias, weights, temperature)
        self.ensembles = MemberEnsembles(self.difference, temperature, np.zeros(self.n_frames), self.bias)
        self.beta = self.ensembles.beta
        self._rows = np.hstack([model, reference])

    def _square(self, deviation):
        r"""What averages to :math:`\mathrm{Var}/P + (1 - 1/P)\,\mathrm{Cov}(b \neq b')`, from the beads given."""
        n_given = deviation.shape[1]
        if self.complete:
            return deviation.mean(axis=1) ** 2
        if n_given == 1:
            return None
        own = np.mean(deviation**2, axis=1)
        other = (deviation.sum(axis=1) ** 2 - n_given * own) / (n_given * (n_given - 1))
        return own / self.n_beads + (1 - 1 / self.n_beads) * other

    def _bias(self, bias, weights, temperature):
        """Weights as the bias that they undo."""
        if weights is None:
            return bias
        weights = as_series(weights, "the weights")
        if weights.shape != (self.n_frames,) or weights.min() <= 0:
            raise SeriesError(f"the weights must be {self.n_frames} positive numbers, one for each frame")
        own = KB * temperature * np.log(weights / weights.mean())
        return own if bias is None else as_series(bias, "the bias") + own

    @property
    def weights(self):
        """(n_frames,) array, sum 1: those of the frames in the sampled ensemble."""
        return self.ensembles.frame_weights

    @property
    def is_exact(self):
        """Whether the two energies differ by a constant, to rounding."""
        largest = max(np.abs(self.model).max(), np.abs(self.reference).max())
        return bool(np.ptp(self.difference) <= 1e-13 * largest)

    @property
    def variance(self):
        r"""Variance of the bead mean of :math:`\Delta V`, eV², with n − 1; None with one bead of several."""
        if self.square is None:
            return None
        mean = self.weights @ (self.difference - self.origin)
        return float((self.weights @ self.square - mean**2) / (1 - np.sum(self.weights**2)))

    def errors(self, with_exponential=False):
        r"""Standard errors, eV, from leaving out one block of frames after the other.

        Returns
        -------
        dict of the `first` and `second` cumulant and their `sum`, nan where unknown; with the exponential average
        also `exponential`, and `disagreement`, its difference from the sum
        """
        shifted = self.difference - self.origin
        tilted = np.exp(-self.beta * (shifted - shifted.min())) if with_exponential else np.ones(self.n_frames)
        square = shifted if self.square is None else self.square
        terms = self.n_frames * self.weights[:, None] * np.stack([np.ones(self.n_frames), tilted, shifted, square], 1)
        factor = 0.5 * self.beta / (1 - np.sum(self.weights**2))

        def quantity(sums):
            exponential = -np.log(np.maximum(sums[:, 1] / sums[:, 0], SMALLEST)) / self.beta
            first = sums[:, 2] / sums[:, 0]
            second = factor * (first**2 - sums[:, 3] / sums[:, 0])
            return np.stack([exponential, first, second, first + second, exponential - first - second], axis=1)

        sums = block_sums(terms)
        errors = estimate(quantity, sums[:, 0], sums).error * np.sqrt(self.repeats)
        known = np.array([with_exponential, True, *[self.square is not None] * 2, with_exponential])
        names = ("exponential", "first", "second", "sum", "disagreement")
        return dict(zip(names, np.where(known, errors, np.nan).tolist(), strict=True))

    @property
    def correlation(self):
        """Correlation coefficient of the two energies over the frames."""
        return _correlation(self.model, self.reference, self.weights)

    @property
    def repeats(self):
        """Frames for every different one, at least 1: above it, frames that were given more than once.

        Equal neighbours do not count: sampling may stay where it is, and the correlation of the frames says so.
        """
        moved = np.r_[True, (np.diff(self._rows, axis=0) != 0).any(axis=1)]
        visited = self._rows[moved]
        return len(visited) / len(np.unique(visited, axis=0))

    def findings(self, inefficiency):
        """Faults that the energies themselves show: (verdict, sentence) pairs.

        Parameters
        ----------
        inefficiency : float, frames for every independent one
        """
        found = self._correlated(inefficiency)
        if self.repeats > 1:
            found.append(judge_copies(self.repeats))
        drift = self._drift()
        if drift is not None:
            found.append(("doubtful", drift))
        return found

    def _correlated(self, inefficiency):
        """Model and reference must go up and down together."""
        found = self.correlation
        least = min(3 / np.sqrt(self.n_frames / inefficiency), 0.7)
        if found < least and self.variance is not None:
            shifted = shift_that_fits(self.reference, self.model)
            place = f" (they are when one is moved by {shifted:+d} frames)" if shifted else ""
            return [
                (
                    "unreliable",
                    f"the energies of model and reference are not correlated (r = {found:.2f}){place}: "
                    "are they of the same frames, in the same order?",
                )
            ]
        if found > 0.9:
            slope = found * self.reference.std() / self.model.std()
            for value, text in _FACTORS.items():
                if abs(slope / value - 1) < 0.08:
                    return [("unreliable", f"the reference moves {slope:.3g} times as much as the model: {text}?")]
        return []

    def _drift(self):
        r"""A sentence where :math:`\Delta V` is another one before and after some frame."""
        for part in (0.25, 0.5, 0.75):
            start, end = np.split(self.difference, [int(part * self.n_frames)])
            if min(len(start), len(end)) < 10:
                continue
            error = np.hypot(error_of_mean(start), error_of_mean(end))
            change = end.mean() - start.mean()
            if abs(change) > 6 * error and abs(self.beta * change) > 0.1:
                return (
                    f"dV changes by {change:.3g} eV after {100 * part:.0f} % of the frames ({abs(change) / error:.0f} "
                    "errors): leave out the approach to equilibrium, and keep one constant in the reference"
                )
        return None


def _correlation(first, second, weights=None):
    weights = np.full(len(first), 1 / len(first)) if weights is None else weights
    first, second = first - weights @ first, second - weights @ second
    scale = np.sqrt((weights @ first**2) * (weights @ second**2))
    return float(weights @ (first * second) / scale) if scale > 0 else 0.0
