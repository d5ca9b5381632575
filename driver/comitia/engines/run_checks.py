"""What the numbers of a run say about it: its temperature, what drove it, and whether the digits suffice."""

import numpy as np

from comitia.engines.row_sources import ROWS_AT_ONCE
from comitia.engines.sampled import HDF5
from comitia.engines.tables import printed_resolution
from comitia.errors import SeriesError
from comitia.units import HARTREE

POTENTIALS = "potentials"


class RunChecks:
    """Looks at the frames of a reweighting as they are read.

    Parameters
    ----------
    frames : frames.Frames
    """

    def __init__(self, frames):
        self.temperature, self.driving = frames.temperature, frames.driving
        stepped = frames.series[POTENTIALS].steps is not None
        self.columns = {}  # (file, check) -> where it is taken from: one file may serve several purposes
        for name, one in frames.series.items():
            for check, column in one.checks.items():
                if check in ("ensemble_temperature", "temperature") or (stepped and one.steps is not None):
                    self.columns.setdefault((one.name, check), (name, column))
        self.driven, self.biases = [], []
        self.temperatures, self.potentials = {}, {}

    def add(self, taken, energies):
        """Look at some frames.

        Parameters
        ----------
        taken : dict of str -> (n_frames, n_columns) array, as of `Frames.series`
        energies : (n_frames, n_members) array, eV

        Raises
        ------
        SeriesError
            for another temperature than that of the run, or several.
        """
        for (path, check), (name, column) in self.columns.items():
            values = taken[name][:, column]
            if check == "ensemble_temperature":
                self._check_ensemble(path, values)
            elif check == "temperature":
                self.temperatures.setdefault(path, []).append(values.copy())
            else:
                self.potentials.setdefault(path, []).append(values.copy())
        if "bias" in taken and self.potentials:
            self.biases.append(taken["bias"][:, 0].copy())
        if self.columns:
            self.driven.append(self._driving(taken, energies))

    def _driving(self, taken, energies):
        if self.driving == "given":
            return taken["driving"][:, 0].copy()
        return energies.mean(axis=1) if self.driving == "mean" else energies[:, self.driving].copy()

    def finish(self):
        """Judge what was seen.

        Returns
        -------
        list of (verdict, sentence), what speaks against the averages

        Raises
        ------
        SeriesError
            where the run was certainly another one.
        """
        if not self.driven:
            return []
        from comitia.thermodynamics import check_sampling

        driven, found = np.concatenate(self.driven), []
        for path, values in self.temperatures.items():
            values = np.concatenate(values)
            self._check_instantaneous(path, values)
            if len(values) >= 40:  # the second half: the first may still approach equilibrium
                half = slice(len(values) // 2, None)
                found += check_sampling(driven[half], self.temperature, kinetic_temperature=values[half])
        for path, values in self.potentials.items():
            values = np.concatenate(values)
            if self.driving == "mean":
                self._check_driving(path, self._less_the_bias(values - driven), driven)
            if len(values) >= 10:
                found += check_sampling(driven, self.temperature, sampled_potential=values)
        return list(dict.fromkeys(found))

    def _check_ensemble(self, path, values):
        low, high = values.min(), values.max()
        if high - low > 1e-3 * high:
            raise SeriesError(
                f"{path}: ensemble_temperature changes from {low:.6g} to {high:.6g} K; temperature ramps are not "
                "supported, and a replica exchange needs its RESTART beside the files"
            )
        if abs(high - self.temperature) > 5e-3 * self.temperature:
            raise SeriesError(
                f"{path}: was sampled at {high:.6g} K (ensemble_temperature), not at --temperature "
                f"{self.temperature:g}; give that of the run"
            )

    def _check_instantaneous(self, path, values):
        values = values[len(values) // 2 :]
        if len(values) < 40:
            return
        blocks = np.array([block.mean() for block in np.array_split(values, 10)])
        difference = abs(blocks.mean() - self.temperature)
        if difference > 0.2 * self.temperature and difference > 6 * blocks.std(ddof=1) / np.sqrt(len(blocks)):
            raise SeriesError(
                f"{path}: the mean of temperature is {values.mean():.4g} K, not --temperature {self.temperature:g}; "
                "give the temperature of the run"
            )

    def _less_the_bias(self, difference):
        """A limit of the uncertainty is part of the potential that i-PI prints, a bias of i-PI's own is not."""
        if not self.biases:
            return difference
        less = difference - np.concatenate(self.biases)
        return less if less.std() < difference.std() else difference

    @staticmethod
    def _check_driving(path, difference, mean):
        """The potential that i-PI printed must move with the mean of the members, if that is what drove the run."""
        allowed = 1e-3 * mean.std() + 1e-7 * np.abs(mean).max() + 1e-9
        if difference.std() > allowed:
            raise SeriesError(
                f"{path}: its potential is not the mean of the members (they differ by {difference.std():.2g} eV rms); "
                f"say what drove the run, for instance --driving {path}:potential, and bring the files of all beads"
            )


def refuse_pseudo_members(potentials):
    """Refuse the two that stand for a committee (`serve --extras pseudo_members`), seen in the first frames."""
    if len(potentials.labels) != 2:
        return
    from comitia.potential.mixing import are_pseudo_members

    for source in potentials.sources[0]:
        if are_pseudo_members(source.take(np.arange(min(source.n_rows, ROWS_AT_ONCE)))):
            raise SeriesError(
                f"{source.path}: holds the two pseudo-members that `comitia serve` sends in place of its members, and "
                "an average under them means nothing; print extra_type='committee_member_energies' and give that"
            )


def precision_warnings(member_energies, path, unit):
    """A warning where the printed energies are too coarse for the differences between members."""
    if member_energies.shape[1] < 2 or path.suffix in HDF5:
        return []
    spacing = printed_resolution(path) * (HARTREE if unit == "hartree" else 1.0)
    deviation = member_energies - member_energies.mean(axis=1, keepdims=True)
    spread = np.sqrt(np.mean(deviation.var(axis=0)))
    if spacing / np.sqrt(12) < 0.1 * spread or spread == 0:
        return []
    return [
        f"{path}: energies are printed to {spacing:.1g} eV, the members differ by {spread:.1g} eV; print more digits "
        "(<simulation floatformat='%24.16e'>), or subtract an offset"
    ]
