"""What a potential says of a structure in three steps: numbers, time, memory, and what is wrong with them."""

import resource
import time
from dataclasses import dataclass

import numpy as np

from comitia.engines.composed import needs_workers, sources_of
from comitia.engines.sources import CalculatorSource, calculated
from comitia.errors import ComitiaError
from comitia.findings import refusal, warning
from comitia.potential.source import source_name

STEPS = 3
MOVED = 0.01  # Å, how far the atoms go from step to step
USUAL_CUTOFF = 5.0  # Å, of potentials that do not say theirs
LARGEST_FORCE = 30.0  # eV/Å, beyond which a first step throws atoms out
FEWEST_STRUCTURES, MOST_STRUCTURES = 1, 64  # of a step that are evaluated together


@dataclass(frozen=True)
class Trial:
    """What three steps gave.

    Attributes
    ----------
    energy, energy_uncertainty : float, eV, of the structure as it is; None for a single member
    largest_force : float, eV/Å
    seconds : float, of one step
    memory : int, bytes, the most that this process had
    """

    energy: float
    energy_uncertainty: float | None
    largest_force: float
    seconds: float
    memory: int


def heights(atoms):
    """Thickness of the cell along its periodic directions, Å: distances between opposite faces."""
    lengths = np.linalg.norm(np.linalg.pinv(atoms.cell.array[atoms.pbc]), axis=0)
    return np.divide(1.0, lengths, out=np.zeros_like(lengths), where=lengths > 0)  # 0 where there is no cell vector


def cutoff_of(potential):
    """Å, the longest of the models in a potential; None where there is no model."""
    return max((source.cutoff for source in sources_of(potential) if hasattr(source, "cutoff")), default=None)


def without_stress(potential, atoms):
    """Names of the calculators in a potential that give no stress; their virial is taken to be zero.

    Raises
    ------
    ComitiaError
        where one of them fails.
    """
    sources = [source for source in sources_of(potential) if isinstance(source, CalculatorSource)]
    if atoms.cell.rank < 3:
        return []
    return [source.name for source in sources if calculated(source.calculator, atoms.copy(), source.name)[2] is None]


def try_steps(potential, atoms, n_structures=1, n_threads=None):
    """`Trial` of three steps with so many structures, beads or replicas, each.

    Raises
    ------
    ComitiaError
        where a number is not finite, or a member fails.
    """
    together = min(n_structures, MOST_STRUCTURES)
    evaluator = potential.evaluator(atoms.numbers, atoms.pbc, n_threads)
    generator, cells = np.random.default_rng(0), np.repeat(atoms.cell.array[None], together, axis=0)
    positions = np.repeat(atoms.positions[None], together, axis=0)
    first = evaluator.compute(positions, cells)
    seconds = []
    for _ in range(STEPS):
        positions = positions + MOVED * generator.uniform(-1, 1, positions.shape)
        begin = time.perf_counter()
        evaluator.compute(positions, cells)
        seconds.append(time.perf_counter() - begin)
    sigma = first.energy_uncertainties
    return Trial(
        float(first.energies[0]),
        None if sigma is None else float(sigma[0]),
        float(np.linalg.norm(first.forces[0], axis=1).max()),
        float(np.median(seconds)) * n_structures / together,
        1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    )


def correction_findings(potential, name):
    """A refusal of corrections that nothing adds to what they correct."""
    if getattr(potential, "corrects", None) is not None:
        yield refusal(
            f"{name}: is a model of corrections to {source_name(potential.corrects)}; name both in a POTENTIAL.yaml, "
            "as `committee` and `baseline`"
        )


def potential_findings(potential, atoms, name):
    """Findings about a potential and the atoms it is to be used for, before it computes anything.

    Parameters
    ----------
    potential : Potential or ComposedPotential
    atoms : ase.Atoms
    name : str, of the potential, for messages
    """
    if potential.n_members < 2:
        yield warning(f"{name}: one member, so that nothing will have an uncertainty; fit with members: 16")
    settings = getattr(potential, "settings", None)
    if settings is not None and potential.n_members > 1 and settings.alpha == 1.0 and potential.committee is None:
        yield warning(
            f"{name}: alpha is 1 and the members are not calibrated, so that the uncertainty is their bare spread; "
            "give the alpha that makes it as large as the errors on labelled structures"
        )
    if not atoms.pbc.any():
        return
    thin, cutoff = heights(atoms).min(), cutoff_of(potential)
    if cutoff is not None and thin < cutoff:
        yield warning(
            f"{name}: the cell is {thin:.2f} Å thin and the cutoff {cutoff:g} Å, so that atoms see their own images; "
            "energies are right, every image is counted, but what is sampled is a small crystal: take a larger cell"
        )
    if thin < (cutoff or USUAL_CUTOFF) and any(
        isinstance(source, CalculatorSource) for source in sources_of(potential)
    ):
        yield warning(
            f"{name}: the cell is {thin:.2f} Å thin; a calculator that takes the nearest image of an atom only is "
            "wrong in it, unless its cutoff is below half of that"
        )


def trial_findings(trial, name):
    """Findings about numbers."""
    if trial.largest_force > LARGEST_FORCE:
        yield warning(
            f"{name}: the largest force is {trial.largest_force:.1f} eV/Å at the first structure; see whether atoms "
            "overlap, or lengths are in another unit, and relax it first"
        )


def tried(potential, atoms, name, n_structures=1, n_threads=None):
    """(Trial or None, list of Finding) of a potential and the atoms it is to be used for."""
    found = list(potential_findings(potential, atoms, name))
    if needs_workers(potential):
        found.append(warning(f"{name}: has members for which workers must connect; no step was tried"))
        return None, found
    try:
        trial = try_steps(potential, atoms, n_structures, n_threads)
    except ComitiaError as error:
        return None, [*found, refusal(f"{name}: {error}")]
    return trial, [*found, *trial_findings(trial, name)]
