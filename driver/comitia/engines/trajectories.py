"""Structures that a sampler went through, beads and all, and quantities of the same frames from other files."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from comitia.engines.ipi_files import bead_files, run_facts
from comitia.engines.ipi_output import common_steps
from comitia.engines.ipi_trajectory import read_trajectory
from comitia.engines.lammps_dump import is_dump, read_dump
from comitia.engines.replica_exchange import Ensemble, find_exchange, join_trajectories
from comitia.engines.sampled import open_series
from comitia.errors import SeriesError, StructureError, UsageError
from comitia.structures import read_frames

_AT_ONCE = 2048  # structures that a potential is given together
_NOTES = ("step", "bead", "sample", "temperature")  # what extended XYZ may say of a frame


@dataclass(frozen=True)
class SampledStructures:
    """Frames of a trajectory.

    Attributes
    ----------
    name : str, of the file, for messages
    numbers : (n_atoms,) atomic numbers
    pbc : (3,) booleans
    positions : (n_frames, n_beads, n_atoms, 3) array, Å
    cells : (n_frames, 3, 3) array, Å, lattice vectors in rows
    steps : (n_frames,) integer array, or None for files without
    temperature : float, K, of the run as a checkpoint beside it says, or None
    ensemble : replica_exchange.Ensemble that the frames are of, or None where there is no exchange
    """

    name: str
    numbers: np.ndarray
    pbc: np.ndarray
    positions: np.ndarray
    cells: np.ndarray
    steps: np.ndarray | None = None
    temperature: float | None = None
    ensemble: Ensemble | None = None

    @property
    def n_frames(self):
        return len(self.positions)

    @property
    def n_beads(self):
        return self.positions.shape[1]

    def structures(self, frames, beads=None):
        """`ase.Atoms` of some frames, bead after bead: the coordinates that model and reference are both given.

        Parameters
        ----------
        frames : (n_chosen,) integer array
        beads : (n_chosen, n_given) integer array, or None for all
        """
        from ase import Atoms

        beads = np.tile(np.arange(self.n_beads), (len(frames), 1)) if beads is None else beads
        return [
            Atoms(self.numbers, self.positions[frame, bead], cell=self.cells[frame], pbc=self.pbc)
            for frame, given in zip(frames, beads, strict=True)
            for bead in given
        ]

    def take(self, specification, energies=False):
        """Numbers of every frame, (n_frames,), from a column `F[:COL]`, matched by step where both have steps.

        Where the frames are of one ensemble of a replica exchange, so are the numbers.
        """
        series = open_series(specification, "eV", energies, self.ensemble)
        values = series.take(np.arange(series.n_frames))[:, : len(series.labels)]
        if values.shape[1] != 1:
            raise UsageError(f"{specification}: gives {values.shape[1]} columns; name one as FILE:COLUMN")
        values = values[:, 0]
        if self.steps is None or series.steps is None:
            if len(values) != self.n_frames:
                raise SeriesError(
                    f"{specification} has {len(values)} frames, {self.name} has {self.n_frames}; without step numbers "
                    "in both they must be the same frames"
                )
            return values, series.labels[0], series.units[0]
        steps, rows = common_steps({self.name: self.steps, specification: series.steps})
        if len(steps) < self.n_frames:
            raise SeriesError(
                f"{specification}: has no step {np.setdiff1d(self.steps, steps)[0]} of {self.name}; print it as often"
            )
        return values[rows[specification]], series.labels[0], series.units[0]


def energies_of(potential, structures, n_threads=None):
    """Energies, (n_structures,), and member energies, (n_structures, n_members) or None, eV, of the same atoms."""
    numbers, pbc = structures[0].numbers, structures[0].pbc
    evaluator = potential.evaluator(numbers, pbc, n_threads)
    energies, members = [], []
    for first in range(0, len(structures), _AT_ONCE):
        part = structures[first : first + _AT_ONCE]
        positions = np.array([atoms.positions for atoms in part])
        found = evaluator.compute(positions, np.array([atoms.cell.array for atoms in part]))
        energies.append(found.energies)
        members.append(found.member_energies)
    together = None if members[0] is None else np.concatenate(members)
    return np.concatenate(energies), together


def read_sampled(path, periodic=None, temperature=None, ensemble=None):
    """The trajectory of which a file is a part; of a replica exchange of i-PI the frames of one ensemble.

    Parameters
    ----------
    path : the xyz file of any bead and replica of an i-PI run (the others are found), a dump of LAMMPS with elements,
        or extended XYZ, where the beads of a path integral are structures that say `step=` and `bead=`
    periodic : bool, whether the cell of i-PI means something: its files do not say
    temperature : float, K, of the ensemble of a replica exchange; not used for other runs
    ensemble : int, its number, where several have this temperature; not used for other runs

    Returns
    -------
    SampledStructures

    Raises
    ------
    SeriesError, StructureError
        for files that cannot be read, of different atoms, with beads or replicas missing, or where no ensemble of a
        replica exchange, or more than one, is meant.
    UsageError
        where i-PI's files are given without `periodic`, or a replica exchange without `temperature`.
    """
    if is_dump(path):
        return _from_dump(path)
    if _is_ipi(path):
        return _from_ipi(path, periodic, temperature, ensemble)
    first, positions, cells, notes = None, [], [], []
    for number, (atoms, _) in enumerate(read_frames(path)):
        first = first or atoms
        if not np.array_equal(atoms.numbers, first.numbers) or (atoms.pbc != first.pbc).any():
            raise StructureError(
                f"{path}, frame {number}: its atoms or its periodic directions are not those of frame 0; free energies "
                "are compared at one composition: give frames of one system"
            )
        positions.append(atoms.positions)
        cells.append(atoms.cell.array)
        notes.append({name: atoms.info[name] for name in _NOTES if name in atoms.info})
    steps, places = _beads_of_steps(notes, path)
    temperatures = {float(note["temperature"]) for note in notes if "temperature" in note}
    if len(temperatures) > 1:
        raise SeriesError(f"{path}: its frames are of {len(temperatures)} temperatures; give those of one")
    return SampledStructures(
        str(path),
        first.numbers,
        np.array(first.pbc),
        np.array(positions)[places],
        np.array(cells)[places[:, 0]],
        steps,
        next(iter(temperatures), None),
    )


def _beads_of_steps(notes, path):
    """Steps, and the places of the beads of each, (n_frames, n_beads), of structures that note `step` and `bead`."""
    if not any("bead" in note for note in notes):
        return None, np.arange(len(notes))[:, None]
    found, samples = {}, {str(note.get("sample")) for note in notes}
    if len(samples) > 1:
        raise SeriesError(f"{path}: holds frames of several samples ({', '.join(sorted(samples))}); give those of one")
    for place, note in enumerate(notes):
        try:
            step, bead = int(note["step"]), int(note["bead"])
        except (KeyError, TypeError, ValueError) as error:
            raise SeriesError(f"{path}, frame {place}: says no step= and bead=, as others do; correct it") from error
        if found.setdefault(step, {}).setdefault(bead, place) != place:
            raise SeriesError(f"{path}, frame {place}: bead {bead} of step {step} is there twice; give each once")
    n_beads = max(len(beads) for beads in found.values())
    for step, beads in found.items():
        if sorted(beads) != list(range(n_beads)):
            raise SeriesError(f"{path}: step {step} has {len(beads)} of {n_beads} beads; energies are means over all")
    steps = np.array(sorted(found))
    return steps, np.array([[found[step][bead] for bead in range(n_beads)] for step in steps.tolist()])


def _is_ipi(path):
    """Whether a file, or that of the first bead that a pattern names, is an xyz trajectory of i-PI."""
    path = Path(path)
    if not path.is_file():
        return True
    if path.suffix not in (".xyz", ""):
        return False
    with open(path, "rb") as file:
        head = file.read(4096).decode("utf-8", errors="replace").split("\n")
    return len(head) > 1 and re.search(r"CELL\(abcABC\)", head[1]) is not None


def _from_ipi(path, periodic, temperature, number):
    from ase.geometry import cellpar_to_cell
    from ase.symbols import symbols2numbers

    if periodic is None:
        raise UsageError(f"{path}: i-PI does not say whether its cell is periodic; give --pbc or --no-pbc")
    files = bead_files(path)
    facts, exchange = run_facts(files[0]), find_exchange(files[0])
    if exchange is None and facts.replica_exchange:
        raise SeriesError(f"{path}: is not of the replica exchange of {facts.path} beside it; use files of one run")
    if exchange is not None and temperature is None:
        raise UsageError(f"{path}: is of a replica exchange ({exchange.describe()}); give the temperature of one")
    ensemble = exchange.ensemble(temperature, number) if exchange else None
    trajectory = join_trajectories(files, ensemble) if ensemble else read_trajectory(files)
    cells = np.array([cellpar_to_cell(cell) for cell in trajectory.cell_parameters])
    return SampledStructures(
        str(path),
        np.array(symbols2numbers(trajectory.symbols)),
        np.array([periodic] * 3),
        trajectory.positions,
        cells if periodic else np.zeros_like(cells),
        trajectory.steps,
        ensemble.temperature if ensemble else facts.temperature,
        ensemble,
    )


def _from_dump(path):
    from ase.symbols import symbols2numbers

    dump = read_dump(path)
    try:
        numbers = np.array(symbols2numbers(dump.symbols or []))
    except KeyError as error:
        raise SeriesError(f"{path}: {error} is not an element; name them by `dump_modify ID element …`") from error
    if not len(numbers):
        raise SeriesError(f"{path}: says no elements; dump the column `element`, named by `dump_modify ID element …`")
    return SampledStructures(str(path), numbers, dump.periodic, dump.positions[:, None], dump.cells, dump.steps)
