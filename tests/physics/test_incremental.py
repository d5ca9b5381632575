"""Trials of Monte Carlo, evaluated from what they change, equal full evaluations, whatever happened before."""

import logging

import numpy as np
import pytest
from ase import Atoms
from models import crystal, small_model

from comitia.density import Descriptor
from comitia.errors import ComitiaError, NumericalError
from comitia.potential import ZBL, Potential, incremental

TOLERANCE = 1e-12  # relative to the largest number of its kind
SPECIES = (18, 36)
WHAT = {"swap": 6, "move": 4, "jump": 2, "wrap": 2, "again": 1, "cell": 1, "dynamics": 1}  # how often of 17
KINDS = ["cubic", "triclinic", "slab", "wire", "cluster"]


def structure(kind, seed=0):
    """256 atoms of two species, some of them outside of the cell."""
    rng = np.random.default_rng(seed)
    atoms = crystal(SPECIES, (4, 4, 4), seed=seed)
    atoms.numbers = rng.permutation(atoms.numbers)
    if kind == "triclinic":
        atoms.set_cell(atoms.cell.array @ [[1, 0, 0], [0.2, 1, 0], [-0.15, 0.1, 0.97]], scale_atoms=True)
    atoms.pbc = {"slab": [True, True, False], "wire": [False, False, True], "cluster": False}.get(kind, True)
    atoms.positions += atoms.pbc * rng.integers(-2, 3, (len(atoms), 3)) @ atoms.cell.array
    return atoms


def general_model(orders, n_members, core=False, seed=0):
    """Random weights on features of all orders, or of orders 1 and 2 alone, which have kernels of their own."""
    basis = {"n_max": [6, 4, 3], "l_max": [0, 3, 2]} if orders == 3 else {"n_max": [6, 5, 0], "l_max": [0, 4, 0]}
    descriptor = Descriptor.build(SPECIES, 4.8, max_features=150, **basis)
    weights = np.random.default_rng(seed).normal(scale=0.1, size=(n_members, descriptor.width))
    zbl = ZBL(SPECIES, np.full((2, 2), 2.5), np.full((2, 2), 4.0)) if core else None
    return Potential(descriptor, weights, [-1.0, -2.0], core=zbl)


class Walker:
    """One replica: accepts or rejects at random, and changes its cell or goes on by dynamics now and then."""

    def __init__(self, atoms, rng):
        self.positions, self.cell, self.pbc = atoms.positions.copy(), atoms.cell.array.copy(), atoms.pbc
        self.numbers, self.rng = atoms.numbers, rng

    def trial(self):
        """Positions and cell of the next request."""
        rng, positions, cell = self.rng, self.positions.copy(), self.cell
        what = rng.choice(list(WHAT), p=np.array(list(WHAT.values())) / 17)
        chosen = rng.choice(len(positions), rng.integers(1, 4), replace=False)
        if what == "swap":
            pair = [rng.choice(np.flatnonzero(self.numbers == z)) for z in SPECIES]
            positions[pair] = positions[pair[::-1]]
        elif what == "move":
            positions[chosen] += rng.normal(scale=0.1, size=(len(chosen), 3))
        elif what == "jump":  # to somewhere near another atom
            positions[chosen[0]] = positions[chosen[-1]] + rng.uniform(1.8, 2.5) * np.array([0.6, 0.0, 0.8])
        elif what == "wrap":
            positions[chosen] += self.pbc * rng.integers(-1, 2, (len(chosen), 3)) @ cell
        elif what == "cell":
            strain = np.eye(3) + rng.normal(scale=0.01, size=(3, 3))
            positions, cell = positions @ strain, cell @ strain
        elif what == "dynamics":
            positions += rng.normal(scale=0.01, size=positions.shape)
        if what in ("cell", "dynamics") or rng.random() < 0.4:
            self.positions, self.cell = positions, cell
        return positions, cell


def largest_difference(found, full):
    """Relative to the largest number of each kind."""
    names = ["energies", "forces", "virials", "atomic_energies"]
    names += ["member_energies", "energy_uncertainties"] if full.member_energies is not None else []
    differences = {}
    for name in names:
        one, other = getattr(found, name), getattr(full, name)
        scale = np.abs(full.member_energies if name == "energy_uncertainties" else other).max()
        differences[name] = np.abs(one - other).max() / scale
    return max(differences.values())


