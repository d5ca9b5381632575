"""The neighbour list, pair by pair against vesin, an independent library."""

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from vesin import NeighborList

from comitia._core import NeighbourList
from comitia.errors import NumericalError, StructureError

BLUR = 1e-9  # Å: a pair this close to the cutoff may be in one list and not in the other


def pairs_of(neighbours):
    """i, j and shift of every pair, in the order of the list."""
    i = np.repeat(np.arange(neighbours.n_atoms), np.diff(neighbours.start))
    return np.column_stack([i, neighbours.neighbour, neighbours.shift])


def distances(pairs, positions, cell):
    """|r_j - r_i + shift @ cell| of every pair, Å."""
    i, j, shift = pairs[:, 0], pairs[:, 1], pairs[:, 2:]
    return np.linalg.norm(positions[j] - positions[i] + shift @ cell, axis=1)


def vesin_pairs(cutoff, positions, cell, pbc):
    """The same columns from vesin, sorted."""
    i, j, shift = NeighborList(cutoff=cutoff, full_list=True).compute(positions, cell, pbc, "ijS")
    pairs = np.column_stack([i, j, shift]).astype(int).reshape(-1, 5)
    return pairs[np.lexsort(pairs.T[::-1])]


def assert_same_pairs(cutoff, positions, cell, pbc):
    """Compare with vesin; returns the number of pairs."""
    neighbours = NeighbourList(cutoff)
    assert neighbours.update(positions, cell, pbc)
    ours = pairs_of(neighbours)
    assert_array_equal(ours, ours[np.lexsort(ours.T[::-1])])
    theirs = vesin_pairs(cutoff, positions, cell, pbc)
    certain = [pairs[distances(pairs, positions, cell) < cutoff - BLUR] for pairs in (ours, theirs)]
    assert_array_equal(certain[0], certain[1])
    assert distances(ours, positions, cell).max(initial=0) < cutoff + BLUR
    return len(ours)


CUBIC = 7.0 * np.eye(3)
TRICLINIC = np.array([[6.0, 0.3, -0.2], [2.5, 5.5, 0.1], [-1.5, 2.0, 7.0]])
LEFT_HANDED = TRICLINIC[[1, 0, 2]]
SMALL = np.array([[2.2, 0.1, 0.0], [1.0, 2.1, 0.2], [0.3, -0.9, 2.4]])
FLAT = np.array([[9.0, 0, 0], [8.0, 2.0, 0], [7.5, 1.0, 1.5]])  # faces much closer than the edges are long

CELLS = {
    "cubic": (CUBIC, (True, True, True)),
    "triclinic": (TRICLINIC, (True, True, True)),
    "left-handed": (LEFT_HANDED, (True, True, True)),
    "smaller than the cutoff": (SMALL, (True, True, True)),
    "skewed": (FLAT, (True, True, True)),
    "slab": (TRICLINIC, (True, True, False)),
    "slab along b": (LEFT_HANDED, (True, False, True)),
    "wire": (SMALL, (False, False, True)),
    "wire along a": (TRICLINIC, (True, False, False)),
    "molecule": (CUBIC, (False, False, False)),
}


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("cutoff", [3.0, 5.5])
@pytest.mark.parametrize("n_atoms", [1, 2, 40])
def test_pairs_equal_those_of_vesin(name, cutoff, n_atoms):
    cell, pbc = CELLS[name]
    rng = np.random.default_rng(n_atoms)
    positions = rng.uniform(-0.3, 1.3, size=(n_atoms, 3)) @ cell
    n_pairs = assert_same_pairs(cutoff, positions, cell, pbc)
    assert n_pairs > 0 or n_atoms < 3


@given(
    seed=st.integers(0, 2**32 - 1),
    n_atoms=st.integers(1, 15),
    pbc=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    size=st.floats(2.5, 12.0),
    cutoff=st.floats(0.5, 5.0),
)
@settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
def test_pairs_of_any_cell_equal_those_of_vesin(seed, n_atoms, pbc, size, cutoff):
    rng = np.random.default_rng(seed)
    cell = rng.uniform(-size, size, size=(3, 3))
    assume(abs(np.linalg.det(cell)) > 0.1 * size**3)
    assert_same_pairs(cutoff, rng.uniform(-1, 2, size=(n_atoms, 3)) @ cell, cell, pbc)


