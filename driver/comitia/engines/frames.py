"""Everything that one reweighting needs, gathered from files and aligned frame by frame."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from comitia.engines.ipi_files import bead_files, refuse_replica_exchange, run_facts
from comitia.engines.ipi_output import (
    common_steps,
    is_extras_file,
    is_property_file,
    read_committee,
    read_extras,
    read_properties,
)
from comitia.engines.ipi_units import CONTAINS_POTENTIAL
from comitia.engines.tables import printed_resolution, read_table
from comitia.errors import SeriesError, UsageError
from comitia.potential.mixing import are_pseudo_members
from comitia.units import HARTREE


@dataclass(frozen=True)
class Frames:
    """Aligned frames.

    Attributes
    ----------
    member_energies : (n_frames, n_members) array, eV, averaged over beads
    observable : (n_frames,) array, or (n_frames, n_members) member estimators
    label, unit : of the observable
    driving : "mean", int, or (n_frames,) array, eV
    bias : (n_frames,) array, eV, or None
    n_beads : int
    energy_unit : unit of the potentials in their file
    warnings : list of str
    """

    member_energies: np.ndarray
    observable: np.ndarray
    label: str
    unit: str
    driving: object
    bias: np.ndarray | None
    n_beads: int
    energy_unit: str
    warnings: list[str] = field(default_factory=list)


@dataclass
class _Series:
    """Values of one file with the steps they belong to; `steps` is None for a plain table."""

    name: str
    values: np.ndarray
    steps: np.ndarray | None
    unit: str = ""
    property_name: str = ""
    properties: object = None


def _split(specification):
    """Path and column of `F[:COL]`; a file whose own name holds a colon is found too."""
    if ":" in specification and not Path(specification).exists():
        path, column = specification.rsplit(":", 1)
        return Path(path), column or None
    return Path(specification), None


def _member_energies(path, units):
    """Member energies, eV, averaged over beads, from a table or from the extras of all beads."""
    given = Path(path)
    if given.is_file() and not is_extras_file(given):
        if is_property_file(given):
            raise SeriesError(
                f"{path}: is a property file; give the committee_pot extras, or a table of member energies"
            )
        unit = units or "hartree"
        values = read_table(given).values * (HARTREE if unit == "hartree" else 1.0)
        _refuse_pseudo_members(path, values)
        return _Series(str(path), values, None), 1, unit, given
    if units == "eV":
        raise UsageError(f"{path}: the extras of i-PI are in hartree; leave out --units eV")
    files = bead_files(given)
    refuse_replica_exchange(files[0])
    committee = read_committee(files)
    for bead in range(committee.n_beads):
        _refuse_pseudo_members(files[bead], committee.values[:, bead])
    return _Series(str(path), committee.values.mean(axis=1), committee.steps), committee.n_beads, "hartree", files[0]


def _refuse_pseudo_members(path, energies):
    """Refuse the two that stand for a committee (`serve --extras pseudo_members`)."""
    if energies.shape[1] == 2 and are_pseudo_members(energies):
        raise SeriesError(
            f"{path}: holds the two pseudo-members that `comitia serve` sends in place of its members, and an average "
            "under them means nothing; print extra_type='committee_member_energies' and give that"
        )


def _check_temperature(properties, temperature):
    """Refuse a run at another temperature, or at several."""
    for column in properties.find("ensemble_temperature"):
        values = column.values
        if np.ptp(values) > 1e-3 * values.mean():
            raise SeriesError(
                f"{properties.path}: {column.label} changes from {values.min():.6g} to {values.max():.6g} K; replica "
                "exchange and temperature ramps are not supported: sample one temperature"
            )
        if abs(values.mean() - temperature) > 5e-3 * temperature:
            raise SeriesError(
                f"{properties.path}: was sampled at {values.mean():.6g} K ({column.label}), not at --temperature "
                f"{temperature:g}; averages at another temperature are not supported: give that of the run"
            )
    for column in properties.find("temperature"):
        values = column.values[len(column.values) // 2 :]
        if "(" in column.label or len(values) < 40:
            continue
        blocks = np.array([block.mean() for block in np.array_split(values, 10)])
        difference = abs(blocks.mean() - temperature)
        if difference > 0.2 * temperature and difference > 6 * blocks.std(ddof=1) / np.sqrt(len(blocks)):
            raise SeriesError(
                f"{properties.path}: the mean of {column.label} is {values.mean():.4g} K, not --temperature "
                f"{temperature:g}; give the temperature of the run"
            )


def _series(specification, temperature, energy=None):
    """One series from `F[:COL]`; `energy` is the unit of a plain table that holds energies."""
    path, column = _split(specification)
    if is_property_file(path):
        refuse_replica_exchange(path)
        properties = read_properties(path)
        _check_temperature(properties, temperature)
        if column is None:
            others = [c for c in properties.columns if c.name not in ("step", "time")]
            if len(others) != 1 or others[0].values.ndim > 1:
                listing = ", ".join(f"{c.number} {c.label}" for c in properties.columns)
                raise SeriesError(f"{path}: say which column as {path}:COLUMN; it has {listing}")
            column = others[0].number
        found = properties.column(column)
        label = f"{path.name}:{found.label}"
        if energy and found.unit != "eV":
            raise SeriesError(f"{path}: {found.label} is not an energy; give a column of energies")
        return _Series(label, found.values, properties.steps, found.unit, found.name, properties)
    if path.is_file() and is_extras_file(path):
        files = bead_files(path)
        refuse_replica_exchange(files[0])
        read = [read_extras(file) for file in files]
        _, rows = common_steps({str(file): steps for file, (_, steps, _) in zip(files, read, strict=True)})
        values = np.mean([r[2][rows[str(file)]] for file, r in zip(files, read, strict=True)], axis=0)
        index = 1 if column is None and values.shape[1] == 1 else column
        if not str(index).isdigit() or not 1 <= int(index) <= values.shape[1]:
            raise SeriesError(f"{path}: give one of its columns 1 to {values.shape[1]} as {path}:COLUMN")
        values = values[:, int(index) - 1] * (HARTREE if energy else 1.0)
        return _Series(f"{path.name}:{index}", values, read[0][1][rows[str(files[0])]], "eV" if energy else "")
    table = read_table(path)
    if column == "members" and column not in table.names:
        return _Series(f"{path.name}:members", table.values, None)
    label = path.name if column is None else f"{path.name}:{column}"
    return _Series(label, table.column(column) * (HARTREE if energy == "hartree" else 1.0), None)


def _observable(specification, potentials, n_beads, temperature):
    if specification == "potentials":
        return _Series("potentials", potentials.values, potentials.steps, "eV", "potential")
    series = _series(specification, temperature)
    if series.property_name not in CONTAINS_POTENTIAL or series.property_name == "potential":
        return series
    if series.property_name == "kinetic_cv" and n_beads == 1:
        return series
    raise SeriesError(
        f"{series.name} contains the potential: under another member it is another observable, and reweighting the one "
        "that i-PI printed gives wrong shifts; give one estimator for each member in a table, as FILE:members"
    )


def _align(series):
    """Bring all series to common frames, in place; tables without steps pair with the potentials row by row."""
    potentials = series[0]
    n_rows = len(potentials.values)
    for one in series[1:]:
        if one.steps is None or potentials.steps is None:
            if len(one.values) != n_rows:
                raise SeriesError(
                    f"{one.name} has {len(one.values)} frames, {potentials.name} has {n_rows}; without step numbers in "
                    "both they must be the same frames"
                )
            if one.steps is None:
                one.steps = potentials.steps
            else:
                one.steps = None
    if potentials.steps is None:
        return
    _, rows = common_steps({f"{i} {one.name}": one.steps for i, one in enumerate(series)})
    for i, one in enumerate(series):
        one.values = one.values[rows[f"{i} {one.name}"]]


def gather(potentials, observable, temperature, units=None, driving="mean", bias=None, baseline=None):
    """Read and align what a reweighting needs.

    Parameters
    ----------
    potentials : path of a table of member energies, or of i-PI's committee_pot extras of any bead
    observable : "potentials", or `F[:COL]` of a table, a property file or an extras file
    temperature : float, K, checked against what the files say
    units : "hartree", "eV" or None, of energies in tables
    driving : "mean", index of a member, or `F[:COL]`
    bias : `F[:COL]` or None
    baseline : `F[:COL]` or None, energies that the members correct, added to each of them

    Returns
    -------
    Frames

    Raises
    ------
    SeriesError
        for files that cannot be read, do not fit each other, belong to a replica exchange or to another
        temperature, hold pseudo-members, or corrections without their baseline; and for observables that contain the
        potential but are not given for each member.
    """
    energies, n_beads, energy_unit, first_file = _member_energies(potentials, units)
    facts = run_facts(first_file) if energies.steps is not None else None
    if facts and facts.temperature and abs(facts.temperature - temperature) > 5e-3 * temperature:
        raise SeriesError(
            f"{facts.path}: the run is at {facts.temperature:.6g} K, not at --temperature {temperature:g}; averages at "
            "another temperature are not supported: give that of the run"
        )
    by_members = driving == "mean" or str(driving).isdigit()
    if facts and facts.weighted_baseline and (baseline is None or by_members):
        raise SeriesError(
            f"{potentials}: the run was driven by a baseline that the members correct ({facts.path}), not by "
            "them; give the energies of both, as --baseline run.baseline_pot_0 --driving run.out:potential"
        )
    seen = _observable(observable, energies, n_beads, temperature)
    series = [energies, seen]
    driver = driving
    if driving != "mean":
        if str(driving).isdigit() and not Path(str(driving)).exists():
            driver = int(driving)
        else:
            driver = _series(driving, temperature, energy=units or "hartree")
            series.append(driver)
    biased = _series(bias, temperature, energy=units or "hartree") if bias else None
    if biased:
        series.append(biased)
    corrected = _series(baseline, temperature, energy=units or "hartree") if baseline else None
    if corrected:
        series.append(corrected)
    sampled = next((s.properties for s in series if s.properties and s.properties.find("potential")), None)
    checked = None
    if sampled is not None and driving == "mean" and energies.steps is not None and sampled.steps is not None:
        checked = _Series("potential", sampled.find("potential")[0].values, sampled.steps)
        series.append(checked)
    _align(series)
    if corrected:
        energies.values = energies.values + corrected.values[:, None]
    if checked is not None:
        _check_driving(energies, checked, sampled.path)
    unit, values = seen.unit, seen.values
    if seen.property_name == "potential":
        unit, values = "eV", energies.values
    return Frames(
        member_energies=energies.values,
        observable=values,
        label=seen.name,
        unit=unit,
        driving=driver.values if isinstance(driver, _Series) else driver,
        bias=biased.values if biased else None,
        n_beads=n_beads,
        energy_unit=energy_unit,
        warnings=_precision_warnings(energies.values, first_file, energy_unit),
    )


def _check_driving(energies, checked, path):
    """The potential that i-PI printed must move with the mean of the members, if that is what drove the run."""
    mean = energies.values.mean(axis=1)
    difference = checked.values - mean
    allowed = 1e-3 * mean.std() + 1e-7 * np.abs(mean).max() + 1e-9
    if difference.std() > allowed:
        raise SeriesError(
            f"{path}: its potential is not the mean of the members (they differ by {difference.std():.2g} eV rms); "
            f"say what drove the run, for instance --driving {path}:potential, and bring the files of all beads"
        )


def _precision_warnings(member_energies, path, unit):
    """A warning where the printed energies are too coarse for the differences between members."""
    if member_energies.shape[1] < 2:
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
