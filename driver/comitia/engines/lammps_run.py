"""An input of LAMMPS run as it stands, with the forces of a potential and a bias of PLUMED put in."""

import contextlib
import logging
import os
import re
import signal
import tempfile
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from ase.data import atomic_numbers

from comitia.engines.guards import save_failed
from comitia.engines.lammps import ExternalForces, import_lammps, refuse_ranks, remove_shared_memory
from comitia.engines.lammps_input import ATTACHED, DEFAULT_FIX, PLACE, STOPPED, label, prepare
from comitia.engines.plumed_bias import PlumedBias, import_plumed
from comitia.errors import NumericalError, SettingsError, StoppedBySignal, UsageError
from comitia.potential.evaluator import Predictions
from comitia.signals import NUMBERS

log = logging.getLogger(__name__)

_RESTARTS = re.compile(r"^\s*RESTART(?!\s+NO\b)", re.MULTILINE)
_WITHOUT_MODEL = 5.0  # Å, cutoff of a pair style that has nothing to say


def model_of(path):
    """The model that an input names in `pair_coeff * * MODEL Si O` of `pair_style comitia`, a Path; or None."""
    named = prepare(Path(path), _WITHOUT_MODEL).model
    return None if named is None else Path(named)


class NoPotential:
    """Takes the place of a potential where LAMMPS has its own, and only a bias is added."""

    species, n_members, cutoff = None, 1, _WITHOUT_MODEL

    def evaluator(self, numbers, pbc, n_threads=None):
        """An evaluator that finds nothing, whatever the structure."""
        n = len(numbers)
        nothing = Predictions(
            np.zeros(1), np.zeros((1, n, 3)), np.zeros((1, 3, 3)), np.zeros((1, n)), None, None,
            atomic_virials=np.zeros((1, n, 3, 3)),
        )  # fmt: skip
        return SimpleNamespace(potential=self, compute=lambda positions, cells, **asked: nothing)


class WatchedEvaluator:
    """An evaluator whose structures a guard looks at, and which keeps those that are not finite.

    Parameters
    ----------
    guard : comitia.engines.guards.UncertaintyGuard or None
    failed : path of the file for structures that are not finite
    atoms : ase.Atoms
    evaluator : as `Potential.evaluator` makes it
    """

    def __init__(self, guard, failed, atoms, evaluator):
        self.potential = evaluator.potential
        self._guard, self._evaluator = guard, evaluator
        self._keep = partial(save_failed, failed, atoms)
        self._asked = {"members": True} if guard is not None and guard.members else {}
        if guard is not None:
            guard.follow(atoms)

    def compute(self, positions, cells, **asked):
        """Predictions that the guard has let pass."""
        try:
            predictions = self._evaluator.compute(positions, cells, **self._asked, **asked)
        except NumericalError as error:
            raise NumericalError(f"{error}; {self._keep(positions, cells, error)}", error.place) from error
        if self._guard is not None:
            self._guard(positions, cells, predictions)
        return predictions


