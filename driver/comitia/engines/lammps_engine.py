"""LAMMPS as an engine that labels structures: started by us, one process or several for the atoms of a structure."""

import itertools
import logging
import os
import secrets
import tempfile
from pathlib import Path

import numpy as np
from ase import Atoms

from comitia.engines.force_engines import Label, WorkerEngine
from comitia.engines.lammps import find_program, remove_shared_memory
from comitia.engines.lammps_atoms import LammpsInput
from comitia.engines.processes import Child, stop_all
from comitia.engines.sources import evaluate_by
from comitia.errors import EngineError, SettingsError, StructureError
from comitia.files import file_hash
from comitia.protocol.listeners import listen_unix
from comitia.protocol.requests import Failure
from comitia.protocol.worker import Deadlines
from comitia.protocol.worker_pool import WorkerPool

log = logging.getLogger(__name__)

PREFIX = "/tmp/ipi_"  # LAMMPS looks for unix sockets nowhere else
RESTARTS = 6  # times that LAMMPS may end without an answer before we believe that it cannot: a structure costs five
AHEAD = 1000  # structures among which those of one composition are brought together

_BEGUN = "Setting up Verlet run"  # LAMMPS says so when it has understood its input

_TAIL = """variable comitia_n_atoms equal atoms
if "${{comitia_n_atoms}} != {n_atoms}" then &
  'print "comitia: {path} makes ${{comitia_n_atoms}} atoms, the structures have {n_atoms}"' "quit 3"
neigh_modify every 1 delay 0 check no
change_box all triclinic
fix comitia all ipi {name} 1 unix
run 2000000000
"""


class LammpsProcesses:
    """Processes of LAMMPS that compute structures of one set of atoms, and of another after it.

    Parameters
    ----------
    path : of the input, see `lammps_atoms.LammpsInput`
    n_workers : int
    """

    def __init__(self, path, n_workers):
        self.input = LammpsInput(path)
        self.path, self._n_workers = self.input.path, n_workers
        self._program, self._environment = find_program()
        self._folder = tempfile.TemporaryDirectory(prefix="comitia-lammps-")
        self._children, self._n_started, self._n_dead, self._name = [], 0, 0, None

    def listen(self):
        """A listener, at which all that are started next come in."""
        self._name = f"comitia-{os.getpid()}-{secrets.token_hex(4)}"
        return listen_unix(PREFIX + self._name)

    def start(self, atoms):
        """Write the input and start them."""
        folder = Path(self._folder.name)
        text, data = self.input.text(atoms, folder / "atoms.data")
        if data is not None:
            (folder / "atoms.data").write_text(data)
        tail = _TAIL.format(path=self.path, n_atoms=len(atoms), name=self._name)
        (folder / "in.lammps").write_text(text + tail)
        for _ in range(self._n_workers):
            self._start_one()

    def _start_one(self):
        folder = Path(self._folder.name)
        command = [self._program, "-in", folder / "in.lammps", "-log", "none", "-nocite"]
        self._n_started += 1
        log_path = folder / f"log.{self._n_started}"
        self._children.append(Child("LAMMPS", command, log_path, self.path.parent, self._environment, mortal=False))

    def look_after(self):
        """Start those anew that have ended.

        Raises
        ------
        SettingsError, StructureError
            for an input that LAMMPS does not take, or that makes other atoms.
        EngineError
            where they end again and again.
        """
        for child in list(self._children):
            if child.exit_code is None:
                continue
            self._children.remove(child)
            remove_shared_memory(child.pid)
            self._n_dead += 1
            if _BEGUN not in child.said() and _error_lines(child):
                raise SettingsError(f"lammps:{self.path}: LAMMPS stopped before it ran: {_reason(child)}")
            if self._n_dead > RESTARTS * self._n_workers:
                raise EngineError(f"lammps:{self.path}: LAMMPS ended again and again: {_reason(child)}")
            if child.exit_code == 3 and "comitia:" in child.last_line():
                raise StructureError(f"lammps:{self.path}: {child.last_line().removeprefix('comitia: ')}")
            log.warning("LAMMPS has ended (%s); another is started", _reason(child))
            self._start_one()

    def answered(self):
        """They compute: those that end from now on may be started as often again."""
        self._n_dead = 0

    def end(self):
        """End them all."""
        stop_all(self._children, 2.0)
        for child in self._children:
            remove_shared_memory(child.pid)
        self._children = []

    def close(self):
        """End them, and remove their files."""
        self.end()
        self._folder.cleanup()


