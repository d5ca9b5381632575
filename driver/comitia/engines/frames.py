"""Everything that one reweighting needs, found in files, aligned by step, and handed out piece by piece."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from comitia.engines.ipi_files import run_facts
from comitia.engines.ipi_output import is_extras_file, is_property_file
from comitia.engines.ipi_units import CONTAINS_POTENTIAL
from comitia.engines.lammps_output import LammpsLog, is_lammps_log
from comitia.engines.replica_exchange import find_exchange
from comitia.engines.row_sources import ROWS_AT_ONCE
from comitia.engines.run_checks import RunChecks, precision_warnings, refuse_pseudo_members
from comitia.engines.sampled import HDF5, MEMBERS, MODELS, committee, open_series, split
from comitia.engines.series import align
from comitia.errors import SeriesError, UsageError

POTENTIALS = "potentials"
"""The observable that is the potential energy of each member."""


@dataclass(frozen=True)
class Observable:
    """A quantity whose average is wanted.

    Attributes
    ----------
    label, unit : str
    series : number of its series in `Frames.series`, or None for the potential energy of each member
    columns : list of int in that series: one, or one for each member where they are estimators
    estimators : bool, whether there is another one for each member
    models : str or None, what those with the same are called together: models of one quantity
    """

    label: str
    unit: str
    series: int | None
    columns: list[int]
    estimators: bool
    models: str | None = None


@dataclass(frozen=True)
class Piece:
    """Some consecutive frames.

    Attributes
    ----------
    member_energies : (n_frames, n_members) array, eV, averaged over beads
    observables : (n_frames, n_observables) array, those that are the same for all members
    estimators : (n_frames, n_estimators, n_members) array, those that are not
    driving : (n_frames,) array, eV, or None
    bias : the same, or (n_frames, n_states) where several states have one each
    """

    member_energies: np.ndarray
    observables: np.ndarray
    estimators: np.ndarray
    driving: np.ndarray | None
    bias: np.ndarray | None

    def taken(self, frames):
        """Some of the frames, or all in another order."""
        return Piece(*(None if values is None else values[frames] for values in vars(self).values()))

    @staticmethod
    def joined(pieces):
        """Several pieces as one."""
        parts = zip(*(vars(piece).values() for piece in pieces), strict=True)
        return Piece(*(None if values[0] is None else np.concatenate(values) for values in parts))


@dataclass
class Frames:
    """Aligned frames, which are read when `pieces` is gone through.

    Attributes
    ----------
    series : dict of str -> Series: potentials, and as given 0, 1, … of the observables, driving, bias, baseline
    observables : list of Observable, those with estimators last
    order : list of int, the observables in the order in which they were asked for
    driving : "mean", int, or "given" where each piece says
    energy_unit : str, unit of the potentials in their file
    first_file : Path, of the potentials
    ensemble : replica_exchange.Ensemble or None
    temperature : float, K
    warnings : list of str
    findings : list of (verdict, sentence), what the numbers say against the averages, after the last piece
    """

    series: dict
    observables: list[Observable]
    order: list[int]
    driving: object
    energy_unit: str
    first_file: Path
    ensemble: object
    temperature: float
    warnings: list[str] = field(default_factory=list)
    findings: list = field(default_factory=list)

    @property
    def n_frames(self):
        """Number of frames."""
        return self.series[POTENTIALS].n_frames

    @property
    def n_members(self):
        """Number of members."""
        return len(self.series[POTENTIALS].labels)

    @property
    def n_beads(self):
        """Number of beads that the energies are averaged over."""
        return self.series[POTENTIALS].n_beads

    def pieces(self, first=0, size=ROWS_AT_ONCE):
        """Frames from `first` on, as `Piece` of at most `size` frames.

        Raises
        ------
        SeriesError
            at the latest after the last piece, where the numbers say that the run was not what it is taken for.
        """
        checks = RunChecks(self)
        for begin in range(first, self.n_frames, size):
            frames = np.arange(begin, min(begin + size, self.n_frames))
            taken = {name: one.take(frames) for name, one in self.series.items()}
            energies = taken[POTENTIALS]
            if "baseline" in taken:
                energies = energies + taken["baseline"][:, :1]
            if begin == first:
                self.warnings += precision_warnings(energies, self.first_file, self.energy_unit)
            checks.add(taken, energies)
            driving, bias = (self._energies(name, taken) for name in ("driving", "bias"))
            yield Piece(energies, self._shared(taken, len(frames)), self._estimators(taken, energies), driving, bias)
        self.findings = checks.finish()

    def _energies(self, name, taken):
        n_columns = len(self.series[name].labels) if name in taken else 0
        return taken[name][:, 0 if n_columns == 1 else slice(n_columns)] if n_columns else None

    def _shared(self, taken, n_frames):
        parts = []
        for name, values in taken.items():
            columns = [one.columns[0] for one in self.observables if one.series == name and not one.estimators]
            if columns:
                leading = columns == list(range(len(columns)))
                parts.append(values[:, : len(columns)] if leading else values[:, columns])
        return parts[0] if len(parts) == 1 else np.hstack(parts) if parts else np.empty((n_frames, 0))

    def _estimators(self, taken, energies):
        found = np.empty((len(energies), sum(one.estimators for one in self.observables), energies.shape[1]))
        for place, one in enumerate(one for one in self.observables if one.estimators):
            found[:, place] = energies if one.series is None else taken[one.series][:, one.columns]
        return found

    def read(self, first=0):
        """All frames from `first` on as one `Piece`, for series that fit into memory."""
        return Piece.joined(list(self.pieces(first)))


def _member_energies(path, units, ensemble):
    """Member energies, eV, from a table, a data set, or the extras of all beads; and the unit they were in."""
    given, column = split(path)
    in_hdf5 = given.suffix.lower() in HDF5
    if in_hdf5 or (given.is_file() and not is_extras_file(given)):
        if is_property_file(given):
            raise SeriesError(
                f"{path}: is a property file; give the committee_pot extras, or a table of member energies"
            )
        whole = ":" not in (column or "") if in_hdf5 else column is None
        specification = f"{path}:{MEMBERS}" if whole else path
        return open_series(specification, units or "hartree", energies=True), units or "hartree"
    if units == "eV":
        raise UsageError(f"{path}: the extras of i-PI are in hartree; leave out --units eV")
    return committee(path, ensemble), "hartree"


def _observables(number, specification, series, n_members, n_beads):
    """What one `--observable` asks for."""
    _, column = split(specification)
    if column == MEMBERS:
        if len(series.labels) != n_members:
            raise SeriesError(
                f"{series.name}: has {len(series.labels)} columns for {n_members} members; give one estimator for each"
            )
        return [
            Observable(f"{Path(series.name).name}:{MEMBERS}", series.units[0], number, list(range(n_members)), True)
        ]
    models = f"{Path(series.name).name}:{MODELS}" if column == MODELS else None
    if models and (len(series.labels) < 2 or n_members < 2):
        raise SeriesError(
            f"{series.name}: {len(series.labels)} models of the observable and {n_members} members; their errors take "
            "two of each or more"
        )
    found = []
    for place, (label, unit, name) in enumerate(zip(series.labels, series.units, series.properties, strict=True)):
        if name == "potential":
            found.append(Observable(label, "eV", None, [], True))
            continue
        if name in CONTAINS_POTENTIAL and not (name == "kinetic_cv" and n_beads == 1):
            raise SeriesError(
                f"{label} contains the potential: under another member it is another observable, and reweighting the "
                "one that i-PI printed gives wrong shifts; give one estimator for each member in a table, as "
                f"FILE:{MEMBERS}"
            )
        found.append(Observable(label, unit, number, [place], False, models))
    return found


def _check_run(facts, potentials, temperature, driving, baseline):
    if facts.temperature and abs(facts.temperature - temperature) > 5e-3 * temperature:
        raise SeriesError(
            f"{facts.path}: the run is at {facts.temperature:.6g} K, not at --temperature {temperature:g}; give "
            "that of the run"
        )
    by_members = driving == "mean" or str(driving).isdigit()
    if facts.weighted_baseline and (baseline is None or by_members):
        raise SeriesError(
            f"{potentials}: the run was driven by a baseline that the members correct ({facts.path}), not by "
            "them; give the energies of both, as --baseline run.baseline_pot_0 --driving run.out:potential"
        )


def gather(
    potentials,
    observables,
    temperature,
    units=None,
    driving="mean",
    bias=None,
    baseline=None,
    ensemble=None,
    n_states=1,
):
    """Find and align what a reweighting needs.

    Parameters
    ----------
    potentials : path of a table of member energies, or of i-PI's committee_pot extras of any bead
    observables : list of str
        "potentials", or `F[:COL]` of a table, a property file, an extras file, a log of LAMMPS, …
    temperature : float, K, checked against what the files say
    units : "hartree", "eV" or None, of energies in tables
    driving : "mean", index of a member, or `F[:COL]`
    bias : `F[:COL]` or None
    baseline : `F[:COL]` or None, energies that the members correct, added to each of them
    ensemble : int or None
        which one of a replica exchange; needed where several have this temperature
    n_states : int
        columns of the bias: one, or one for each of several states

    Returns
    -------
    Frames

    Raises
    ------
    SeriesError
        for files that cannot be read, do not fit each other or belong to another temperature, or corrections without
        their baseline; and for observables that contain the potential but are not given for each member.
    """
    exchange = find_exchange(split(potentials)[0])
    if ensemble is not None and exchange is None:
        raise UsageError(f"--ensemble {ensemble}: {potentials} is not of a replica exchange; leave it out")
    chosen = exchange.ensemble(temperature, ensemble) if exchange else None
    log = LammpsLog(split(potentials)[0]) if is_lammps_log(split(potentials)[0]) else None
    with ThreadPoolExecutor() as readers:  # compiled code reads the files, side by side
        opened = {
            number: readers.submit(open_series, specification, ensemble=chosen, log=log)
            for number, specification in enumerate(observables)
            if specification != POTENTIALS
        }
        try:
            energies, energy_unit = _member_energies(potentials, units, chosen)
        except BaseException:
            readers.shutdown(cancel_futures=True)
            raise
    refuse_pseudo_members(energies)
    first_file = energies.sources[0][0].path
    if energies.steps is not None and chosen is None:
        _check_run(run_facts(first_file), potentials, temperature, driving, baseline)

    def energy(specification):
        return open_series(specification, units or "hartree", energies=True, ensemble=chosen, log=log)

    series, wanted = {POTENTIALS: energies}, []
    for number, specification in enumerate(observables):
        if specification == POTENTIALS:
            wanted.append(Observable(POTENTIALS, "eV", None, [], True))
            continue
        series[number] = opened[number].result()
        wanted += _observables(number, specification, series[number], len(energies.labels), energies.n_beads)
    driver = driving
    if str(driving).isdigit() and not Path(str(driving)).exists():
        driver = int(driving)
        if driver >= len(energies.labels):
            last = len(energies.labels) - 1
            raise UsageError(f"--driving is member {driver}; the committee has members 0 to {last}")
    elif driving != "mean":
        series["driving"], driver = energy(driving), "given"
    for name, specification in (("bias", bias), ("baseline", baseline)):
        if specification:
            series[name] = energy(specification)
    for name, wanted_columns in (("driving", 1), ("bias", n_states), ("baseline", 1)):
        if name in series and len(series[name].labels) != wanted_columns:
            asked = "one column of energies is" if wanted_columns == 1 else f"{wanted_columns} columns of energies are"
            raise SeriesError(f"{series[name].name}: {asked} wanted, not {len(series[name].labels)}")
    align(list(series.values()))
    shared_first = sorted(range(len(wanted)), key=lambda place: wanted[place].estimators)
    order = [shared_first.index(place) for place in range(len(wanted))]
    ordered = [wanted[place] for place in shared_first]
    return Frames(series, ordered, order, driver, energy_unit, first_file, chosen, temperature)
