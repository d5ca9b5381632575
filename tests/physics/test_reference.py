"""The twins themselves against independent sources: the kernels are later judged by them."""

import numpy as np
import pytest
import reference
import systems
from invariants import count_invariants
from numpy.testing import assert_allclose
from scipy.spatial.transform import Rotation
from scipy.special import sph_harm_y


def directions(seed, n=40):
    return np.random.default_rng(seed).normal(size=(n, 3))


def test_harmonics_equal_sphericart():
    sphericart = pytest.importorskip("sphericart")
    vectors = directions(1)
    expected = sphericart.SphericalHarmonics(8).compute(vectors)
    assert_allclose(reference.real_harmonics(8, vectors), expected, rtol=0, atol=2e-14)


def test_harmonics_equal_scipy_through_the_unitary_transformation():
    vectors = directions(2)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    theta, phi = np.arccos(unit[:, 2]), np.arctan2(unit[:, 1], unit[:, 0])
    values = reference.real_harmonics(8, vectors)
    for l in range(9):
        u = reference.complex_from_real(l)
        assert_allclose(u @ u.conj().T, np.eye(2 * l + 1), atol=1e-15)
        expected = np.array([sph_harm_y(l, m, theta, phi) for m in range(-l, l + 1)])
        assert_allclose(u @ values[:, l * l : (l + 1) ** 2].T, expected, atol=1e-13)


def test_wigner_3j_known_values_and_orthogonality():
    assert reference.wigner_3j(1, 1, 2, 0, 0, 0) == pytest.approx(np.sqrt(2 / 15), rel=1e-15)
    assert reference.wigner_3j(2, 2, 2, 0, 0, 0) == pytest.approx(-np.sqrt(2 / 35), rel=1e-15)
    assert reference.wigner_3j(1, 1, 1, 1, -1, 0) == pytest.approx(1 / np.sqrt(6), rel=1e-15)
    for l1, l2, l3 in [(1, 2, 3), (4, 4, 6), (8, 8, 8), (8, 5, 3)]:
        total = sum(
            reference.wigner_3j(l1, l2, l3, m1, m2, -m1 - m2) ** 2
            for m1 in range(-l1, l1 + 1)
            for m2 in range(-l2, l2 + 1)
            if abs(m1 + m2) <= l3
        )
        assert total == pytest.approx(1.0, rel=1e-14)


@pytest.mark.parametrize("ls", [(0, 0, 0), (1, 1, 0), (1, 1, 2), (2, 2, 2), (3, 4, 5), (4, 4, 4), (6, 7, 3), (8, 8, 8)])
def test_couplings_are_real_normalised_and_invariant(ls):
    c = reference.coupling(*ls)
    assert (c**2).sum() == pytest.approx(1.0, rel=1e-13)
    rotation = Rotation.random(rng=np.random.default_rng(3)).as_matrix()
    vectors = directions(4, 3)
    blocks = [
        [reference.real_harmonics(8, v)[l * l : (l + 1) ** 2] for v, l in zip(turned, ls, strict=True)]
        for turned in (vectors, vectors @ rotation.T)
    ]
    before, after = (np.einsum("abc,a,b,c", c, *block) for block in blocks)
    assert after == pytest.approx(before, abs=1e-13)


@pytest.mark.parametrize("ls", [(1, 1, 1), (1, 2, 2), (2, 3, 4), (4, 4, 7), (3, 3, 5)])
def test_couplings_with_an_odd_sum_are_normalised_and_change_sign_under_inversion(ls):
    c = reference.coupling(*ls)
    assert (c**2).sum() == pytest.approx(1.0, rel=1e-13)
    rotation = Rotation.random(rng=np.random.default_rng(3)).as_matrix()
    vectors = directions(4, 3)

    def coupled(turned):
        blocks = [reference.real_harmonics(8, v)[l * l : (l + 1) ** 2] for v, l in zip(turned, ls, strict=True)]
        return np.einsum("abc,a,b,c", c, *blocks)

    assert abs(coupled(vectors)) > 1e-4
    assert coupled(vectors @ rotation.T) == pytest.approx(coupled(vectors), abs=1e-13)
    assert coupled(-vectors @ rotation.T) == pytest.approx(-coupled(vectors), abs=1e-13)


def test_the_coupling_of_two_vectors_to_a_vector_is_their_cross_product():
    a, b = directions(5, 2)
    order = [1, 2, 0]  # l = 1 is (y, z, x)
    coupled = np.einsum("abc,a,b->c", reference.coupling(1, 1, 1), a[order], b[order])
    expected = np.cross(a, b)[order] / np.sqrt(6)
    assert_allclose(coupled * np.sign(coupled @ expected), expected, atol=1e-15)


def test_coupling_with_l_zero_is_the_power_spectrum():
    for l in range(9):
        expected = (-1) ** l * np.eye(2 * l + 1) / np.sqrt(2 * l + 1)
        assert_allclose(reference.coupling(l, l, 0)[:, :, 0], expected, atol=1e-15)


