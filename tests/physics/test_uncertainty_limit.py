"""A limit of the uncertainty: its bias has the right forces and virial, and what is sent can be undone."""

import json
from pathlib import Path

import numpy as np
import pytest
import systems
import yaml
from combinations import SPECIES, check_gradient, committee, evaluate
from numpy.testing import assert_allclose

from comitia.engines.composed import ComposedPotential, PotentialSettings
from comitia.errors import ModelError, SettingsError
from comitia.potential.mixing import UncertaintyLimit, combine_members, limit_uncertainty
from comitia.protocol.service import ForceService
from comitia.settings import convert
from comitia.units import HARTREE

ATOMS = systems.structures(SPECIES)["triclinic"]
STIFFNESS = 7.0  # 1/eV


def limited(below=0.5, core=False, baseline=False, apart=False, **options):
    """A potential whose limit lies at a fraction of the uncertainty of `ATOMS`; `apart`: of single models."""
    corrections, base = committee(core=core)
    if baseline:
        options["baseline_uncertainty"] = 2.0
    if apart:
        sources = [systems.potential(SPECIES, seed=seed) for seed in range(4)]
    else:
        sources, options["committee"] = [corrections], "corrections"
    base = base if baseline else None
    free = ComposedPotential(sources, PotentialSettings(**options), base)
    sigma = evaluate(free, ATOMS).energy_uncertainties[0]
    options["uncertainty_limit"] = UncertaintyLimit(below * sigma, STIFFNESS)
    return ComposedPotential(sources, PotentialSettings(**options), base), free, sigma


KINDS = [
    {},
    {"core": True},
    {"core": True, "alpha": 1.6},
    {"alpha": 1.6, "weights": [3.0, 1.0, 0.5, 0.5]},
    {"drive": 2, "alpha": 1.3},
    {"baseline": True},
    {"baseline": True, "core": True},
    {"apart": True},
    {"below": 0.0},
]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_forces_and_virial_are_the_gradient(kind):
    potential, free, sigma = limited(**kind)
    found, unlimited = evaluate(potential, ATOMS), evaluate(free, ATOMS)
    bias = 0.5 * STIFFNESS * ((1 - kind.get("below", 0.5)) * sigma) ** 2
    assert bias > 0.01
    assert found.uncertainty_biases[0] == pytest.approx(bias, rel=1e-9)
    assert found.energies[0] == pytest.approx(unlimited.energies[0] + bias, rel=1e-10)
    assert_allclose(found.member_energies, unlimited.member_energies, rtol=1e-10)
    assert np.abs(found.forces - unlimited.forces).max() > 1e-3
    check_gradient(potential, ATOMS, found)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_one_reverse_pass_equals_the_forces_of_all_members(kind):
    potential, *_ = limited(**kind)
    one, all_of_them = evaluate(potential, ATOMS), evaluate(potential, ATOMS, members=True)
    assert_allclose(one.forces, all_of_them.forces, rtol=0, atol=1e-10 * np.abs(one.forces).max())
    assert_allclose(one.virials, all_of_them.virials, rtol=0, atol=1e-10 * np.abs(one.virials).max())
    assert_allclose(one.energies, all_of_them.energies, rtol=1e-11)
    assert_allclose(one.member_energies, all_of_them.member_energies, rtol=1e-11)


@pytest.mark.parametrize("core", [False, True])
def test_below_the_limit_nothing_changes(core):
    potential, free, _ = limited(below=1.01, core=core)
    found, unlimited = evaluate(potential, ATOMS), evaluate(free, ATOMS)
    assert found.uncertainty_biases[0] == 0
    assert np.array_equal(found.forces, unlimited.forces)
    assert np.array_equal(found.energies, unlimited.energies)


