"""Energies of a reference method that is dear: each structure once, kept as it comes, by several workers."""

import hashlib
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from comitia.engines.force_engines import EngineOptions, Label, open_engine
from comitia.engines.labels import Heartbeat, Journal, announce
from comitia.files import check_destination
from comitia.progress import Stages
from comitia.protocol.requests import Failure


@dataclass(frozen=True)
class ReferenceEnergies:
    """What a reference says of structures.

    Attributes
    ----------
    energies : (n_structures,) array, eV; nan where the reference failed
    failed : list of {"structure", "error"}
    n_called : int, evaluations of this call
    n_from_before : int, structures whose energy was in the store
    seconds : float
    identity : dict, what the energies depend on
    """

    energies: np.ndarray
    failed: list = field(default_factory=list)
    n_called: int = 0
    n_from_before: int = 0
    seconds: float = 0.0
    identity: dict = field(default_factory=dict)


def structure_key(atoms):
    """Hash of everything that an energy depends on: species, positions, cell, periodicity."""
    digest = hashlib.sha256()
    for values, kind in ((atoms.numbers, "<i8"), (atoms.positions, "<f8"), (atoms.cell.array, "<f8"), (atoms.pbc, "?")):
        digest.update(np.ascontiguousarray(values, dtype=kind).tobytes())
    return digest.hexdigest()[:32]


def reference_energies(structures, specification, store, options=None, skip_failed=0, progress=True):
    """Energies of structures by a reference, each computed once whatever happens in between.

    Every energy is in the store, one line each, as soon as it is known; a call that was ended, by a kill as well, goes
    on from there, and structures that are the same are computed once. Those that fail are not kept, and are tried
    again by the next call.

    Parameters
    ----------
    structures : list of ase.Atoms; of a path integral one for every bead
    specification : str, see `comitia.engines.force_engines.KINDS`
    store : path of a file that belongs to one reference with its settings; another one is refused
    options : EngineOptions; forces are not asked for
    skip_failed : int, failures that are put up with
    progress : bool, whether a bar with the time that is left is shown on a terminal

    Returns
    -------
    ReferenceEnergies

    Raises
    ------
    ComitiaError
        that of the first failure beyond `skip_failed`, or where the reference cannot be used; what is done is kept.
    """
    begin, store = time.monotonic(), Path(store)
    check_destination(store)
    options = options or EngineOptions()
    options = EngineOptions(**{**vars(options), "forces": False})
    keys = [structure_key(atoms) for atoms in structures]
    failures = {}
    with open_engine(specification, options) as engine:
        announce(engine, specification, options)
        header = {"version": 1, "reference": [specification, engine.identity]}
        with Journal(store, header) as journal, Stages(progress) as stages:
            left = {key: number for number, key in reversed(list(enumerate(keys))) if key not in journal}
            n_before, n_called = len(set(keys)) - len(left), 0
            names = {number: key for key, number in left.items()}
            wanted = ((number, structures[number]) for number in sorted(names))
            heartbeat = Heartbeat(len(left))
            with stages.stage("reference", len(left)) as advance:
                for number, outcome in engine.labels(wanted):
                    n_called += 1
                    if isinstance(outcome, Failure):
                        failures[number] = outcome.error
                        if len(failures) > skip_failed:
                            raise _given_up(outcome.error, number, failures, skip_failed, store)
                    else:
                        journal.add(names[number], Label(outcome.energy, None, None))
                    advance()
                    heartbeat.beat(len(failures))
            energies = np.array([journal.label(key).energy if key in journal else np.nan for key in keys])
    failed = [
        {"structure": number, "error": str(failures[left[key]])}
        for number, key in enumerate(keys)
        if np.isnan(energies[number])
    ]
    return ReferenceEnergies(energies, failed, n_called, n_before, time.monotonic() - begin, engine.identity)


def _given_up(error, number, failures, skip_failed, store):
    """The error of the structure that was one failure too many."""
    allowed = f"{len(failures)} failed, {skip_failed} may be skipped" if skip_failed else "none may be skipped"
    return type(error)(
        f"the reference failed on structure {number}: {error} ({allowed}; give --skip-failed N to go on without, "
        f"what is done is in {store})"
    )
