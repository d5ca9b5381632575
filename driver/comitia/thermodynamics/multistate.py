"""Averages from frames of several states at once: replica exchange, umbrella windows, several temperatures."""

import logging
import warnings

import numpy as np

from comitia.errors import SeriesError, UsageError
from comitia.thermodynamics.average import judged_average
from comitia.thermodynamics.checks import CopiedFrames, judge_copies
from comitia.thermodynamics.ensembles import driving_potential
from comitia.thermodynamics.resampling import error_of_sum
from comitia.thermodynamics.time_series import MINIMUM_FRAMES, as_series, block_sums
from comitia.thermodynamics.verdicts import judge_overlap, within_two_errors
from comitia.units import KB


def _free_energies(reduced, counts):
    """Free energies of the sampled states by pymbar, an (n_states,) array."""
    logging.getLogger("pymbar").setLevel(logging.ERROR)  # it recommends JAX at every import
    try:
        from pymbar import MBAR
    except ImportError as error:
        raise UsageError("several states at once need pymbar: pip install 'comitia[run]'") from error
    with warnings.catch_warnings():  # it gives scipy options that scipy does not know
        warnings.simplefilter("ignore")
        return MBAR(reduced, counts).f_k


def _check_connected(reduced, states):
    """Refuse states whose free energies no number of iterations would find.

    Two are connected where :math:`u_j - u_i` of frames of i and of j have values in common.
    """
    from scipy.sparse.csgraph import connected_components

    sampled = np.unique(states)
    connected = np.zeros((len(sampled), len(sampled)), dtype=bool)
    for a, i in enumerate(sampled):
        for b, j in enumerate(sampled[:a]):
            difference = reduced[j] - reduced[i]
            connected[a, b] = difference[states == i].min() <= difference[states == j].max()
    n_parts, part = connected_components(connected, directed=False)
    if n_parts > 1:
        apart = ", ".join(map(str, sampled[part == part[0]]))
        raise SeriesError(f"states {apart} and the others have no frames in common; sample states in between")


