"""Reader of LAMMPS dumps (`dump custom`), in Å: atoms by id, frames by step, as the run stands after restarts."""

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
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    except (OSError, UnicodeDecodeError) as error:
        raise SeriesError(f"{path}: cannot be read ({error}); check the path") from error
    place, frames, known = 0, [], None
    while place + 9 <= len(lines):
        frame = _Frame(path, lines, place)
        place += 9 + frame.n_atoms
        if place > len(lines):
            break
        if known is not None and frame.identity() != known:
            raise SeriesError(
                f"{path}, step {frame.step}: its atoms, columns or walls are not those of the first frame"
            )
        known = frame.identity()
        frames.append(frame)
    if not frames:
        raise SeriesError(f"{path}: holds no whole frame; sample longer, or check the file")
    kept = current_rows([frame.step for frame in frames])
    frames = [frames[row] for row in kept]
    return Dump(
        np.array([frame.step for frame in frames]),
        frames[0].symbols,
        np.array([frame.positions for frame in frames]),
        np.array([frame.cell for frame in frames]),
        np.array([wall == "pp" for wall in frames[0].walls]),
    )


class _Frame:
    """One frame: nine lines of head, then one line an atom."""

    def __init__(self, path, lines, first):
        self.path = path
        head = lines[first : first + 9]
        names = head[8].split()[2:]
        if not (
            head[0].startswith("ITEM: TIMESTEP") and head[8].startswith("ITEM: ATOMS") and head[4].startswith("ITEM")
        ):
            raise SeriesError(f"{path}, line {first + 1}: not the head of a frame of `dump custom`; check the file")
        try:
            self.step, self.n_atoms = int(head[1]), int(head[3])
            bounds = np.array([[float(word) for word in line.split()] for line in head[5:8]])
        except ValueError as error:
            raise SeriesError(f"{path}, line {first + 1}: {error}; the head of this frame is damaged") from error
        self.walls = [word for word in head[4].split()[3:] if re.fullmatch("[pfsm]{2}", word)]
        if bounds.shape not in ((3, 2), (3, 3)) or not np.isfinite(bounds).all() or len(self.walls) != 3:
            raise SeriesError(
                f"{path}, line {first + 5}: not the bounds of a box; print them without `dump_modify triclinic`"
            )
        coordinates = next((three for three in _COORDINATES if set(three) <= set(names)), None)
        if coordinates is None or "id" not in names:
            raise SeriesError(
                f"{path}, line {first + 9}: the columns id and x y z are needed; it has {' '.join(names)}"
            )
        self._set_box(bounds)
        self._read_atoms(lines, first + 9, names, coordinates)

    def _set_box(self, bounds):
        tilt = bounds[:, 2] if bounds.shape[1] == 3 else np.zeros(3)
        xy, xz, yz = tilt
        low, high = bounds[:, 0].copy(), bounds[:, 1].copy()
        low[:2] -= [min(0, xy, xz, xy + xz), min(0, yz)]
        high[:2] -= [max(0, xy, xz, xy + xz), max(0, yz)]
        length = high - low
        self.corner = low
        self.cell = np.array([[length[0], 0, 0], [xy, length[1], 0], [xz, yz, length[2]]])

    def _read_atoms(self, lines, first, names, coordinates):
        atoms = lines[first : first + self.n_atoms]
        self.symbols, self.positions, self._ids = None, None, None
        if len(atoms) < self.n_atoms:
            return
        wanted = [names.index(name) for name in ("id", *coordinates)]
        words = [line.split() for line in atoms]
        short = next((number for number, row in enumerate(words) if len(row) != len(names)), None)
        if short is not None:
            raise SeriesError(
                f"{self.path}, line {first + short + 1}: {len(words[short])} columns, the head names {len(names)}"
            )
        text = "#\n" * first + "".join(" ".join(row[column] for column in wanted) + "\n" for row in words)
        values, _ = Rows(self.path, 4).read(text.encode())
        order = np.argsort(values[:, 0])
        self._ids = values[order, 0].tolist()
        scaled = coordinates[0].startswith("xs")
        self.positions = values[order, 1:] @ self.cell if scaled else values[order, 1:] - self.corner
        if "element" in names:
            self.symbols = [words[atom][names.index("element")] for atom in order]

    def identity(self):
        """What must be the same in all frames."""
        return self._ids, self.symbols, self.walls
