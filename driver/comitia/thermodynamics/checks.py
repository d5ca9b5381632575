"""Faults of a reweighting that its numbers show: copies of frames, another temperature, energies of other frames."""

import numpy as np

from comitia.thermodynamics.ensembles import driving_potential
from comitia.thermodynamics.time_series import as_series, error_of_mean, statistical_inefficiency


class CopiedFrames:
    """Counts frames that were given more than once, from the bytes of their numbers, chunk by chunk.

    Equal neighbours do not count: Monte Carlo may stay where it is, and the correlation of the frames says so.
    A frame that is short of numbers, which may well be equal by chance, is a copy only with its successor.
    """

    FEW = 4
    ENOUGH = 8  # numbers of each array, where it has many more
    MULTIPLIER = 0x9E3779B97F4A7C15  # odd, as its powers are

    def __init__(self):
        self._parts = []

    def add(self, *columns):
        """Numbers of the next frames, (n_frames, n) arrays."""
        total = np.zeros(len(columns[0]), dtype=np.uint64)
        self._n_columns = 0
        for values in columns:
            values = values.reshape(len(values), -1)
            values = values[:, :: max(1, values.shape[1] // self.ENOUGH)] + 0.0  # one zero: -0.0 + 0.0 is 0.0
            for bits in np.ascontiguousarray(values.T).view(np.uint64):
                self._n_columns += 1
                bits ^= bits >> np.uint64(29)
                bits *= np.uint64(pow(self.MULTIPLIER, self._n_columns, 2**64))
                total += bits
        self._parts.append(total)

    @property
    def repeats(self):
        """Frames for every different one, at least 1."""
        visited = np.concatenate(self._parts)
        visited = visited[np.r_[True, np.diff(visited) != 0]]
        if self._n_columns < self.FEW and len(visited) > 1:
            visited = visited[:-1] * np.uint64(self.MULTIPLIER) + visited[1:]
        return len(visited) / (1 + np.count_nonzero(np.diff(np.sort(visited))))


def judge_copies(repeats):
    """Verdict on frames that were given more than once."""
    if repeats <= 1:
        return "reliable", ""
    return "doubtful", f"{100 * (1 - 1 / repeats):.2g} % of the frames are copies of others: give each frame once"


def check_sampling(member_energies, temperature, driving="mean", sampled_potential=None, kinetic_temperature=None):
    """What the output of the sampler says against a reweighting: (verdict, sentence) pairs for `reweight`.

    Parameters
    ----------
    member_energies : (n_frames, n_members) array, eV
    temperature : float, K, at which the frames are said to have been sampled
    driving : as in `reweight`
    sampled_potential : (n_frames,) array, eV, the potential energy that the sampler itself printed
    kinetic_temperature : (n_frames,) array, K, that the sampler printed

    Returns
    -------
    list of (verdict, sentence), empty where nothing is wrong
    """
    energies = as_series(member_energies, "the member energies")
    energies = energies.reshape(len(energies), -1)
    found = []
    from comitia.potential.mixing import are_pseudo_members  # loads the compiled core

    if energies.shape[1] == 2 and are_pseudo_members(energies):
        found.append(
            (
                "unreliable",
                "these are the two pseudo-members that stand for a committee, not members of it: reweight with "
                "committee_member_energies",
            )
        )
    if kinetic_temperature is not None:
        found += _check_temperature(as_series(kinetic_temperature, "the kinetic temperature"), temperature)
    if sampled_potential is not None:
        sampled = as_series(sampled_potential, "the sampled potential")
        found += _check_frames(driving_potential(energies, driving), sampled)
    return found


def _check_temperature(kinetic, temperature):
    """The mean kinetic temperature must be the one of the weights, within its error or one per cent."""
    mean, error = kinetic.mean(), error_of_mean(kinetic)
    if abs(mean - temperature) <= max(4 * error, 0.01 * temperature):
        return []
    return [
        (
            "unreliable",
            f"the sampler's own temperature is {mean:.1f} +- {error:.1f} K, not {temperature:g} K: "
            "average at the temperature of the sampling, or say what it was",
        )
    ]


def _check_frames(driving, sampled):
    """The driving potential must be the one that the sampler printed, up to a constant."""
    if driving.shape != sampled.shape:
        return [("unreliable", f"{len(sampled)} sampled potentials for {len(driving)} frames of member energies")]
    if min(np.ptp(driving), np.ptp(sampled)) == 0:
        return []
    correlation = np.corrcoef(driving, sampled)[0, 1]
    independent = max(len(driving) / statistical_inefficiency(sampled), 4.0)
    if correlation < min(3 / np.sqrt(independent), 0.7):
        shift = shift_that_fits(driving, sampled)
        place = f" (they are when moved by {shift:+d} frames)" if shift else ""
        return [
            (
                "unreliable",
                f"the member energies are not correlated with the sampled potential (r = {correlation:.2f}){place}: "
                "are they of the same frames, in the same order?",
            )
        ]
    slope = correlation * driving.std() / sampled.std()
    if correlation > 0.9 and not 0.9 < slope < 1.1:
        return [
            (
                "unreliable",
                f"the member energies move {slope:.3g} times as much as the sampled potential: "
                "is their unit right, and are they averaged, not added, over beads?",
            )
        ]
    remainder = np.std(driving - sampled) / np.std(sampled)
    if remainder > 0.1:
        return [
            (
                "doubtful",
                f"the driving potential differs from the sampled one by {100 * remainder:.2g} % of its fluctuation: "
                "say what drove the sampling",
            )
        ]
    return []


def shift_that_fits(moved, kept):
    """By how many frames one series must be moved to go up and down with the other; 0 where that does not help."""
    for shift in (1, -1, 2, -2, 3, -3):
        inside = slice(shift, None) if shift > 0 else slice(None, shift)
        if np.corrcoef(np.roll(moved, shift)[inside], kept[inside])[0, 1] > 0.7:
            return shift
    return 0