class MultistateEnsemble:
    r"""All frames of several sampled states, weighed for every member of a committee.

    With reduced energies :math:`u_j = \beta_j (V_d + B_j)` of the sampled states and their free energies
    :math:`f_j` from the multistate Bennett acceptance ratio, frame n has in the ensemble of member k the weight

    .. math:: W_{nk} \propto \frac{e^{-\beta (V_k + B)}}{\sum_j N_j\, e^{f_j - u_j}}

    The members are states that were not sampled. Errors hold what the frames contribute through the free
    energies of the sampled states as well, in blocks of every series.

    Parameters
    ----------
    member_energies : (n_frames, n_members) array, eV, the frames of all states one after the other
    states : (n_frames,) integer array, the state in which each frame was sampled, from 0
    temperatures : (n_states,) array, K
    temperature : float, K, of the averages
    bias_energies : (n_frames, n_states) array, eV, or None
        bias of every state (umbrella, pressure times volume) for every frame, whatever state it comes from
    target_bias : (n_frames,) array, eV, or None
        the same for the averages; None for none
    driving : "mean", int or (n_frames,) array, eV, as in `reweight`
    series : (n_frames,) array of labels, or None for `states`
        frames of one continuous trajectory in the order of time: for replica exchange the replica

    Attributes
    ----------
    free_energies : (n_states,) array, :math:`f_j`, of the first state 0
    weights : (n_frames, n_members) array, every column has sum 1

    Shirts and Chodera, J. Chem. Phys. 129, 124105 (2008), doi:10.1063/1.2978177.
    """

    def __init__(
        self,
        member_energies,
        states,
        temperatures,
        temperature,
        bias_energies=None,
        target_bias=None,
        driving="mean",
        series=None,
    ):
        energies = as_series(member_energies, "the member energies")
        energies = energies.reshape(len(energies), -1)
        n_frames = len(energies)
        temperatures = np.atleast_1d(np.asarray(temperatures, dtype=float))
        if not (np.isfinite(temperatures).all() and temperatures.min() > 0 and np.isfinite(temperature)):
            raise UsageError(f"temperatures are {temperatures.tolist()} and {temperature} K; they must be above 0")
        if temperature <= 0:
            raise UsageError(f"temperature is {temperature} K; it must be above 0")
        states = np.asarray(states)
        n_states = len(temperatures)
        if states.shape != (n_frames,) or states.min() < 0 or states.max() >= n_states:
            raise SeriesError(
                f"states must give each of {n_frames} frames the number of the state it was sampled in, "
                f"0 to {n_states - 1}"
            )
        self.n_frames, self.n_members = energies.shape
        self._series = states if series is None else np.asarray(series)
        self._series = self._checked_series(n_frames)
        copies = CopiedFrames()
        for label in range(self._series.max() + 1):
            copies.add(energies[self._series == label])
        self._repeats = copies.repeats
        reduced = np.zeros((n_states, n_frames))
        if bias_energies is not None:
            bias = as_series(bias_energies, "the bias energies")
            if bias.shape != (n_frames, n_states):
                raise SeriesError(
                    f"the bias energies have shape {bias.shape}; give one for each of {n_frames} frames in each of "
                    f"{n_states} states"
                )
            reduced += bias.T
        sampled = driving_potential(energies, driving)
        origins = np.median(energies, axis=0), np.median(sampled)  # a mean loses digits where atoms overlap
        energies, sampled = energies - origins[0], sampled - origins[1]
        reduced = (reduced + sampled) / (KB * temperatures)[:, None]
        beta = 1 / (KB * temperature)
        target = np.zeros(n_frames)
        if target_bias is not None:
            target = as_series(target_bias, "the bias of the averages")
            if target.shape != (n_frames,):
                raise SeriesError(f"the bias of the averages has shape {target.shape} for {n_frames} frames")
        counts = np.bincount(states, minlength=n_states)
        _check_connected(reduced, states)
        self.free_energies = _free_energies(reduced, counts)
        exponents = self.free_energies[:, None] - reduced
        largest = exponents.max(axis=0)
        log_mixture = largest + np.log(counts @ np.exp(exponents - largest))
        #: N_j W_nj, the probability that frame n belongs to state j
        self._belongs = (counts[:, None] * np.exp(exponents - log_mixture)).T
        score = np.eye(n_states)[states] - self._belongs
        curvature = np.diag(self._belongs.sum(axis=0)) - self._belongs.T @ self._belongs
        #: what each frame contributes to the f_j; f_0 is 0
        self._of_free_energies = np.zeros_like(score)
        self._of_free_energies[:, 1:] = score[:, 1:] @ np.linalg.pinv(curvature[1:, 1:], hermitian=True)
        self._deviation = beta * (energies - sampled[:, None])
        self.weights, self._logarithms = _normalised(-beta * (energies + target[:, None]) - log_mixture[:, None])
        self._sampling, _ = _normalised((-beta * (sampled + target) - log_mixture)[:, None])
        self._logarithms += origins[1] / (KB * temperatures[0]) - beta * origins[0]
        self.free_energies = self.free_energies + origins[1] / KB * (1 / temperatures - 1 / temperatures[0])

    def _checked_series(self, n_frames):
        if self._series.shape != (n_frames,):
            raise SeriesError(f"series labels have shape {self._series.shape} for {n_frames} frames")
        _, labels, lengths = np.unique(self._series, return_inverse=True, return_counts=True)
        if lengths.min() < MINIMUM_FRAMES:
            raise SeriesError(
                f"a series has {lengths.min()} frames, where an error bar needs {MINIMUM_FRAMES}; sample longer"
            )
        return labels

    def _blocks(self, influence):
        """Contributions of blocks, (n_blocks, ...), from those of frames; every series has blocks of its own."""
        parts = []
        for label in range(self._series.max() + 1):
            own = influence[self._series == label]
            parts.append(block_sums(own - own.mean(axis=0)))
        return np.concatenate(parts)

    def _influence(self, weights, fluctuation):
        """What each frame contributes to averages of fluctuations about them, directly and through the f_j."""
        direct = weights * fluctuation
        return direct - self._of_free_energies @ (self._belongs.T @ direct)

    def member_free_energies(self):
        r"""Reduced free energies :math:`-\ln \int e^{-\beta V_k}`, beside :math:`f_0 = 0`, and their errors.

        Returns
        -------
        value, error : (n_members,) arrays
        """
        influence = self._influence(self.weights, np.ones(self.weights.shape))
        return -self._logarithms, error_of_sum(self._blocks(influence))

    def average(self, observable, findings=()):
        """Average under every member.

        Parameters
        ----------
        observable : (n_frames,) array, or (n_frames, n_members) member estimators
        findings : (verdict, sentence) pairs, what else speaks against it

        Returns
        -------
        Average
        """
        observable = as_series(observable, "the observable")
        observable = observable.reshape(len(observable), -1)
        if len(observable) != self.n_frames or observable.shape[1] not in (1, self.n_members):
            raise SeriesError(
                f"the observable has shape {observable.shape} for {self.n_frames} frames and {self.n_members} members"
            )
        origin = observable.mean(axis=0)
        members = origin + np.sum(self.weights * (observable - origin), axis=0)
        spread = np.sqrt(np.maximum(_variance(self._sampling, self._deviation), 0))
        influence = self._influence(self.weights, observable - members)
        contributions = self._blocks(influence) * np.sqrt(self._repeats)  # copies of frames add nothing
        exact = bool(np.ptp(observable) <= 1e-12 * np.abs(observable).max())
        size = 1 / np.sum(self.weights**2, axis=0)
        if not exact:
            independent = np.sum((influence - influence.mean(axis=0)) ** 2, axis=0)
            size = size / np.clip(error_of_sum(contributions, skewed=False) ** 2 / independent, 1, self.n_frames / 2)
        return judged_average(
            members,
            contributions,
            size,
            [
                judge_copies(self._repeats),
                *findings,
                self._judge_states(),
                judge_overlap(size, spread, self._cumulants_agree),
            ],
            size.min(),
            exact,
            n_frames=self.n_frames,
            method="mbar",
            second_order=None,
            spread=spread,
        )

    def _judge_states(self):
        r"""Whether every state is reached from every other through states that overlap.

        :math:`O_{ij} = \sum_n N_j W_{nj} W_{ni}` is the probability to find a frame of state i in state j;
        neighbours should have 0.03.

        Klimovich, Shirts and Mobley, J. Comput.-Aided Mol. Des. 29, 397 (2015), doi:10.1007/s10822-015-9840-9.
        """
        from scipy.sparse.csgraph import connected_components

        overlap = self._belongs.T @ self._belongs / self._belongs.sum(axis=0)[:, None]
        for verdict, least in (("unreliable", 0.003), ("doubtful", 0.03)):
            n_parts, part = connected_components(overlap >= least, connection="strong")
            if n_parts > 1:
                apart = ", ".join(map(str, np.flatnonzero(part == part[0])))
                return (
                    verdict,
                    f"states {apart} overlap with the others by less than {least:g}: add states in between",
                )
        return "reliable", ""

    def _cumulants_agree(self):
        """Whether exponential average and second cumulant of the members agree within two errors, rms over members."""
        deviation = self._deviation - np.sum(self._sampling * self._deviation, axis=0)
        exponential = np.exp(-deviation - (-deviation).max(axis=0))
        mean = np.sum(self._sampling * exponential, axis=0)
        variance = _variance(self._sampling, deviation)
        value = -np.log(mean) + deviation.min(axis=0) + variance / 2
        influence = self._influence(self._sampling, (deviation**2 - variance) / 2 - exponential / mean + 1)
        return within_two_errors(value, error_of_sum(self._blocks(influence)))


def _normalised(logarithms):
    """Weights with sum 1 by columns, and the logarithms of their sums."""
    largest = logarithms.max(axis=0)
    weights = np.exp(logarithms - largest)
    total = weights.sum(axis=0)
    return weights / total, largest + np.log(total)


def _variance(weights, values):
    mean = np.sum(weights * values, axis=0)
    return np.sum(weights * (values - mean) ** 2, axis=0)
