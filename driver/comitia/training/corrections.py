r"""A baseline taken off the labels: a committee of corrections is fitted to what is left.

.. math:: E = E_\mathrm{ref} - V_b, \qquad f = f_\mathrm{ref} - f_b

The reference energies of the corrections are fitted like those of total energies, so that the rest is near zero.
"""

import dataclasses
import warnings

import numpy as np

from comitia.errors import ComitiaError


def corrected(structures, baseline, step=None):
    """Structures with the labels of the baseline taken off theirs; `reference` keeps them as they were.

    Parameters
    ----------
    structures : list of LabelledStructure
    baseline : function of an `ase.Atoms` to energy (eV), forces (n_atoms, 3) and virial (3, 3) or None
    step : function called after every structure, or None

    Returns
    -------
    list of LabelledStructure

    Raises
    ------
    ComitiaError
        of the class that the baseline raises, naming the structure.
    """
    found, without_virial = [], 0
    for structure in structures:
        try:
            energy, forces, virial = baseline(structure.atoms)
        except ComitiaError as error:
            raise type(error)(f"{structure.origin}: baseline: {error}") from error
        without_virial += structure.virial is not None and virial is None
        found.append(
            dataclasses.replace(
                structure,
                energy=None if structure.energy is None else structure.energy - energy,
                forces=None if structure.forces is None else structure.forces - forces,
                virial=None if structure.virial is None or virial is None else structure.virial - virial,
                reference=structure,
            )
        )
        if step is not None:
            step()
    if without_virial:
        warnings.warn(f"baseline: has no stress; the virials of {without_virial} structures are left out", stacklevel=2)
    return found


def corrected_split(split, baseline, stages):
    """A split whose structures are all corrected; warns where the baseline does not describe them."""
    parts = {name: getattr(split, name) for name in ("training", "validation", "test")}
    with stages.stage("baseline", sum(map(len, parts.values()))) as step:
        found = dataclasses.replace(split, **{name: corrected(part, baseline, step) for name, part in parts.items()})
    check_removed(removed(found.training))
    return found


def removed(structures):
    """How much of the labels a baseline takes off: root mean squares of what there was and of what is left.

    Energies are compared less the reference energies that fit them best by composition.

    Returns
    -------
    dict: `energy` (meV/atom) and `forces` (eV/Å), each with `reference` and `corrections`, where there are labels
    """
    found = {}
    for name, taken in (("reference", [s.reference for s in structures]), ("corrections", structures)):
        energies = _by_composition([s for s in taken if s.energy is not None])
        if energies is not None:
            found.setdefault("energy", {})[name] = energies
        forces = [s.forces for s in taken if s.forces is not None]
        if forces:
            found.setdefault("forces", {})[name] = float(np.sqrt(np.mean(np.concatenate(forces) ** 2)))
    return found


def _by_composition(structures):
    """Root mean square of the energies per atom, meV, less what their composition says."""
    from comitia.training.dataset import reference_energies

    if not structures:
        return None
    species = np.unique(np.concatenate([s.atoms.numbers for s in structures]))
    e0 = reference_energies(structures, species)
    left = [(s.energy - e0[np.searchsorted(species, s.atoms.numbers)].sum()) / len(s.atoms) for s in structures]
    return 1e3 * float(np.sqrt(np.mean(np.square(left))))


def check_removed(found):
    """Warn where the baseline makes the forces no smaller: then it does not describe these data."""
    forces = found.get("forces")
    if forces is not None and forces["corrections"] >= forces["reference"]:
        warnings.warn(
            f"baseline: the corrections to its forces ({forces['corrections']:.3f} eV/Å) are no smaller than the "
            f"forces ({forces['reference']:.3f} eV/Å); see whether it is meant for these structures",
            stacklevel=2,
        )
