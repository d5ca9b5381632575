"""Reader of LAMMPS dumps (`dump custom`), in Å: atoms by id, frames by step, as the run stands after restarts."""

import itertools
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from comitia._text import Rows
from comitia.engines.ipi_output import current_rows
from comitia.errors import SeriesError

_COORDINATES = (("xu", "yu", "zu"), ("x", "y", "z"), ("xs", "ys", "zs"), ("xsu", "ysu", "zsu"))


@dataclass(frozen=True)
class Dump:
    """Frames of a dump.

    Attributes
    ----------
    steps : (n_frames,) integer array
    symbols : list of str, of the atoms in the order of their ids; None where `element` was not dumped
    positions : (n_frames, n_atoms, 3) array, Å, from the corner of the box
    cells : (n_frames, 3, 3) array, Å, lattice vectors in rows
    periodic : (3,) boolean array
    """

    steps: np.ndarray
    symbols: list[str] | None
    positions: np.ndarray
    cells: np.ndarray
    periodic: np.ndarray


def is_dump(path):
    """Whether a file begins as a dump of LAMMPS."""
    try:
        with open(path, "rb") as file:
            return file.read(14) == b"ITEM: TIMESTEP"
    except OSError:
        return False


def read_dump(path):
    """Read a dump with the columns id, coordinates (x, xu, xs …) and, for the species, element.

    Returns
    -------
    Dump

    Raises
    ------
    SeriesError
        naming file and line; a last frame that a kill cut off is left out.
    """
    steps, positions, cells, first = [], [], [], None
    for frame in _frames(Path(path)):
        first = first or frame
        if frame.identity() != first.identity():
            raise SeriesError(
                f"{path}, step {frame.step}: its atoms, columns or walls are not those of the first frame"
            )
        steps.append(frame.step)
        positions.append(frame.positions)
        cells.append(frame.cell)
    if first is None:
        raise SeriesError(f"{path}: holds no whole frame; sample longer, or check the file")
    kept = current_rows(steps)
    return Dump(
        np.array(steps)[kept],
        first.symbols,
        np.array([positions[row] for row in kept]),
        np.array([cells[row] for row in kept]),
        np.array([wall == "pp" for wall in first.walls]),
    )


def _frames(path):
    """Whole frames in turn, so that the text of one of them only is held."""
    place, rows = 1, Rows(path, 4)
    try:
        with open(path, encoding="utf-8") as file:
            lines = (line[:-1] for line in itertools.takewhile(lambda line: line.endswith("\n"), file))
            while len(head := list(itertools.islice(lines, 9))) == 9:
                frame = _Frame(path, head, place)
                atoms = list(itertools.islice(lines, frame.n_atoms))
                if len(atoms) < frame.n_atoms:
                    return
                frame.read_atoms(atoms, rows)
                yield frame
                place += 9 + frame.n_atoms
    except (OSError, UnicodeDecodeError) as error:
        raise SeriesError(f"{path}: cannot be read ({error}); check the path") from error


class _Frame:
    """One frame: nine lines of head, of which `place` is the number of the first, then one line an atom."""

    def __init__(self, path, head, place):
        self.path, self.place = path, place
        self.names = names = head[8].split()[2:]
        if not (
            head[0].startswith("ITEM: TIMESTEP") and head[8].startswith("ITEM: ATOMS") and head[4].startswith("ITEM")
        ):
            raise SeriesError(f"{path}, line {place}: not the head of a frame of `dump custom`; check the file")
        try:
            self.step, self.n_atoms = int(head[1]), int(head[3])
            bounds = np.array([[float(word) for word in line.split()] for line in head[5:8]])
            if not 0 <= self.n_atoms < 1 << 31:
                raise ValueError(f"{self.n_atoms} atoms")
        except ValueError as error:
            raise SeriesError(f"{path}, line {place}: {error}; the head of this frame is damaged") from error
        self.walls = [word for word in head[4].split()[3:] if re.fullmatch("[pfsm]{2}", word)]
        if bounds.shape not in ((3, 2), (3, 3)) or not np.isfinite(bounds).all() or len(self.walls) != 3:
            raise SeriesError(
                f"{path}, line {place + 4}: not the bounds of a box; print them without `dump_modify triclinic`"
            )
        self.coordinates = next((three for three in _COORDINATES if set(three) <= set(names)), None)
        if self.coordinates is None or "id" not in names:
            raise SeriesError(
                f"{path}, line {place + 8}: the columns id and x y z are needed; it has {' '.join(names)}"
            )
        self._set_box(bounds)

    def _set_box(self, bounds):
        tilt = bounds[:, 2] if bounds.shape[1] == 3 else np.zeros(3)
        xy, xz, yz = tilt
        low, high = bounds[:, 0].copy(), bounds[:, 1].copy()
        low[:2] -= [min(0, xy, xz, xy + xz), min(0, yz)]
        high[:2] -= [max(0, xy, xz, xy + xz), max(0, yz)]
        length = high - low
        self.corner = low
        self.cell = np.array([[length[0], 0, 0], [xy, length[1], 0], [xz, yz, length[2]]])

    def read_atoms(self, lines, rows):
        """Take the numbers from the lines of the atoms; `rows` counts the lines of all frames."""
        names = self.names
        wanted = [names.index(name) for name in ("id", *self.coordinates)]
        words = [line.split() for line in lines]
        short = next((number for number, row in enumerate(words) if len(row) != len(names)), None)
        if short is not None:
            raise SeriesError(
                f"{self.path}, line {self.place + 9 + short}: {len(words[short])} columns, the head names {len(names)}"
            )
        text = "".join("\n" + " ".join(row[column] for column in wanted) for row in words)
        values, _ = rows.read(("#\n" * 8 + "#" + text.replace("\n#", "\n?#") + "\n").encode())  # no atom is a comment
        order = np.argsort(values[:, 0])
        self._ids = values[order, 0].tolist()
        scaled = self.coordinates[0].startswith("xs")
        self.positions = values[order, 1:] @ self.cell if scaled else values[order, 1:] - self.corner
        self.symbols = [words[atom][names.index("element")] for atom in order] if "element" in names else None

    def identity(self):
        """What must be the same in all frames."""
        return self._ids, self.symbols, self.walls
