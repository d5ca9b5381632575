"""Pseudo-species learned from data: the known contraction is found again, and its basis does not matter."""

import contextlib

import models
import numpy as np
import pytest
import scipy.linalg
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.extxyz import write_xyz
from click.testing import CliRunner
from numpy.testing import assert_allclose, assert_array_equal

import comitia
from comitia.cli import cli
from comitia.density import Descriptor
from comitia.errors import ModelError, SettingsError
from comitia.report.element_map import coordinates, group_and_period
from comitia.settings import convert
from comitia.structures import LabelledStructure
from comitia.training import FitSettings, fit, resolved
from comitia.training.dataset import Target
from comitia.training.evidence import LOG_DIFFERENCE, PriorShape
from comitia.training.resolved import resolved_moments
from comitia.training.species import STRENGTH, Projection, learn_contraction
from comitia.training.systems import chemical_system

CUTOFF = 5.0
SPECIES = np.array([3, 11, 19, 37])
N_SPECIES = len(SPECIES)
RIDGE_ANGLE = 1e-3  # the ridge turns the row space by some 1e-5, and more where the data hold it loosely
LATENT = {"n_max": [2, 1, 0], "l_max": [0, 1, 0]}  # of the potential that is to be found again


@pytest.fixture(scope="module", autouse=True)
def small_models():
    """A model that just contains the latent potential, so that a search takes a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resolved, "SIZES", ((3, 1, 1, True),))
        yield


@contextlib.contextmanager
def no_stage(name, total):
    yield lambda: None


def orthonormal(n_rows, n_columns, seed):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(n_columns, n_rows)))[0].T


def with_total(n_rows, n_species, seed):
    """Orthonormal rows, the first the total density."""
    rest = orthonormal(n_rows - 1, n_species - 1, seed) @ scipy.linalg.helmert(n_species)
    return np.vstack([np.full((1, n_species), 1 / np.sqrt(n_species)), rest])


def labelled_by(contraction, n_structures=40, seed=0):
    """Rattled crystals of two or three species, with energies and forces of a potential on latent pseudo-species."""
    rng = np.random.default_rng(seed)
    descriptor = Descriptor.build(
        SPECIES, CUTOFF, contraction=contraction, pseudo_species=len(contraction), constant=False, **LATENT
    )
    weights = rng.normal(size=descriptor.width)
    structures = []
    for number in range(n_structures):
        present = rng.choice(SPECIES, 2 + number % 2, replace=False)
        atoms = models.crystal(rng.permutation(np.resize(present, 16)), (2, 2, 1), rattle=0.2, seed=seed + number)
        design = descriptor.design(atoms)
        energy, forces = float(design.features @ weights), design.forces @ weights
        structures.append(LabelledStructure(atoms, energy, forces.reshape(-1, 3), None, "default", f"frame {number}"))
    return structures


def target_of(structure):
    return Target(structure.energy, structure.forces.ravel(), None, {"energy": 0.1, "forces": 1.0})


def largest_angle(u, v):
    """Sine of the largest angle between the row spaces of orthonormal u and v."""
    return np.linalg.norm(v - (v @ u.T) @ u, 2)


@pytest.mark.parametrize("n_latent", [1, 2, 3])
def test_the_contraction_that_made_the_data_is_found_again(n_latent):
    latent = with_total(n_latent, N_SPECIES, seed=n_latent)
    structures = labelled_by(latent)
    learned = learn_contraction(structures, target_of, SPECIES, CUTOFF, [n_latent] * 3 + [0], no_stage)
    assert_allclose(learned @ learned.T, np.eye(n_latent), atol=1e-12)
    assert_allclose(learned[0], 0.5, rtol=1e-14)
    assert largest_angle(latent, learned) < RIDGE_ANGLE
    projection = Projection(resolved_moments(structures, target_of, SPECIES, CUTOFF, lambda: None), STRENGTH)
    misfit, at_latent, at_random = (
        projection.solve(u)[0] for u in (learned, latent, with_total(n_latent, N_SPECIES, 50))
    )
    assert misfit <= at_latent * (1 + 1e-6)
    assert n_latent == 1 or misfit < 1e-3 * at_random
    again = learn_contraction(structures, target_of, SPECIES, CUTOFF, [n_latent] * 3 + [0], no_stage)
    assert_array_equal(again, learned)


@pytest.fixture(scope="module")
def projection():
    structures = labelled_by(with_total(2, N_SPECIES, 0), 12)
    return Projection(resolved_moments(structures, target_of, SPECIES, CUTOFF, lambda: None), 1e-4)


def test_the_misfit_depends_on_the_row_space_alone(projection):
    u = orthonormal(2, N_SPECIES, seed=7)
    assert_allclose(projection(orthonormal(2, 2, 8) @ u)[0], projection(u)[0], rtol=1e-9)


def test_the_gradient_of_the_misfit_is_its_difference(projection):
    u, step = orthonormal(2, N_SPECIES, seed=7), 1e-5
    _, gradient = projection(u)
    difference = np.zeros_like(u)
    for index in np.ndindex(u.shape):
        shift = np.zeros_like(u)
        shift[index] = step
        difference[index] = (projection.solve(u + shift)[0] - projection.solve(u - shift)[0]) / (2 * step)
    assert_allclose(gradient, difference, atol=1e-5 * np.abs(gradient).max())


def test_the_moments_are_those_of_the_rows_on_all_species():
    structures = labelled_by(with_total(2, N_SPECIES, 0), 6)
    moments = resolved_moments(structures, target_of, SPECIES, CUTOFF, lambda: None)
    size = moments.size
    descriptor = size.descriptor(SPECIES, CUTOFF)
    columns = size.columns(descriptor.features, descriptor.n_radial, np.arange(len(SPECIES)))
    gram, rhs = np.zeros_like(moments.gram), np.zeros_like(moments.rhs)
    for structure in structures:
        design, target = descriptor.design(structure.atoms), target_of(structure)
        rows = np.vstack([0.1 * design.features, design.forces])
        folded = np.zeros((size.n_columns, len(rows)))
        np.add.at(folded, columns, rows.T)
        gram += folded @ folded.T
        rhs += folded @ np.append(0.1 * target.energy, target.forces)
    assert_allclose(moments.gram, gram, atol=1e-12 * np.abs(gram).max())
    assert_allclose(moments.rhs, rhs, atol=1e-12 * np.abs(rhs).max())


@pytest.mark.parametrize("n_pseudo", [2, 3])
def test_predictions_do_not_depend_on_the_basis_of_the_row_space(n_pseudo):
    """With as many pseudo-species as species the row space is everything: also the same as no contraction."""
    three, u = SPECIES[:3], orthonormal(n_pseudo, 3, seed=1)
    other = np.eye(3) if n_pseudo == 3 else orthonormal(2, 2, seed=2) @ u
    options = {"n_max": [3, 2, 2, 1], "l_max": [0, 1, 1, 1], "max_features": 1000, "pseudo_species": n_pseudo}
    one, two = (Descriptor.build(three, CUTOFF, contraction=c, **options) for c in (u, other))
    rows = []
    for descriptor in (one, two):
        designs = [descriptor.design(models.crystal(three, (2, 2, 1), rattle=0.3, seed=s)) for s in range(12)]
        rows.append(np.vstack([np.vstack([d.features, d.forces, d.virial]) for d in designs]))
    weights = np.random.default_rng(3).normal(size=rows[0].shape[1])
    predicted = rows[0] @ weights
    fitted = np.linalg.lstsq(rows[1], predicted, rcond=1e-13)[0]
    assert_allclose(rows[1] @ fitted, predicted, atol=1e-9 * np.abs(predicted).max())


def test_orders_take_the_first_rows_of_one_contraction():
    structures = labelled_by(with_total(2, N_SPECIES, 0), 20)
    two = learn_contraction(structures, target_of, SPECIES, CUTOFF, [2, 2, 1, 0], no_stage)
    every = learn_contraction(structures, target_of, SPECIES, CUTOFF, [N_SPECIES, 2, 1, 0], no_stage)
    assert_array_equal(every[:2], two)
    assert_allclose(every @ every.T, np.eye(N_SPECIES), atol=1e-12)
    descriptor = Descriptor.build(SPECIES, CUTOFF, contraction=every, pseudo_species=[N_SPECIES, 2, 1], n_max=[4, 3, 2])
    features = descriptor.features
    for order, n_channels in ((1, N_SPECIES), (2, 2), (3, 1)):
        chosen = features[features[:, 0] == order]
        assert chosen[:, 1:9:2].max() // descriptor.n_radial == n_channels - 1


def write_labelled(path, structures):
    for structure in structures:
        labels = {"energy": structure.energy, "forces": structure.forces}
        structure.atoms.calc = SinglePointCalculator(structure.atoms, **labels)
    write_xyz(path, [structure.atoms for structure in structures])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alloys")
    write_labelled(folder / "alloys.xyz", labelled_by(with_total(2, N_SPECIES, 3)))
    return folder


def fitted(folder, name, **basis):
    content = {"data": "alloys.xyz", "cutoff": CUTOFF, "members": 4, "core": False}
    content["basis"] = LATENT | {"max_features": 60} | basis
    return fit(convert(content, FitSettings, "test"), folder, folder / name, progress=False)


def test_a_fit_learns_them_and_its_file_keeps_them(folder):
    result = fitted(folder, "model.safetensors", pseudo_species=2)
    assert largest_angle(with_total(2, N_SPECIES, 3), result.potential.descriptor.contraction) < RIDGE_ANGLE
    assert result.report["pseudo_species"]["Na"] == result.potential.descriptor.contraction[:, 1].tolist()
    loaded, atoms = comitia.load(folder / "model.safetensors"), models.crystal(SPECIES, rattle=0.2)
    assert_array_equal(loaded.compute(atoms).forces, result.potential.compute(atoms).forces)
    shown = CliRunner().invoke(cli, ["inspect", str(result.path), "--figure", str(folder / "map.png")])
    assert shown.exit_code == 0, shown.output
    assert "pseudo-species      2" in shown.output
    assert (folder / "map.png").read_bytes().startswith(b"\x89PNG")


def test_the_prior_is_chosen_by_chemical_systems_left_out(folder, tmp_path):
    """By all of the fit, and again by what each fold leaves; a fit that goes on keeps the systems apart."""
    basis = LATENT | {"max_features": 60, "pseudo_species": 2}
    content = {"data": "alloys.xyz", "cutoff": CUTOFF, "members": 4, "core": False, "basis": basis, "keep_sums": True}
    result = fit(convert(content, FitSettings, "test"), folder, tmp_path / "first.safetensors", progress=False)
    chosen = result.report["regularisation"]
    assert chosen["chosen_by"] == "chemical systems left out"
    systems = [system for part in chosen["left_out"]["parts"] for system in part["systems"]]
    assert sorted(systems) == sorted({chemical_system(s) for s in labelled_by(with_total(2, N_SPECIES, 3))})
    best = min(chosen["left_out"]["candidates"], key=lambda one: one["loss"])
    assert best["stronger"] == chosen["left_out"]["stronger"]
    assert best["difference"] == chosen["prior"]["difference"]
    write_labelled(tmp_path / "more.xyz", labelled_by(with_total(2, N_SPECIES, 3), 6, seed=900))
    more = content | {"data": "more.xyz", "previous": str(result.path)}
    updated = fit(convert(more, FitSettings, "test"), tmp_path, tmp_path / "second.safetensors", progress=False)
    again = [system for part in updated.report["regularisation"]["left_out"]["parts"] for system in part["systems"]]
    assert sorted(again) == sorted(systems)  # each in one part


def test_as_many_pseudo_species_as_species_change_nothing(folder):
    with pytest.warns(UserWarning, match="contracts nothing, the data have 4 species"):
        with_setting = fitted(folder, "all.safetensors", pseudo_species=N_SPECIES)
    without = fitted(folder, "none.safetensors")
    assert_array_equal(with_setting.potential.weights, without.potential.weights)
    assert with_setting.report["pseudo_species"] is None
    refused = CliRunner().invoke(cli, ["inspect", str(without.path), "--figure", str(folder / "none.png")])
    assert isinstance(refused.exception, ModelError)
    assert "not contracted" in str(refused.exception)


@pytest.mark.parametrize("value", [0, -1, 1.5, "two", [2, 2], [2, 2, 0], [2] * 5])
def test_settings_that_make_no_sense_are_refused(value):
    with pytest.raises(SettingsError, match="pseudo_species"):
        convert({"data": "a.xyz", "cutoff": 5.0, "basis": {"pseudo_species": value}}, FitSettings, "FIT.yaml")


def test_a_descriptor_needs_the_contraction_that_it_asks_for():
    with pytest.raises(SettingsError, match="learn it from data"):
        Descriptor.build(SPECIES, CUTOFF, pseudo_species=2)


def test_groups_and_periods():
    known = {1: (1, 1), 2: (18, 1), 5: (13, 2), 11: (1, 3), 26: (8, 4), 57: (3, 6), 70: (3, 6), 71: (3, 6), 72: (4, 6)}
    known |= {79: (11, 6), 86: (18, 6), 92: (3, 7), 118: (18, 7)}
    assert {z: group_and_period(z) for z in known} == known


@pytest.mark.parametrize("n_pseudo", [1, 2, 3, 4])
def test_the_map_shows_the_rows_after_the_total_density(n_pseudo):
    u = with_total(n_pseudo, 6, seed=5)
    points = coordinates(u)
    assert points.shape == (6, 2)
    n_shown = min(n_pseudo - 1, 2)
    assert_array_equal(points[:, :n_shown], u[1 : 1 + n_shown].T)
    assert not points[:, n_shown:].any()


def test_factors_that_tell_species_apart_have_smaller_weights_a_priori():
    contraction = with_total(2, N_SPECIES, seed=4)
    contracted, plain = (
        Descriptor.build(SPECIES, CUTOFF, contraction=u, pseudo_species=k, **LATENT)
        for u, k in ((contraction, 2), (None, None))
    )
    assert PriorShape.of(plain).log_difference is None
    shape = PriorShape.of(contracted)
    n_factors = (contracted.features[:, 1:9:2] >= contracted.n_radial).sum(axis=1)
    assert set(n_factors) == {0, 1, 2}
    assert_allclose(shape.log_difference, LOG_DIFFERENCE * np.tile(n_factors, N_SPECIES))
