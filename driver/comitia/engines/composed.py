"""A potential composed of others: members of any kind, a baseline, and what of it drives."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from comitia.engines.baselines import describe
from comitia.engines.sources import LAMMPS, WorkerSource, open_source
from comitia.errors import ModelError, SettingsError
from comitia.files import file_hash
from comitia.potential import Prediction
from comitia.potential.mixing import UncertaintyLimit, combine_members, limit_uncertainty, uncertainty_coefficients
from comitia.potential.source import Source, same_baseline, source_name
from comitia.settings import load

YAML = (".yaml", ".yml")


class PotentialSettings(msgspec.Struct, forbid_unknown_fields=True):
    """POTENTIAL.yaml.

    Attributes
    ----------
    members : list of Source, each one member
    committee : str, a comitia model whose members are the committee, instead of `members`
    weights : list of float, of the members in their mean; equal by default
    alpha : float, rescaling of the members about their mean
    baseline : Source that the committee corrects; its error in total energy is `baseline_uncertainty`, eV
    drive : "mean", or the index of the member whose forces are sent
    uncertainty_limit : UncertaintyLimit, a bias above an uncertainty of the energy
    """

    members: list[Source] = []
    committee: str | None = None
    weights: list[float] | None = None
    alpha: float = 1.0
    baseline: Source | None = None
    baseline_uncertainty: float | None = None
    drive: str | int = "mean"
    uncertainty_limit: UncertaintyLimit | None = None


@dataclass(frozen=True)
class ComposedPredictions:
    """What a composed potential says of a batch of structures; eV and Å. As `comitia.potential.evaluator.Predictions`.

    Attributes
    ----------
    energies, forces, virials : of what drives, baseline and bias included
    member_energies : (n_structures, n_members), of the corrections less their reference energies with a baseline
    mixing : (n_structures,) weight of the corrections, and `baseline_energies`, eV, with the reference energies of the
        corrections; None without a baseline
    uncertainty_biases : (n_structures,), eV, of the limit of the uncertainty; None without one
    """

    energies: np.ndarray
    forces: np.ndarray
    virials: np.ndarray
    member_energies: np.ndarray | None
    energy_uncertainties: np.ndarray | None
    member_forces: np.ndarray | None = None
    member_virials: np.ndarray | None = None
    mixing: np.ndarray | None = None
    baseline_energies: np.ndarray | None = None
    uncertainty_gradients: np.ndarray | None = None
    uncertainty_virials: np.ndarray | None = None
    uncertainty_biases: np.ndarray | None = None


class ComposedPotential:
    """Members, a baseline, and what of it drives; serves as a `comitia.Potential` does.

    Parameters
    ----------
    sources : list of objects with `evaluator(numbers, pbc, n_threads)`; a single committee or one for each member
    settings : PotentialSettings
    baseline : such an object, or None
    """

    def __init__(self, sources, settings, baseline=None):
        self.sources, self.settings, self.baseline = sources, settings, baseline
        self.committee = sources[0] if settings.committee is not None else None
        self.n_members = self.committee.n_members if self.committee else len(sources)
        self.weights, self._last = None, (None, None)
        _check(settings, self.n_members, baseline is not None)
        if settings.weights is not None:
            self.weights = np.array(settings.weights) / np.sum(settings.weights)
        if baseline is not None:
            for source in sources:
                _refuse_total_energies(source)

    @property
    def corrects(self):
        """The baseline that is missing where the members are corrections to one; None otherwise."""
        missing = [] if self.baseline is not None else [getattr(source, "corrects", None) for source in self.sources]
        return next((baseline for baseline in missing if baseline), None)

    @property
    def limit(self):
        """UncertaintyLimit whose bias is part of the energy, or None."""
        return self.settings.uncertainty_limit

    @property
    def drives_with_mean(self):
        """Whether the energy is the plain mean of the members, as i-PI's committees take it to be."""
        return self.drives_with_weighted_mean and self.weights is None

    @property
    def drives_with_weighted_mean(self):
        """Whether the energy is a mean of the members: not one of them, without a baseline and without a bias."""
        return self.settings.drive == "mean" and self.baseline is None and self.limit is None

    @property
    def species(self):
        """Atomic numbers that all the models know; None where there is no model."""
        known = [set(s.species) for s in (*self.sources, self.baseline) if getattr(s, "species", None) is not None]
        return tuple(sorted(set.intersection(*known))) if known else None

    def reference_energy(self, numbers):
        """Sum of the reference energies of atoms with these atomic numbers, eV: those of the first model."""
        if self.baseline is not None:
            raise ModelError(
                "the energy is counted as the baseline counts it, and members without e0; leave out --offset"
            )
        for source in self.sources:
            if hasattr(source, "reference_energy"):
                return source.reference_energy(numbers)
        raise ModelError("no member has reference energies; leave out --offset")

    def correction_reference(self, numbers):
        """Sum of the reference energies of the corrections, eV: it goes with the baseline, as it says nothing new.

        What is left of the corrections is near zero; the weighted baseline needs that, where they count by themselves.
        """
        if self.baseline is None:
            return 0.0
        known = [s.reference_energy(numbers) if hasattr(s, "reference_energy") else 0.0 for s in self.sources]
        return float(np.average(known, weights=None if self.committee else self.weights))

    def force_uncertainty(self, member_forces):
        """Uncertainty of forces, eV/Å, from those of the members (n_members, n_atoms, 3), as the evaluator gives them.

        A comitia committee keeps its own calibration of forces; it is rescaled by alpha like the energies.
        """
        if self.committee is not None and self.weights is None:
            return self.committee.force_uncertainty(member_forces)
        deviations = member_forces - np.average(member_forces, axis=0, weights=self.weights)
        return np.sqrt(
            len(deviations) / (len(deviations) - 1) * np.average(deviations**2, axis=0, weights=self.weights)
        )

    def evaluator(self, numbers, pbc, n_threads=None):
        """A `ComposedEvaluator` for these atoms."""
        return ComposedEvaluator(self, numbers, pbc, n_threads)

    def compute(self, atoms, members=False, n_threads=None):
        """`Prediction` of `ase.Atoms`, or a list of them; as `Potential.compute`, without energies of single atoms."""
        if isinstance(atoms, list | tuple):
            return [self.compute(one, members, n_threads) for one in atoms]
        key = (atoms.numbers.tobytes(), atoms.pbc.tobytes(), n_threads)
        if self._last[0] != key:  # calculators may be slow to make
            self._last = key, self.evaluator(atoms.numbers, atoms.pbc, n_threads)
        found = self._last[1].compute(atoms.positions[None], atoms.cell.array[None], members)
        several = self.n_members > 1
        return Prediction(
            energy=float(found.energies[0]),
            forces=found.forces[0],
            virial=found.virials[0],
            atomic_energies=None,
            volume=float(atoms.cell.volume) if atoms.cell.rank == 3 else 0.0,
            member_energies=found.member_energies[0] if several else None,
            energy_uncertainty=float(found.energy_uncertainties[0]) if several else None,
            member_forces=found.member_forces[0] if members and several else None,
            member_virials=found.member_virials[0] if members and several else None,
            force_uncertainty=self.force_uncertainty(found.member_forces[0]) if members and several else None,
        )

    def calculator(self, n_threads=None, members=False):
        """An ASE calculator, as `Potential.calculator`."""
        from comitia.engines.ase import ComitiaCalculator

        return ComitiaCalculator(self, n_threads, members)

    def close(self):
        """Send away the workers of the members that have some."""
        for source in (*self.sources, self.baseline):
            if hasattr(source, "close"):
                source.close()


