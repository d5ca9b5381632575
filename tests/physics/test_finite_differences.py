"""Forces and virial are derivatives of the energy, on every kind of boundary: fourth-order central differences."""

import numpy as np
import pytest
import systems
from numpy.testing import assert_allclose

STEP = 5e-4  # Å, and as a strain
OFFSETS = np.array([-2, -1, 1, 2]) * STEP
STENCIL = np.array([1, -8, 8, -1]) / (12 * STEP)
TOLERANCE = 1e-7  # eV/Å for forces, eV for the virial

POTENTIALS = {
    "order 2, one species": {"species": [14], "n_max": [6, 5, 0]},
    "order 3, one species": {"species": [14], "n_max": [6, 4, 3]},
    "order 2, three species": {"species": [6, 14, 29], "n_max": [5, 3, 0]},
    "order 3, two species": {"species": [6, 14], "n_max": [5, 3, 2], "radial": "gaussian"},
    "order 4, one species": {"species": [14], "n_max": [6, 4, 2, 2], "l_max": [0, 4, 3, 3]},
    "order 4, two species": {"species": [6, 14], "n_max": [5, 3, 2, 1], "l_max": [0, 3, 2, 2]},
    "orders 3 and 4, contracted": {
        "species": [6, 8, 14],
        "arrays": systems.random_arrays([6, 8, 14], 31, n_channels=2, n_radial=3, l_max=4, per_l=True, n_intervals=256),
    },
}


def displaced(atoms):
    """Structures with each coordinate moved by the offsets of the stencil, (3 n_atoms, 4) of them."""
    for i in range(len(atoms)):
        for a in range(3):
            for offset in OFFSETS:
                moved = atoms.copy()
                moved.positions[i, a] += offset
                yield moved


def strained(atoms):
    """Structures under each of the nine strains, r -> (1 + strain) r, cell included, (9, 4) of them."""
    for a in range(3):
        for b in range(3):
            for offset in OFFSETS:
                deformation = np.eye(3)
                deformation[a, b] += offset
                moved = atoms.copy()
                moved.set_cell(atoms.cell.array @ deformation.T)
                moved.positions = atoms.positions @ deformation.T
                yield moved


def derivatives(potential, structures):
    """Derivatives by the stencil, from its four energies one after the other."""
    energies = np.array([p.energy for p in potential.compute(list(structures), n_threads=1)])
    return energies.reshape(-1, 4) @ STENCIL


@pytest.fixture(scope="module", params=POTENTIALS)
def potential(request):
    return systems.potential(**POTENTIALS[request.param])


@pytest.mark.parametrize("name", systems.structures([14]))
def test_forces_and_virial_are_the_gradient(potential, name):
    atoms = systems.structures(potential.species)[name]
    assert systems.shortest_contact(atoms) > 1.9
    found = potential.compute(atoms, n_threads=1)
    forces = -derivatives(potential, displaced(atoms)).reshape(-1, 3)
    virial = -derivatives(potential, strained(atoms)).reshape(3, 3)
    assert_allclose(found.forces, forces, rtol=0, atol=TOLERANCE)
    assert_allclose(found.virial, virial, rtol=0, atol=TOLERANCE)


def test_the_structures_are_worth_testing(potential):
    """Forces of the order of 1 eV/Å, the core felt, and cells smaller than the cutoff among them."""
    structures = systems.structures(potential.species)
    predictions = dict(zip(structures, potential.compute(list(structures.values())), strict=True))
    assert 0.1 < np.abs(predictions["triclinic"].forces).max() < 100
    assert potential.core.compute(structures["molecule"])[0] > 0.01
    heights = 1 / np.linalg.norm(np.linalg.inv(structures["cell below the cutoff"].cell.array), axis=0)
    assert heights.max() < potential.cutoff
    assert np.linalg.det(structures["left-handed"].cell.array) < 0
    assert not predictions["one atom, isolated"].forces.any()
    assert predictions["one atom, periodic"].virial.any()


@pytest.mark.parametrize("name", ["molecule", "slab", "one atom, periodic"])
def test_repulsive_core_alone(name):
    core = systems.core([6, 14])
    atoms = systems.structures([6, 14])[name]
    _, forces, virial = core.compute(atoms)
    differences = [
        np.array([core.compute(moved)[0] for moved in moves(atoms)]).reshape(-1, 4) @ STENCIL
        for moves in (displaced, strained)
    ]
    assert_allclose(forces, -differences[0].reshape(-1, 3), rtol=0, atol=TOLERANCE)
    assert_allclose(virial, -differences[1].reshape(3, 3), rtol=0, atol=TOLERANCE)


def test_repulsive_core_ends_smoothly_at_its_outer_radius():
    from ase import Atoms

    core = systems.core([14], inner=1.3, outer=2.7)
    pair = [core.compute(Atoms("Si2", [[0, 0, 0], [r, 0, 0]])) for r in (2.7 - 1e-4, 2.7, 2.8)]
    assert 0 < pair[0][0] < 1e-9
    assert np.abs(pair[0][1]).max() < 1e-5
    assert [p[0] for p in pair[1:]] == [0.0, 0.0]
    full = core.compute(Atoms("Si2", [[0, 0, 0], [1.0, 0, 0]]))[0]
    a = 0.46850 / (2 * 14**0.23)
    screening = sum(
        c * np.exp(-d / a) for c, d in ((0.18175, 3.19980), (0.50986, 0.94229), (0.28022, 0.40290), (0.02817, 0.20162))
    )
    assert full == pytest.approx(14.399645 * 14**2 * screening, rel=1e-13)
