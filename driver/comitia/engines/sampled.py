"""What a sampler wrote, found by `F[:COL]`: i-PI, LAMMPS and PLUMED output, tables, extended XYZ and HDF5."""

import re
from pathlib import Path

import numpy as np

from comitia.engines.ipi_files import bead_files
from comitia.engines.ipi_output import extras_quantity, is_extras_file, is_property_file, property_header
from comitia.engines.lammps_output import LammpsLog, is_lammps_log
from comitia.engines.plumed import check_bias, energy_unit, inputs_of, time_unit
from comitia.engines.replica_exchange import join_replicas
from comitia.engines.row_sources import KEPT, ArraySource, DatasetSource, TextSource, open_hdf5
from comitia.engines.series import single
from comitia.engines.tables import column_names, steps_of_times
from comitia.engines.text_rows import TextRows
from comitia.errors import SeriesError
from comitia.units import HARTREE

HDF5 = (".h5", ".hdf5", ".hdf")
XYZ = (".xyz", ".extxyz")
MEMBERS = "members"
"""The column that stands for all of them: one estimator for each member."""

MODELS = "models"
"""The column that stands for all of them: one quantity by several models of it."""

CHECKS = ("ensemble_temperature", "temperature", "potential")
"""Properties that say whether a run was what it is taken for."""


def split(specification):
    """Path and column of `F[:COL]`; a file whose own name holds a colon is found too."""
    if ":" in specification and not Path(specification).exists():
        path, column = specification.rsplit(":", 1)
        if not path.lower().endswith(HDF5) and ":" in path:  # the data set of an HDF5 file stands between
            before, dataset = path.rsplit(":", 1)
            if before.lower().endswith(HDF5):
                path, column = before, f"{dataset}:{column}"
        return Path(path), column or None
    return Path(specification), None


def find_columns(column, labels, where, alike=None):
    """Columns, counted from 0, that a name, a number, a range `2-51` or a list of them with commas stands for.

    Parameters
    ----------
    column : str or None; None is the only column
    labels : list of str, one for each column
    where : str, for messages
    alike : list of lists of str or None
        further names of each column, the best first; a name must mean one column only

    Returns
    -------
    list of int
    """
    n_columns = len(labels)
    described = ", ".join(f"{number} {label}" for number, label in enumerate(labels, 1))
    described = described if any(labels) else f"columns 1 to {n_columns}"
    if column is None:
        if n_columns == 1:
            return [0]
        raise SeriesError(f"{where}: has {n_columns} columns; say which one as {where}:COLUMN ({described})")
    column = column.strip()
    if column in (MEMBERS, MODELS) and column not in labels:
        return list(range(n_columns))
    for names in [labels, *(alike or [])]:
        found = [
            number for number, name in enumerate(names) if name and name.replace(" ", "") == column.replace(" ", "")
        ]
        if len(found) == 1:
            return found
        if found:
            raise SeriesError(f"{where}: {column!r} is more than one column; give the number of one of {described}")
    span = re.fullmatch(r"(\d+)(?:-(\d+))?", column)
    if span and 1 <= int(span[1]) <= int(span[2] or span[1]) <= n_columns:
        return list(range(int(span[1]) - 1, int(span[2] or span[1])))
    if "," in column and "(" not in column:
        return [number for part in column.split(",") for number in find_columns(part, labels, where, alike)]
    raise SeriesError(f"{where}: there is no column {column} (columns count from 1); it has {described}")


