"""Neighbour lists that are kept between steps change nothing, and nothing is allocated per step."""

import numpy as np
import pytest
import systems
from numpy.testing import assert_allclose

from comitia.errors import NumericalError, StructureError

N_STEPS = 60


@pytest.fixture(scope="module")
def potential():
    return systems.potential([14, 32], n_members=3, n_max=[4, 3, 2], l_max=[0, 3, 2])


def trajectory(atoms, seed):
    """Positions (n_steps, n_atoms, 3) of a walk that drifts, so that the list must be rebuilt some of the time."""
    rng = np.random.default_rng(seed)
    drift = 0.01 * rng.normal(size=(len(atoms), 3))
    noise = 0.02 * rng.normal(size=(N_STEPS, len(atoms), 3))
    return atoms.positions + drift * np.arange(N_STEPS)[:, None, None] + noise


@pytest.mark.parametrize("name", ["molecule", "slab", "triclinic", "cell below the cutoff", "chain"])
def test_reuse_equals_fresh_evaluation(potential, name):
    atoms = systems.structures(potential.species)[name]
    steps = trajectory(atoms, seed=1)
    evaluator = potential.evaluator(atoms.numbers, atoms.pbc, n_threads=1, skin=0.5)
    for positions in steps:
        found = evaluator.compute(positions[None], atoms.cell.array[None])
        moved = atoms.copy()
        moved.positions = positions
        expected = potential.compute(moved, n_threads=1)
        scale = max(1.0, np.abs(expected.forces).max())
        assert found.energies[0] == pytest.approx(expected.energy, rel=1e-12)
        assert_allclose(found.forces[0], expected.forces, rtol=0, atol=1e-12 * scale)
        assert_allclose(found.virials[0], expected.virial, rtol=0, atol=1e-12 * max(1, np.abs(expected.virial).max()))
        assert_allclose(found.member_energies[0], expected.member_energies, rtol=1e-12)


def test_lists_are_reused_within_the_skin_and_rebuilt_beyond_it(potential):
    atoms = systems.crystal(potential.species, 1, seed=3)
    batch = potential.descriptor.empty_batch([atoms.numbers], [atoms.pbc], skin=0.5)
    cells = atoms.cell.array[None].copy()

    def update(shift):
        positions = atoms.positions.copy()
        positions[0, 0] += shift
        return batch.update(positions, cells)

    assert [update(s) for s in (0.0, 0.1, 0.24, -0.24, 0.26, 0.26, 0.40, 0.0)] == [1, 0, 0, 0, 1, 0, 0, 1]


def test_a_changed_cell_is_seen(potential):
    atoms = systems.structures(potential.species)["triclinic"]
    evaluator = potential.evaluator(atoms.numbers, atoms.pbc, n_threads=1)
    evaluator.compute(atoms.positions[None], atoms.cell.array[None])
    stretched = atoms.copy()
    stretched.set_cell(atoms.cell.array * 1.04, scale_atoms=True)
    found = evaluator.compute(stretched.positions[None], stretched.cell.array[None])
    assert found.energies[0] == pytest.approx(potential.compute(stretched).energy, rel=1e-12)


def test_beads_keep_their_own_lists(potential):
    atoms = systems.structures(potential.species)["triclinic"]
    beads = np.stack([trajectory(atoms, seed)[:20] for seed in range(5)], axis=1)
    cells = np.repeat(atoms.cell.array[None], 5, axis=0)
    evaluator = potential.evaluator(atoms.numbers, atoms.pbc, n_threads=2)
    for step in beads:
        found = evaluator.compute(step, cells)
        for b in range(5):
            moved = atoms.copy()
            moved.positions = step[b]
            expected = potential.compute(moved, n_threads=1)
            assert found.energies[b] == pytest.approx(expected.energy, rel=1e-12)
            assert_allclose(found.forces[b], expected.forces, rtol=0, atol=1e-12 * np.abs(expected.forces).max())


def test_nothing_is_allocated_per_step(potential):
    atoms = systems.crystal(potential.species, 2, seed=4)
    evaluator = potential.evaluator(atoms.numbers, atoms.pbc, n_threads=2)
    rng = np.random.default_rng(5)
    cells = atoms.cell.array[None].copy()

    def step():
        positions = atoms.positions + 0.1 * rng.uniform(-1, 1, atoms.positions.shape)
        evaluator.compute(positions[None], cells)
        return evaluator.batch(positions[None], cells).n_allocations

    counts = [step() for _ in range(30)]
    assert counts[10] > 0
    assert counts[10:] == [counts[10]] * 20


def test_an_unknown_species_is_named(potential):
    with pytest.raises(StructureError, match="Pb"):
        potential.evaluator([14, 82], False).compute(np.array([[[0, 0, 0], [0, 0, 3.0]]]), np.zeros((1, 3, 3)))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_positions_that_are_not_finite_are_refused(potential, value):
    atoms = systems.structures(potential.species)["triclinic"]
    atoms.positions[3, 1] = value
    with pytest.raises(NumericalError, match="atom 3"):
        potential.compute(atoms)
    with pytest.raises(NumericalError, match="atom 3"):
        potential.evaluator(atoms.numbers, atoms.pbc).compute(atoms.positions[None], atoms.cell.array[None])


def test_atoms_in_the_same_place_are_refused(potential):
    atoms = systems.structures(potential.species)["molecule"]
    atoms.positions[1] = atoms.positions[0]
    with pytest.raises((NumericalError, StructureError)):
        potential.compute(atoms)
