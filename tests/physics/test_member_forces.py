"""Forces and virials of all members in one pass are those of the members one by one."""

import numpy as np
import pytest
import systems
from numpy.testing import assert_allclose

SPECIES = [6, 14]
OPTIONS = {
    "orders 1 to 3": {},
    "orders 1 and 2": {"n_max": [4, 3, 0]},
    "gaussian": {"radial": "gaussian"},
    "order 4": {"n_max": [4, 3, 2, 2], "l_max": [0, 3, 2, 2]},
}


def one_by_one(potential, structures):
    """Forces (n_members, n_atoms, 3) and virials (n_members, n_structures, 3, 3): an evaluation for each member."""
    batch = potential.descriptor.batch(structures)
    each = [potential.kernel.evaluate(batch, weights, n_threads=1) for weights in potential.member_weights]
    return np.array([found["forces"] for found in each]), np.array([found["virials"] for found in each])


def assert_members_are_right(potential, structures, n_threads=1):
    forces, virials = one_by_one(potential, structures)
    found = potential.compute(structures, members=True, n_threads=n_threads)
    of_all = np.concatenate([p.member_forces for p in found], axis=1)
    assert_allclose(of_all, forces, rtol=0, atol=1e-12 * max(1.0, np.abs(forces).max()))
    of_all = np.array([p.member_virials for p in found])
    assert_allclose(of_all, virials.swapaxes(0, 1), rtol=0, atol=1e-12 * max(1.0, np.abs(virials).max()))
    for p, mean in zip(found, potential.compute(structures, n_threads=n_threads), strict=True):
        for name in ("energy", "atomic_energies", "member_energies", "energy_uncertainty", "forces", "virial"):
            expected = getattr(mean, name)
            assert_allclose(getattr(p, name), expected, rtol=0, atol=1e-12 * max(1.0, np.abs(expected).max()))


@pytest.mark.parametrize("n_members", [2, 7, 16, 21])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_all_at_once_equals_one_by_one(options, n_members):
    potential = systems.potential(SPECIES, n_members=n_members, **options)
    assert_members_are_right(potential, list(systems.structures(SPECIES).values()))


@pytest.mark.parametrize("n_channels", [1, 2])
def test_contracted_species_and_functions_of_each_l(n_channels):
    arrays = systems.random_arrays([1, 6, 14], 5, n_channels=n_channels, n_radial=3, l_max=3, per_l=True)
    potential = systems.potential([1, 6, 14], n_members=5, arrays=arrays)
    assert_members_are_right(potential, list(systems.structures([1, 6, 14]).values()))


def test_threads_change_rounding_only_and_repeat_their_bits():
    potential = systems.potential(SPECIES, n_members=9)
    crystal = systems.crystal(SPECIES, (2, 2, 1), seed=3)
    assert_members_are_right(potential, [crystal], n_threads=3)
    one, again = (potential.compute(crystal, members=True, n_threads=2) for _ in range(2))
    assert np.array_equal(one.member_forces, again.member_forces)
    assert np.array_equal(one.member_virials, again.member_virials)


def test_no_memory_is_taken_once_the_size_is_known():
    potential = systems.potential(SPECIES, n_members=9)
    crystal = systems.crystal(SPECIES, (2, 1, 1), seed=4)
    batch = potential.descriptor.batch([crystal])
    potential.evaluate_members(batch, 2)
    before = batch.n_allocations
    for _ in range(3):
        potential.evaluate_members(batch, 2)
    assert batch.n_allocations == before
