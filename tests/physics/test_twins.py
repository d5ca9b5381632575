"""Every kernel equals its slow twin in tests/reference.py, which reads the same tables, to 1e-12 relative.

Relative means: to the largest number of the array compared (of each correlation order for features), or to 1, the
size of one neighbour's contribution, where symmetry makes everything vanish.
"""

import numpy as np
import pytest
import reference
import systems
from numpy.testing import assert_allclose

from comitia.density.couplings import real_coupling

CASES = {
    "one species": systems.random_arrays([14], 11, n_radial=4, l_max=4),
    "two species, identity": systems.random_arrays([6, 14], 12, n_radial=2, l_max=3),
    "three species, contracted to two": systems.random_arrays([1, 6, 14], 13, n_channels=2, n_radial=3, l_max=2),
    "two species, expanded to three": systems.random_arrays([6, 14], 14, n_channels=3, n_radial=2, l_max=3),
    "four species, contracted to one": systems.random_arrays([1, 6, 8, 14], 15, n_channels=1, n_radial=5, l_max=3),
    "radial functions of each l": systems.random_arrays([6, 14], 16, n_radial=3, l_max=4, per_l=True),
    "of each l, contracted": systems.random_arrays([1, 6, 14], 17, n_channels=2, n_radial=2, l_max=3, per_l=True),
    "of each species": systems.random_arrays([1, 6, 14], 22, n_radial=3, l_max=3, per_species=True),
    "of each species and l": systems.random_arrays([6, 14], 23, n_radial=3, l_max=3, per_l=True, per_species=True),
    "more radial functions than lanes": systems.random_arrays([14], 18, n_radial=11, l_max=2),
    "the same, of each l": systems.random_arrays([14], 19, n_radial=9, l_max=3, per_l=True),
    "highest l": systems.random_arrays([14], 20, n_radial=2, l_max=8, n_each=20),
    "density only": systems.random_arrays([14], 21, n_radial=3, l_max=0),
}
QUICK = ("bulk", "slab", "triclinic", "cell below the cutoff", "one atom, isolated")


def close(found, expected, tolerance=1e-12):
    """Assert equality to `tolerance` times the largest expected number, or 1."""
    scale = max(1.0, np.abs(expected).max(initial=0.0))
    assert_allclose(found, expected, rtol=0, atol=tolerance * scale)


def close_by_order(rows, found, expected):
    """Assert equality relative to the largest number of each correlation order; features are the last axis."""
    for order in np.unique(rows[:, 0]):
        columns = rows[:, 0] == order
        close(found[..., columns], expected[..., columns])


@pytest.fixture(scope="module", params=CASES)
def case(request):
    arrays = CASES[request.param]
    return systems.descriptor(arrays), systems.structures(arrays["species"])


def test_couplings():
    for l1 in range(9):
        for l2 in range(l1, 9):
            for l3 in range(l2 - l1, l1 + l2 + 1):
                assert_allclose(real_coupling(l1, l2, l3), reference.coupling(l1, l2, l3), rtol=0, atol=1e-14)


def test_features_sums_and_energies(case):
    descriptor, structures = case
    rng = np.random.default_rng(1)
    weights = rng.normal(size=(descriptor.n_species, descriptor.n_features))
    batch = descriptor.batch(list(structures.values()))
    found = descriptor.kernel().evaluate(batch, weights, sums=True, features=True)
    first = 0
    for s, atoms in enumerate(structures.values()):
        mine = slice(first, first + len(atoms))
        first += len(atoms)
        expected = reference.features(descriptor, atoms)
        close_by_order(descriptor.features, found["features"][mine], expected)
        sums = reference.summed(descriptor, atoms, expected).reshape(descriptor.n_species, -1)
        close_by_order(descriptor.features, found["sums"][s], sums)
        species = np.searchsorted(descriptor.species, atoms.numbers)
        close(found["atomic_energies"][mine], (weights[species] * expected).sum(axis=1))
    close(descriptor.sums(list(structures.values())), found["sums"].reshape(len(structures), -1))


@pytest.mark.parametrize("name", QUICK)
def test_vector_jacobian_product(case, name):
    descriptor, structures = case
    atoms = structures[name]
    adjoint = np.random.default_rng(2).normal(size=(len(atoms), descriptor.n_features))
    found = descriptor.kernel().evaluate(descriptor.batch([atoms]), adjoint=adjoint)
    forces, virial = reference.vjp(descriptor, atoms, adjoint)
    close(found["forces"], forces)
    close(found["virials"][0], virial)


@pytest.mark.parametrize("name", QUICK)
def test_jacobian_vector_product(case, name):
    descriptor, structures = case
    atoms = structures[name]
    directions = np.random.default_rng(3).normal(size=(len(atoms), 3))
    found = descriptor.kernel().tangent(descriptor.batch([atoms]), directions)
    expected = reference.summed(descriptor, atoms, reference.jvp(descriptor, atoms, directions))
    close_by_order(descriptor.features, found[0], expected.reshape(descriptor.n_species, -1))


@pytest.mark.parametrize("name", ["triclinic", "cell below the cutoff", "chain"])
def test_tangent_along_strains(case, name):
    """Minus the virial, for any weights; together with displacements the sum of both."""
    descriptor, structures = case
    atoms, rng, kernel = structures[name], np.random.default_rng(4), descriptor.kernel()
    weights, strain = rng.normal(size=(descriptor.n_species, descriptor.n_features)), rng.normal(size=(1, 3, 3))
    directions, batch = rng.normal(size=(len(atoms), 3)), descriptor.batch([atoms])
    still = np.zeros_like(directions)
    found = kernel.tangent(batch, still, strains=strain)
    virial = kernel.evaluate(batch, weights)["virials"][0]
    assert_allclose(np.vdot(found, weights), -np.vdot(strain, virial), rtol=1e-10, atol=1e-10 * np.abs(virial).max())
    both = kernel.tangent(batch, directions, strains=strain)
    close(both, found + kernel.tangent(batch, directions))


@pytest.mark.parametrize("name", ["triclinic", "cell below the cutoff", "chain"])
def test_design_matrix(case, name):
    descriptor, structures = case
    atoms = structures[name]
    rows = np.tile(descriptor.features, (descriptor.n_species, 1))
    for found, expected in zip(descriptor.design(atoms), reference.design(descriptor, atoms), strict=True):
        close_by_order(rows, found, expected)


@pytest.mark.parametrize("name", ["molecule", "plane without third vector", "left-handed", "one atom, periodic"])
def test_forces_and_virial_of_weights(case, name):
    descriptor, structures = case
    atoms = structures[name]
    weights = np.random.default_rng(4).normal(size=descriptor.width)
    found = descriptor.kernel().evaluate(
        descriptor.batch([atoms]), weights.reshape(descriptor.n_species, descriptor.n_features)
    )
    model = reference.Model(descriptor, weights)
    close(found["forces"], model.forces(atoms)[0])
    close(found["virials"][0], model.virials(atoms)[0])


def test_built_descriptors_equal_their_twins():
    from comitia.density import Descriptor

    for radial in ("bessel", "gaussian"):
        descriptor = Descriptor.build(
            [6, 14], 4.0, radial=radial, n_max=[5, 3, 2, 2], l_max=[0, 3, 2, 2], degree=[None, None, None, 3]
        )
        atoms = systems.structures([6, 14])["triclinic"]
        found = descriptor.kernel().evaluate(
            descriptor.batch([atoms]), np.zeros((2, descriptor.n_features)), features=True
        )
        close_by_order(descriptor.features, found["features"], reference.features(descriptor, atoms))
