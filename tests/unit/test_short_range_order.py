"""Warren-Cowley parameters equal a count of pairs one by one, and the numbers known of ordered and random alloys."""

import numpy as np
import pytest
from ase.build import bulk
from numpy.testing import assert_allclose

from comitia.errors import SeriesError
from comitia.study.collective_variables import parse
from comitia.study.short_range_order import warren_cowley


def counted(numbers, first, second, positions, cell, cutoff):
    """1 - N_ab / (N x_a x_b) from every image of every atom."""
    shifts = np.stack(np.meshgrid(*[np.arange(-3, 4)] * 3, indexing="ij"), axis=-1).reshape(-1, 3) @ cell
    both = together = 0
    for i, position in enumerate(positions):
        for j, other in enumerate(positions):
            near = np.linalg.norm(other + shifts - position, axis=1) < cutoff
            n_near = np.count_nonzero(near) - (i == j)
            together += n_near
            both += n_near if (numbers[i], numbers[j]) == (first, second) else 0
    return 1 - both / (together * np.mean(numbers == first) * np.mean(numbers == second))


def test_pairs_are_counted_in_any_cell():
    rng = np.random.default_rng(3)
    cell = np.array([[4.0, 0, 0], [1.1, 3.8, 0], [-0.7, 1.0, 4.3]])
    numbers = rng.permutation([24, 24, 24, 28, 28, 26])
    frames = rng.uniform(size=(2, 3, 6, 3)) @ cell
    cells = np.broadcast_to(cell, (2, 3, 3, 3))
    for pair, (first, second) in ((["Cr", "Ni"], (24, 28)), (["Cr", "Cr"], (24, 24))):
        variable = parse({"short_range_order": {"pair": pair, "cutoff": 3.0}}, "", numbers)
        found = variable(frames, cells)
        assert found.shape == (2, 3)
        expected = [counted(numbers, first, second, frame, cell, 3.0) for frame in frames.reshape(-1, 6, 3)]
        assert_allclose(found.ravel(), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("alloy", "cutoff", "unlike", "of_first", "of_second"),
    [
        (bulk("NiAl", "cesiumchloride", a=2.9), 2.7, -1.0, 1.0, 1.0),  # B2: eight unlike neighbours, none alike
        (bulk("Ni", a=3.6, cubic=True), 2.9, -1 / 3, 1.0, 1 / 9),  # L1_2, below: Al has twelve Ni, Ni has four Al
    ],
)
def test_ordered_alloys(alloy, cutoff, unlike, of_first, of_second):
    if len(alloy) == 4:
        alloy.symbols[0] = "Al"
    alloy = alloy.repeat(2)
    alloy.rattle(0.02, seed=1)
    nickel = alloy.numbers == 28
    for groups, expected in (
        ((~nickel, nickel), unlike),
        ((nickel, ~nickel), unlike),
        ((~nickel, ~nickel), of_first),
        ((nickel, nickel), of_second),
    ):
        assert_allclose(warren_cowley(*groups, alloy.positions, alloy.cell.array, True, cutoff), expected, atol=1e-12)


def test_random_alloys():
    """Of n atoms at random on their sites: -1 / (n - 1) for unlike elements, (1 - x) / (x (n - 1)) for one."""
    rng, crystal = np.random.default_rng(4), bulk("Ni", a=3.6, cubic=True).repeat(2)
    labels, n_atoms = np.repeat([0, 1, 2, 3], 8), len(crystal)
    unlike, alike = [], []
    for _ in range(400):
        shuffled = rng.permutation(labels)
        groups = shuffled == 0, shuffled == 1
        arguments = crystal.positions, crystal.cell.array, True, 3.0
        unlike.append(warren_cowley(*groups, *arguments))
        alike.append(warren_cowley(groups[0], groups[0], *arguments))
    for found, expected in ((unlike, -1 / (n_atoms - 1)), (alike, 3 / (n_atoms - 1))):
        assert abs(np.mean(found) - expected) < 3 * np.std(found) / np.sqrt(len(found))


def test_a_cutoff_below_all_distances_is_refused():
    crystal = bulk("Ni", a=3.6, cubic=True)
    with pytest.raises(SeriesError, match="first shell"):
        warren_cowley(crystal.numbers > 0, crystal.numbers > 0, crystal.positions, crystal.cell.array, True, 2.0)
