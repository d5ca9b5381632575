"""Readers of what i-PI writes: property files and extras of all beads, aligned by step number.

Energies come out in eV, lengths in Å, temperatures in K, times in fs.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from comitia.engines.ipi_units import conversion
from comitia.engines.row_sources import TextSource
from comitia.engines.text_rows import TextRows
from comitia.errors import SeriesError
from comitia.units import HARTREE

_HEADER = re.compile(r"^#\s*(?:column\s+(\d+)|cols\.\s*(\d+)-(\d+))\s*-->\s*(\S.*?)\s*(?::\s.*)?$")
_EXTRAS = re.compile(r"^\s*#EXTRAS\w*\(([^)]*)\)#\s*Step:\s*(\d+)", re.IGNORECASE)


def current_rows(steps):
    """Rows that belong to the trajectory as it stands after restarts.

    A run that goes on from a checkpoint writes again what came after the checkpoint: a row counts only where
    no later row has the same or a smaller step.

    Parameters
    ----------
    steps : (n_rows,) integer array, in the order of the file

    Returns
    -------
    (n_kept,) integer array of increasing steps' rows
    """
    steps = np.asarray(steps)
    later = np.append(np.minimum.accumulate(steps[::-1])[::-1][1:], np.iinfo(np.int64).max)
    return np.flatnonzero(steps < later)


@dataclass(frozen=True)
class Column:
    """One property of an i-PI file: `number` is its first column (from 1), `values` (n_frames,) or (n_frames, size)."""

    number: int
    label: str
    name: str
    unit: str
    values: np.ndarray


@dataclass(frozen=True)
class Properties:
    """A property file: `steps` (n_frames,) or None where step was not printed."""

    path: Path
    steps: np.ndarray | None
    columns: list[Column]

    def find(self, name):
        """All columns of a property, whatever its unit and arguments."""
        return [column for column in self.columns if column.name == name]

    def column(self, which):
        """One column by number (counted from 1, as in i-PI's header) or by name, as a `Column` of one value a frame."""
        listing = ", ".join(f"{column.number} {column.label}" for column in self.columns)
        if str(which).isdigit():
            for column in self.columns:
                size = 1 if column.values.ndim == 1 else column.values.shape[1]
                component = int(which) - column.number
                if 0 <= component < size:
                    values = column.values if size == 1 else column.values[:, component]
                    label = column.label if size == 1 else f"{column.label}[{component}]"
                    return Column(int(which), label, column.name, column.unit, values)
            raise SeriesError(f"{self.path}: there is no column {which} (columns count from 1): it has {listing}")
        wanted = str(which).replace(" ", "")
        plain = re.sub(r"\{[^}]*\}", "", wanted)
        found = [column for column in self.columns if column.label.replace(" ", "") == wanted]
        found = found or [c for c in self.columns if re.sub(r"\{[^}]*\}", "", c.label).replace(" ", "") == plain]
        found = found or self.find(plain)
        if not found:
            raise SeriesError(f"{self.path}: there is no property {which!r}; it has {listing}")
        if len(found) > 1 or found[0].values.ndim > 1:
            raise SeriesError(f"{self.path}: {which!r} is more than one column; give the number of one of {listing}")
        return found[0]


def is_property_file(path):
    """Whether a text file begins with the header of an i-PI property file."""
    try:
        with open(path, encoding="utf-8") as file:
            for line in file:
                if _HEADER.match(line.rstrip()):
                    return True
                if not line.startswith("#"):
                    return False
    except (OSError, UnicodeDecodeError):
        return False
    return False


@dataclass(frozen=True)
class Heading:
    """What a property file says of one property: its first column (from 1), how many, and factor to our unit."""

    number: int
    size: int
    label: str
    name: str
    factor: float
    unit: str


def property_header(file):
    """Properties of a property file in the order of their columns.

    Parameters
    ----------
    file : TextRows

    Returns
    -------
    list of Heading
    """
    found = {}
    for line in file.header:
        match = _HEADER.match(line)
        if match:
            first = int(match[1] or match[2])
            found[first] = (int(match[3]) if match[3] else first, match[4])
    if not found:
        raise SeriesError(f"{file.path}: no header `# column 1 --> …`; this is not a property file of i-PI")
    if not file.n_columns:
        raise SeriesError(f"{file.path}: no frame was written; sample longer")
    headings, described = [], 0
    for first, (last, label) in sorted(found.items()):
        if first != described + 1 or last < first:
            raise SeriesError(f"{file.path}: its header skips or repeats columns at {label}; the file is damaged")
        described = last
        name, unit = re.split(r"[({]", label)[0].strip(), re.search(r"\{([^}]*)\}", label)
        if name == "step" and last > first:
            raise SeriesError(f"{file.path}: columns {first} to {last} are not steps; the file is damaged")
        headings.append(Heading(first, last - first + 1, label, name, *conversion(name, unit[1] if unit else "")))
    if described != file.n_columns:
        raise SeriesError(
            f"{file.path}: its header describes {described} columns, its rows have {file.n_columns}; "
            "do not join files of different runs"
        )
    return headings


def read_properties(path):
    """Read an i-PI property file, in our units, as it stands after restarts.

    Returns
    -------
    Properties

    Raises
    ------
    SeriesError
        naming the file and the line.
    """
    file = TextRows(path)
    header = property_header(file)
    step = next((one.number - 1 for one in header if one.name == "step"), None)
    source = TextSource(file, step_column=step)
    rows = np.arange(source.n_rows) if step is None else current_rows(source.steps)
    table = source.take(rows)
    columns = []
    for one in header:
        first = one.number - 1
        values = table[:, first] if one.size == 1 else table[:, first : first + one.size]
        columns.append(Column(one.number, one.label, one.name, one.unit, values * one.factor))
    return Properties(file.path, None if step is None else source.steps[rows], columns)


def extras_quantity(file):
    """What stood in the parentheses of the first header of a file of extras (`TextRows`)."""
    header = _EXTRAS.match(file.header[0]) if file.header else None
    if not header or not file.n_columns:
        raise SeriesError(f"{file.path}: holds no extras of i-PI; sample longer, or check the file")
    return header[1]


def read_extras(path):
    """Read one bead's extras of one quantity, one row of numbers a frame, as printed (hartree for energies).

    Returns
    -------
    quantity : str, what stood in the parentheses of the header
    steps : (n_frames,) integer array
    values : (n_frames, n_values) array
    """
    file = TextRows(path, stepped=True)
    quantity = extras_quantity(file)
    source = TextSource(file)
    rows = current_rows(source.steps)
    return quantity, source.steps[rows], source.take(rows)


def is_extras_file(path):
    """Whether a text file begins with a header of i-PI's extras."""
    try:
        with open(path, encoding="utf-8") as file:
            return bool(_EXTRAS.match(file.readline()))
    except (OSError, UnicodeDecodeError):
        return False


def common_steps(series):
    """Rows of the steps that all series have, whatever their strides.

    Parameters
    ----------
    series : dict of name -> (n_rows,) increasing integer array of steps

    Returns
    -------
    steps : (n_common,) integer array
    rows : dict of name -> (n_common,) integer array

    Raises
    ------
    SeriesError
        if no step is in all of them; the message shows which steps each has.
    """
    common = None
    for steps in series.values():
        common = np.asarray(steps) if common is None else np.intersect1d(common, steps, assume_unique=True)
    if not len(common):
        shown = "; ".join(
            f"{name} has steps {', '.join(map(str, steps[:3]))}, … {steps[-1]}" if len(steps) else f"{name} has none"
            for name, steps in series.items()
        )
        raise SeriesError(f"no step is in all of the files ({shown}); print them at strides that meet")
    return common, {name: np.searchsorted(steps, common) for name, steps in series.items()}


@dataclass(frozen=True)
class BeadSeries:
    """Numbers of every bead: `steps` (n_frames,), `values` (n_frames, n_beads, …)."""

    quantity: str
    paths: list[Path]
    steps: np.ndarray
    values: np.ndarray

    @property
    def n_beads(self):
        """Number of beads."""
        return self.values.shape[1]


def join_beads(paths, series, what):
    """Stack the beads of one run: the same steps in every file, but for frames that a kill cut off at the end."""
    last = min(steps[-1] for steps, _ in series)
    steps = series[0][0][series[0][0] <= last]
    shape = series[0][1].shape[1:]
    values = np.empty((len(steps), len(paths), *shape))
    for bead, (path, (bead_steps, bead_values)) in enumerate(zip(paths, series, strict=True)):
        kept = bead_steps <= last
        if not np.array_equal(bead_steps[kept], steps):
            odd = np.setxor1d(bead_steps[kept], steps)
            raise SeriesError(f"{path}: step {odd[0]} is not in every bead's file of {what}; use files of one run")
        if bead_values.shape[1:] != shape:
            raise SeriesError(f"{path}: {what} has shape {bead_values.shape[1:]} a frame, that of {paths[0]} {shape}")
        values[:, bead] = bead_values[kept]
    return steps, values


def read_committee(paths):
    """Member energies of every bead, from the extras files of all beads (see `ipi_files.bead_files`).

    Parameters
    ----------
    paths : list of Path, bead 0 first

    Returns
    -------
    BeadSeries with values (n_frames, n_beads, n_members), eV; average over beads before anything else
    """
    read = [read_extras(path) for path in paths]
    quantity = read[0][0]
    if "," in quantity:
        raise SeriesError(f"{paths[0]}: holds {quantity} side by side; print committee_pot in a file of its own")
    steps, values = join_beads(paths, [(steps, values) for _, steps, values in read], quantity)
    return BeadSeries(quantity, list(paths), steps, values * HARTREE)