def open_series(specification, table_energies=None, energies=False, ensemble=None, log=None, kept=KEPT):
    """The quantities of `F[:COL]`, to be read piece by piece.

    Parameters
    ----------
    specification : str
    table_energies : "hartree", "eV" or None, the unit of energies in plain tables
    energies : bool, whether the quantities must be energies: they are converted to eV
    ensemble : replica_exchange.Ensemble or None, which frames of a replica exchange are meant
    log : LammpsLog or None
        of the run, whose time step tells the steps of the times in COLVAR; None where these are steps, as i-PI's are
    kept : int, bytes of numbers that may stay in memory

    Returns
    -------
    Series
    """
    path, column = split(specification)
    if is_property_file(path):
        return _properties(path, column, energies, ensemble, kept)
    if path.is_file() and is_extras_file(path):
        return _extras(path, column, energies, ensemble, kept)
    if ensemble is not None:
        raise SeriesError(f"{path}: is not i-PI's output, and frames of a replica exchange are told apart by that only")
    table_energies = table_energies if energies else None
    if path.suffix.lower() in HDF5:
        return _dataset(path, column, table_energies)
    if path.suffix in XYZ:
        return _extended_xyz(path, column)
    if is_lammps_log(path):
        return _lammps_log(path, column, energies, kept)
    return _table(path, column, table_energies, log, kept)


def _properties(path, column, energies, ensemble, kept):
    header = property_header(TextRows(path))
    labels, plain, names = [], [], []
    for one in header:
        for component in range(one.size):
            labels.append(one.label if one.size == 1 else f"{one.label}[{component}]")
            plain.append(re.sub(r"\{[^}]*\}", "", one.label))
            names.append(one.name)
    by_column = [one for one in header for _ in range(one.size)]
    if column is None:
        others = [number for number, name in enumerate(names) if name not in ("step", "time")]
        column = str(others[0] + 1) if len(others) == 1 else None
    columns = find_columns(column, labels, path, [plain, names])
    for number in columns:
        if energies and by_column[number].unit != "eV":
            raise SeriesError(f"{path}: {labels[number]} is not an energy; give a column of energies")
    step = next((one.number - 1 for one in header if one.name == "step"), None)
    checks = {one.name: one.number - 1 for one in reversed(header) if one.name in CHECKS and "(" not in one.label}
    read = columns + list(checks.values())
    factors = np.array([by_column[number].factor for number in read])

    def source(file):
        return TextSource(TextRows(file), read, factors, step, kept=kept)

    what = [
        [f"{path.name}:{labels[n]}" for n in columns],
        [by_column[n].unit for n in columns],
        [names[n] for n in columns],
    ]
    checks = {name: len(columns) + place for place, name in enumerate(checks)}
    return join_replicas([path], source, path, what, ensemble, checks)


def _extras(path, column, energies, ensemble, kept):
    files = bead_files(path)
    n_columns = TextRows(files[0]).n_columns
    columns = find_columns(column, [""] * n_columns, path)
    kept //= len(files)

    def source(file):
        return TextSource(TextRows(file, stepped=True), columns, HARTREE if energies else 1.0, kept=kept)

    labels = [f"{path.name}:{number + 1}" for number in columns]
    what = [labels, ["eV" if energies else ""] * len(columns), [""] * len(columns)]
    return join_replicas(files, source, path, what, ensemble)


