"""Potentials that are not ours, evaluated as ours are: ASE calculators, and workers that connect to a socket."""

import importlib
import sys
from types import SimpleNamespace

import numpy as np

from comitia.errors import ComitiaError, EngineError, PeerError, SettingsError
from comitia.protocol.requests import Failure, Request

LAMMPS = "lammps:"
"""What workers that we start begin with; the path of an input of LAMMPS follows."""


def make_calculator(specification, arguments, folder):
    """The ASE calculator that `MODULE:FACTORY` makes; the module may be beside the file that names it.

    Raises
    ------
    SettingsError
        if it cannot be made.
    """
    module, separator, factory = specification.partition(":")
    if not (module and separator and factory):
        raise SettingsError(f"calculator {specification!r}: give a module and a function in it, as MODULE:FACTORY")
    sys.path.insert(0, str(folder))
    try:
        return getattr(importlib.import_module(module), factory)(**arguments)
    except Exception as error:  # whatever a module of the user raises
        reason = f"{type(error).__name__}: {error}"
        raise SettingsError(f"calculator {specification!r}: cannot be made ({reason}); correct it") from error
    finally:
        sys.path.remove(str(folder))


def calculated(calculator, atoms, name, with_forces=True):
    """Energy (eV), forces (eV/Å) and virial (eV; None where it has none) that an ASE calculator gives.

    Without forces it is asked for the energy alone, and they and the virial are None.

    Raises
    ------
    EngineError
        if it fails, or a number is not finite.
    """
    from ase.calculators.calculator import PropertyNotImplementedError

    atoms.calc = calculator
    try:
        energy, forces, virial = float(atoms.get_potential_energy()), None, None
        if with_forces:
            forces = np.array(atoms.get_forces(apply_constraint=False))
        if with_forces and atoms.cell.rank == 3:
            try:
                virial = -atoms.cell.volume * atoms.get_stress(voigt=False, apply_constraint=False)
            except PropertyNotImplementedError:
                virial = None
    except ComitiaError as error:
        raise type(error)(f"{name}: {error}") from error
    except Exception as error:  # whatever a calculator raises
        raise EngineError(f"{name}: {type(error).__name__}: {error}") from error
    if with_forces and forces.shape != (len(atoms), 3):
        raise EngineError(f"{name}: forces have shape {forces.shape}, there are {len(atoms)} atoms")
    for quantity, value in (("energy", energy), ("force", forces), ("virial", virial)):
        if value is not None and not np.isfinite(value).all():
            raise EngineError(f"{name}: the {quantity} is not finite")
    return energy, forces, virial


def _collected(values):
    """Energies, forces and virials of structures as arrays; a virial that is missing is zero."""
    energies, forces, virials = zip(*values, strict=True)
    virials = [np.zeros((3, 3)) if virial is None else virial for virial in virials]
    return SimpleNamespace(energies=np.array(energies), forces=np.array(forces), virials=np.array(virials))


class CalculatorSource:
    """An ASE calculator as a member or a baseline."""

    def __init__(self, specification, arguments, folder):
        self.name = f"calculator {specification}"
        self._make = lambda: make_calculator(specification, arguments, folder)
        self._first = self._make()  # what cannot be made is found out before anything starts

    @property
    def calculator(self):
        """The first calculator, for any atoms."""
        self._first = self._first or self._make()
        return self._first

    def evaluator(self, numbers, pbc, n_threads=None):
        """One calculator for each set of atoms."""
        calculator, self._first = self._first or self._make(), None
        return CalculatorEvaluator(calculator, numbers, pbc, self.name)


class CalculatorEvaluator:
    """An ASE calculator bound to one set of atoms."""

    def __init__(self, calculator, numbers, pbc, name):
        from ase import Atoms

        self._atoms = Atoms(numbers=numbers, positions=np.zeros((len(numbers), 3)), pbc=pbc)
        self._calculator, self._name = calculator, name

    def compute(self, positions, cells):
        """Energies, forces and virials, one structure after the other."""
        values = []
        for position, cell in zip(positions, cells, strict=True):
            atoms = self._atoms.copy()
            atoms.set_cell(cell)
            atoms.positions = position
            values.append(calculated(self._calculator, atoms, self._name))
        return _collected(values)


def evaluate_by(pool, name, positions, cells):
    """Energies, forces and virials of structures by the workers of a pool; the first failure is an error."""
    requests = [Request(position, cell) for position, cell in zip(positions, cells, strict=True)]
    values = []
    for outcome in pool.evaluate(requests):
        if isinstance(outcome, Failure):
            raise PeerError(f"{name}: {outcome.error}") from outcome.error
        values.append((outcome.energy, outcome.forces, outcome.virial))
    return _collected(values)


class WorkerSource:
    """Workers of the protocol as a member or a baseline; they connect to the socket when it is first used."""

    def __init__(self, address, options):
        self.address, self._options, self._pool = address, options, None

    def evaluator(self, numbers, pbc, n_threads=None):
        """All replicas share the workers."""
        from ase.symbols import Symbols

        from comitia.engines.force_engines import listen
        from comitia.protocol.worker import Deadlines
        from comitia.protocol.worker_pool import WorkerPool

        if self._pool is None:
            species = Symbols(np.asarray(numbers)).get_chemical_formula(mode="reduce")
            deadlines = Deadlines.of_structures(self._options.timeout)
            listeners = [listen(self.address, self._options)]
            wait = self._options.wait
            self._pool = WorkerPool(listeners, len(numbers), species=species, deadlines=deadlines, wait=wait)
        return self

    def compute(self, positions, cells):
        """Energies, forces and virials; as many structures at a time as there are workers."""
        return evaluate_by(self._pool, self.address, positions, cells)

    def close(self):
        """Send the workers away."""
        if self._pool is not None:
            self._pool.close()


def open_source(source, folder, precision="float64"):
    """The potential that one entry of POTENTIAL.yaml names.

    Raises
    ------
    SettingsError, ModelError
    """
    from comitia.engines.force_engines import EngineOptions
    from comitia.potential import load

    given = [name for name in ("model", "calculator", "workers") if getattr(source, name) is not None]
    if len(given) != 1:
        raise SettingsError("a member or a baseline is one of `model`, `calculator` and `workers`; give one of them")
    if source.arguments and given != ["calculator"]:
        raise SettingsError("`arguments` are those of a `calculator`")
    if source.model is not None:
        return load(folder / source.model, precision)
    if source.calculator is not None:
        return CalculatorSource(source.calculator, source.arguments, folder)
    if source.workers.startswith(LAMMPS):
        from comitia.engines.lammps_engine import LammpsSource

        return LammpsSource(folder / source.workers.removeprefix(LAMMPS), EngineOptions())
    return WorkerSource(source.workers, EngineOptions())
