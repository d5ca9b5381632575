"""Small potentials that dynamics can be run with, and crystals to run it on."""

import functools

import numpy as np
from ase import Atoms
from ase.build import bulk

from comitia.density import Descriptor
from comitia.potential import Potential

DISTANCE, DEPTH, STEEPNESS = 3.3, 0.03, 1.3  # Å, eV, 1/Å, of the pair potential that the models are fitted to
BASIS = {"n_max": [6, 3, 2], "l_max": [0, 2, 1], "degree": [8, 6, 4]}


def crystal(species=(18,), repeats=(2, 2, 4), rattle=0.05, seed=0):
    """A face-centred cubic crystal (64 atoms by default), the species in turn, every atom displaced a little."""
    atoms = bulk("Ar", "fcc", a=np.sqrt(2) * DISTANCE, cubic=True).repeat(repeats)
    atoms.numbers = np.resize(species, len(atoms))
    atoms.rattle(rattle, seed=seed)
    return atoms


def cluster(species=(18,), seed=0):
    """A molecule of seven atoms without a cell."""
    positions = DISTANCE * np.array([[0, 0, 0], *np.eye(3), *-np.eye(3)]) / np.sqrt(1.2)
    atoms = Atoms(numbers=np.resize(species, 7), positions=positions)
    atoms.rattle(0.05, seed=seed)
    return atoms


def pair_energy_and_forces(atoms, cutoff):
    """A Morse pair potential that goes smoothly to zero at the cutoff, a little different for every pair of species.

    Energy in eV, forces (n_atoms, 3) in eV/Å.
    """
    from ase.neighborlist import neighbor_list

    i, j, r, vectors = neighbor_list("ijdD", atoms, cutoff)
    depth = DEPTH * (1 + 0.02 * np.cos(atoms.numbers[i] + atoms.numbers[j]))
    decay = np.exp(-STEEPNESS * (r - DISTANCE))
    switch = 0.5 * (1 + np.cos(np.pi * r / cutoff))
    energy = depth * (decay**2 - 2 * decay)
    slope = depth * (-2 * STEEPNESS) * (decay**2 - decay) * switch
    slope -= energy * 0.5 * np.pi / cutoff * np.sin(np.pi * r / cutoff)
    forces = np.zeros((len(atoms), 3))
    np.add.at(forces, i, slope[:, None] * vectors / r[:, None])
    return 0.5 * np.sum(energy * switch), forces


@functools.cache
def small_model(species=(18,), seed=0, n_members=4, cutoff=5.0):
    """A committee fitted to a few small crystals of a pair potential; made in about a second, always the same.

    Parameters
    ----------
    species : tuple of atomic numbers
    seed : int
    n_members : int
    cutoff : float, Å

    Returns
    -------
    comitia.Potential
    """
    rng = np.random.default_rng(seed)
    descriptor = Descriptor.build(species, cutoff, **BASIS)
    rows, targets = [], []
    for number in range(16):
        atoms = crystal(rng.permutation(species), (2, 2, 1), rattle=rng.uniform(0.05, 0.35), seed=seed + number)
        atoms.set_cell(atoms.cell * rng.uniform(0.93, 1.07), scale_atoms=True)
        if number % 4 == 0:
            atoms.pbc = False
        design = descriptor.design(atoms)
        energy, forces = pair_energy_and_forces(atoms, cutoff)
        rows.append(np.vstack([design.features[None], 10 * design.forces]))
        targets.append(np.concatenate([[energy], 10 * forces.ravel()]))
    weights = []
    for _ in range(n_members):
        chosen = rng.permutation(len(rows))[: len(rows) // 2]
        a, b = np.vstack([rows[s] for s in chosen]), np.concatenate([targets[s] for s in chosen])
        ridge = 1e-6 * np.trace(a.T @ a) / a.shape[1]
        weights.append(np.linalg.solve(a.T @ a + ridge * np.eye(a.shape[1]), a.T @ b))
    e0 = -30.0 - np.arange(len(set(species)))  # eV
    return Potential(descriptor, np.array(weights), e0, metadata={"made": "by the tests"})


def write_ipi_xyz(path, atoms):
    """Write the atoms as an xyz file that i-PI starts from."""
    lengths_and_angles = " ".join(f"{x:.10f}" for x in atoms.cell.cellpar())
    lines = [f"{len(atoms)}", f"# CELL(abcABC): {lengths_and_angles} positions{{angstrom}} cell{{angstrom}}"]
    lines += [f"{s} {x:.12f} {y:.12f} {z:.12f}" for s, (x, y, z) in zip(atoms.symbols, atoms.positions, strict=True)]
    path.write_text("\n".join(lines) + "\n")
