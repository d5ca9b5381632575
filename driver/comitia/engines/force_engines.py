"""What computes energies and forces for structures: a model, an ASE calculator, workers of the protocol, LAMMPS."""

import contextlib
import itertools
import logging
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from comitia.engines.calculator_pool import CalculatorPool
from comitia.engines.electronic_structure import electronic_structure
from comitia.engines.sources import calculated, make_calculator
from comitia.errors import ComitiaError, ModelError, SettingsError, StructureError
from comitia.files import file_hash
from comitia.potential.source import refuse_corrections
from comitia.protocol.listeners import listen_tcp, listen_unix
from comitia.protocol.requests import Failure, Request
from comitia.protocol.worker import Deadlines
from comitia.protocol.worker_pool import WorkerPool
from comitia.structures import Keys, read_structures
from comitia.units import HARTREE

log = logging.getLogger(__name__)

KINDS = "model:F, pyscf:NAME=VALUE,..., ase:MODULE:FACTORY, unix:NAME, tcp:HOST:PORT, lammps:IN or file:F[:KEY]"
_KINDS = ("model", "pyscf", "ase", "unix", "tcp", "lammps", "file")
SAME_PLACE = 1e-6  # Å between a structure and the one whose stored energy it takes


@dataclass(frozen=True, eq=False)
class Label:
    """What an engine says of one structure; eV and Å.

    Attributes
    ----------
    energy : float, eV
    forces : (n_atoms, 3) array, eV/Å, or None where they were not asked for
    virial : (3, 3) array, eV, or None where the engine has none
    extras : dict of numbers and arrays that JSON can hold, such as `energy_uncertainty`, eV
    """

    energy: float
    forces: np.ndarray | None
    virial: np.ndarray | None
    extras: dict = field(default_factory=dict)


@dataclass(frozen=True)
class EngineOptions:
    """How engines are reached.

    Attributes
    ----------
    wait : float, s to wait for the first worker
    idle : float, s without any worker after the last has gone
    timeout : float, s that a worker may compute one structure
    allow_remote : bool, whether other machines may connect
    sockets_prefix : str, start of the path of a unix socket that is given by name
    n_threads : int or None
    n_workers : int, processes that we start: of LAMMPS, or with a calculator each
    forces : bool, whether they are wanted; energies alone may cost half
    ready_file : Path or None, says where workers may come in, as soon as they may
    """

    wait: float = 60.0
    idle: float = 60.0
    timeout: float = 3600.0
    allow_remote: bool = False
    sockets_prefix: str = "/tmp/ipi_"
    n_threads: int | None = None
    n_workers: int = 1
    forces: bool = True
    ready_file: Path | None = None


class ModelEngine:
    """A comitia model, or a POTENTIAL.yaml."""

    def __init__(self, path, options):
        from comitia.engines.composed import load_potential, potential_hash

        self.identity = {"model": potential_hash(path)}
        self._potential, self._n_threads = load_potential(path), options.n_threads
        refuse_corrections(self._potential, path)
        if getattr(self._potential, "limit", None) is not None:
            raise ModelError(f"{path}: has an uncertainty_limit, a bias that labels must not contain; leave it out")

    def labels(self, frames):
        """Labels of (number, ase.Atoms) pairs as they come: (number, Label or Failure)."""
        for number, atoms in frames:
            try:
                found = self._potential.compute(atoms, n_threads=self._n_threads)
            except ComitiaError as error:
                yield number, Failure(error)
                continue
            sigma = found.energy_uncertainty
            extras = {} if sigma is None else {"energy_uncertainty": sigma}
            yield number, Label(found.energy, found.forces, found.virial, extras)


class CalculatorEngine:
    """An ASE calculator: `ase:MODULE:FACTORY`, made by a function of a module, or `pyscf:SETTINGS`."""

    def __init__(self, specification, forces=True):
        self._name, self._forces = specification, forces
        self._calculator, self.identity = self._make()

    def _make(self):
        kind, _, rest = self._name.partition(":")
        if kind == "pyscf":
            return electronic_structure(rest)
        calculator = make_calculator(rest, {}, Path.cwd())  # the user's module is beside the data
        source = getattr(sys.modules.get(rest.partition(":")[0]), "__file__", None)
        return calculator, {} if source is None else {"module": file_hash(source)}

    def labels(self, frames):
        """As `ModelEngine.labels`."""
        for number, atoms in frames:
            try:
                yield number, Label(*calculated(self._calculator, atoms.copy(), self._name, self._forces))
            except ComitiaError as error:
                yield number, Failure(error)
                self._calculator, _ = self._make()  # this one may be in any state


