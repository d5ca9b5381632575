"""The potential that a committee corrects: opened for a fit, and again from what a model file says of it."""

import os
from pathlib import Path

from comitia.engines.sources import LAMMPS, CalculatorSource, WorkerSource, calculated, open_source
from comitia.errors import ModelError, StructureError
from comitia.files import file_hash
from comitia.potential.source import Source, refuse_corrections, source_name


def describe(source, beside, folder):
    """What tells a source from others, for a file in `folder`; `beside` is where its own files are."""
    if source.model is not None:
        path = Path(beside) / source.model
        return {"model": os.path.relpath(path, folder), "sha256": file_hash(path)}
    if source.calculator is not None:
        return {"calculator": source.calculator, "arguments": source.arguments}
    if source.workers.startswith(LAMMPS):
        path = Path(beside) / source.workers.removeprefix(LAMMPS)
        return {"workers": LAMMPS + os.path.relpath(path, folder), "sha256": file_hash(path)}
    return {"workers": source.workers}


class Baseline:
    """A source as a function of `ase.Atoms`; see `comitia.training.corrections`.

    Parameters
    ----------
    source : Source
    folder : Path, beside which its files are
    n_threads : int or None

    Raises
    ------
    SettingsError, ModelError
        if it cannot be opened, or is a model of corrections itself.
    """

    def __init__(self, source, folder, n_threads=None):
        self.source, self.folder, self._n_threads = source, Path(folder), n_threads
        self._opened, self._numbers = open_source(source, self.folder), None
        if source.model is not None:
            refuse_corrections(self._opened, self.folder / source.model)

    def __call__(self, atoms):
        """Energy (eV), forces (n_atoms, 3) in eV/Å and virial (3, 3) in eV, or None where it has none."""
        if self.source.model is not None:
            found = self._opened.compute(atoms, n_threads=self._n_threads)
            return found.energy, found.forces, found.virial
        if isinstance(self._opened, CalculatorSource):
            return calculated(self._opened.calculator, atoms.copy(), self._opened.name)
        numbers = atoms.numbers.tolist()
        if isinstance(self._opened, WorkerSource) and self._numbers not in (None, numbers):
            raise StructureError("workers hold one set of atoms, and these are others; take a model or a calculator")
        self._numbers = numbers
        found = self._opened.evaluator(atoms.numbers, atoms.pbc).compute(atoms.positions[None], atoms.cell.array[None])
        return float(found.energies[0]), found.forces[0], found.virials[0]

    def description(self, folder):
        """What a model file in `folder` says of it: its name, and the content of a model file."""
        return describe(self.source, self.folder, folder)

    def close(self):
        """Send its workers away."""
        getattr(self._opened, "close", lambda: None)()


def open_baseline(source, *folders, n_threads=None):
    """The `Baseline` that settings name, found in the first of the folders that has its file.

    Parameters
    ----------
    source : Source
    folders : where its model, or the module of its calculator, may be; the last counts where none has it
    """
    name = source.model or f"{(source.calculator or '').partition(':')[0]}.py"
    if source.workers is not None:
        name = source.workers.removeprefix(LAMMPS)
    folder = next((folder for folder in folders if (Path(folder) / name).is_file()), folders[-1])
    return Baseline(source, folder, n_threads)


def baseline_of(potential, path):
    """The baseline that a model of corrections in the file `path` was fitted beside.

    Raises
    ------
    ModelError
        where it is not there, or is another one now.
    """
    known = potential.corrects
    if not isinstance(known, dict) or not known.keys() & {"model", "calculator", "workers"}:
        raise ModelError(f"{path}: does not say to what it is a correction; fit it again with `baseline:` in FIT.yaml")
    source = Source(**{key: known[key] for key in ("model", "calculator", "arguments", "workers") if key in known})
    folder = Path(path).parent
    if source.model is not None and not any((place / source.model).is_file() for place in (folder, Path.cwd())):
        raise ModelError(f"{path}: corrects the model {source.model}, which is not there; put it beside")
    found = open_baseline(source, folder, Path.cwd())
    if "sha256" in known and found.description(folder)["sha256"] != known["sha256"]:
        raise ModelError(f"{path}: corrects {source_name(known)}, which has changed since; fit the corrections again")
    return found
