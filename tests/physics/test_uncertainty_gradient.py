"""The gradient of the uncertainty is that of the spread of the members, by differences and by their forces."""

import numpy as np
import pytest
import systems
from numpy.testing import assert_allclose

from comitia._core import combine, keep
from comitia.errors import ModelError

SPECIES = [6, 14]
OPTIONS = {
    "orders 1 to 3": {},
    "orders 1 and 2": {"n_max": [4, 3, 0]},
    "order 4": {"n_max": [4, 3, 2, 2], "l_max": [0, 3, 2, 2]},
}
STEP = 1e-4  # Å; of strain 1e-5


def evaluate(potential, structures, n_threads=1, **asked):
    """Predictions of structures of the same atoms, in one batch."""
    evaluator = potential.evaluator(structures[0].numbers, structures[0].pbc, n_threads=n_threads)
    positions = np.array([atoms.positions for atoms in structures])
    cells = np.array([atoms.cell.array for atoms in structures])
    return evaluator.compute(positions, cells, **asked)


def moved(atoms, direction, step):
    """Atoms displaced along a direction (n_atoms, 3)."""
    other = atoms.copy()
    other.positions += step * direction
    return other


def strained(atoms, strain):
    """Atoms and cell under a strain (3, 3)."""
    other = atoms.copy()
    other.set_cell(atoms.cell.array @ (np.eye(3) + strain).T, scale_atoms=False)
    other.positions = atoms.positions @ (np.eye(3) + strain).T
    return other


@pytest.fixture(params=OPTIONS.values(), ids=OPTIONS)
def potential(request):
    return systems.potential(SPECIES, n_members=5, alpha=(1.7, 1.2), **request.param)


@pytest.mark.parametrize("name", ["triclinic", "molecule", "slab"])
def test_gradient_is_the_difference_of_uncertainties(potential, name):
    atoms = systems.structures(SPECIES)[name]
    found = evaluate(potential, [atoms], uncertainty_gradient=True)
    for seed in range(3):
        direction = np.random.default_rng(seed).normal(size=atoms.positions.shape)
        ends = evaluate(potential, [moved(atoms, direction, step) for step in (-STEP, STEP)]).energy_uncertainties
        slope = (ends[1] - ends[0]) / (2 * STEP)
        along = np.sum(found.uncertainty_gradients[0] * direction)
        assert along == pytest.approx(slope, rel=1e-5, abs=1e-6 * np.abs(found.uncertainty_gradients).max())


def test_virial_is_the_difference_of_uncertainties_under_strain(potential):
    atoms = systems.structures(SPECIES)["triclinic"]
    virial = evaluate(potential, [atoms], uncertainty_gradient=True).uncertainty_virials[0]
    for a in range(3):
        for c in range(3):
            strain = np.zeros((3, 3))
            strain[a, c] = strain[c, a] = 0.5e-5 if a != c else 1e-5
            ends = evaluate(potential, [strained(atoms, sign * strain) for sign in (-1, 1)]).energy_uncertainties
            slope = (ends[1] - ends[0]) / 2e-5
            assert -(virial[a, c] + virial[c, a]) / 2 == pytest.approx(slope, rel=1e-5, abs=1e-5 * np.abs(virial).max())


def assert_is_the_combination(found, alone):
    """Of the members' forces, and everything else as without the gradient."""
    deviation = alone.member_energies - alone.energies[:, None]
    n_members = deviation.shape[1]
    scale = deviation / ((n_members - 1) * alone.energy_uncertainties[:, None])
    expected = -np.einsum("sk,skia->sia", scale, alone.member_forces)
    virials = np.einsum("sk,skab->sab", scale, alone.member_virials)
    size = max(1.0, np.abs(alone.member_forces).max(), np.abs(alone.member_virials).max())
    assert_allclose(found.uncertainty_gradients, expected, rtol=0, atol=1e-11 * size)
    assert_allclose(found.uncertainty_virials, virials, rtol=0, atol=1e-11 * size)
    assert_allclose(found.forces, alone.forces, rtol=0, atol=1e-12 * size)
    assert_allclose(found.virials, alone.virials, rtol=0, atol=1e-12 * size)
    assert_allclose(found.energies, alone.energies, rtol=1e-12)
    assert_allclose(found.atomic_energies, alone.atomic_energies, rtol=0, atol=1e-12 * size)
    assert_allclose(found.energy_uncertainties, alone.energy_uncertainties, rtol=1e-9)