class ComposedEvaluator:
    """A composed potential bound to one set of atoms."""

    def __init__(self, potential, numbers, pbc, n_threads):
        self.potential = potential
        self._members = [source.evaluator(numbers, pbc, n_threads) for source in potential.sources]
        self._reference = potential.correction_reference(numbers)
        baseline = potential.baseline
        self._baseline = baseline.evaluator(numbers, pbc, n_threads) if baseline is not None else None

    @property
    def _in_one_pass(self):
        """Whether energies of the members come first, and forces of what drives from one reverse pass."""
        committee = self.potential.committee
        if committee is None or committee.n_members < 2:
            return False
        return committee.core is None or self._baseline is None  # its weight needs the energies with their core

    def compute(self, positions, cells, members=False, uncertainty_gradient=False):
        """`ComposedPredictions` for positions (n_structures, n_atoms, 3) and cells (n_structures, 3, 3), rows, Å.

        Forces of members, and the gradient of the uncertainty of the committee's energy, only where asked for.
        """
        if self._in_one_pass and not (members or uncertainty_gradient):
            found, forces, virials = self._members[0].combined(positions, cells, self._combine)
            predictions = {"forces": forces, "virials": virials}
        else:
            energies, of_forces, of_virials = self._of_members(positions, cells)
            found = self._combine(energies)
            predictions = {
                "forces": np.einsum("sk,skia->sia", found.coefficients, of_forces),
                "virials": np.einsum("sk,skab->sab", found.coefficients, of_virials),
            }
            if members:
                predictions |= {
                    "member_forces": self._rescaled(of_forces),
                    "member_virials": self._rescaled(of_virials),
                }
            if uncertainty_gradient:
                settings, weights = self.potential.settings, self.potential.weights
                along = uncertainty_coefficients(found.members, found.uncertainties, weights, settings.alpha)
                predictions |= {
                    "uncertainty_gradients": -np.einsum("sk,skia->sia", along, of_forces),
                    "uncertainty_virials": np.einsum("sk,skab->sab", along, of_virials),
                }
        several = self.potential.n_members > 1
        predictions |= {
            "energies": found.energies,
            "member_energies": found.members if several else None,
            "energy_uncertainties": found.uncertainties,
            "uncertainty_biases": found.biases,
        }
        if self._baseline is not None:
            predictions = self._with_baseline(predictions, found, positions, cells)
        return ComposedPredictions(**predictions)

    def _combine(self, energies):
        settings, weights = self.potential.settings, self.potential.weights
        corrections = energies - self._reference
        found = combine_members(corrections, weights, settings.alpha, settings.drive, settings.baseline_uncertainty)
        limit = self.potential.limit
        return found if limit is None else limit_uncertainty(found, limit, weights, settings.alpha)

    def _rescaled(self, values):
        """Forces or virials of members (n_structures, n_members, ...) moved away from their mean by alpha."""
        mean = np.average(values, axis=1, weights=self.potential.weights)[:, None]
        return mean + self.potential.settings.alpha * (values - mean)

    def _of_members(self, positions, cells):
        """Energies, forces and virials of all members, before they are rescaled."""
        if self.potential.committee is None:
            each = [evaluator.compute(positions, cells) for evaluator in self._members]
            names = ("energies", "forces", "virials")
            return [np.stack([getattr(one, name) for one in each], axis=1) for name in names]
        found = self._members[0].compute(positions, cells, members=True)
        if found.member_energies is None:
            return found.energies[:, None], found.forces[:, None], found.virials[:, None]
        return found.member_energies, found.member_forces, found.member_virials

    def _with_baseline(self, predictions, found, positions, cells):
        base = self._baseline.compute(positions, cells)
        baseline_energies = base.energies + self._reference
        return predictions | {
            "energies": predictions["energies"] + baseline_energies,
            "forces": predictions["forces"] + base.forces,
            "virials": predictions["virials"] + base.virials,
            "mixing": found.mixing,
            "baseline_energies": baseline_energies,
        }


