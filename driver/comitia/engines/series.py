"""Series of numbers, one row a frame, that are read piece by piece: beads averaged, frames matched by step number."""

from dataclasses import dataclass, field

import numpy as np

from comitia.engines.ipi_output import common_steps, current_rows
from comitia.errors import SeriesError


@dataclass
class Series:
    """Quantities that stand side by side in the files of one run.

    Attributes
    ----------
    name : str, of the file, for messages
    labels, units : lists of str, one for each quantity
    sources : list over replicas of lists over beads of sources (`row_sources`)
    rows : the same lists, of (n_frames,) integer arrays: the row of each frame in each file
    steps : (n_frames,) increasing integer array, or None for files that do not say
    replica : (n_frames,) integer array, which replica a frame is taken from; or None where there is only one
    properties : list of str, i-PI's names of the quantities, where they have one
    checks : dict of str -> int, columns behind those of the quantities that say something about the run
    """

    name: str
    labels: list[str]
    units: list[str]
    sources: list[list]
    rows: list[list[np.ndarray]]
    steps: np.ndarray | None
    replica: np.ndarray | None = None
    properties: list[str] = field(default_factory=list)
    checks: dict[str, int] = field(default_factory=dict)

    @property
    def n_frames(self):
        """Number of frames."""
        return len(self.rows[0][0]) if self.replica is None else len(self.replica)

    @property
    def n_beads(self):
        """Number of beads that are averaged over."""
        return len(self.sources[0])

    def take(self, frames):
        """Numbers of some frames, (n_frames, n_quantities + n_checks), averaged over beads.

        Parameters
        ----------
        frames : (n_frames,) increasing integer array; calls should go through the series in order
        """
        if self.replica is None:
            return self._mean(0, frames)
        found = None
        for replica in range(len(self.sources)):
            here = self.replica[frames] == replica
            values = self._mean(replica, frames[here])
            if found is None:
                found = np.empty((len(frames), values.shape[1]))
            found[here] = values
        return found

    def _mean(self, replica, frames):
        sources, rows = self.sources[replica], self.rows[replica]
        first = sources[0].take(rows[0][frames])
        if self.n_beads == 1:
            return first
        total = first.copy()
        for bead in range(1, self.n_beads):
            total += sources[bead].take(rows[bead][frames])
        return total / self.n_beads

    def restrict(self, frames):
        """Leave only some of the frames (increasing), in place."""
        self.rows = [[rows[frames] for rows in beads] for beads in self.rows]
        self.steps = None if self.steps is None else self.steps[frames]
        self.replica = None if self.replica is None else self.replica[frames]


def rows_of_beads(sources, what):
    """Steps that all beads have, as the run stands after restarts, and the rows of them in each bead's file.

    Parameters
    ----------
    sources : list of sources, bead 0 first
    what : str, for messages

    Returns
    -------
    steps : (n_frames,) integer array, or None where rows have none
    rows : list of (n_frames,) integer arrays

    Raises
    ------
    SeriesError
        where beads have different steps; only at the end, where a kill cut files off, may they differ.
    """
    if sources[0].steps is None:
        return None, [np.arange(source.n_rows) for source in sources]
    kept = [current_rows(source.steps) for source in sources]
    steps = [source.steps[rows] for source, rows in zip(sources, kept, strict=True)]
    last = min((found[-1] for found in steps if len(found)), default=-1)
    common = steps[0][steps[0] <= last]
    for bead, source in enumerate(sources):
        here = steps[bead][steps[bead] <= last]
        if not np.array_equal(here, common):
            odd = np.setxor1d(here, common)
            raise SeriesError(
                f"{source.path}: step {odd[0]} is not in every bead's file of {what}; use files of one run"
            )
        kept[bead] = kept[0] if bead and np.array_equal(kept[bead], kept[0]) else kept[bead][: len(common)]
    return common, [rows[: len(common)] for rows in kept]


def single(name, labels, units, sources, properties=(), checks=None):
    """A series from the files of all beads of one system."""
    steps, rows = rows_of_beads(sources, name)
    properties = list(properties) or [""] * len(labels)
    return Series(name, labels, units, [sources], [rows], steps, properties=properties, checks=checks or {})


def align(series):
    """Bring all series to the frames that all of them have, in place; the first is the one others are held against.

    Raises
    ------
    SeriesError
        where no step is common, or frames without step numbers are not equally many.
    """
    first = series[0]
    for one in series[1:]:
        if (one.steps is None or first.steps is None) and one.n_frames != first.n_frames:
            raise SeriesError(
                f"{one.name} has {one.n_frames} frames, {first.name} has {first.n_frames}; without step numbers in "
                "both they must be the same frames"
            )
    if first.steps is None:
        return
    stepped = {f"{number} {one.name}": one.steps for number, one in enumerate(series) if one.steps is not None}
    common, rows = common_steps(stepped)
    in_first = rows[f"0 {first.name}"]
    if len(common) == first.n_frames and all(len(steps) == len(common) for steps in stepped.values()):
        return
    for number, one in enumerate(series):
        one.restrict(in_first if one.steps is None else rows[f"{number} {one.name}"])
