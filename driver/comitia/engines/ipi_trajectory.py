"""Reader of i-PI's xyz trajectories, all beads together."""

import itertools
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from comitia._text import Rows
from comitia.engines.ipi_output import current_rows, join_beads
from comitia.engines.ipi_units import conversion
from comitia.errors import SeriesError

_COMMENT = re.compile(r"Step:\s*(\d+)\s+Bead:\s*(\d+)\s+(\w+)(?:\{([^}]*)\})?\s*cell(?:\{([^}]*)\})?")
_CELL = re.compile(r"CELL\(abcABC\):\s*((?:[-+.0-9eE]+\s+){6})")
_ROWS_AT_ONCE = 1 << 14


@dataclass(frozen=True)
class Trajectory:
    """Positions of every bead.

    Attributes
    ----------
    paths : list of Path
    steps : (n_frames,) integer array
    symbols : list of str, as i-PI names the atoms
    positions : (n_frames, n_beads, n_atoms, 3) array, Å; i-PI's xyz keeps five decimals
    cell_parameters : (n_frames, 6) array, lengths in Å and angles in degrees
    """

    paths: list[Path]
    steps: np.ndarray
    symbols: list[str]
    positions: np.ndarray
    cell_parameters: np.ndarray


class _Xyz:
    """One bead's file, gone through frame by frame: the numbers are kept, of the text one frame only is held."""

    def __init__(self, path, bead):
        self.path, self.bead = path, bead
        self.steps, self.cells, self.symbols = [], [], None
        self._length = self._cell_length = None

    def read(self):
        """Steps, positions (n_frames, n_atoms, 3) and cells, as the run stands after restarts; and the atoms."""
        found = [values for values, _ in Rows(self.path, 3).pieces(self._texts(), _ROWS_AT_ONCE)]
        if not self.steps:
            raise SeriesError(f"{self.path}: holds no whole frame; sample longer, or check the file")
        positions = np.concatenate(found).reshape(len(self.steps), -1, 3)
        positions *= self._length
        steps, cells = np.array(self.steps), np.array(self.cells)
        cells[:, :3] *= self._cell_length
        kept = current_rows(steps)
        if len(kept) < len(steps):
            steps, positions, cells = steps[kept], positions[kept], cells[kept]
        return steps, positions, cells, self.symbols

    def _texts(self):
        """Coordinates of every whole frame, under two lines of comment, so that lines keep their numbers."""
        try:
            with open(self.path, encoding="utf-8") as file:
                lines = itertools.takewhile(lambda line: line.endswith("\n"), file)
                try:
                    n_atoms = int(first := next(lines))
                except (StopIteration, ValueError) as error:
                    raise SeriesError(
                        f"{self.path}: does not begin with the number of atoms; give an xyz trajectory of i-PI"
                    ) from error
                if not 1 <= n_atoms < 1 << 31:
                    return
                lines = itertools.chain([first], lines)
                while len(frame := list(itertools.islice(lines, n_atoms + 2))) == n_atoms + 2:
                    self._add_head(frame, n_atoms)
                    rows = [line.split(maxsplit=1) for line in frame[2:]]
                    self.symbols = self.symbols or [row[0] if row else "" for row in rows]
                    text = "#\n#\n" + "".join(row[1] if len(row) == 2 else "?\n" for row in rows)
                    yield (text[:3] + text[3:].replace("\n#", "\n?#")).encode()  # no atom is a comment
        except (OSError, UnicodeDecodeError) as error:
            raise SeriesError(f"{self.path}: cannot be read ({error}); check the path") from error

    def _add_head(self, frame, n_atoms):
        path, line = self.path, len(self.steps) * (n_atoms + 2) + 1
        comment, cell = _COMMENT.search(frame[1]), _CELL.search(frame[1])
        if frame[0].strip() != str(n_atoms) or not comment or not cell:
            raise SeriesError(f"{path}, line {line}: not the head of an xyz frame of i-PI")
        if int(comment[2]) != self.bead:
            raise SeriesError(f"{path}: the comment names bead {comment[2]}, the name of the file bead {self.bead}")
        if self._length is None:
            self._length, unit = conversion(comment[3], comment[4] or "")
            self._cell_length, cell_unit = conversion("cell_h", comment[5] or "")
            if unit != "Å" or cell_unit != "Å":
                raise SeriesError(f"{path}: holds {comment[3]} in {unit}, not positions; print positions{{angstrom}}")
        try:
            self.steps.append(np.int64(int(comment[1])))
            self.cells.append(np.array([float(word) for word in cell[1].split()]))
        except (ValueError, OverflowError) as error:
            raise SeriesError(f"{path}, line {line + 1}: {error}; the comment is damaged") from error
        if not np.isfinite(self.cells[-1]).all():
            raise SeriesError(f"{path}, line {line + 1}: the cell is not finite; find out why the run diverged")


def read_trajectory(paths):
    """Read the xyz trajectories of all beads (see `ipi_files.bead_files`), or of the centroid.

    Parameters
    ----------
    paths : list of Path, bead 0 first

    Returns
    -------
    Trajectory
    """
    read = [_Xyz(path, bead).read() for bead, path in enumerate(paths)]
    for path, (_, _, _, symbols) in zip(paths, read, strict=True):
        if symbols != read[0][3]:
            raise SeriesError(f"{path}: its atoms are not those of {paths[0]}; use files of one run")
    steps, positions = join_beads(paths, [frame[:2] for frame in read], "positions")
    return Trajectory(list(paths), steps, read[0][3], positions, read[0][2][: len(steps)])