def test_the_bias_begins_smoothly():
    """Energy and force are continuous where the limit is passed."""
    members = np.linspace(-1, 1, 4)[None] * np.array([[0.999], [1.0], [1.001]])
    free = combine_members(members)
    sigma = free.uncertainties[1]
    found = limit_uncertainty(free, UncertaintyLimit(sigma, STIFFNESS))
    assert_allclose(found.biases, [0, 0, 0.5 * STIFFNESS * (1e-3 * sigma) ** 2], rtol=1e-9, atol=1e-15)
    assert_allclose(found.coefficients[:2], free.coefficients[:2], rtol=1e-12)
    assert np.abs(found.coefficients[2] - free.coefficients[2]).max() < 2 * STIFFNESS * 1e-3 * sigma


@pytest.mark.parametrize("size", [0.0, 1e-300, 1e-12])
def test_members_that_agree_give_no_bias(size):
    """The coefficients stay finite as the uncertainty vanishes, also without any threshold."""
    members = 3.0 + size * np.linspace(-1, 1, 4)[None]
    found = limit_uncertainty(combine_members(members), UncertaintyLimit(0.0, STIFFNESS))
    assert np.all(np.isfinite(found.coefficients))
    assert_allclose(found.coefficients, 0.25, atol=10 * STIFFNESS * size + 1e-15)
    assert_allclose(found.biases, 0, atol=1e-20)


def test_a_repulsive_core_counts_once():
    """Atoms close together, where the core is large: one reverse pass against all members."""
    atoms = ATOMS.copy()
    atoms.positions[1] = atoms.positions[0] + [0.9, 0.2, 0.1]
    for kind in ({"core": True}, {"core": True, "drive": 1}):
        potential, free, _ = limited(**kind)
        for each in (potential, free):
            one, all_of_them = evaluate(each, atoms), evaluate(each, atoms, members=True)
            scale = np.abs(one.forces).max()
            assert_allclose(one.forces, all_of_them.forces, rtol=0, atol=1e-10 * scale)
            assert_allclose(one.energies, all_of_them.energies, rtol=1e-11)
            assert_allclose(one.member_energies, all_of_them.member_energies, rtol=1e-10)


def test_the_bias_is_sent_and_the_energy_contains_it():
    potential, free, _ = limited()
    service = ForceService(potential, ATOMS)
    found, unlimited = evaluate(potential, ATOMS), evaluate(free, ATOMS)
    energies, *_, extras = service._results(found)
    sent = json.loads(extras[0])
    mean = np.mean(sent["committee_pot"])
    assert mean * HARTREE == pytest.approx(unlimited.energies[0], rel=1e-12)
    assert energies[0] - mean == pytest.approx(sent["uncertainty_bias"], rel=1e-7)
    assert not potential.drives_with_mean


def test_pseudo_members_do_not_stand_for_it():
    potential, *_ = limited()
    with pytest.raises(ModelError, match="uncertainty_limit"):
        ForceService(potential, ATOMS, extras=["pseudo_members"])


@pytest.mark.parametrize(("sigma", "stiffness"), [(-0.1, 1.0), (0.1, 0.0), (0.1, -1.0), (float("nan"), 1.0)])
def test_a_limit_that_makes_no_sense_is_refused(sigma, stiffness):
    corrections, _ = committee()
    settings = PotentialSettings(committee="x", uncertainty_limit=UncertaintyLimit(sigma, stiffness))
    with pytest.raises(SettingsError, match="uncertainty_limit"):
        ComposedPotential([corrections], settings)


def test_the_template_of_inputs_shows_it():
    text = (Path(__file__).resolve().parents[2] / "inputs" / "potential.yaml").read_text()
    (line,) = (line.removeprefix("# ") for line in text.splitlines() if line.startswith("# uncertainty_limit:"))
    assert convert(yaml.safe_load(line), PotentialSettings, "the comment").uncertainty_limit == UncertaintyLimit(
        0.3, 10
    )


def test_a_limit_needs_a_committee():
    settings = PotentialSettings(committee="x", uncertainty_limit=UncertaintyLimit(0.1, 1.0))
    with pytest.raises(SettingsError, match="needs a committee"):
        ComposedPotential([systems.potential(SPECIES, n_members=1)], settings)