@pytest.mark.parametrize("n_threads", [1, 2, 3])
def test_it_is_a_linear_combination_of_member_forces(potential, n_threads):
    atoms = systems.crystal(SPECIES, (2, 1, 1), seed=3)
    found = evaluate(potential, [atoms], n_threads, uncertainty_gradient=True)
    assert_is_the_combination(found, evaluate(potential, [atoms], members=True))
    again = evaluate(potential, [atoms], n_threads, uncertainty_gradient=True)
    assert np.array_equal(found.uncertainty_gradients, again.uncertainty_gradients)


def test_each_structure_of_a_batch_has_weights_of_its_own(potential):
    atoms = systems.structures(SPECIES)["molecule"]
    rng = np.random.default_rng(5)
    beads = [moved(atoms, rng.normal(size=atoms.positions.shape), 0.05) for _ in range(6)]
    found = evaluate(potential, beads, 2, uncertainty_gradient=True, members=True)
    assert_is_the_combination(found, evaluate(potential, beads, members=True))
    assert found.member_forces is not None


def test_compute_gives_it_for_structures_of_any_size(potential):
    structures = [systems.structures(SPECIES)[name] for name in ("triclinic", "molecule")]
    found = potential.compute(structures, members=True, n_threads=2, uncertainty_gradient=True)
    for atoms, one in zip(structures, found, strict=True):
        alone = evaluate(potential, [atoms], uncertainty_gradient=True)
        assert_allclose(one.uncertainty_gradient, alone.uncertainty_gradients[0], rtol=0, atol=1e-11)
        assert_allclose(one.uncertainty_virial, alone.uncertainty_virials[0], rtol=0, atol=1e-11)
        assert_allclose(one.forces, alone.forces[0], rtol=0, atol=1e-11)
        assert one.force_uncertainty.shape == one.forces.shape
    assert potential.compute(structures[0]).uncertainty_gradient is None


def test_what_is_not_kept_is_made_again(potential):
    batch = potential.descriptor.batch([systems.crystal(SPECIES, (2, 1, 1), seed=3)])
    weights = np.ascontiguousarray(potential.member_weights[None, :3])
    core = np.array([1.0, 0.0, 0.5])
    results = []
    for most in (0, 100_000, 2**30):  # nothing, some, everything
        sums = keep(potential.kernel, batch, 1, most)
        results.append({"sums": sums} | combine(potential.kernel, batch, weights, core))
    for name in results[0]:
        for other in results[1:]:
            assert np.array_equal(results[0][name], other[name])


def test_members_that_agree_have_no_gradient():
    potential = systems.potential(SPECIES, n_members=1)
    same = type(potential)(potential.descriptor, np.repeat(potential.weights, 4, axis=0), potential.reference_energies)
    atoms = systems.structures(SPECIES)["triclinic"]
    found = evaluate(same, [atoms], uncertainty_gradient=True)
    assert found.energy_uncertainties[0] == pytest.approx(0, abs=1e-12)
    assert np.all(np.isfinite(found.uncertainty_gradients))
    assert np.abs(found.uncertainty_gradients).max() < 1e-10


def test_one_member_has_no_uncertainty():
    with pytest.raises(ModelError, match="one member has no uncertainty"):
        systems.potential(SPECIES, n_members=1).compute(
            systems.structures(SPECIES)["molecule"], uncertainty_gradient=True
        )


def test_densities_of_other_positions_are_refused(potential):
    atoms = systems.structures(SPECIES)["triclinic"]
    batch = potential.descriptor.batch([atoms])
    weights, core = np.ascontiguousarray(potential.member_weights[None, :1]), np.ones(1)
    with pytest.raises(ValueError, match="call keep first"):
        combine(potential.kernel, batch, weights, core)
    keep(potential.kernel, batch)
    batch.update(atoms.positions + 0.01, np.array([atoms.cell.array]))
    with pytest.raises(ValueError, match="call keep first"):
        combine(potential.kernel, batch, weights, core)


def test_no_memory_is_taken_once_the_size_is_known(potential):
    atoms = systems.crystal(SPECIES, (2, 1, 1), seed=4)
    evaluator = potential.evaluator(atoms.numbers, atoms.pbc, n_threads=2)
    positions, cells = atoms.positions[None], atoms.cell.array[None]
    evaluator.compute(positions, cells, uncertainty_gradient=True)
    batch = evaluator.batch(positions, cells)
    before = batch.n_allocations
    for _ in range(3):
        evaluator.compute(positions, cells, uncertainty_gradient=True)
    assert batch.n_allocations == before