class LammpsEngine(WorkerEngine):
    """LAMMPS with an input that has the potential, and no atoms or those of all structures, in their order.

    Without atoms the structures may be of any composition: LAMMPS is started anew for each.

    Parameters
    ----------
    path : of the input, see `lammps_atoms.LammpsInput`
    options : EngineOptions
    """

    def __init__(self, path, options):
        self.processes = LammpsProcesses(path, options.n_workers)
        super().__init__([], options, self.processes.look_after)
        self.identity = {"input": file_hash(self.processes.path)}

    def labels(self, frames):
        """As `ModelEngine.labels`."""
        if self.processes.input.makes_atoms:
            yield from self._of_one_composition(frames)
            return
        frames = iter(frames)
        while window := list(itertools.islice(frames, AHEAD)):
            alike = {}
            for number, atoms in window:
                try:
                    self.processes.input.check(atoms)
                except StructureError as error:
                    yield number, Failure(error)
                    continue
                order = np.argsort(atoms.numbers, kind="stable")
                alike.setdefault(atoms.numbers[order].tobytes(), []).append((number, atoms, order))
            for group in alike.values():
                orders = {number: order for number, _, order in group}
                for number, label in self._of_one_composition((n, atoms[order]) for n, atoms, order in group):
                    yield number, label if isinstance(label, Failure) else _in_order(label, orders[number])

    def _of_one_composition(self, frames):
        self.listeners = [self.processes.listen()]
        try:
            for found in super().labels(frames):
                self.processes.answered()
                yield found
        finally:
            super().close()
            self.processes.end()

    def start(self, atoms):
        """Start LAMMPS with the atoms of the first structure."""
        self.processes.start(atoms)

    def close(self):
        """End everything."""
        super().close()
        self.processes.close()


class LammpsSource:
    """LAMMPS as a member or a baseline: one process, started anew for other atoms.

    Parameters
    ----------
    path : of the input, see `lammps_atoms.LammpsInput`
    options : EngineOptions
    """

    def __init__(self, path, options):
        self.name = f"lammps:{path}"
        self._processes, self._options = LammpsProcesses(path, 1), options
        self._pool, self._atoms = None, None

    def evaluator(self, numbers, pbc, n_threads=None):
        """It computes one structure after the other, whatever their atoms."""
        return LammpsEvaluator(self, np.array(numbers), np.broadcast_to(pbc, 3))

    def pool(self, atoms):
        """The process that holds such atoms, as a pool of workers."""
        same = self._atoms is not None and np.array_equal(self._atoms.numbers, atoms.numbers)
        if not same or (self._atoms.pbc != atoms.pbc).any():
            self._leave()
            if not self._processes.input.makes_atoms:
                self._processes.input.check(atoms)
            listener = self._processes.listen()
            self._processes.start(atoms)
            deadlines = Deadlines.of_structures(self._options.timeout)
            look_after = self._processes.look_after
            self._pool = WorkerPool(
                [listener], len(atoms), deadlines=deadlines, wait=self._options.wait, watch=look_after
            )
            self._atoms = atoms
        self._processes.answered()
        return self._pool

    def _leave(self):
        if self._pool is not None:
            self._pool.close()
        self._processes.end()
        self._pool = self._atoms = None

    def close(self):
        """End LAMMPS."""
        self._leave()
        self._processes.close()


class LammpsEvaluator:
    """LAMMPS bound to one set of atoms."""

    def __init__(self, source, numbers, pbc):
        self._source, self._numbers, self._pbc = source, numbers, pbc

    def compute(self, positions, cells):
        """Energies, forces and virials."""
        atoms = Atoms(numbers=self._numbers, positions=positions[0], cell=cells[0], pbc=self._pbc)
        return evaluate_by(self._source.pool(atoms), self._source.name, positions, cells)


def _in_order(label, order):
    """A label of atoms that were reordered, in their own order."""
    forces = np.empty_like(label.forces)
    forces[order] = label.forces
    return Label(label.energy, forces, label.virial, label.extras)


def _error_lines(child):
    return [line.strip() for line in child.said().splitlines() if line.startswith("ERROR")]


def _reason(child):
    """Why LAMMPS ended, in its own words."""
    errors = _error_lines(child)
    return errors[-1] if errors else child.last_line()
