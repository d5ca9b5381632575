"""Silicon by Stillinger and Weber, many cells of eight atoms at a time, and frames of it that are independent.

F. H. Stillinger and T. A. Weber, Phys. Rev. B 31, 5262 (1985), doi:10.1103/PhysRevB.31.5262.
"""

import functools

import numpy as np
from ase.build import bulk
from ase.neighborlist import neighbor_list

from comitia.units import KB

DEPTH, LENGTH, REACH = 2.1683, 2.0951, 1.80  # eV, Å, cutoff in lengths
PAIR, REPULSION, ANGLE, DECAY = 7.049556277, 0.6022245584, 21.0, 1.20
LATTICE = 5.431  # Å
# Å, of the neighbours that are listed: three shells; those beyond never come within the cutoff of 3.77 Å
FARTHEST = 4.6
UNDEFORMED = np.eye(3)
N_MODES, N_ATOMS = 21, 8  # the cell as a whole does not move
AT_ONCE = 2000  # cells, which bounds the memory


@functools.cache
def crystal():
    """The perfect cell, and the listed neighbours: their indices (8, 28), and where their images are (8, 28, 3), Å."""
    atoms = bulk("Si", "diamond", a=LATTICE, cubic=True)
    centre, neighbour, shift = neighbor_list("ijS", atoms, FARTHEST)
    assert np.array_equal(np.bincount(centre), np.full(N_ATOMS, 28))
    order = np.argsort(centre, kind="stable")
    return atoms, neighbour[order].reshape(N_ATOMS, 28), (shift @ atoms.cell.array)[order].reshape(N_ATOMS, 28, 3)


def energies(displacements, deformation=UNDEFORMED):
    """Energies (n,) in eV of cells with displacements (n, 8, 3) in Å from the perfect one, which is deformed (3, 3).

    The sum over angles with g and the unit vectors n of the neighbours is in their moments,

    .. math:: \\sum_{j<k} g_j g_k (n_j \\cdot n_k + 1/3)^2 = \\tfrac12 \\Big[ |Q|^2 + \\tfrac23 |v|^2 + \\tfrac19 s^2
              - \\tfrac{16}{9} \\sum_j g_j^2 \\Big]
    """
    atoms, neighbour, image = crystal()
    positions = atoms.positions @ deformation + displacements
    vectors = positions[:, neighbour] + image @ deformation - positions[:, :, None]
    distance = np.sqrt(np.einsum("nijx,nijx->nij", vectors, vectors))
    inside = distance < REACH * LENGTH * (1 - 1e-9)
    inverse = LENGTH / np.where(inside, distance - REACH * LENGTH, -1.0)
    reduced = LENGTH / distance
    pair = PAIR * (REPULSION * reduced**4 - 1) * np.where(inside, np.exp(inverse), 0.0)
    g = np.where(inside, np.exp(DECAY * inverse), 0.0)
    unit = vectors / distance[..., None]
    first = np.einsum("nij,nijx->nix", g, unit)
    second = np.einsum("nijx,nijy->nixy", g[..., None] * unit, unit)
    angles = np.sum(second**2, axis=(2, 3)) + 2 / 3 * np.sum(first**2, axis=2) + g.sum(axis=2) ** 2 / 9
    angles -= 16 / 9 * np.sum(g**2, axis=2)
    return DEPTH * (0.5 * pair.sum(axis=(1, 2)) + 0.5 * ANGLE * angles.sum(axis=1))


def forces(displacements, deformation=UNDEFORMED, step=1e-4):
    """Forces (n, 8, 3) in eV/Å by central differences; their own error is below 1e-6 eV/Å."""
    moves = step * np.eye(3 * N_ATOMS).reshape(-1, N_ATOMS, 3)
    found = [
        (energies(cell - moves, deformation) - energies(cell + moves, deformation)) / (2 * step)
        for cell in displacements
    ]
    return np.array(found).reshape(-1, N_ATOMS, 3)


@functools.cache
def modes():
    """Force constants (21,) of the vibrations of the perfect cell, eV/Å², and their vectors (21, 8, 3)."""
    step = 1e-3
    moves = step * np.eye(3 * N_ATOMS).reshape(-1, N_ATOMS, 3)
    hessian = (forces(-moves) - forces(moves)).reshape(3 * N_ATOMS, -1) / (2 * step)
    constants, vectors = np.linalg.eigh(0.5 * (hessian + hessian.T))
    assert np.abs(constants[:3]).max() < 1e-3 < 0.1 < constants[3]
    return constants[3:], vectors.T[3:].reshape(N_MODES, N_ATOMS, 3)


def sample(potential_energies, temperature, n_frames, seed, n_moves=40, fresh=0.5, wider=1.1):
    r"""Independent frames of a potential near the perfect crystal.

    Every frame is the end of its own Markov chain, which begins with vibrations of the Stillinger-Weber crystal. A move
    keeps part of the amplitudes and draws the rest anew, :math:`x' = \sqrt{1 - f}\,x + \sqrt{f}\,\xi`, which
    leaves the vibrations' own distribution as it is, so that a move is accepted by the anharmonic rest alone.

    Parameters
    ----------
    potential_energies : function of displacements (n, 8, 3), Å, to energies (n,), eV
    temperature : float, K
    n_frames, seed, n_moves : int
    fresh : float, f
    wider : float, how many times the temperature the vibrations have, so that no tail of the potential is left out

    Returns
    -------
    displacements : (n_frames, 8, 3) array, Å
    energies : (n_frames,) array, eV
    """
    rng = np.random.default_rng(seed)
    constants, vectors = modes()
    beta = 1 / (KB * temperature)
    width = np.sqrt(wider / (beta * constants))

    def rest(amplitudes):
        displacements = np.tensordot(amplitudes, vectors, axes=1)
        parts = np.array_split(displacements, -(-n_frames // AT_ONCE))
        found = np.concatenate([potential_energies(part) for part in parts])
        return displacements, found, beta * found - 0.5 * np.sum((amplitudes / width) ** 2, axis=1)

    amplitudes = width * rng.normal(size=(n_frames, N_MODES))
    displacements, found, action = rest(amplitudes)
    for _ in range(n_moves):
        trial = np.sqrt(1 - fresh) * amplitudes + np.sqrt(fresh) * width * rng.normal(size=amplitudes.shape)
        new = rest(trial)
        accepted = np.log(rng.random(n_frames)) < action - new[2]
        amplitudes[accepted] = trial[accepted]
        for old, changed in zip((displacements, found, action), new, strict=True):
            old[accepted] = changed[accepted]
    return displacements, found