def test_random_splines_are_twice_differentiable():
    arrays = systems.tables([14], 5, n_channels=None, n_radial=4, l_max=2, per_l=True)
    spline = arrays["spline"]
    powers = np.arange(6)
    for order in range(3):
        falling = np.array([np.prod(power - np.arange(order)) for power in powers])
        ends = np.einsum("p,kpf->kf", falling, spline)
        starts = falling[order] * spline[:, order]
        assert_allclose(ends[:-1], starts[1:], atol=1e-12)
        assert_allclose(ends[-1], 0, atol=1e-12)


@pytest.fixture(scope="module")
def descriptor():
    return systems.plain(systems.random_arrays([6, 14], 6, n_channels=3, n_radial=2, l_max=4, per_l=True))


def test_features_do_not_change_under_rotation_inversion_and_translation(descriptor):
    atoms = systems.structures([6, 14])["triclinic"]
    expected = reference.features(descriptor, atoms)
    rotation = -Rotation.random(rng=np.random.default_rng(7)).as_matrix()
    turned = atoms.copy()
    turned.set_cell(np.array(atoms.cell) @ rotation.T)
    turned.positions = (atoms.positions + np.array([0.1, 2.0, -7.0])) @ rotation.T
    assert_allclose(reference.features(descriptor, turned), expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", ["molecule", "triclinic", "chain", "one atom, periodic"])
def test_complex_steps_equal_finite_differences(descriptor, name):
    atoms = systems.structures([6, 14])[name]
    features, forces, virial = reference.design(descriptor, atoms)
    direction = np.random.default_rng(8).normal(size=(len(atoms), 3))
    strain = np.random.default_rng(9).normal(size=(3, 3))
    strain += strain.T

    def displaced(step, stretch):
        moved = atoms.copy()
        deformation = np.eye(3) + stretch * strain
        moved.set_cell(np.array(atoms.cell) @ deformation.T)
        moved.positions = (atoms.positions + step * direction) @ deformation.T
        return reference.sums(descriptor, moved)

    h = 1e-3
    by_step = (8 * (displaced(h, 0) - displaced(-h, 0)) - displaced(2 * h, 0) + displaced(-2 * h, 0)) / (12 * h)
    by_strain = (8 * (displaced(0, h) - displaced(0, -h)) - displaced(0, 2 * h) + displaced(0, -2 * h)) / (12 * h)
    scale = np.abs(forces).max() + np.abs(virial).max() + 1
    assert_allclose(-direction.ravel() @ forces, by_step, atol=1e-7 * scale)
    voigt = np.array([strain[a, b] * (1 if a == b else 2) for a, b in reference.VOIGT])
    assert_allclose(-voigt @ virial, by_strain, atol=1e-7 * scale)
    per_atom = reference.jvp(descriptor, atoms, direction)
    assert_allclose(
        reference.summed(descriptor, atoms, per_atom), -direction.ravel() @ forces, rtol=1e-12, atol=1e-12 * scale
    )
    adjoint = np.random.default_rng(10).normal(size=per_atom.shape)
    pulled, _ = reference.vjp(descriptor, atoms, adjoint)
    assert -(pulled * direction).sum() == pytest.approx((adjoint * per_atom).sum(), rel=1e-12, abs=1e-12 * scale)
    assert features.shape == (2 * len(descriptor.features),)


def test_neighbours_equal_vesin():
    vesin = pytest.importorskip("vesin")
    for name, atoms in systems.structures([6, 14]).items():
        if atoms.pbc.any() and not atoms.pbc.all():
            continue  # mixed boundaries are checked by the neighbour tests
        box = np.array(atoms.cell) if atoms.pbc.all() else np.zeros((3, 3))
        pairs = reference.neighbours(atoms, systems.CUTOFF)
        calculator = vesin.NeighborList(cutoff=systems.CUTOFF, full_list=True)
        i, j, images = calculator.compute(atoms.positions, box, bool(atoms.pbc.all()), quantities="ijS")
        expected = sorted(map(tuple, np.column_stack([i, j, images]).astype(int).tolist()))
        found = sorted(map(tuple, np.column_stack([pairs.centres, pairs.others, pairs.images]).tolist()))
        assert found == expected, name


@pytest.mark.parametrize(
    ("channels", "count"),
    [
        ([(0, 2), (1, 2)], 1),
        ([(0, 2), (1, 3)], 0),
        ([(0, 1), (0, 1), (0, 2)], 1),
        ([(0, 1), (1, 1), (2, 1)], 0),
        ([(0, 2), (0, 2), (0, 2)], 1),
        ([(0, 3), (0, 3), (1, 4)], 1),
        ([(0, 1), (1, 2), (2, 3)], 1),
        ([(0, 1), (1, 2), (2, 5)], 0),
        ([(0, 1), (1, 1), (2, 1), (3, 1)], 3),
        ([(0, 1), (0, 1), (0, 1), (0, 1)], 1),
        ([(0, 2), (0, 2), (0, 2), (0, 2)], 1),
        ([(0, 1), (0, 1), (1, 1), (1, 1)], 2),
        ([(0, 1), (1, 1), (2, 1), (3, 2)], 0),
        ([(0, 1), (0, 1), (1, 1), (2, 3)], 1),
    ],
)
def test_count_of_invariants(channels, count):
    assert count_invariants(channels) == count
