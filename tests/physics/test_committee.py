"""The committee: its mean is the energy, its spread is calibrated, and members are what they say."""

import numpy as np
import pytest
import reference
import systems
from numpy.testing import assert_allclose

from comitia._core import members_of, statistics_of
from comitia.potential import Potential

ALPHA_ENERGY, ALPHA_FORCES = 1.7, 1.4
N_MEMBERS = 7


@pytest.fixture(scope="module")
def potential():
    return systems.potential([6, 14], n_members=N_MEMBERS, alpha=(ALPHA_ENERGY, ALPHA_FORCES), n_max=[4, 3, 2])


@pytest.fixture(scope="module")
def structures(potential):
    return systems.structures(potential.species)


def with_(potential, weights=None, alpha=None):
    """The same potential with other weights or another alpha."""
    return Potential(
        potential.descriptor,
        potential.weights if weights is None else weights,
        potential.reference_energies,
        potential.core,
        *(alpha or (potential.alpha_energy, potential.alpha_forces)),
    )


def test_energy_is_the_mean_of_the_members_to_the_last_bit(potential, structures):
    for atoms, p in zip(structures.values(), potential.compute(list(structures.values())), strict=True):
        assert p.energy == np.mean(p.member_energies)
        assert potential.compute(atoms).energy == pytest.approx(p.energy, rel=1e-13)
        found = potential.evaluator(atoms.numbers, atoms.pbc).compute(atoms.positions[None], atoms.cell.array[None])
        assert found.energies[0] == np.mean(found.member_energies[0])


@pytest.mark.parametrize("n_members", [2, 3, 16, 64])
def test_energy_is_the_mean_whatever_the_number_of_members(n_members):
    potential = systems.potential([14], n_members=n_members, n_max=[4, 3, 0])
    for p in potential.compute(list(systems.structures([14]).values())):
        assert p.member_energies.shape == (n_members,)
        assert p.energy == np.mean(p.member_energies)


def test_uncertainty_has_one_degree_of_freedom_less_than_members(potential, structures):
    for p in potential.compute(list(structures.values())):
        assert p.energy_uncertainty == pytest.approx(np.std(p.member_energies, ddof=1), rel=1e-12)


@pytest.mark.parametrize("name", ["triclinic", "molecule", "one atom, isolated"])
def test_everything_equals_the_twin(potential, structures, name):
    atoms = structures[name]
    model = reference.Model(
        potential.descriptor,
        reference.calibrated(potential.weights, ALPHA_ENERGY),
        potential.reference_energies,
        potential.core,
    )
    found = potential.compute(atoms, members=True)

    def equal(value, expected):
        assert_allclose(value, expected, rtol=0, atol=1e-12 * max(1.0, np.abs(expected).max()))

    energies, forces, virials = model.energies(atoms), model.forces(atoms), model.virials(atoms)
    equal(found.member_energies, energies)
    equal(found.energy, energies.mean())
    equal(found.atomic_energies, model.atomic_energies(atoms).mean(axis=0))
    equal(found.forces, forces.mean(axis=0))
    equal(found.virial, virials.mean(axis=0))
    equal(found.member_forces, forces)
    equal(found.member_virials, virials)
    raw = np.std(forces, axis=0, ddof=1) / ALPHA_ENERGY
    equal(found.force_uncertainty, ALPHA_FORCES * raw)


def test_calibration_moves_the_members_and_not_their_mean(potential, structures):
    listed = list(structures.values())
    raw = with_(potential, alpha=(1.0, 1.0)).compute(listed, members=True)
    for scaled, plain in zip(potential.compute(listed, members=True), raw, strict=True):
        assert scaled.energy == pytest.approx(plain.energy, rel=1e-13)
        assert np.array_equal(scaled.forces, plain.forces)
        spread = ALPHA_ENERGY * (plain.member_energies - plain.energy)
        assert_allclose(scaled.member_energies - scaled.energy, spread, atol=1e-11)
        assert scaled.energy_uncertainty == pytest.approx(ALPHA_ENERGY * plain.energy_uncertainty, rel=1e-9, abs=1e-13)
        assert_allclose(scaled.force_uncertainty, ALPHA_FORCES * plain.force_uncertainty, rtol=1e-9, atol=1e-13)