def _check(settings, n_members, has_baseline):
    if settings.weights is not None:
        if len(settings.weights) != n_members:
            raise SettingsError(f"weights has {len(settings.weights)} numbers, there are {n_members} members")
        if min(settings.weights) < 0 or sum(settings.weights) == 0:
            raise SettingsError("weights must not be negative, nor all zero")
    if settings.alpha <= 0:
        raise SettingsError(f"alpha is {settings.alpha:g}; it must be positive")
    if settings.drive != "mean":
        if not str(settings.drive).isdigit() or int(settings.drive) >= n_members:
            raise SettingsError(f"drive is {settings.drive!r}; give mean, or a member from 0 to {n_members - 1}")
        if has_baseline:
            raise SettingsError(
                "drive names a member, and there is a baseline; the weighted baseline drives with the mean"
            )
    limit = settings.uncertainty_limit
    if limit is not None:
        if not (0 <= limit.sigma < np.inf and 0 < limit.stiffness < np.inf):
            raise SettingsError("uncertainty_limit: sigma (eV) must not be negative, and stiffness (1/eV) positive")
        if n_members < 2:
            raise SettingsError("uncertainty_limit needs a committee: one member has no uncertainty")
    if has_baseline != (settings.baseline_uncertainty is not None):
        raise SettingsError("baseline and baseline_uncertainty (eV, of the total energy) belong together; give both")
    if settings.baseline_uncertainty is not None:
        if settings.baseline_uncertainty <= 0:
            raise SettingsError("baseline_uncertainty must be positive, eV")
        if n_members < 2:
            raise SettingsError("a weighted baseline needs a committee: one member has no uncertainty")


