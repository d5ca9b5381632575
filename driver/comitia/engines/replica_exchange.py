"""Replica exchange of i-PI: its files follow a replica through the ensembles; here they are followed by ensemble."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from comitia.engines.ipi_files import output_prefix
from comitia.engines.ipi_output import current_rows
from comitia.engines.ipi_trajectory import read_trajectory
from comitia.engines.ipi_units import conversion
from comitia.engines.series import Series, rows_of_beads, single
from comitia.engines.text_rows import TextRows
from comitia.errors import SeriesError

_NUMBER = r"\s*([-+.0-9eEna]+)\s*"


@dataclass(frozen=True)
class ReplicaExchange:
    """Which replica was in which ensemble.

    Attributes
    ----------
    path : Path, the checkpoint that says so
    prefixes : list of str, what the names of each replica's files begin with
    temperatures, pressures : (n_replicas,) arrays of each ensemble, K and eV/Å^3; nan at constant volume
    steps : (n_swaps,) integer array; what a swap changes holds from the next step on
    ensembles : (n_swaps + 1, n_replicas) integer array, the ensemble of each replica before and after each swap
    """

    path: Path
    prefixes: list[str]
    temperatures: np.ndarray
    pressures: np.ndarray
    steps: np.ndarray
    ensembles: np.ndarray

    def replica_of(self, ensemble, steps):
        """Replica that is in an ensemble at each step, (n_steps,)."""
        swaps = np.searchsorted(self.steps, steps, side="left")
        return np.argmax(self.ensembles[swaps] == ensemble, axis=1)

    def of_replicas(self, files):
        """The files of every replica, a list over replicas of lists of Path, from those of any one of them."""
        own = output_prefix(files[0])
        if own not in self.prefixes:
            raise SeriesError(f"{files[0]}: is not of the replica exchange of {self.path}; use files of one run")
        return [[file.with_name(prefix + file.name.removeprefix(own)) for file in files] for prefix in self.prefixes]

    def describe(self):
        """The ensembles, for messages."""
        return "; ".join(
            f"{number}: {temperature:.6g} K" + ("" if np.isnan(pressure) else f", {pressure:.6g} eV/Å^3")
            for number, (temperature, pressure) in enumerate(zip(self.temperatures, self.pressures, strict=True))
        )

    def ensemble(self, temperature, number=None):
        """The one at a temperature (K), or the one of a number.

        Raises
        ------
        SeriesError
            if there is none, or the temperature does not say which.
        """
        found = np.flatnonzero(np.abs(self.temperatures - temperature) <= 5e-3 * temperature)
        if number is not None:
            found = np.intersect1d(found, [number])
        if len(found) != 1:
            several = f"{len(found)} ensembles are" if len(found) else "no ensemble is"
            asked = f"number {number}, " if number is not None else ""
            raise SeriesError(
                f"{self.path}: {several} {asked}at {temperature:g} K in this replica exchange ({self.describe()}); "
                "give the --temperature of one of them, and where several share it --ensemble NUMBER"
            )
        return Ensemble(self, int(found[0]))


@dataclass(frozen=True)
class Ensemble:
    """One ensemble of a replica exchange."""

    exchange: ReplicaExchange
    number: int

    @property
    def temperature(self):
        """In K."""
        return float(self.exchange.temperatures[self.number])

    def describe(self):
        """For messages."""
        return f"replica exchange, ensemble {self.number} of {self.exchange.describe()}"


def find_exchange(path):
    """The replica exchange that an output file of i-PI belongs to, or None.

    Raises
    ------
    SeriesError
        where swaps are recorded beside the file, but not of which ensembles.
    """
    path = Path(path)
    prefix, record = output_prefix(path), None
    for name in ("remd_idx", "PARATEMP"):
        for found in sorted(path.parent.glob(f"*{name}")):
            run = found.name[: -len(name)].rstrip(".")
            if not run or prefix == run or prefix.endswith("_" + run):
                record = found
    restart = path.parent / "RESTART"
    text = restart.read_text(encoding="utf-8", errors="replace") if restart.is_file() else ""
    named = re.search(r"<output[^>]*\bprefix='([^']*)'", text)
    if "<smotion mode='remd'" in text and named and (prefix == named[1] or prefix.endswith("_" + named[1])):
        exchange = _from_checkpoint(restart, text, named[1], record)
        return exchange if prefix in exchange.prefixes else None
    if record is not None:
        raise SeriesError(
            f"{path}: belongs to a replica exchange ({record.name} beside it), whose files change temperature as they "
            "go; bring its RESTART here, which says what the ensembles are"
        )
    return None


def _from_checkpoint(restart, text, run, record):
    systems = re.findall(r"<system prefix='([^']*)'>(.*?)</system>", text, re.DOTALL)
    index = re.search(r"<repindex[^>]*>\s*\[([^\]]*)\]", text)
    try:
        now = np.array([int(number) for number in index[1].split(",")])
        ensembles = [re.search(r"<ensemble>(.*?)</ensemble>", system, re.DOTALL)[1] for _, system in systems]
        temperatures = np.array([float(re.search(f"<temperature>{_NUMBER}<", one)[1]) for one in ensembles])
        pressed = [re.search(f"<pressure>{_NUMBER}<", one) for one in ensembles]
        pressures = np.array([float(one[1]) if one else np.nan for one in pressed])
        order = np.argsort(now)
        complete = np.array_equal(now[order], np.arange(len(systems)))
    except (TypeError, ValueError, IndexError):
        complete = False
    if not complete:
        raise SeriesError(f"{restart}: does not say which replica is in which ensemble; the file is damaged")
    n_replicas = len(systems)
    pieces = [rows for rows, _ in TextRows(record).pieces()] if record is not None else []
    swaps = np.concatenate(pieces) if pieces else np.empty((0, n_replicas + 1))
    swaps = np.rint(swaps).astype(np.int64).reshape(len(swaps), -1)
    if swaps.size and (swaps.shape[1] != n_replicas + 1 or np.any(np.sort(swaps[:, 1:]) != np.arange(n_replicas))):
        raise SeriesError(f"{record}: its rows are not the ensembles of {n_replicas} replicas; use files of one run")
    swaps = swaps.reshape(-1, n_replicas + 1)[current_rows(swaps[:, 0]) if len(swaps) else slice(0)]
    return ReplicaExchange(
        path=restart,
        prefixes=[f"{name}_{run}" if name else run for name, _ in systems],
        temperatures=temperatures[order] * conversion("temperature", "")[0],
        pressures=pressures[order] * conversion("ensemble_pressure", "")[0],
        steps=swaps[:, 0],
        ensembles=np.vstack([np.arange(n_replicas), swaps[:, 1:]]),
    )


def join_replicas(files, source, path, what, ensemble=None, checks=None):
    """The series of one system, or of one ensemble of a replica exchange.

    Parameters
    ----------
    files : list of Path, of all beads of any replica
    source : function of a path, to what reads it
    path : Path, for messages
    what : labels, units and i-PI's names of the quantities
    ensemble : Ensemble or None
    checks : dict or None, see `Series`

    Returns
    -------
    Series
    """
    labels, units, properties = what
    if ensemble is None:
        return single(str(path), labels, units, [source(file) for file in files], properties=properties, checks=checks)
    exchange, sources, steps, rows = ensemble.exchange, [], [], []
    for of_replica in exchange.of_replicas(files):
        sources.append([source(file) for file in of_replica])
        found_steps, found_rows = rows_of_beads(sources[-1], str(of_replica[0]))
        if found_steps is None:
            raise SeriesError(f"{of_replica[0]}: has no steps; print `step` too, as replicas exchange ensembles")
        steps.append(found_steps)
        rows.append(found_rows)
    common = _common_beginning(steps, [of_replica[0].path for of_replica in sources])
    rows = [[here[: len(common)] for here in of_replica] for of_replica in rows]
    replica = exchange.replica_of(ensemble.number, common)
    return Series(str(path), labels, units, sources, rows, common, replica, properties, checks or {})


def join_trajectories(files, ensemble):
    """The trajectory of one ensemble of a replica exchange, in the order of its steps.

    Parameters
    ----------
    files : list of Path, of all beads of any replica
    ensemble : Ensemble

    Returns
    -------
    Trajectory

    Raises
    ------
    SeriesError
        where replicas have different steps or atoms; only at the end, where a kill cut files off, may steps differ.
    """
    of_replicas, steps, parts = ensemble.exchange.of_replicas(files), [], []
    for replica, own in enumerate(of_replicas):
        found = read_trajectory(own)
        if parts and found.symbols != parts[0].symbols:
            raise SeriesError(f"{own[0]}: its atoms are not those of {of_replicas[0][0]}; use files of one run")
        inside = ensemble.exchange.replica_of(ensemble.number, found.steps) == replica
        arrays = {name: getattr(found, name)[inside] for name in ("steps", "positions", "cell_parameters")}
        steps.append(found.steps)
        parts.append(replace(found, **arrays))
    common = _common_beginning(steps, [own[0] for own in of_replicas])
    order = np.argsort(np.concatenate([part.steps for part in parts]))[: len(common)]
    joined = {name: np.concatenate([getattr(part, name) for part in parts])[order] for name in arrays}
    return replace(parts[0], paths=list(files), **joined)


def _common_beginning(steps, paths):
    """Steps that all replicas have: a kill may have cut off files at their ends, nothing else."""
    common = steps[0][steps[0] <= min(found[-1] if len(found) else -1 for found in steps)]
    if not len(common):
        raise SeriesError(f"{paths[0]}: no step is in the files of every replica; use files of one run")
    for path, found in zip(paths, steps, strict=True):
        if not np.array_equal(found[: len(common)], common):
            odd = np.setxor1d(found[: len(common)], common)[0]
            raise SeriesError(f"{path}: step {odd} is not in the files of every replica; use files of one run")
    return common
