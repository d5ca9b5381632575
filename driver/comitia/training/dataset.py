"""What the linear model is fitted to: which structures, what is left of their labels after the fixed terms."""

import dataclasses
import hashlib

import numpy as np

from comitia._core import NeighbourList
from comitia.errors import SettingsError, StructureError
from comitia.structures import VOIGT, read_structures
from comitia.training.groups import draw_blocks, make_blocks

# eV/atom, eV/Å, eV/atom: what a good fit reaches; only the ratios matter. Grouped cross-validation on metals, silicon
# and molecules gains energies and loses forces, some per cent of each, where the first is halved.
TYPICAL_ERROR = {"energy": 1e-3, "forces": 0.05, "virial": 5e-3}
SHORTEST, CORE_SEARCH = 0.2, 4.0  # Å


@dataclasses.dataclass
class Split:
    """Structures to train on and those held out; an empty list where there are none.

    Attributes
    ----------
    training, validation, test : list of LabelledStructure
    blocks : (n_training,) int array, frames that are drawn together
    """

    training: list
    validation: list
    test: list
    blocks: np.ndarray


def _marked(structures, key, names):
    def is_marked(value):
        return bool(value) if isinstance(value, (bool, int, np.bool_, np.integer)) else str(value).lower() in names

    marked = np.array([is_marked(s.atoms.info.get(key, False)) for s in structures])
    if not marked.any() or marked.all():
        which = "every" if marked.all() else "no"
        raise SettingsError(f"key {key!r} marks {which} frame as {names[0]}; set it to T or {names[0]!r} on some")
    return marked


def split(structures, settings, find):
    """Divide the frames of the data file as the settings say.

    Parameters
    ----------
    structures : list of LabelledStructure
    settings : FitSettings
    find : function that turns a path of the settings into one that can be opened
    """
    keys = None
    if settings.groups.key is not None:
        missing = [s.origin for s in structures if settings.groups.key not in s.atoms.info]
        if missing:
            raise StructureError(f"{missing[0]}: has no key {settings.groups.key!r}, named under groups; add it")
        keys = [str(s.atoms.info[settings.groups.key]) for s in structures]
    strata = [s.config_type for s in structures]
    blocks = make_blocks(strata, keys, settings.groups.block)
    held = {"validation": [], "test": []}
    names = {"validation": ("validation", "valid", "val"), "test": ("test",)}
    remaining = np.ones(len(structures), dtype=bool)
    for what in ("test", "validation"):
        hold_out = getattr(settings, what)
        if hold_out is None:
            continue
        if hold_out.file is not None:
            held[what] = read_structures(find(hold_out.file), settings.keys)
            continue
        if hold_out.key is not None:
            marked = _marked(structures, hold_out.key, names[what]) & remaining
        else:
            rng = np.random.default_rng([hold_out.seed, len(what)])
            marked = np.zeros(len(structures), dtype=bool)
            left = np.flatnonzero(remaining)
            marked[left] = draw_blocks([strata[i] for i in left], blocks[left], hold_out.fraction, rng)
        held[what] = [structures[i] for i in np.flatnonzero(marked)]
        remaining &= ~marked
    kept = np.flatnonzero(remaining)
    return Split([structures[i] for i in kept], held["validation"], held["test"], blocks[kept])


def fingerprint(structures):
    """SHA-256 of species, positions, cells and labels of the structures, in order; independent of the file's form.

    The labels are those of the file: what a baseline took off does not count.
    """
    digest = hashlib.sha256()
    for s in (s.reference or s for s in structures):
        digest.update(np.asarray(s.atoms.numbers, dtype="<i4").tobytes())
        for array in (s.atoms.positions, s.atoms.cell.array, s.energy, s.forces, s.virial):
            digest.update(b"-" if array is None else np.asarray(array, dtype="<f8").tobytes())
        digest.update(np.asarray(s.atoms.pbc, dtype="<i4").tobytes())
    return digest.hexdigest()