def committee(path, ensemble=None, kept=KEPT):
    """Member energies, eV, averaged over beads, from i-PI's extras of any one bead.

    Returns
    -------
    Series
    """
    files = bead_files(path)
    quantity = extras_quantity(TextRows(files[0], stepped=True))
    if "," in quantity:
        raise SeriesError(f"{files[0]}: holds {quantity} side by side; print committee_pot in a file of its own")
    n_columns = TextRows(files[0]).n_columns

    def source(file):
        return TextSource(TextRows(file, stepped=True), factors=HARTREE, kept=kept // len(files))

    what = [[f"member {member}" for member in range(n_columns)], ["eV"] * n_columns, [""] * n_columns]
    return join_replicas(files, source, Path(path), what, ensemble)


def _lammps_log(path, column, energies, kept):
    log = LammpsLog(path)
    columns = find_columns(column, log.names, path)
    for number in columns:
        if energies and log.units[number] != "eV":
            raise SeriesError(f"{path}: {log.names[number]} is not an energy; give a column of energies")
    source = TextSource(log, columns, np.array([log.factors[n] for n in columns]), log.step_column, kept=kept)
    labels = [f"{path.name}:{log.names[number]}" for number in columns]
    return single(
        str(path), labels, [log.units[n] for n in columns], [source], properties=[log.properties[n] for n in columns]
    )


def _table(path, column, table_energies, log, kept):
    file = TextRows(path, unended=True)
    if file.n_columns == 0:
        raise SeriesError(f"{path}: holds no row of numbers; check the file")
    names = column_names(file)
    columns = find_columns(column, names or [""] * file.n_columns, path)
    if table_energies:
        check_bias(path, names, columns)
    factor = HARTREE if table_energies == "hartree" else 1.0
    if table_energies and "time" in names:
        factor = energy_unit(path) or factor
    time = names.index("time") if "time" in names else None
    source = TextSource(file, columns, factor, watched=() if time is None else [time], kept=kept)
    if time is not None:
        source.steps = _steps_of_plumed(path, source.watched[:, 0], log)
    labels = [path.name if column is None else f"{path.name}:{names[n] if names else n + 1}" for n in columns]
    return single(str(path), labels, ["eV" if table_energies else ""] * len(columns), [source])


def _steps_of_plumed(path, times, log):
    """Steps of the times in a file that PLUMED wrote, or None where they are not known."""
    if log is None:
        return steps_of_times(times)
    unit = next(map(time_unit, inputs_of(path)), 1.0)
    return steps_of_times(times, 1e-3 * log.timestep / unit) if log.timestep else None


def _dataset(path, column, table_energies):
    name, _, column = (column or "").partition(":")
    file = open_hdf5(path)
    numeric = []
    file.visititems(lambda key, found: numeric.append(key) if getattr(found, "ndim", 0) else None)
    if name not in file or not getattr(file[name], "ndim", 0):
        raise SeriesError(f"{path}: give one of its data sets as {path}:DATASET[:COL]; it has {', '.join(numeric)}")
    dataset = file[name]
    n_columns = 1 if dataset.ndim == 1 else dataset.shape[-1]
    columns = find_columns(column or None, [""] * n_columns, f"{path}:{name}")
    unit = str(dataset.attrs.get("unit", "hartree" if table_energies == "hartree" else "eV" if table_energies else ""))
    factor = HARTREE if unit == "hartree" else 1.0
    steps = next((dataset.parent[key][...] for key in ("step", "steps") if key in dataset.parent), None)
    if steps is not None and steps.shape != (len(dataset),):
        raise SeriesError(f"{path}: {dataset.name} has {len(dataset)} rows, its steps have shape {steps.shape}")
    source = DatasetSource(path, dataset, columns, factor, steps)
    labels = [f"{path.name}:{name}" if n_columns == 1 else f"{path.name}:{name}:{n + 1}" for n in columns]
    return single(str(path), labels, ["eV" if unit == "hartree" else unit] * len(columns), [source])


def _extended_xyz(path, column):
    from comitia.structures import read_frames

    values, steps = [], []
    for frame, (atoms, _) in enumerate(read_frames(path)):
        known = atoms.info | (atoms.calc.results if atoms.calc else {})
        if column not in known:
            raise SeriesError(
                f"{path}, frame {frame}: has no {column!r}; it has {', '.join(sorted(known)) or 'nothing'}"
            )
        try:
            values.append(np.asarray(known[column], dtype=float).reshape(-1))
        except (TypeError, ValueError) as error:
            raise SeriesError(f"{path}, frame {frame}: {column!r} is not numbers ({error})") from error
        if not np.isfinite(values[-1]).all() or len(values[-1]) != len(values[0]):
            raise SeriesError(f"{path}, frame {frame}: {column!r} is not finite, or has another length than before")
        steps.append(known.get("step", known.get("Step")))
    known_steps = None if any(step is None for step in steps) else np.asarray(steps, dtype=np.int64)
    n_columns = len(values[0]) if values else 0
    labels = [f"{path.name}:{column}" + (f"[{n}]" if n_columns > 1 else "") for n in range(n_columns)]
    return single(str(path), labels, [""] * n_columns, [ArraySource(path, np.array(values), known_steps)])
