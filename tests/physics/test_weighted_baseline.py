"""The weighted baseline and other combinations: gradients of their energy, and what i-PI makes of the members."""

from pathlib import Path

import numpy as np
import pytest
import systems
import yaml
from combinations import SPECIES, check_gradient, committee, evaluate
from numpy.testing import assert_allclose

from comitia.engines.composed import ComposedPotential, ComposedPredictions, PotentialSettings
from comitia.errors import ModelError, SettingsError
from comitia.potential.mixing import are_pseudo_members, combine_members, pseudo_members
from comitia.protocol.service import ForceService
from comitia.settings import convert, load


def composed(core=False, **options):
    corrections, baseline = committee(core=core)
    settings = PotentialSettings(committee="corrections", baseline_uncertainty=2.0, **options)
    return ComposedPotential([corrections], settings, baseline), corrections, baseline


@pytest.mark.parametrize("core", [False, True])
@pytest.mark.parametrize("alpha", [1.0, 1.6])
def test_forces_and_virial_are_the_gradient(core, alpha):
    potential, *_ = composed(core, alpha=alpha)
    atoms = systems.structures(SPECIES)["triclinic"]
    found = evaluate(potential, atoms)
    assert 0.05 < found.mixing[0] < 0.95  # the weight and its derivative both count
    check_gradient(potential, atoms, found)


@pytest.mark.parametrize("options", [{}, {"alpha": 1.7}, {"weights": [3.0, 1.0, 0.5, 0.5]}])
def test_one_reverse_pass_equals_the_forces_of_all_members(options):
    potential, *_ = composed(**options)
    for atoms in list(systems.structures(SPECIES).values())[:6]:
        one, all_of_them = evaluate(potential, atoms), evaluate(potential, atoms, members=True)
        assert_allclose(one.energies, all_of_them.energies, rtol=1e-11)
        assert_allclose(one.forces, all_of_them.forces, atol=1e-9 * max(1, np.abs(one.forces).max()))
        assert_allclose(one.virials, all_of_them.virials, atol=1e-9 * max(1, np.abs(one.virials).max()))


def of_i_pi(energies, forces, virials, square):
    """i-PI's own sums (its `FFCommittee.gather`) over the members it is sent: energy, forces, virial, variance."""
    mean, variance, count = energies.mean(), energies.var(ddof=1), len(energies) - 1
    scale, slope = square / (square + variance), -2 * square * mean / (square + variance) ** 2
    combined = [mean * scale]
    for values in (forces, virials):
        along = np.tensordot(energies - mean, values - values.mean(axis=0), 1) / count
        combined.append(scale * values.mean(axis=0) + slope * along)
    return *combined, variance


def test_it_is_the_weighted_baseline_of_i_pi():
    potential, corrections, baseline = composed()
    atoms = systems.structures(SPECIES)["bulk"]
    found, members, base = evaluate(potential, atoms), corrections.compute(atoms, members=True), baseline.compute(atoms)
    reference = corrections.reference_energy(atoms.numbers)  # a constant, which goes with the baseline
    given = members.member_energies - reference, members.member_forces, members.member_virials
    energy, forces, virial, variance = of_i_pi(*given, square=2.0**2)
    assert_allclose(found.energies[0], base.energy + reference + energy, rtol=1e-12)
    assert_allclose(found.forces[0], base.forces + forces, atol=1e-8)
    assert_allclose(found.virials[0], base.virial + virial, atol=1e-8)
    assert_allclose(found.mixing[0], 2.0**2 / (2.0**2 + variance), rtol=1e-12)
    assert_allclose(found.member_energies[0], given[0], rtol=1e-12)


@pytest.mark.parametrize("alpha", [1.0, 1.6])
@pytest.mark.parametrize("foreign", [False, True])
def test_two_pseudo_members_stand_for_all(foreign, alpha):
    """Mean, variance and the gradients of both, all that i-PI takes, from two members instead of all."""
    atoms = systems.structures(SPECIES)["triclinic"]
    if foreign:  # members of any kind, from the forces of all
        sources = [systems.potential(SPECIES, seed=seed) for seed in (1, 2, 3)]
        potential = ComposedPotential(sources, PotentialSettings(alpha=alpha))
    else:
        potential = systems.potential(SPECIES, seed=3, n_members=5, with_core=True, alpha=(alpha, 1.0))
    members = evaluate(potential, atoms, members=True)
    pair = pseudo_members(evaluate(potential, atoms, uncertainty_gradient=True))
    assert pair.member_forces.shape == (1, 2, len(atoms), 3)
    assert_allclose(pair.all_member_energies, members.member_energies, rtol=1e-13)
    given = [members.member_energies[0], members.member_forces[0], members.member_virials[0]]
    for square in (0.1, 10.0):
        expected = of_i_pi(*given, square)
        found = of_i_pi(pair.member_energies[0], pair.member_forces[0], pair.member_virials[0], square)
        for value, other in zip(found, expected, strict=True):
            assert_allclose(value, other, rtol=1e-10, atol=1e-8)


