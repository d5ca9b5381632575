"""Radial functions learned from densities: uncorrelated, optimal, smooth at the cutoff, and a fit that uses them."""

import models
import msgspec
import numpy as np
import pytest
import reference
from numpy.testing import assert_allclose, assert_array_equal

import comitia
from comitia.density import Descriptor, optimal
from comitia.density.descriptor import Basis
from comitia.density.features import total_degree
from comitia.density.presets import PRESETS, preset
from comitia.errors import SettingsError
from comitia.potential import Potential
from comitia.training.radials import density_covariance, learn_radial

CUTOFF, L_MAX, N_MAX = 5.0, 3, 5
SPECIES = (18, 36)


@pytest.fixture(scope="module")
def atoms():
    return [models.crystal(SPECIES, (2, 2, 1), rattle=0.2, seed=seed) for seed in range(4)]


@pytest.fixture(scope="module")
def covariance(atoms):
    return density_covariance(atoms, SPECIES, CUTOFF, L_MAX)


def test_components_are_orthonormal_and_uncorrelated(covariance):
    combination, variance = optimal.karhunen_loeve(covariance, N_MAX)
    for one in np.ndindex(len(SPECIES), L_MAX + 1):
        u = combination[one]
        assert_allclose(u.T @ u, np.eye(N_MAX), atol=1e-12)
        assert_allclose(u.T @ covariance[one] @ u, np.diag(variance[one]), atol=1e-12 * variance[one][0])
        assert np.all(np.diff(variance[one]) <= 0)


def test_no_other_basis_carries_more_variance(covariance):
    _, variance = optimal.karhunen_loeve(covariance, N_MAX)
    rng = np.random.default_rng(0)
    for _ in range(50):
        other, _ = np.linalg.qr(rng.normal(size=(optimal.N_PRIMITIVE, N_MAX)))
        carried = np.einsum("kn,slkq,qn->sl", other, covariance, other)
        assert np.all(carried <= variance.sum(axis=-1) * (1 + 1e-12))


def test_the_covariance_at_l_0_is_that_of_sums_over_neighbours(atoms, covariance):
    total, count = np.zeros((len(SPECIES), optimal.N_PRIMITIVE, optimal.N_PRIMITIVE)), 0
    from ase.neighborlist import neighbor_list

    for one in atoms:
        i, j, r = neighbor_list("ijd", one, CUTOFF)
        value = optimal.primitive(r, CUTOFF)
        for s, z in enumerate(SPECIES):
            sums = np.zeros((len(one), optimal.N_PRIMITIVE))
            np.add.at(sums, i[one.numbers[j] == z], value[one.numbers[j] == z])
            total[s] += sums.T @ sums
        count += len(one)
    assert_allclose(covariance[:, 0], total / (4 * np.pi * count), rtol=1e-8, atol=1e-9 * covariance[:, 0].max())


@pytest.mark.parametrize("accuracy", ["fast", "balanced"])
def test_a_preset_keeps_within_its_budget(atoms, accuracy):
    basis = preset(accuracy, 2)
    functions = learn_radial(atoms, SPECIES, CUTOFF, basis)
    built = Descriptor.build(
        SPECIES, CUTOFF, optimal=functions, **{n: getattr(basis, n) for n in basis.__struct_fields__}
    )
    assert built.n_features <= basis.max_features
    degree = -0.5 * np.log(functions.variance)
    assert np.all(degree >= 0)
    assert_allclose(np.log(built.smoothness), total_degree(built.features, built.n_radial, degree), atol=1e-12)
    assert_allclose(functions.spline[-1].sum(axis=0), 0, atol=1e-9)  # at the cutoff


def test_more_room_keeps_every_feature_of_less_room(atoms):
    basis = Basis(radial="optimal", n_max=[6, 5, 3], l_max=[0, 3, 2])
    functions = learn_radial(atoms, SPECIES, CUTOFF, basis)
    options = {"radial": "optimal", "n_max": basis.n_max, "l_max": basis.l_max, "optimal": functions}
    few, many = (Descriptor.build(SPECIES, CUTOFF, max_features=n, **options).features for n in (150, 300))
    assert {tuple(row) for row in few.tolist()} <= {tuple(row) for row in many.tolist()}


def test_channels_that_mix_species_share_their_functions(atoms):
    basis = Basis(radial="optimal", n_max=[4, 4, 2], l_max=[0, 2, 1], max_features=60)
    contraction = np.array([[0.8, 0.6]])
    functions = learn_radial(atoms, SPECIES, CUTOFF, basis, contraction)
    assert functions.variance.shape == (1, 3, 4)
    assert_array_equal(functions.offset[0], functions.offset[1])
    options = {name: getattr(basis, name) for name in ("n_max", "l_max", "radial", "max_features")}
    built = Descriptor.build(SPECIES, CUTOFF, optimal=functions, contraction=contraction, pseudo_species=1, **options)
    one = models.crystal(SPECIES, (2, 2, 1), rattle=0.2)
    assert_allclose(built.sums([one])[0], reference.sums(built, one), rtol=1e-11, atol=1e-11)


def test_what_is_expected_of_a_factor_moves_the_budget(atoms):
    def built(**factors):
        options = {"radial": "optimal", "n_max": [6, 6, 4, 0], "l_max": [0, 5, 3, 0], "max_features": 150}
        basis = Basis(**options, factors=optimal.FactorPrior(**factors))
        functions = learn_radial(atoms, SPECIES, CUTOFF, basis)
        return Descriptor.build(SPECIES, CUTOFF, optimal=functions, **options, factors=factors)

    def highest_l(descriptor):
        return descriptor.features[:, 2:9:2].max(axis=1).mean()

    def reach(descriptor):  # mean distance of the most important function
        r = CUTOFF * np.arange(len(descriptor.spline)) / len(descriptor.spline)
        density = (r * descriptor.spline[:, 0, 0]) ** 2
        return r @ density / density.sum()

    usual = built()
    assert_array_equal(usual.features, built(waves=3.0, angular_decay=0.15, stretch=1.0, fading=2.0).features)
    assert highest_l(built(angular_decay=0.02)) > highest_l(usual) > highest_l(built(angular_decay=0.6))
    assert reach(built(fading=0.0)) > reach(usual) > reach(built(fading=6.0))


def test_a_model_with_learned_functions_survives_its_file(atoms, tmp_path):
    basis = Basis(radial="optimal", n_max=[4, 4, 2, 0], l_max=[0, 7, 2, 0], max_features=60)
    functions = learn_radial(atoms, SPECIES, CUTOFF, basis)
    built = Descriptor.build(SPECIES, CUTOFF, optimal=functions, **msgspec.structs.asdict(basis))
    assert built.l_max < 7  # only some of the functions are used
    weights = np.random.default_rng(0).normal(size=(2, built.width))
    saved = Potential(built, weights, [0.0, 0.0])
    saved.save(tmp_path / "model.safetensors")
    loaded = comitia.load(tmp_path / "model.safetensors")
    assert_array_equal(loaded.descriptor.radial_offset, built.radial_offset)
    assert_array_equal(loaded.compute(atoms[0]).forces, saved.compute(atoms[0]).forces)


def test_optimal_functions_need_data():
    with pytest.raises(SettingsError, match="learned from training structures"):
        Descriptor.build([14], CUTOFF, radial="optimal")


def test_balanced_is_the_default():
    assert preset(None, 2) == preset("balanced", 2)


def test_presets_bound_the_columns_of_many_species():
    assert preset("accurate", 1).max_features == PRESETS["accurate"].max_features
    assert preset("accurate", 6).max_features * 6 <= 4800