def test_each_member_equals_the_potential_of_that_member_alone(potential, structures):
    members = reference.calibrated(potential.weights, ALPHA_ENERGY)
    for name in ("slab", "cell below the cutoff", "molecule"):
        all_members = potential.compute(structures[name], members=True)
        for k in range(N_MEMBERS):
            alone = with_(potential, weights=members[k]).compute(structures[name])
            assert alone.energy == pytest.approx(all_members.member_energies[k], rel=1e-12)
            assert_allclose(all_members.member_forces[k], alone.forces, rtol=0, atol=1e-11)
            assert_allclose(all_members.member_virials[k], alone.virial, rtol=0, atol=1e-11)


def test_mean_force_is_the_mean_of_member_forces(potential, structures):
    for p in potential.compute(list(structures.values()), members=True):
        assert_allclose(p.member_forces.mean(axis=0), p.forces, rtol=0, atol=1e-11)
        assert_allclose(p.member_virials.mean(axis=0), p.virial, rtol=0, atol=1e-11)


def test_a_single_member_has_no_uncertainty(structures):
    potential = systems.potential([6, 14], n_members=1)
    for members in (False, True):
        p = potential.compute(structures["triclinic"], members=members)
        assert p.member_energies is None
        assert p.energy_uncertainty is None
        assert p.member_forces is None
    evaluator = potential.evaluator(structures["triclinic"].numbers, True)
    found = evaluator.compute(structures["triclinic"].positions[None], structures["triclinic"].cell.array[None])
    assert found.member_energies is None
    assert found.energy_uncertainties is None


def test_a_single_member_is_not_rescaled():
    one = systems.potential([14], n_members=1, alpha=(5.0, 5.0))
    atoms = systems.structures([14])["bulk"]
    assert one.compute(atoms).energy == with_(one, alpha=(1.0, 1.0)).compute(atoms).energy


@pytest.mark.parametrize("name", ["triclinic", "molecule", "slab"])
def test_member_directional_is_the_force_of_each_member_along_the_direction(potential, structures, name):
    atoms = structures[name]
    rng = np.random.default_rng(5)
    positions = atoms.positions + 0.02 * rng.normal(size=(3, len(atoms), 3))
    cells = np.repeat(atoms.cell.array[None], 3, axis=0)
    directions = rng.normal(size=positions.shape)
    found = potential.member_directional(atoms.numbers, atoms.pbc, positions, cells, directions)
    assert found.shape == (3, N_MEMBERS)
    h = 1e-3
    for b in range(3):
        moved = atoms.copy()
        moved.positions = positions[b]
        forces = potential.compute(moved, members=True).member_forces
        assert_allclose(found[b], np.einsum("kia,ia->k", forces, directions[b]), rtol=0, atol=1e-10)
        energies = []
        for step in (-2, -1, 1, 2):
            moved.positions = positions[b] + step * h * directions[b]
            energies.append(potential.compute(moved).member_energies)
        along = -np.array([1, -8, 8, -1]) @ energies / (12 * h)
        assert_allclose(found[b], along, rtol=0, atol=1e-5)


def test_members_survive_the_energies_of_all_electron_totals(structures):
    """With -1e5 eV of reference energies the members' differences keep 1e-9 eV."""
    small = systems.potential([6, 14], n_members=4, n_max=[4, 3, 0])
    large = Potential(small.descriptor, small.weights, [-1e5, -2e5], small.core, small.alpha_energy, small.alpha_forces)
    for atoms in structures.values():
        a, b = small.compute(atoms), large.compute(atoms)
        assert_allclose(b.member_energies - b.energy, a.member_energies - a.energy, rtol=0, atol=1e-9)
        assert_allclose(b.forces, a.forces, rtol=0, atol=1e-12)


def test_member_energies_are_the_product_of_sums_and_weights():
    rng = np.random.default_rng(3)
    sums, deviations = rng.normal(size=(3, 77)), rng.normal(size=(5, 77))
    mean = rng.normal(size=3)
    expected = mean[:, None] + sums @ deviations.T
    assert_allclose(members_of(sums, deviations, mean), expected, rtol=0, atol=1e-12 * 77)


@pytest.mark.parametrize("n_members", [2, 7, 8, 9, 64, 127, 128, 129, 137, 300])
def test_mean_of_the_members_has_the_bits_of_numpy(n_members):
    members = np.random.default_rng(n_members).normal(-1e4, 1.0, size=(3, n_members))
    mean, spread = statistics_of(members)
    np.testing.assert_array_equal(mean, [row.mean() for row in members])
    assert_allclose(spread, members.std(axis=1, ddof=1), rtol=1e-11)


def test_member_energies_refuse_sums_of_another_model():
    rng = np.random.default_rng(4)
    with pytest.raises(ValueError, match="sums"):
        members_of(rng.normal(size=(1, 7)), rng.normal(size=(5, 8)), np.zeros(1))
