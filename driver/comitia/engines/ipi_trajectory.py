"""Reader of i-PI's xyz trajectories, all beads together."""

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


def _lines(path):
    """Whole lines of a text file: what follows the last end of line, where a program was killed, is left out."""
    try:
        return Path(path).read_text(encoding="utf-8").split("\n")[:-1]
    except (OSError, UnicodeDecodeError) as error:
        raise SeriesError(f"{path}: cannot be read ({error}); check the path") from error


def _read_xyz(path, bead):
    lines = _lines(path)
    try:
        n_atoms = int(lines[0])
    except (IndexError, ValueError) as error:
        raise SeriesError(f"{path}: does not begin with the number of atoms; give an xyz trajectory of i-PI") from error
    size = n_atoms + 2
    n_frames = len(lines) // size
    if n_atoms < 1 or n_frames == 0:
        raise SeriesError(f"{path}: holds no whole frame; sample longer, or check the file")
    frames = [lines[start : start + size] for start in range(0, n_frames * size, size)]
    steps, cells = np.empty(n_frames, dtype=np.int64), np.empty((n_frames, 6))
    length = cell_length = None
    for index, frame in enumerate(frames):
        comment, cell = _COMMENT.search(frame[1]), _CELL.search(frame[1])
        if frame[0].strip() != str(n_atoms) or not comment or not cell:
            raise SeriesError(f"{path}, line {index * size + 1}: not the head of an xyz frame of i-PI")
        if int(comment[2]) != bead:
            raise SeriesError(f"{path}: the comment names bead {comment[2]}, the name of the file bead {bead}")
        if length is None:
            length, unit = conversion(comment[3], comment[4] or "")
            cell_length, cell_unit = conversion("cell_h", comment[5] or "")
            if unit != "Å" or cell_unit != "Å":
                raise SeriesError(f"{path}: holds {comment[3]} in {unit}, not positions; print positions{{angstrom}}")
        try:
            steps[index], cells[index] = int(comment[1]), [float(word) for word in cell[1].split()]
        except (ValueError, OverflowError) as error:
            raise SeriesError(f"{path}, line {index * size + 2}: {error}; the comment is damaged") from error
        if not np.isfinite(cells[index]).all():
            raise SeriesError(f"{path}, line {index * size + 2}: the cell is not finite; find out why the run diverged")
    rows = [line.split(maxsplit=1) for frame in frames for line in frame[2:]]
    atoms = iter(row[1] if len(row) == 2 else "?" for row in rows)
    heads = ("#\n#\n" + "".join(f"{next(atoms)}\n" for _ in range(n_atoms)) for _ in frames)  # lines keep their places
    coordinates, _ = Rows(path, 3).read("".join(heads).encode())
    kept = current_rows(steps)
    cells[:, :3] *= cell_length
    symbols = [row[0] for row in rows[:n_atoms]]
    return steps[kept], coordinates.reshape(n_frames, n_atoms, 3)[kept] * length, cells[kept], symbols


def read_trajectory(paths):
    """Read the xyz trajectories of all beads (see `ipi_files.bead_files`), or of the centroid.

    Parameters
    ----------
    paths : list of Path, bead 0 first

    Returns
    -------
    Trajectory
    """
    read = [_read_xyz(path, bead) for bead, path in enumerate(paths)]
    for path, (_, _, _, symbols) in zip(paths, read, strict=True):
        if symbols != read[0][3]:
            raise SeriesError(f"{path}: its atoms are not those of {paths[0]}; use files of one run")
    steps, positions = join_beads(paths, [frame[:2] for frame in read], "positions")
    return Trajectory(list(paths), steps, read[0][3], positions, read[0][2][: len(steps)])