def test_pseudo_members_of_a_certain_committee_are_its_mean():
    model = systems.potential(SPECIES, seed=3, n_members=3)
    model.weights[:] = model.weights[0]
    atoms = systems.structures(SPECIES)["bulk"]
    found = pseudo_members(evaluate(model, atoms, uncertainty_gradient=True))
    for values, mean in (
        (found.member_energies, found.energies),
        (found.member_forces, found.forces),
        (found.member_virials, found.virials),
    ):
        assert_allclose(values, np.repeat(mean[:, None], 2, axis=1), rtol=1e-12, atol=1e-12)


def test_pseudo_members_are_known_again_and_members_are_not_taken_for_them():
    rng = np.random.default_rng(1)
    sigma = np.abs(rng.normal(0.05, 0.01, 40))  # eV
    zeros = np.zeros((40, 1, 3))
    predictions = ComposedPredictions(
        -450 + rng.normal(size=40), zeros, zeros, np.zeros((40, 8)), sigma,
        uncertainty_gradients=zeros, uncertainty_virials=zeros,
    )  # fmt: skip
    members = pseudo_members(predictions).member_energies
    assert_allclose(members.std(axis=1, ddof=1), sigma, rtol=1e-10)
    assert are_pseudo_members(members)
    assert are_pseudo_members(members + 440.0)  # with an offset
    assert are_pseudo_members(np.round(members, 6))
    assert not are_pseudo_members(members[:1])
    for mean in (0.0, 0.05, 1.0):  # members that cross, or never do
        real = np.array([-450.0, -450.0 + mean]) + 0.02 * rng.normal(size=(40, 2))
        assert not are_pseudo_members(real)


def test_a_batch_is_its_structures_one_by_one():
    potential, *_ = composed()
    atoms = systems.structures(SPECIES)["triclinic"]
    rng = np.random.default_rng(0)
    positions = atoms.positions + 0.05 * rng.normal(size=(3, len(atoms), 3))
    cells = np.repeat(atoms.cell.array[None], 3, axis=0)
    evaluator = potential.evaluator(atoms.numbers, atoms.pbc, 1)
    together = evaluator.compute(positions, cells)
    for s in range(3):
        alone = evaluator.compute(positions[s : s + 1], cells[s : s + 1])
        assert_allclose(together.forces[s], alone.forces[0], atol=1e-10)
        assert_allclose(together.energies[s], alone.energies[0], rtol=1e-12)


def test_pseudo_members_of_what_has_a_baseline_of_its_own_are_refused():
    atoms = systems.structures(SPECIES)["bulk"]
    corrections, _ = committee()
    member = ComposedPotential([corrections], PotentialSettings(committee="x", drive=1))
    for potential in (composed()[0], member):
        with pytest.raises(ModelError, match="leave out `drive` and `baseline`"):
            ForceService(potential, atoms, extras=("pseudo_members",))


def test_a_member_drives():
    corrections, _ = committee()
    potential = ComposedPotential([corrections], PotentialSettings(committee="x", drive=2, alpha=1.3))
    atoms = systems.structures(SPECIES)["bulk"]
    found, members = evaluate(potential, atoms), corrections.compute(atoms, members=True)
    mean = members.member_energies.mean()
    assert_allclose(found.energies[0], mean + 1.3 * (members.member_energies[2] - mean), rtol=1e-12)
    mean = members.member_forces.mean(axis=0)
    assert_allclose(found.forces[0], mean + 1.3 * (members.member_forces[2] - mean), atol=1e-10)
    assert not potential.drives_with_mean


def test_the_mean_is_that_of_the_model():
    corrections, _ = committee()
    potential = ComposedPotential([corrections], PotentialSettings(committee="x"))
    atoms = systems.structures(SPECIES)["bulk"]
    found, expected = evaluate(potential, atoms), corrections.compute(atoms)
    assert_allclose(found.energies[0], expected.energy, rtol=1e-12)
    assert_allclose(found.forces[0], expected.forces, atol=1e-10)
    assert_allclose(found.energy_uncertainties[0], expected.energy_uncertainty, rtol=1e-10)
    assert potential.drives_with_mean


def test_members_of_any_kind_are_a_committee():
    first, second = systems.potential(SPECIES, seed=1), systems.potential(SPECIES, seed=2)
    settings = PotentialSettings(alpha=1.5, weights=[1.0, 3.0])
    potential = ComposedPotential([first, second], settings)
    atoms = systems.structures(SPECIES)["slab"]
    found, one, two = evaluate(potential, atoms, members=True), first.compute(atoms), second.compute(atoms)
    mean = 0.25 * one.energy + 0.75 * two.energy
    assert_allclose(found.energies[0], mean, rtol=1e-12)
    assert_allclose(found.member_energies[0], mean + 1.5 * (np.array([one.energy, two.energy]) - mean), rtol=1e-12)
    assert_allclose(found.forces[0], 0.25 * one.forces + 0.75 * two.forces, atol=1e-11)
    assert_allclose(found.energy_uncertainties[0], 1.5 * np.sqrt(2 * 0.25 * 0.75) * abs(one.energy - two.energy))