@contextlib.contextmanager
def _noted_signals():
    """While LAMMPS runs a signal is only noted, so that the step is finished; a second one ends the process."""
    noted = []

    def note(number, frame):
        noted.append(number)
        signal.signal(number, signal.SIG_DFL)

    before = {}
    with contextlib.suppress(ValueError):  # not in the main thread: nobody to ask
        for number in NUMBERS:
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                before[number] = signal.signal(number, note)
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class InputRun:
    """One run of an input of LAMMPS.

    Parameters
    ----------
    path : Path of the input
    potential : comitia.Potential or what takes its place; None for the pair style of LAMMPS alone
    species : list of chemical symbols, one for each atom type, or None: from the input
    plumed : path of an input of PLUMED, or None
    temperature : float, K, or None: for actions of PLUMED that ask for it
    guard : comitia.engines.guards.UncertaintyGuard or None
    failed : path for a structure that is not finite
    restart : path of the restart file that is written when a signal ends the run
    n_threads : int or None
    arguments : list of str, for LAMMPS, as `-var T 300`
    """

    def __init__(
        self, path, potential=None, species=None, plumed=None, temperature=None, guard=None, failed="failed.xyz",
        restart="comitia.restart", n_threads=None, arguments=(),
    ):  # fmt: skip
        self.path, self.species, self.n_threads = Path(path), species, n_threads
        self.restart = Path(restart).absolute()  # the input may go to another folder
        self.potential = NoPotential() if potential is None else potential
        self._plumed, self._temperature = plumed and Path(plumed).absolute(), temperature
        if plumed is not None:
            import_plumed()
            if not self._plumed.is_file():
                raise SettingsError(f"{plumed}: there is no such input of PLUMED; correct its path")
        self._wrap = partial(WatchedEvaluator, guard, Path(failed).absolute())
        cutoff = getattr(self.potential, "cutoff", None) or _WITHOUT_MODEL
        self.script = prepare(self.path, float(cutoff))
        self.forces = None
        self._noted, self._seconds = [], 0.0
        lammps = import_lammps().lammps
        try:
            self.lmp = lammps(cmdargs=["-nocite", *arguments])
        except RuntimeError as error:
            raise UsageError(
                f"LAMMPS does not start with {' '.join(arguments) or 'no arguments'}, as it says above; give after -- "
                "what lmp takes"
            ) from error
        try:
            refuse_ranks(self.lmp)
        except UsageError:
            self.lmp.finalize()  # of MPI too: the ranks end together
            raise
        remove_shared_memory(os.getpid())  # its name: the only rank has it open, and may be killed

    def run(self):
        """Run the input to its end.

        Raises
        ------
        ComitiaError
            what LAMMPS, the potential, PLUMED or the guard could not do.
        StoppedBySignal
            after the step was finished and a restart file written.
        """
        started = time.perf_counter()
        try:
            with tempfile.TemporaryDirectory(prefix="comitia_") as folder, _noted_signals() as self._noted:
                self._read_on(Path(folder))
                if self._noted:
                    self._write_restart()
            if self._noted:
                raise StoppedBySignal(self._noted[0])
        finally:
            self._seconds = time.perf_counter() - started
            if self.forces is not None:
                self.forces.close()

    def _read_on(self, folder):
        """Read the input from place to place."""
        script, resume = folder / "script.in", folder / "resume.in"
        script.write_text(self.script.text, encoding="utf-8")
        self._file(script)
        while (number := int(self.lmp.extract_variable(PLACE))) and not self._noted:
            self.lmp.command(f"variable {PLACE} string 0")
            self._attach(self.script.places[number])
            resume.write_text(f"jump {script} {label(number)}\n", encoding="utf-8")
            self._file(resume)
        if self.forces is None and not self._noted:
            raise SettingsError(f"{self.path}: LAMMPS came to no run nor minimize; there was nothing to compute")

    def _file(self, path):
        """Let LAMMPS read a file; what it says against it is one sentence."""
        try:
            self.lmp.file(str(path))
        except Exception as error:  # that is all that its module raises
            if self.forces is not None:
                self.forces.raise_failure()
            raise self._error(str(error)) from error
        if self.forces is not None:
            self.forces.raise_failure()

    def _error(self, text):
        lines = [line.strip() for line in text.replace("ERROR on proc 0:", "ERROR:").splitlines() if line.strip()]
        said = re.sub(r"\s*\((?:\S*/)?src/\S+\)$", "", lines[0].removeprefix("ERROR: ")) if lines else "nothing"
        last = next((line for line in lines if line.startswith("Last input line:")), None)
        where = f" at `{last.removeprefix('Last input line:').strip()}`" if last else ""
        if any(words in said for words in ("Non-numeric", "not finite", "Lost atoms")):
            return NumericalError(f"{self.path}{where}: LAMMPS says: {said}; the dynamics has diverged")
        return SettingsError(f"{self.path}{where}: LAMMPS says: {said}")

    def _attach(self, place):
        """Put the forces in, unless it is too early for that."""
        n_types = self.lmp.extract_setting("ntypes") if self.lmp.extract_setting("box_exist") else 0
        if not n_types:
            if place.optional:
                return
            raise SettingsError(f"{self.path}: there are no atoms yet where the forces are to be put in")
        self.lmp.command(f"variable {ATTACHED} string 1")
        if self.forces is not None:
            self.forces.close()
        symbols = self._symbols(place, n_types)
        self.forces = ExternalForces(
            self.lmp, self.potential, symbols, place.fix or DEFAULT_FIX, self.n_threads, self._bias(), self._wrap,
            self._after_step,
        )  # fmt: skip
        self._say(symbols)

    def _say(self, numbers):
        from ase.data import chemical_symbols

        fix, length = self.forces.fix, self.forces.vector_length
        what = []
        if self.potential.n_members > 1:
            what = [f"f_{fix}[1] is sigma, f_{fix}[2] to f_{fix}[{self.potential.n_members + 1}] the members"]
        if self._plumed is not None:
            what.append(f"f_{fix}[{length}] the bias")
        types = " ".join(chemical_symbols[z] for z in numbers) or "as they are"
        log.info("forces of comitia by fix %s, types %s%s", fix, types, f"; {', '.join(what)} (eV)" if what else "")

    def _bias(self):
        """What makes the bias of PLUMED, once the first step is known."""
        if self._plumed is None:
            return None

        def begin(masses, charges, step):
            text = Path(self._plumed).read_text(encoding="utf-8", errors="replace")
            restart_step = step if _RESTARTS.search(text) else None
            time_step = self.lmp.extract_global("dt")
            return PlumedBias(self._plumed, masses, time_step, self._temperature, charges, restart_step)

        return begin

    def _symbols(self, place, n_types):
        """Atomic numbers of the atom types: as given, of the line `pair_coeff`, of the labels; or the only one."""
        known = self.potential.species
        symbols = self.species or place.species or self._labels(n_types)
        if symbols is None and n_types == 1 and known is not None and len(known) == 1:
            return [int(known[0])]
        if symbols is None and isinstance(self.potential, NoPotential):
            return [0] * n_types
        if symbols is None:
            raise SettingsError(
                f"{self.path}: which element is which of the {n_types} atom types? say --species 'Si O', or "
                "`labelmap atom 1 Si 2 O` in the input"
            )
        for symbol in symbols:
            if symbol not in atomic_numbers:
                raise SettingsError(f"{self.path}: {symbol} is not a chemical symbol; say --species 'Si O'")
        return [atomic_numbers[symbol] for symbol in symbols]

    def _labels(self, n_types):
        """Labels of the atom types, or None."""
        with tempfile.TemporaryDirectory(prefix="comitia_") as folder:
            path = Path(folder) / "labels"
            try:
                self.lmp.command(f"labelmap write {path}")
            except Exception:  # types without labels: that is all that its module raises
                return None
            found = dict(re.findall(r"(\d+)\s+\"+([^\"]+)\"+", path.read_text())) if path.is_file() else {}
        return [found[str(i)].strip() for i in range(1, n_types + 1)] if len(found) >= n_types else None

    def _after_step(self, step):
        if self._noted or self.forces.failure is not None:
            self.lmp.set_string_variable(STOPPED, "1")
            self.lmp.force_timeout()

    def _write_restart(self):
        """Save the state in which a signal ended the run."""
        if not self.lmp.extract_setting("box_exist"):
            return
        try:
            partial_file = f"{self.restart}.partial"
            self.lmp.command(f"write_restart {partial_file}")
            os.replace(partial_file, self.restart)
        except Exception as error:
            log.warning("%s was not written: %s", self.restart, error)
        else:
            log.warning("stopped at step %d; read_restart %s goes on", self.summary()["step"], self.restart)

    def summary(self):
        """What can be said of the run: dict of the last step, its energies (eV), calls and times (s)."""
        forces = self.forces
        step = int(self.lmp.extract_global("ntimestep"))
        found = {"step": step, "n_atoms": int(self.lmp.get_natoms()), "seconds": self._seconds}
        if forces is not None:
            found |= {"n_evaluations": forces.n_calls, "seconds_computing": forces.seconds_computing}
            found["last_evaluation"] = dict(forces.last)
        return found

    def close(self):
        """End LAMMPS."""
        self.lmp.close()