@given(seed=st.integers(0, 2**32 - 1), distance=st.integers(0, 10**6))
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
def test_atoms_far_outside_the_cell_keep_their_neighbours(seed, distance):
    rng = np.random.default_rng(seed)
    positions = rng.uniform(0, 1, size=(20, 3)) @ TRICLINIC
    cells = rng.integers(-distance, distance, endpoint=True, size=(20, 3))
    here, there = NeighbourList(4.0), NeighbourList(4.0)
    here.update(positions, TRICLINIC)
    there.update(positions + cells @ TRICLINIC, TRICLINIC)
    wrapped, given_ = pairs_of(here), pairs_of(there)
    expected = wrapped.copy()
    expected[:, 2:] += cells[wrapped[:, 0]] - cells[wrapped[:, 1]]
    uncertain = np.abs(distances(wrapped, positions, TRICLINIC) - 4.0) < 1e-8  # positions have lost digits
    assume(not uncertain.any())
    assert_array_equal(given_, expected)


@pytest.mark.parametrize("free_vector", [(0, 0, 0), (np.nan, 0, 0), (6.0, 0.3, -0.2), (1e300, -1e300, 3)])
def test_cell_vectors_that_are_not_periodic_do_not_matter(free_vector):
    positions = np.random.default_rng(2).uniform(0, 1, size=(30, 3)) @ TRICLINIC
    expected, other = NeighbourList(4.0), NeighbourList(4.0)
    expected.update(positions, TRICLINIC, (True, True, False))
    cell = TRICLINIC.copy()
    cell[2] = free_vector
    other.update(positions, cell, (True, True, False))
    assert_array_equal(pairs_of(other), pairs_of(expected))
    assert not other.update(positions, TRICLINIC, (True, True, False))


def test_a_molecule_needs_no_cell():
    positions = np.random.default_rng(4).uniform(0, 6, size=(15, 3))
    neighbours = NeighbourList(3.0)
    neighbours.update(positions, None, False)
    r = np.linalg.norm(positions[:, None] - positions, axis=2)
    i, j = np.nonzero((r < 3.0) & ~np.eye(15, dtype=bool))
    assert_array_equal(pairs_of(neighbours)[:, :2], np.column_stack([i, j]))
    assert not neighbours.shift.any()


def test_atoms_in_one_place_are_a_pair_and_an_atom_is_not_its_own():
    neighbours = NeighbourList(1.0)
    neighbours.update([[1.0, 2.0, 3.0]] * 3, None, False)
    assert_array_equal(neighbours.neighbour, [1, 2, 0, 2, 0, 1])


def test_the_cutoff_itself_is_outside():
    neighbours = NeighbourList(2.0)
    neighbours.update([[0.0, 0.0, 0.0]], 2.0 * np.eye(3))
    assert neighbours.n_pairs == 0
    neighbours = NeighbourList(np.nextafter(2.0, 3.0))
    neighbours.update([[0.0, 0.0, 0.0]], 2.0 * np.eye(3))
    assert neighbours.n_pairs == 6


@pytest.mark.parametrize("pbc", [True, False])
def test_no_atoms(pbc):
    neighbours = NeighbourList(3.0)
    assert neighbours.update(np.zeros((0, 3)), np.eye(3), pbc)
    assert_array_equal(neighbours.start, [0])
    assert neighbours.shift.shape == (0, 3)


def test_number_of_pairs_grows_linearly_however_empty_the_space():
    cell = 1e6 * np.eye(3)
    positions = np.random.default_rng(5).uniform(0, 1, size=(2000, 3)) @ cell
    positions[1] = positions[0] + [0.0, 0.0, 1.0]
    neighbours = NeighbourList(3.0)
    neighbours.update(positions, cell)
    assert neighbours.n_pairs == 2


@pytest.mark.parametrize("name", CELLS)
def test_a_list_kept_within_the_skin_holds_every_pair_inside_the_cutoff(name):
    cell, pbc = CELLS[name]
    rng = np.random.default_rng(6)
    positions = rng.uniform(0, 1, size=(25, 3)) @ cell
    kept = NeighbourList(4.0, skin=0.6)
    reused = 0
    for _ in range(12):
        reused += not kept.update(positions, cell, pbc)
        fresh = NeighbourList(4.0)
        fresh.update(positions, cell, pbc)
        pairs = pairs_of(kept)
        assert_array_equal(pairs[distances(pairs, positions, cell) < 4.0], pairs_of(fresh))
        positions = positions + rng.uniform(-0.05, 0.05, size=positions.shape)
    assert 0 < reused < 12