def walk(potential, kind, n_requests, n_replicas, seed, n_threads=1):
    """Largest difference between trials and full evaluations, and how many were not evaluated in full."""
    rng = np.random.default_rng(seed)
    atoms = structure(kind, seed)
    walkers = [Walker(atoms, rng) for _ in range(n_replicas)]
    evaluator = potential.evaluator(atoms.numbers, atoms.pbc, n_threads)
    in_full = potential.evaluator(atoms.numbers, atoms.pbc, n_threads, incremental=False)
    largest = 0.0
    for _ in range(n_requests):
        positions, cell = rng.choice(walkers).trial()
        asked = positions[None].copy(), cell[None].copy()
        found = evaluator.compute(*asked)
        asked[0][:] = np.nan  # whoever asks may use the memory again
        largest = max(largest, largest_difference(found, in_full.compute(positions[None], cell[None])))
        for array in (found.forces, found.virials, found.atomic_energies):
            array[:] = np.nan  # and that of the results too
    return largest, evaluator._trials.n_trials


@pytest.mark.parametrize("kind", KINDS)
def test_trials_equal_full_evaluations(kind):
    largest, n_trials = walk(small_model(SPECIES), kind, 120, 3, seed=KINDS.index(kind))
    print(f"{kind}: {n_trials} of 120 requests from what they change, largest relative difference {largest:.1e}")
    assert largest < TOLERANCE
    assert n_trials > 60


@pytest.mark.parametrize(
    ("orders", "n_members", "core", "n_threads"), [(3, 1, False, 1), (2, 8, False, 2), (3, 3, True, 2), (2, 1, True, 1)]
)
def test_trials_of_any_model_equal_full_evaluations(orders, n_members, core, n_threads):
    largest, n_trials = walk(general_model(orders, n_members, core), "triclinic", 40, 2, 11, n_threads)
    assert largest < TOLERANCE
    assert n_trials > 15


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_many_trials_equal_full_evaluations(kind):
    largest, n_trials = walk(small_model(SPECIES), kind, 4000, 5, seed=100 + KINDS.index(kind))
    print(f"{kind}: {n_trials} of 4000 requests from what they change, largest relative difference {largest:.1e}")
    assert largest < TOLERANCE


def swapped(atoms, rng):
    """Positions after two atoms of unlike species changed places."""
    positions = atoms.positions.copy()
    pair = [rng.choice(np.flatnonzero(atoms.numbers == z)) for z in SPECIES]
    positions[pair] = positions[pair[::-1]]
    return positions


def test_a_trial_touches_what_is_near():
    atoms, potential = structure("cubic"), small_model(SPECIES)
    evaluator = potential.evaluator(atoms.numbers, atoms.pbc, 1)
    cells = atoms.cell.array[None]
    evaluator.compute(atoms.positions[None], cells)
    positions = swapped(atoms, np.random.default_rng(1))
    moved = np.flatnonzero((positions != atoms.positions).any(axis=1))
    evaluator.compute(positions[None], cells)
    both = [Atoms(atoms.numbers, positions=r, cell=atoms.cell, pbc=True) for r in (atoms.positions, positions)]
    near = [one.get_distances(int(m), range(len(one)), mic=True) < potential.cutoff for one in both for m in moved]
    assert evaluator._trials.n_touched == np.count_nonzero(np.any(near, axis=0))


def test_a_rejection_leaves_the_bits_of_the_base():
    atoms, rng = structure("cubic"), np.random.default_rng(3)
    evaluator = small_model(SPECIES).evaluator(atoms.numbers, atoms.pbc, 1)
    cells = atoms.cell.array[None]
    before = evaluator.compute(atoms.positions[None], cells)
    for _ in range(5):
        evaluator.compute(swapped(atoms, rng)[None], cells)
    after = evaluator.compute(atoms.positions[None], cells)
    assert evaluator._trials.n_trials == 6
    for name in ("energies", "forces", "virials", "member_energies"):
        assert np.array_equal(getattr(after, name), getattr(before, name)), name


def test_a_batch_of_trials_is_evaluated_from_what_they_change():
    atoms, rng = structure("cubic"), np.random.default_rng(4)
    potential = small_model(SPECIES)
    evaluator = potential.evaluator(atoms.numbers, atoms.pbc, 1)
    cells = np.array([atoms.cell.array] * 3)
    evaluator.compute(atoms.positions[None] + rng.normal(scale=1e-3, size=(3, 1, 1)), cells)
    base = atoms.positions[None] + rng.normal(scale=0.01, size=(3, len(atoms), 3))
    evaluator.compute(base, cells)
    trial = base.copy()
    trial[:, [0, 1]] = base[:, [1, 0]]
    found = evaluator.compute(trial, cells)
    assert evaluator._trials.n_trials == 3
    full = potential.evaluator(atoms.numbers, atoms.pbc, 1, incremental=False).compute(trial, cells)
    assert largest_difference(found, full) < TOLERANCE


