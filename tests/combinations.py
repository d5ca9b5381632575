"""A committee of corrections with a baseline, and derivatives of what a combination of them says."""

import numpy as np
import systems
from numpy.testing import assert_allclose

SPECIES = (14,)
STEP = 2e-3  # Å
CORRECTIONS = {"baseline": "another potential"}


def committee(n_members=4, core=False):
    """A committee of corrections, and a baseline."""
    corrections = systems.potential(SPECIES, seed=3, n_members=n_members, with_core=core)
    corrections.metadata.update(CORRECTIONS)
    baseline = systems.potential(SPECIES, seed=5)
    return corrections, baseline


def evaluate(potential, atoms, **options):
    evaluator = potential.evaluator(atoms.numbers, atoms.pbc, 1)
    return evaluator.compute(np.array([atoms.positions]), np.array([atoms.cell.array]), **options)


def energy(potential, atoms, positions=None, strain=None):
    atoms = atoms.copy()
    if positions is not None:
        atoms.positions = positions
    if strain is not None:
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
    return evaluate(potential, atoms).energies[0]


def derivative(function):
    """At zero, from eight points; the error is of order STEP^8."""
    factors = (4 / 5, -1 / 5, 4 / 105, -1 / 280)
    return sum(c * (function(n * STEP) - function(-n * STEP)) for n, c in enumerate(factors, 1)) / STEP


def check_gradient(potential, atoms, found):
    """Forces and virials of an evaluation are derivatives of the energy, along some displacements and strains."""
    for i, a in ((0, 0), (2, 1), (5, 2)):
        shift = np.zeros_like(atoms.positions)
        shift[i, a] = 1.0
        slope = derivative(lambda x, shift=shift: energy(potential, atoms, positions=atoms.positions + x * shift))
        assert_allclose(found.forces[0, i, a], -slope, atol=1e-7)
    for i, j in ((0, 0), (1, 2), (2, 2)):
        strain = np.zeros((3, 3))
        strain[i, j] += 0.5
        strain[j, i] += 0.5
        slope = derivative(lambda x, strain=strain: energy(potential, atoms, strain=x * strain))
        assert_allclose(0.5 * (found.virials[0, i, j] + found.virials[0, j, i]), -slope, atol=1e-7)
