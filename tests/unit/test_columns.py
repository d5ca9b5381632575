"""Columns of the design matrix that depend least on one another: which are kept, and fits with them alone."""

import numpy as np
import pytest
from ase.io.extxyz import write_xyz
from fits import CUTOFF, labelled
from numpy.testing import assert_allclose, assert_array_equal

import comitia
from comitia.density import Descriptor
from comitia.errors import SettingsError
from comitia.settings import convert
from comitia.structures import read_structures
from comitia.training import FitSettings, fit
from comitia.training.columns import choose_columns, gram_of_species, pivoted, used_columns
from comitia.training.evidence import Evidence, PriorShape
from comitia.training.normal_equations import Moments
from comitia.training.settings import Prior

BASIS = {"n_max": [8, 5, 3], "l_max": [0, 3, 2], "max_features": 250}
HELD = {"core": False, "reference_energies": {"Ar": -3.0, "Kr": -5.0}, "regularisation": 1e-9}


def settings(**changes):
    content = {"data": "all.xyz", "cutoff": CUTOFF, "basis": BASIS, "members": 4, "folds": 3, "columns": 60}
    return convert(content | HELD | changes, FitSettings, "test")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder, frames = tmp_path_factory.mktemp("columns"), labelled(60)
    for frame, atoms in enumerate(frames):
        atoms.info["config_type"] = "new" if frame >= 40 else "old"
    write_xyz(folder / "old.xyz", frames[:40])
    write_xyz(folder / "all.xyz", frames)
    return folder


@pytest.fixture(scope="module")
def descriptor():
    return Descriptor.build([18, 36], CUTOFF, **BASIS)


def test_pivoting_takes_what_is_left_unexplained():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(50, 4)) * [1.0, 3.0, 2.0, 0.5]
    rows = np.column_stack([rows, rows[:, 0] + rows[:, 3], 1e-3 * rows[:, 1]])  # two columns too many
    found, left = pivoted(rows.T @ rows)
    assert found[0] == 1
    assert sorted(found[:2]) == [1, 2]
    assert len(found) == 4
    for place in range(4):
        before = rows[:, found[:place]]
        rest = rows - before @ np.linalg.lstsq(before, rows, rcond=None)[0] if place else rows
        assert_allclose(left[place], np.sum(rest**2, axis=0).max(), rtol=1e-10)


def test_columns_that_are_kept_explain_the_others(folder, descriptor):
    structures = read_structures(folder / "all.xyz")
    shorter, columns = choose_columns(descriptor, structures, 200)
    assert len(columns) <= 200 < descriptor.width
    assert_array_equal(columns, np.unique(columns))
    assert set(columns % shorter.n_features) == set(range(shorter.n_features))  # no feature is idle
    kept = np.array([row.tolist() in shorter.features.tolist() for row in descriptor.features])
    assert_array_equal(descriptor.features[kept], shorter.features)
    everything = np.vstack([descriptor.design(s.atoms).forces for s in structures])
    some = np.vstack([shorter.design(s.atoms).forces[:, columns] for s in structures])
    by_species = everything.reshape(len(everything), 2, -1)
    long = np.concatenate([by_species[:, s][:, kept] for s in range(2)], axis=1)
    assert_allclose(some, long[:, columns], atol=1e-12 * np.abs(long).max())
    scale = np.sqrt(np.mean(everything**2, axis=0))
    normed = everything[:, scale > 0] / scale[scale > 0]

    def unexplained(chosen):
        return np.mean((normed - chosen @ np.linalg.lstsq(chosen, normed, rcond=1e-12)[0]) ** 2)

    first = np.concatenate([s * descriptor.n_features + np.arange(len(columns) // 2) for s in range(2)])
    assert unexplained(some) < 0.5 * unexplained(everything[:, first])


def test_all_columns_are_kept_where_there_is_room(folder, descriptor):
    found, columns = choose_columns(descriptor, read_structures(folder / "all.xyz"), descriptor.width)
    assert found is descriptor
    assert_array_equal(columns, np.arange(descriptor.width))


def test_gram_matrices_are_those_of_forces(folder, descriptor):
    structures = read_structures(folder / "all.xyz")[:2]
    rows = np.vstack([descriptor.design(s.atoms).forces for s in structures])
    n = descriptor.n_features
    for s, gram in enumerate(gram_of_species(descriptor, structures)):
        part = rows[:, s * n : (s + 1) * n]
        assert_allclose(gram, part.T @ part, rtol=1e-12, atol=1e-12 * np.abs(gram).max())


def test_fit_to_some_columns(folder, tmp_path):
    result = fit(settings(), folder, tmp_path / "m.safetensors", progress=False)
    used = used_columns(result.potential.weights, result.potential.descriptor)
    assert result.report["features"]["columns"] == len(used) <= 60
    loaded, atoms = comitia.load(tmp_path / "m.safetensors"), read_structures(folder / "all.xyz")[7].atoms
    assert_allclose(loaded.compute(atoms).forces, result.potential.compute(atoms).forces, atol=1e-12)
    assert result.report["errors"]["folds"]["forces"]["rmse"] < 0.02  # eV/Å; labels without noise, of about 1 eV/Å


def test_an_update_keeps_the_columns(folder, tmp_path):
    old = settings(data="old.xyz", keep_sums=True)
    before = fit(old, folder, tmp_path / "old.safetensors", progress=False)
    again = settings(previous=str(tmp_path / "old.safetensors"), keep_sums=True)
    after = fit(again, folder, tmp_path / "after.safetensors", progress=False)
    used = [used_columns(found.potential.weights, found.potential.descriptor) for found in (before, after)]
    assert_array_equal(*used)
    assert after.report["data"]["structures"]["training"] == 60


def test_the_prior_in_the_report_can_be_given(folder, tmp_path):
    chosen = fit(settings(regularisation=None), folder, tmp_path / "m.safetensors", progress=False)
    prior = chosen.report["regularisation"]["prior"]
    given = fit(settings(regularisation=prior), folder, tmp_path / "n.safetensors", progress=False)
    assert given.report["regularisation"]["chosen_by"] == "settings"
    assert_allclose(given.report["regularisation"]["strength"], chosen.report["regularisation"]["strength"])
    atoms = read_structures(folder / "all.xyz")[7].atoms
    assert_allclose(given.potential.compute(atoms).forces, chosen.potential.compute(atoms).forces, atol=1e-6)


def test_a_strength_for_each_order(descriptor):
    rng = np.random.default_rng(1)
    rows, shape = rng.normal(size=(2000, descriptor.width)), PriorShape.of(descriptor)
    moments = {"forces": Moments(rows.T @ rows, rows.T @ rows[:, 0], float(rows[:, 0] @ rows[:, 0]), len(rows))}
    evidence = Evidence(moments, shape, ["forces"])
    one, each = (evidence.given(strength).penalty for strength in (1e-6, Prior([1e-8, 1e-5])))
    for order, ratio in ((1, 1e-2), (2, 10.0), (3, 10.0)):
        assert_allclose(each[shape.order == order] / one[shape.order == order], ratio)


def test_no_columns_are_refused():
    with pytest.raises(SettingsError, match="columns"):
        settings(columns=0)
