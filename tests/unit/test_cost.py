"""A model for a cost: the largest on a ladder that keeps within it, whatever the timings are."""

import models
import pytest
from ase.io.extxyz import write_xyz
from fits import CUTOFF, labelled

from comitia.density import Descriptor
from comitia.errors import SettingsError
from comitia.settings import convert
from comitia.training import FitSettings, cost, fit


def build(max_features):
    return Descriptor.build([18], CUTOFF, n_max=[6, 6, 5], l_max=[0, 4, 3], max_features=max_features)


@pytest.fixture
def linear(monkeypatch):
    """Costs of 0.01 µs for each feature; how often one was asked for."""
    asked = []

    def microseconds(descriptor, atoms):
        asked.append(descriptor.n_features)
        return 0.01 * descriptor.n_features

    monkeypatch.setattr(cost, "microseconds_per_atom", microseconds)
    return asked


@pytest.mark.parametrize("target", [0.6, 0.9, 1.3])
def test_the_largest_model_within_the_cost_is_found_in_few_timings(linear, target):
    descriptor, found = cost.largest_within(target, build, None)
    assert found == 0.01 * descriptor.n_features <= target
    assert len(linear) < 8
    larger = build(round(1.2 * cost.RUNG * descriptor.n_features))  # degrees are whole here, and budgets in rungs
    assert 0.01 * larger.n_features > target


def test_a_cost_that_no_model_keeps_is_refused(linear):
    with pytest.raises(SettingsError, match="too few for this basis"):
        cost.largest_within(0.05, build, None)


def test_what_is_wrong_with_the_basis_is_said(linear):
    def wrong(max_features):
        return Descriptor.build([18], -1.0, max_features=max_features)

    with pytest.raises(SettingsError, match="cutoff is -1"):
        cost.largest_within(1.0, wrong, None)


def test_a_cost_is_a_time_for_each_atom():
    few, many = (cost.microseconds_per_atom(build(n), models.crystal()) for n in (60, 250))
    assert few > 0
    assert many > 0


def test_the_timed_structure_is_no_larger_than_need_be(monkeypatch):
    monkeypatch.setattr(cost, "MOST_ATOMS", 40)
    sizes = [models.crystal(repeats=(1, 1, n)) for n in (2, 8, 12, 20)]
    assert len(cost.typical(sizes)) == 32
    assert len(cost.typical(sizes[2:])) == 48


def test_a_fit_keeps_within_a_cost(linear, tmp_path):
    write_xyz(tmp_path / "train.xyz", labelled(12))
    content = {"data": "train.xyz", "cutoff": CUTOFF, "members": 1, "folds": 2, "target_cost": 1.5}
    content["basis"] = {"n_max": [4, 4, 0], "l_max": [0, 3, 0]}
    result = fit(convert(content, FitSettings, "test"), tmp_path, tmp_path / "m.safetensors", progress=False)
    assert result.report["cost"] == {"value": 0.01 * result.potential.descriptor.n_features, "unit": "µs/atom"}
    assert result.report["cost"]["value"] <= 1.5
    assert result.potential.descriptor.n_features > 75


@pytest.mark.parametrize("other", [{"accuracy": "fast"}, {"basis": {"max_features": 100}}])
def test_a_cost_and_a_size_contradict_each_other(other, tmp_path):
    settings = convert({"data": "train.xyz", "cutoff": CUTOFF, "target_cost": 1.0} | other, FitSettings, "test")
    with pytest.raises(SettingsError, match="target_cost"):
        fit(settings, tmp_path, tmp_path / "m.safetensors", progress=False)