def reference_energies(structures, species, given=None):
    """Energy of an atom of each species on its own, eV.

    Given, or the composition fit: least squares of the energy per atom by the numbers of atoms of each species,
    the solution of smallest norm where the compositions leave it open.

    Parameters
    ----------
    structures : list of LabelledStructure
    species : (n_species,) atomic numbers
    given : {chemical symbol: eV} or None

    Returns
    -------
    (n_species,) array, eV
    """
    from ase.data import chemical_symbols

    if given is not None:
        unknown = sorted(set(given) - set(chemical_symbols))
        missing = [chemical_symbols[z] for z in species if chemical_symbols[z] not in given]
        if unknown or missing:
            raise SettingsError(
                f"reference_energies: {', '.join(unknown)} is no chemical symbol"
                if unknown
                else f"reference_energies: no value for {', '.join(missing)}; give one for every species of the data"
            )
        return np.array([given[chemical_symbols[z]] for z in species])
    labelled = [s for s in structures if s.energy is not None]
    if not labelled:
        return np.zeros(len(species))
    counts = np.array([[(s.atoms.numbers == z).sum() for z in species] for s in labelled], dtype=float)
    n_atoms = counts.sum(axis=1, keepdims=True)
    energies = np.array([[s.energy] for s in labelled])
    return np.linalg.lstsq(counts / n_atoms, energies / n_atoms, rcond=1e-8)[0][:, 0]


def closest_contacts(structures, species):
    """Shortest distance of each pair of species in the data, Å; `CORE_SEARCH` where none is shorter.

    Returns
    -------
    (n_species, n_species) array
    """
    index = np.full(int(max(species)) + 1, -1)
    index[np.asarray(species)] = np.arange(len(species))
    shortest = np.full((len(species), len(species)), CORE_SEARCH)
    for s in structures:
        pairs, positions = NeighbourList(float(shortest.max())), s.atoms.positions
        pairs.update(positions, s.atoms.cell.array, s.atoms.pbc)
        if pairs.n_pairs == 0:
            continue
        first, second = np.repeat(np.arange(len(positions)), np.diff(pairs.start)), pairs.neighbour
        vectors = positions[second] - positions[first] + pairs.shift @ s.atoms.cell.array
        distance = np.linalg.norm(vectors, axis=1)
        if distance.min() < SHORTEST:
            raise StructureError(
                f"{s.origin}: two atoms are {distance.min():.3f} Å apart; remove the frame or correct its positions"
            )
        pair = (index[s.atoms.numbers[first]], index[s.atoms.numbers[second]])
        np.minimum.at(shortest, pair, distance)
    return np.minimum(shortest, shortest.T)


def core_radii(structures, species, cutoff):
    """Radii of the repulsive core: full below `inner`, zero from `outer`, which is short of every contact in the data.

    Parameters
    ----------
    structures : list of LabelledStructure
    species : (n_species,) atomic numbers
    cutoff : float, Å; `outer` is not longer

    Returns
    -------
    inner, outer : (n_species, n_species) arrays, Å
    """
    from ase.data import covalent_radii

    contacts = closest_contacts(structures, species)
    radii = covalent_radii[np.asarray(species)]
    outer = np.minimum(np.minimum(0.95 * contacts, 0.9 * (radii[:, None] + radii[None, :])), cutoff)
    return 0.6 * outer, outer


@dataclasses.dataclass
class Target:
    """What one structure asks of the linear part; rows are divided by the scale of their kind.

    Attributes
    ----------
    energy : float or None, eV, after reference energies and core
    forces : (3 n_atoms,) array or None, eV/Å
    virial : (6,) array or None, eV; xx yy zz yz xz xy
    scale : {kind: float}; rows of the kind are multiplied by it
    """

    energy: float | None
    forces: np.ndarray | None
    virial: np.ndarray | None
    scale: dict


def make_target(structure, species, e0, core, weights):
    """`Target` of a structure: labels less reference energies and core; scales from typical errors and weights."""
    n_atoms = len(structure.atoms)
    fixed_energy = float(
        sum(value * (structure.atoms.numbers == z).sum() for z, value in zip(species, e0, strict=True))
    )
    fixed_forces, fixed_virial = np.zeros((n_atoms, 3)), np.zeros((3, 3))
    if core is not None:
        core_energy, fixed_forces, fixed_virial = core.compute(structure.atoms)
        fixed_energy += core_energy
    root = np.sqrt(weights.config_type.get(structure.config_type, 1.0))
    virial = None
    if structure.virial is not None:
        left = structure.virial - np.asarray(fixed_virial).reshape(3, 3)
        virial = np.array([left[i, j] for i, j in VOIGT])
    return Target(
        energy=None if structure.energy is None else structure.energy - fixed_energy,
        forces=None if structure.forces is None else (structure.forces - fixed_forces).ravel(),
        virial=virial,
        scale={
            "energy": root / (TYPICAL_ERROR["energy"] * n_atoms),
            "forces": root / TYPICAL_ERROR["forces"],
            "virial": root / (TYPICAL_ERROR["virial"] * n_atoms),
        },
    )