def test_forces_have_the_uncertainty_of_their_committee():
    """A model's own calibration, rescaled; and the spread of members of any kind, weighted like the energies."""
    atoms = systems.structures(SPECIES)["bulk"]
    model = systems.potential(SPECIES, seed=3, n_members=5, alpha=(1.3, 1.7))
    potential = ComposedPotential([model], PotentialSettings(committee="x"))
    found = potential.force_uncertainty(evaluate(potential, atoms, members=True).member_forces[0])
    assert_allclose(found, model.compute(atoms, members=True).force_uncertainty, atol=1e-10)
    sources = [systems.potential(SPECIES, seed=seed) for seed in (1, 2, 3)]
    for weights in ([1.0, 1.0, 1.0], [0.5, 0.3, 0.2]):
        potential = ComposedPotential(sources, PotentialSettings(alpha=1.4, weights=weights))
        found = potential.force_uncertainty(evaluate(potential, atoms, members=True).member_forces[0])
        f, p = np.array([source.compute(atoms).forces for source in sources]), np.array(weights) / sum(weights)
        variance = 1.4**2 * sum(p[k] * (f[k] - np.tensordot(p, f, 1)) ** 2 for k in range(3)) * 3 / 2
        assert_allclose(found, np.sqrt(variance), rtol=1e-10)


def test_it_computes_atoms_and_calculates_as_a_model_does():
    """`compute` and the ASE calculator of a composed potential say what its evaluator does."""
    potential, *_ = composed()
    structures = [systems.structures(SPECIES)[name] for name in ("bulk", "molecule")]
    for atoms, found in zip(structures, potential.compute(structures, members=True), strict=True):
        expected = evaluate(potential, atoms, members=True)
        assert_allclose(found.energy, expected.energies[0], rtol=1e-14)
        assert_allclose(found.forces, expected.forces[0], atol=1e-12)
        assert_allclose(found.force_uncertainty, potential.force_uncertainty(expected.member_forces[0]), rtol=1e-12)
        atoms = atoms.copy()
        atoms.calc = potential.calculator(n_threads=1)
        assert_allclose(atoms.get_potential_energy(), found.energy, rtol=1e-14)
        assert_allclose(atoms.calc.get_property("force_uncertainty", atoms), found.force_uncertainty, rtol=1e-12)
        if atoms.cell.rank == 3:
            assert_allclose(atoms.get_stress(voigt=False), found.stress, atol=1e-12)


def test_a_certain_committee_is_the_whole_correction():
    """Members that agree leave w = 1 and no derivative of it."""
    found = combine_members(np.full((2, 3), -4.0), baseline_uncertainty=1.0)
    assert_allclose(found.mixing, 1.0)
    assert_allclose(found.energies, -4.0)
    assert_allclose(found.coefficients, 1 / 3)


def test_the_template_of_inputs_is_what_is_read():
    path = Path(__file__).resolve().parents[2] / "inputs" / "potential.yaml"
    settings = load(path, PotentialSettings)
    assert (settings.committee, settings.baseline_uncertainty) == ("corrections.safetensors", 0.5)
    shown = "\n".join(
        line[2:] for line in path.read_text().splitlines() if line.startswith(("# members", "#   ", "#     "))
    )
    found = convert(yaml.safe_load(shown), PotentialSettings, "the comments")
    assert [source.workers for source in found.members] == [None, None, "unix:espresso", "lammps:in.sw"]


def test_what_cannot_be_composed_is_refused():
    corrections, baseline = committee()
    total = systems.potential(SPECIES, n_members=3)
    with pytest.raises(ModelError, match="model of total energies"):
        ComposedPotential([total], PotentialSettings(committee="x", baseline_uncertainty=1.0), baseline)
    for options, sentence in (
        ({"weights": [1.0]}, "weights has 1 numbers, there are 4 members"),
        ({"weights": [1.0, -1.0, 1.0, 1.0]}, "must not be negative"),
        ({"alpha": 0.0}, "alpha is 0; it must be positive"),
        ({"drive": 4}, "drive is 4; give mean, or a member from 0 to 3"),
        ({"drive": "best"}, "drive is 'best'"),
        ({"baseline_uncertainty": 1.0}, "belong together"),
    ):
        with pytest.raises(SettingsError, match=sentence):
            ComposedPotential([corrections], PotentialSettings(committee="x", **options))