def _refuse_total_energies(source):
    if hasattr(source, "corrects") and not source.corrects:
        raise ModelError(
            "the committee is a model of total energies, and the weighted baseline needs one of corrections to the "
            "baseline: fit it with `baseline:` in FIT.yaml"
        )


def _refuse_another_baseline(sources, given):
    for source in sources:
        known = getattr(source, "corrects", None)
        if known and not same_baseline(known, given):
            raise ModelError(
                f"the committee corrects {source_name(known)}, and the baseline is {source_name(given)}, another one "
                "or changed since; give the one it was fitted beside"
            )


def load_composed(path, precision="float64"):
    """The potential that a POTENTIAL.yaml describes; files in it are looked for beside it.

    Raises
    ------
    SettingsError, ModelError
    """
    path = Path(path)
    settings = load(path, PotentialSettings)
    if bool(settings.members) == (settings.committee is not None):
        raise SettingsError(f"{path}: give either `members`, or one model as `committee`")
    given = [Source(model=settings.committee)] if settings.committee is not None else settings.members
    try:
        sources = [open_source(source, path.parent, precision) for source in given]
        baseline = open_source(settings.baseline, path.parent, precision) if settings.baseline is not None else None
        if baseline is not None:
            _refuse_another_baseline(sources, describe(settings.baseline, path.parent, path.parent))
        return ComposedPotential(sources, settings, baseline)
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from error


def load_potential(path, precision="float64"):
    """The potential in a model file, or the one that a POTENTIAL.yaml (.yaml, .yml) composes.

    Parameters
    ----------
    path : str or Path
    precision : "float64" or "float32", of the kernels of models

    Returns
    -------
    Potential or ComposedPotential

    Raises
    ------
    ModelError, SettingsError
    """
    from comitia.potential import load as load_model

    return load_composed(path, precision) if Path(path).suffix in YAML else load_model(path, precision)


def sources_of(potential):
    """The potentials that a potential is made of, with their baseline; itself where it is a model."""
    parts = [*getattr(potential, "sources", [potential]), getattr(potential, "baseline", None)]
    return [part for part in parts if part is not None]


def needs_workers(potential):
    """Whether other programs must connect before anything can be computed."""
    return any(isinstance(source, WorkerSource) for source in sources_of(potential))


def potential_hash(path):
    """SHA-256 of a model file, or of a POTENTIAL.yaml with the models and the inputs of LAMMPS that it names."""
    path = Path(path)
    if path.suffix not in YAML:
        return file_hash(path)
    settings = load(path, PotentialSettings)
    sources = [source for source in (*settings.members, settings.baseline) if source]
    named = [settings.committee, *(source.model for source in sources)]
    named += [one.workers.removeprefix(LAMMPS) for one in sources if one.workers and one.workers.startswith(LAMMPS)]
    hashes = [file_hash(path), *(file_hash(path.parent / name) for name in named if name)]
    return hashlib.sha256(" ".join(hashes).encode()).hexdigest()