class StoredEnergies:
    """Energies that an extended XYZ file has for structures, found by species, positions and cell."""

    def __init__(self, rest):
        path, separator, key = rest.rpartition(":")
        if not separator or Path(rest).exists():
            path, key = rest, "energy"
        self.identity = {"file": file_hash(path)}
        self._name = f"file:{rest}"
        self._structures = read_structures(path, Keys(energy=key, forces=None, virial=None, stress=None))

    def labels(self, frames):
        """As `ModelEngine.labels`."""
        known = {}
        for structure in self._structures:
            known.setdefault(structure.atoms.numbers.tobytes(), []).append(structure)
        geometries = {key: np.array([_geometry(one.atoms) for one in alike]) for key, alike in known.items()}
        for number, atoms in frames:
            key = atoms.numbers.tobytes()
            if key in known:
                distance = np.abs(geometries[key] - _geometry(atoms)).max(axis=(1, 2))
                nearest = int(np.argmin(distance))
                energy = known[key][nearest].energy
                if distance[nearest] < SAME_PLACE and energy is not None:
                    yield number, Label(energy, None, None)
                    continue
            yield number, Failure(StructureError(f"{self._name}: has no energy of a structure with these positions"))


def _geometry(atoms):
    """Positions and cell, Å, in one array."""
    return np.vstack([atoms.positions, atoms.cell.array])


class WorkerEngine:
    """Workers of the protocol that connect to a socket of ours.

    All structures must have the atoms of the first, in its order: the protocol does not say which atoms they are.

    Parameters
    ----------
    listeners : list of Listener
    options : EngineOptions
    watch : function called about once a second, or None
    """

    def __init__(self, listeners, options, watch=None):
        self.identity = {}
        self.listeners, self.options, self.watch = listeners, options, watch

    def start(self, atoms):
        """Called with the first structure before workers are waited for."""

    def labels(self, frames):
        """As `ModelEngine.labels`."""
        frames = iter(frames)
        first = next(frames, None)
        if first is None:
            return
        self.start(first[1])
        species = first[1].symbols.get_chemical_formula(mode="reduce")
        numbers, refused = [], []
        deadlines = Deadlines.of_structures(self.options.timeout)
        log.info("waiting for workers at %s", ", ".join(listener.address for listener in self.listeners))

        def requests():
            for number, atoms in itertools.chain([first], frames):
                if np.array_equal(atoms.numbers, first[1].numbers):
                    numbers.append(number)
                    yield Request(atoms.positions, atoms.cell.array)
                else:
                    refused.append((number, _other_atoms(atoms, species)))

        options = {"deadlines": deadlines, "watch": self.watch, "wait": self.options.wait, "idle": self.options.idle}
        with WorkerPool(self.listeners, len(first[1]), species=species, **options) as pool:
            for place, outcome in pool.as_completed(requests()):
                if isinstance(outcome, Failure):
                    yield numbers[place], outcome
                else:
                    yield numbers[place], Label(outcome.energy, outcome.forces, outcome.virial, _uncertainty(outcome))
        yield from refused

    def close(self):
        """Stop listening."""
        for listener in self.listeners:
            listener.close()


def _uncertainty(answer):
    """What a committee says of its energy, eV, under the name that labels have for it."""
    sigma = answer.extras.get("committee_uncertainty")
    return {"energy_uncertainty": sigma * HARTREE} if isinstance(sigma, float) else {}


def _other_atoms(atoms, species):
    found = atoms.symbols.get_chemical_formula(mode="reduce")
    return Failure(
        StructureError(f"holds {found}, the workers hold {species}; label files of one set of atoms, in one order")
    )


@contextlib.contextmanager
def open_engine(specification, options=None):
    """The engine that a specification names.

    Parameters
    ----------
    specification : str, one of `KINDS`
    options : EngineOptions

    Yields
    ------
    an object with `labels(frames)` and `identity`, a dict that changes when its answers would

    Raises
    ------
    SettingsError
        if there is no such engine.
    """
    options = options or EngineOptions()
    kind, separator, rest = specification.partition(":")
    if not separator or not (rest or kind == "pyscf") or kind not in _KINDS:
        raise SettingsError(f"{specification!r} is no engine; give {KINDS}")
    if kind == "model":
        yield ModelEngine(rest, options)
    elif kind == "file":
        yield StoredEnergies(rest)
    elif kind in ("ase", "pyscf"):
        engine = CalculatorEngine(specification, options.forces)
        if options.n_workers == 1:
            yield engine
        else:
            with contextlib.closing(CalculatorPool(specification, options.n_workers, options.forces)) as pool:
                pool.identity = engine.identity
                yield pool
    else:
        with contextlib.closing(_listening(kind, rest, options)) as engine:
            yield engine


def _listening(kind, rest, options):
    if kind == "lammps":
        from comitia.engines.lammps_engine import LammpsEngine

        return LammpsEngine(rest, options)
    return WorkerEngine([listen(f"{kind}:{rest}", options)], options)


def listen(address, options):
    """The listener that `unix:NAME` or `tcp:HOST:PORT` names.

    Raises
    ------
    SettingsError
        if it cannot be made.
    """
    kind, _, rest = address.partition(":")
    if kind == "unix" and rest:
        return listen_unix(rest if rest.startswith("/") else options.sockets_prefix + rest)
    host, separator, port = rest.rpartition(":")
    if kind != "tcp" or not separator or not port.isdigit():
        raise SettingsError(f"{address}: give unix:NAME, or a host and a port as tcp:localhost:31415")
    return listen_tcp(host, int(port), options.allow_remote)
