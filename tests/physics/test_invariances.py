"""What must not change the energy does not, to 1e-10 eV, and forces and virial turn with the structure."""

import numpy as np
import pytest
import systems
from numpy.testing import assert_allclose
from scipy.spatial.transform import Rotation

TOLERANCE = 1e-10
NAMES = ["molecule", "slab", "plane without third vector", "chain", "triclinic", "left-handed", "cell below the cutoff"]


@pytest.fixture(scope="module")
def potential():
    return systems.potential([6, 14], seed=2, n_max=[5, 3, 2, 2], l_max=[0, 4, 3, 2])


@pytest.fixture(scope="module")
def structures(potential):
    return systems.structures(potential.species)


def same(found, expected):
    """Assert that energy, forces and virial are equal."""
    assert found.energy == pytest.approx(expected.energy, rel=0, abs=TOLERANCE)
    assert_allclose(found.forces, expected.forces, rtol=0, atol=TOLERANCE)
    assert_allclose(found.virial, expected.virial, rtol=0, atol=TOLERANCE)


def turned(atoms, matrix):
    """The structure under an orthogonal matrix, about the origin."""
    atoms = atoms.copy()
    atoms.set_cell(atoms.cell.array @ matrix.T)
    atoms.positions = atoms.positions @ matrix.T
    return atoms


@pytest.mark.parametrize("sign", [1, -1], ids=["rotation", "rotation and inversion"])
@pytest.mark.parametrize("name", NAMES)
def test_rotation_and_inversion(potential, structures, name, sign):
    atoms = structures[name]
    matrix = sign * Rotation.random(rng=np.random.default_rng(1)).as_matrix()
    before, after = potential.compute([atoms, turned(atoms, matrix)])
    assert after.energy == pytest.approx(before.energy, rel=0, abs=TOLERANCE)
    assert_allclose(after.forces, before.forces @ matrix.T, rtol=0, atol=TOLERANCE)
    assert_allclose(after.virial, matrix @ before.virial @ matrix.T, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", NAMES)
def test_translation(potential, structures, name):
    moved = structures[name].copy()
    moved.positions += [3.1, -17.4, 0.23]
    same(*potential.compute([moved, structures[name]]))


@pytest.mark.parametrize("name", NAMES)
def test_permutation(potential, structures, name):
    atoms = structures[name]
    order = np.random.default_rng(2).permutation(len(atoms))
    before, after = potential.compute([atoms, atoms[order]])
    assert after.energy == pytest.approx(before.energy, rel=0, abs=TOLERANCE)
    assert_allclose(after.forces, before.forces[order], rtol=0, atol=TOLERANCE)
    assert_allclose(after.virial, before.virial, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "molecule"])
def test_atoms_moved_by_lattice_vectors(potential, structures, name):
    moved = structures[name].copy()
    lattice = np.where(moved.pbc, np.random.default_rng(3).integers(-3, 4, (len(moved), 3)), 0)
    moved.positions += lattice @ moved.cell.array
    same(*potential.compute([moved, structures[name]]))


@pytest.mark.parametrize("name", ["triclinic", "left-handed", "cell below the cutoff", "bulk"])
def test_another_choice_of_lattice_vectors(potential, structures, name):
    atoms = structures[name]
    for unimodular in (
        [[1, 1, 0], [0, 1, 0], [0, 0, 1]],
        [[1, 0, 2], [1, 1, 1], [0, 0, 1]],
        [[0, 1, 0], [0, 0, 1], [1, 0, 0]],
    ):
        other = atoms.copy()
        other.set_cell(np.array(unimodular) @ atoms.cell.array)
        same(*potential.compute([other, atoms]))


@pytest.mark.parametrize(
    ("name", "repeats"),
    [
        ("triclinic", (2, 1, 3)),
        ("cell below the cutoff", (3, 2, 2)),
        ("slab", (2, 2, 1)),
        ("chain", (3, 1, 1)),
        ("one atom, periodic", (2, 3, 2)),
    ],
)
def test_supercell(potential, structures, name, repeats):
    atoms = structures[name]
    n = int(np.prod(repeats))
    one, many = potential.compute([atoms, atoms.repeat(repeats)])
    assert many.energy == pytest.approx(n * one.energy, rel=0, abs=n * TOLERANCE)
    assert_allclose(many.forces, np.tile(one.forces, (n, 1)), rtol=0, atol=TOLERANCE)
    assert_allclose(many.virial, n * one.virial, rtol=0, atol=n * TOLERANCE)


def test_forces_sum_to_zero_and_the_virial_is_symmetric(potential, structures):
    for name, p in zip(structures, potential.compute(list(structures.values())), strict=True):
        assert_allclose(p.forces.sum(axis=0), 0, atol=TOLERANCE, err_msg=name)
        assert_allclose(p.virial, p.virial.T, rtol=0, atol=TOLERANCE, err_msg=name)


def test_parts_out_of_reach_add_up(potential, structures):
    first, second = structures["molecule"], structures["molecule in a box"].copy()
    second.pbc = False
    second.cell = None
    far = second.copy()
    far.positions += [40.0, 0, 0]
    a, b, both = potential.compute([first, second, first + far])
    assert both.energy == pytest.approx(a.energy + b.energy, rel=0, abs=TOLERANCE)
    assert_allclose(both.forces, np.concatenate([a.forces, b.forces]), rtol=0, atol=TOLERANCE)
    assert_allclose(both.virial, a.virial + b.virial, rtol=0, atol=TOLERANCE)


def test_a_third_vector_that_is_not_periodic_has_no_effect(potential, structures):
    atoms = structures["slab"].copy()
    atoms.cell[2] = [0, 0, 0]
    same(*potential.compute([atoms, structures["slab"]]))