def test_a_check_says_that_trials_equal_full_evaluations(monkeypatch, caplog):
    monkeypatch.setattr(incremental, "CHECK_EVERY", 10)
    atoms, rng = structure("slab"), np.random.default_rng(5)
    evaluator = small_model(SPECIES).evaluator(atoms.numbers, atoms.pbc, 1)
    with caplog.at_level(logging.INFO, "comitia"):
        for _ in range(31):
            evaluator.compute(atoms.positions[None], atoms.cell.array[None])
            atoms.positions = swapped(atoms, rng)
    said = [record.getMessage() for record in caplog.records if "a full evaluation differs by" in record.getMessage()]
    assert [int(one.split()[0]) for one in said] == [10, 20, 30]
    assert evaluator._trials.largest_difference < TOLERANCE


@pytest.mark.parametrize("which", ["forces", "sums", "virials"])
def test_a_check_finds_results_that_were_corrupted(monkeypatch, which):
    monkeypatch.setattr(incremental, "CHECK_EVERY", 10)
    atoms, rng = structure("cubic"), np.random.default_rng(6)
    evaluator = small_model(SPECIES).evaluator(atoms.numbers, atoms.pbc, 1)
    cells = atoms.cell.array[None]
    evaluate = evaluator._evaluate

    def corrupted(positions, cells):
        found = evaluate(positions, cells)
        found[which].flat[7] += 1e-7 * np.abs(found[which]).max()
        return found

    monkeypatch.setattr(evaluator, "_evaluate", corrupted)
    evaluator.compute(atoms.positions[None], cells)
    monkeypatch.setattr(evaluator, "_evaluate", evaluate)
    for _ in range(9):
        evaluator.compute(swapped(atoms, rng)[None], cells)
    with pytest.raises(NumericalError, match=r"trial 10 .* differs by .* last 10 trials"):
        evaluator.compute(swapped(atoms, rng)[None], cells)
    good = evaluator.compute(atoms.positions[None], cells)  # and nothing of it is left
    again = evaluator.compute(swapped(atoms, rng)[None], cells)
    assert np.isfinite(good.energies).all()
    assert np.isfinite(again.energies).all()


def test_bits_without_it_do_not_depend_on_what_came_before():
    atoms, rng = structure("triclinic"), np.random.default_rng(7)
    potential, cells = small_model(SPECIES), atoms.cell.array[None]
    one = potential.evaluator(atoms.numbers, atoms.pbc, 1, incremental=False)
    for _ in range(4):
        positions = swapped(atoms, rng)[None]
        found = one.compute(positions, cells)
        fresh = potential.evaluator(atoms.numbers, atoms.pbc, 1).compute(positions, cells)
        for name in ("energies", "forces", "virials", "member_energies"):
            assert np.array_equal(getattr(found, name), getattr(fresh, name)), name
        atoms.positions = positions[0]


def test_the_same_positions_again_are_evaluated_again_where_nothing_was_tried():
    atoms = structure("cubic")
    evaluator = small_model(SPECIES).evaluator(atoms.numbers, atoms.pbc, 1)
    for _ in range(3):
        evaluator.compute(atoms.positions[None], atoms.cell.array[None])
    assert evaluator._trials.n_trials == 0


def test_atoms_in_one_place_are_refused_and_forgotten():
    atoms, potential = structure("cubic"), small_model(SPECIES)
    evaluator = potential.evaluator(atoms.numbers, atoms.pbc, 1)
    cells, rng = atoms.cell.array[None], np.random.default_rng(8)
    evaluator.compute(atoms.positions[None], cells)
    for place in (atoms.positions[9], [np.nan, 0, 0], [1e300, 0, 0]):
        bad = atoms.positions.copy()
        bad[4] = place
        with pytest.raises(ComitiaError, match=r"atom 4|not finite"):
            evaluator.compute(bad[None], cells)
    positions = swapped(atoms, rng)[None]
    found = evaluator.compute(positions, cells)
    assert evaluator._trials.n_trials == 1
    full = potential.evaluator(atoms.numbers, atoms.pbc, 1, incremental=False).compute(positions, cells)
    assert largest_difference(found, full) < TOLERANCE


def test_memory_is_taken_at_the_first_trials_only():
    atoms, rng = structure("cubic"), np.random.default_rng(9)
    evaluator = small_model(SPECIES).evaluator(atoms.numbers, atoms.pbc, 1)
    counts = []
    for n_trials in (100, 200):
        for _ in range(n_trials):
            evaluator.compute(atoms.positions[None], atoms.cell.array[None])
            atoms.positions = swapped(atoms, rng)
        counts.append(evaluator._trials._known.n_allocations)
    assert counts[0] == counts[1]
