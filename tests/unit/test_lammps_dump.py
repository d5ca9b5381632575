"""Dumps of LAMMPS: order of the atoms, boxes, restarts, and what is refused."""

import tracemalloc

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from comitia.engines.lammps_dump import is_dump, read_dump
from comitia.engines.trajectories import read_sampled
from comitia.errors import SeriesError


def frame(step, positions, order, bounds="0 4\n0 5\n0 6", columns="id element x y z", box="pp pp ff"):
    rows = "".join(f"{n + 1} {'SiC'[:2] if n else 'C'} {' '.join(map(repr, positions[n].tolist()))}\n" for n in order)
    head = f"ITEM: TIMESTEP\n{step}\nITEM: NUMBER OF ATOMS\n{len(order)}\nITEM: BOX BOUNDS {box}\n{bounds}\n"
    return f"{head}ITEM: ATOMS {columns}\n{rows}"


def test_atoms_are_ordered_and_rows_of_a_restart_replaced(tmp_path):
    rng = np.random.default_rng(1)
    positions = rng.random((4, 3, 3))
    steps, path = [0, 5, 10, 5], tmp_path / "dump.lj"
    path.write_text("".join(frame(s, p, rng.permutation(3)) for s, p in zip(steps, positions, strict=True)))
    assert is_dump(path)
    dump = read_dump(path)
    assert_array_equal(dump.steps, [0, 5])
    assert_array_equal(dump.positions, positions[[0, 3]])
    assert dump.symbols == ["C", "Si", "Si"]
    assert_array_equal(dump.cells[0], np.diag([4, 5, 6]))
    assert_array_equal(dump.periodic, [True, True, False])
    sampled = read_sampled(path)
    assert_array_equal(sampled.numbers, [6, 14, 14])
    assert_array_equal(sampled.structures(np.array([1]))[0].positions, positions[3])
    path.write_text(path.read_text()[:-5])  # killed while writing
    assert_array_equal(read_dump(path).steps, [0, 5, 10])


def test_a_tilted_box_and_scaled_coordinates(tmp_path):
    """Bounds that LAMMPS prints are those of the box around the tilted one."""
    cell = np.array([[4.0, 0, 0], [-1.0, 5.0, 0], [0.5, 1.5, 6.0]])
    scaled = np.random.default_rng(2).random((2, 3))
    bounds = f"{2 - 1.0} {6 + 0.5} -1.0\n{3.0} {8 + 1.5} 0.5\n{-1.0} {5.0} 1.5"
    text = frame(7, scaled, [1, 0], bounds, "id element xs ys zs", "xy xz yz pp pp pp")
    (tmp_path / "dump").write_text(text)
    dump = read_dump(tmp_path / "dump")
    assert_allclose(dump.cells[0], cell, atol=1e-12)
    assert_allclose(dump.positions[0], scaled @ cell, atol=1e-12)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("0.5 0.5 0.5", "0.5 nan 0.5", "line 10, column 3: nan is not a finite number"),
        ("0.5 0.5 0.5", "0.5 0.5", "line 10: 4 columns, the head names 5"),
        ("1 C 0.5", "#1 C 0.5", "line 10: could not read '.#1'"),
        ("ATOMS\n2", "ATOMS\n-2", "line 1: -2 atoms; the head of this frame is damaged"),
        ("id element", "type element", "line 9: the columns id and x y z are needed"),
        ("ITEM: TIMESTEP\n9", "9\nITEM: TIMESTEP", "line 12: not the head of a frame"),
        ("2 Si 0.25 0.25 0.25\nITEM: TIMESTEP", "3 Si 0.25 0.25 0.25\nITEM: TIMESTEP", "step 9: its atoms"),
    ],
)
def test_damage_is_named(tmp_path, old, new, words):
    positions = np.array([[0.5] * 3, [0.25] * 3])
    text = frame(3, positions, [0, 1]) + frame(9, positions, [0, 1])
    assert old in text
    (tmp_path / "dump").write_text(text.replace(old, new, 1))
    with pytest.raises(SeriesError, match=f"dump, {words}"):
        read_dump(tmp_path / "dump")


def test_only_numbers_are_kept(tmp_path):
    positions = np.random.default_rng(3).random((200, 300, 3))
    (tmp_path / "dump").write_text("".join(frame(s, p, range(300)) for s, p in enumerate(positions)))
    tracemalloc.start()
    dump = read_dump(tmp_path / "dump")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert_array_equal(dump.positions, positions)
    assert peak < 4 * positions.nbytes


def test_a_dump_without_elements_says_what_to_do(tmp_path):
    positions = np.array([[0.5] * 3, [0.25] * 3])
    text = frame(3, positions, [0, 1], columns="id type x y z").replace(" Si ", " 2 ").replace(" C ", " 1 ")
    (tmp_path / "dump").write_text(text)
    with pytest.raises(SeriesError, match="dump_modify ID element"):
        read_sampled(tmp_path / "dump")