def test_when_a_list_is_kept():
    positions = np.random.default_rng(8).uniform(0, 7, size=(20, 3))
    neighbours = NeighbourList(3.0, skin=0.5)
    assert neighbours.update(positions, CUBIC)
    assert not neighbours.update(positions, CUBIC)
    moved = positions.copy()
    moved[3, 1] += 0.2499
    assert not neighbours.update(moved, CUBIC)
    moved[3, 1] += 0.0002
    assert neighbours.update(moved, CUBIC)
    assert not neighbours.update(moved, CUBIC)
    assert neighbours.update(moved, CUBIC * (1 + 1e-15))
    assert neighbours.update(moved, CUBIC * (1 + 1e-15), (True, True, False))
    assert neighbours.update(moved[:-1], CUBIC * (1 + 1e-15), (True, True, False))


def test_without_a_skin_any_move_makes_a_new_list():
    positions = np.random.default_rng(9).uniform(0, 7, size=(20, 3))
    neighbours = NeighbourList(3.0)
    assert neighbours.update(positions, CUBIC)
    assert not neighbours.update(positions, CUBIC)
    assert neighbours.update(np.nextafter(positions, np.inf), CUBIC)


def test_no_memory_is_taken_after_the_first_call():
    rng = np.random.default_rng(10)
    positions = rng.uniform(0, 12, size=(150, 3))
    neighbours = NeighbourList(4.0)
    neighbours.update(positions, 12 * np.eye(3))
    first = neighbours.n_allocations
    moves = rng.normal(scale=0.05, size=(50, 150, 3))
    assert all(neighbours.update(positions + move, 12 * np.eye(3)) for move in moves)
    assert neighbours.n_allocations == first


@pytest.mark.parametrize(
    ("positions", "cell", "cutoff", "error", "words"),
    [
        ([[0, 0, 0], [0, np.nan, 0]], CUBIC, 3.0, NumericalError, "atom 1: a position"),
        ([[0, 0, 0], [0, np.inf, 0]], CUBIC, 3.0, NumericalError, "atom 1: a position"),
        ([[0, 0, 0]], CUBIC * np.nan, 3.0, NumericalError, "not finite"),
        ([[0, 0, 0]], np.zeros((3, 3)), 3.0, StructureError, "lie in one plane"),
        ([[0, 0, 0]], np.array([[1.0, 0, 0], [0, 1, 0], [1, 1, 0]]), 3.0, StructureError, "lie in one plane"),
        ([[0, 0, 0]], 1e-3 * np.eye(3), 3.0, StructureError, "too many"),
        ([[0, 0, 0]], CUBIC, 1e9, StructureError, "too many"),
        ([[0, 0, 0], [0, 0, 1e15]], CUBIC, 3.0, StructureError, "atom 1: an atom is so far away"),
    ],
)
def test_what_cannot_be_listed_is_refused_with_a_sentence(positions, cell, cutoff, error, words):
    neighbours = NeighbourList(cutoff)
    with pytest.raises(error, match=words):
        neighbours.update(np.asarray(positions, dtype=float), cell)
    assert neighbours.n_pairs == 0
    if cutoff < 10:  # the list is as good as new
        assert neighbours.update([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]], CUBIC)
        assert_array_equal(neighbours.neighbour, [1, 0])


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="cutoff -1"):
        NeighbourList(-1.0)
    with pytest.raises(ValueError, match="skin nan"):
        NeighbourList(1.0, skin=np.nan)
    neighbours = NeighbourList(3.0)
    with pytest.raises(ValueError, match=r"\(n_atoms, 3\)"):
        neighbours.update(np.zeros((3, 2)), CUBIC)
    with pytest.raises(ValueError, match="the cell has the shape"):
        neighbours.update(np.zeros((3, 3)), np.eye(2))


def test_vectors_add_up_to_the_density():
    # uniform ideal gas: the mean number of neighbours is the density times the volume of the sphere
    rng = np.random.default_rng(12)
    neighbours = NeighbourList(3.0)
    neighbours.update(rng.uniform(0, 20, size=(4000, 3)), 20 * np.eye(3))
    expected = (4000 - 1) / 20**3 * 4 / 3 * np.pi * 27
    error = np.sqrt(2 * expected / 4000)  # Poisson, each pair counted from both ends
    assert_allclose(neighbours.n_pairs / 4000, expected, atol=4 * error)
