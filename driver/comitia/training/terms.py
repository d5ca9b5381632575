"""What a model is made of, chosen from the training set before the fit: descriptor, reference energies and core."""

import dataclasses

import msgspec
import numpy as np

from comitia.density import Descriptor
from comitia.density.presets import WITHIN_A_COST, preset
from comitia.training import cost, dataset
from comitia.training.radials import learn_radial
from comitia.training.species import learn_contraction


@dataclasses.dataclass
class Terms:
    """The fixed terms of a model, and what its descriptor costs.

    Attributes
    ----------
    descriptor : Descriptor
    reference_energies : (n_species,) array, eV
    core : ZBL or None
    cost : float or None, µs/atom, where a cost was asked for
    """

    descriptor: Descriptor
    reference_energies: np.ndarray
    core: object
    cost: float | None


def choose_terms(settings, structures, species, stage, n_threads):
    """`Terms` of a fit.

    Parameters
    ----------
    settings : FitSettings
    structures : list of LabelledStructure, the training set
    species : (n_species,) int array, atomic numbers, increasing
    stage : function of a name and a number of steps that gives a context whose value is called after every step
    n_threads : int
    """
    from comitia.potential.baselines import ZBL

    e0 = dataset.reference_energies(structures, species, settings.reference_energies)
    core = ZBL(species, *dataset.core_radii(structures, species, settings.cutoff)) if settings.core else None

    def target(structure):
        return dataset.make_target(structure, species, e0, core, settings.weights)

    accuracy = settings.accuracy if settings.target_cost is None else WITHIN_A_COST
    basis, optimal = settings.basis.completed(preset(accuracy, len(species))), None
    channels, atoms = basis.channels(len(species)), [s.atoms for s in structures]
    contraction = learn_contraction(structures, target, species, settings.cutoff, channels, stage)
    if basis.radial == "optimal":
        optimal = learn_radial(atoms, species, settings.cutoff, basis, contraction, n_threads)
    options = msgspec.structs.asdict(basis) | {"contraction": contraction, "optimal": optimal}
    options |= {"constant": settings.reference_energies is None}

    def build(max_features):
        return Descriptor.build(species, settings.cutoff, **options | {"max_features": max_features})

    if settings.target_cost is None:
        return Terms(build(basis.max_features), e0, core, None)
    descriptor, measured = cost.largest_within(settings.target_cost, build, cost.typical(atoms))
    return Terms(descriptor, e0, core, measured)
