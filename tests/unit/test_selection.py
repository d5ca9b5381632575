"""Selection of structures and features: known answers, brute force in NumPy, any size of chunk, sentences."""

import json

import models
import numpy as np
import pytest
from ase.io.extxyz import write_xyz
from numpy.testing import assert_allclose, assert_array_equal

from comitia.cli import cli
from comitia.errors import ComitiaError, UsageError
from comitia.structures import read_frames
from comitia.training.feature_table import FeatureTable
from comitia.training.selection import (
    cur_columns,
    cur_rows,
    farthest_columns,
    farthest_points,
    most_uncertain,
    select,
)


def table_of(rows, chunk_bytes=1 << 20):
    table = FeatureTable(np.shape(rows)[1], chunk_bytes=chunk_bytes)
    table.append(rows)
    return table


def random_rows(n_rows=40, width=7, seed=0):
    return np.random.default_rng(seed).normal(size=(n_rows, width)) * np.geomspace(1, 0.05, width)


def test_farthest_points_of_a_line_are_its_ends_then_halves():
    with table_of(np.arange(17.0)[:, None]) as table:
        found = farthest_points(table, 5)
    assert_array_equal(found.indices, [0, 16, 8, 4, 12])
    assert_allclose(found.scores, [np.inf, 16, 8, 4, 4])


def test_farthest_points_of_a_grid_are_its_corners_then_its_centre():
    grid = np.stack(np.meshgrid(np.arange(5.0), np.arange(5.0), indexing="ij"), axis=-1).reshape(-1, 2)
    with table_of(grid) as table:
        found = farthest_points(table, 5)
    assert {tuple(grid[i]) for i in found.indices[:4]} == {(0, 0), (0, 4), (4, 0), (4, 4)}
    assert tuple(grid[found.indices[4]]) == (2, 2)


def brute_farthest(rows, count, initial=()):
    distances = np.linalg.norm(rows[:, None] - rows[None], axis=-1)
    nearest = np.full(len(rows), np.inf)
    for point in initial:
        nearest = np.minimum(nearest, np.linalg.norm(rows - point, axis=1))
    first = nearest if len(initial) else np.linalg.norm(rows - rows.mean(axis=0), axis=1)
    chosen = [int(np.argmax(first))]
    scores = [nearest[chosen[0]]]
    while len(chosen) < count:
        nearest = np.minimum(nearest, distances[chosen[-1]])
        chosen.append(int(np.argmax(nearest)))
        scores.append(nearest[chosen[-1]])
    return chosen, scores


def brute_cur(rows, count, initial=()):
    """Rows by leverage: singular vectors of the table, every row made orthogonal to each choice."""
    left, chosen, scores = np.array(rows), [], []
    if len(initial):
        basis = np.linalg.qr(np.array(initial).T)[0]
        left = rows - rows @ basis @ basis.T
    while len(chosen) < count:
        leverage = np.linalg.svd(left, full_matrices=False)[0][:, 0] ** 2
        chosen.append(int(np.argmax(leverage)))
        scores.append(leverage[chosen[-1]])
        unit = left[chosen[-1]] / np.linalg.norm(left[chosen[-1]])
        left = left - np.outer(left @ unit, unit)
    return chosen, scores


@pytest.mark.parametrize("chunk_bytes", [1, 8 * 7 * 3, 1 << 20])
@pytest.mark.parametrize("n_initial", [0, 1, 3])
def test_brute_force_chooses_the_same_in_chunks_of_any_size(chunk_bytes, n_initial):
    rows, initial = random_rows(), random_rows(n_initial, seed=1)
    with table_of(rows, chunk_bytes) as table:
        for choose, brute in ((farthest_points, brute_farthest), (cur_rows, brute_cur)):
            count = 12 if choose is farthest_points else 7 - n_initial
            found = choose(table, count, initial)
            expected, scores = brute(rows, count, initial)
            assert_array_equal(found.indices, expected)
            assert_allclose(found.scores, scores, rtol=1e-9)


def test_copies_are_never_chosen():
    rows = random_rows(5)
    with table_of(np.vstack([rows, rows, rows + 1e-4])) as table:
        assert len(farthest_points(table, 15).indices) == 10
        assert sorted(farthest_points(table, 15, closest=0.01).indices % 5) == list(range(5))
        assert len(farthest_points(table, 15, initial=rows, closest=0.01).indices) == 0
        assert sorted(most_uncertain(table, np.arange(15.0), 15, closest=0.01).indices) == list(range(10, 15))
    with table_of(np.vstack([rows, rows])) as table:
        assert sorted(cur_rows(table, 10).indices % 5) == list(range(5))
        assert len(cur_rows(table, 10, initial=rows[:2]).indices) == 3


def test_the_most_uncertain_in_order():
    uncertainty = np.array([0.1, 0.5, 0.3, 0.5, 0.2])
    with table_of([[0.0], [1.0], [2.0], [1.05], [4.0]]) as table:
        assert_array_equal(most_uncertain(table, uncertainty, 3).indices, [1, 3, 2])
        found = most_uncertain(table, uncertainty, 3, closest=0.1)
        assert_array_equal(found.indices, [1, 2, 4])
        assert_allclose(found.scores, [0.5, 0.3, 0.2])
        assert_array_equal(most_uncertain(table, uncertainty, 3, [[1.0]], 0.1).indices, [2, 4, 0])


def test_cur_picks_the_independent_columns():
    independent = np.linalg.qr(random_rows(30, 3))[0] * [3.0, 2.0, 1.0]
    columns = np.column_stack([0.2 * independent, independent, independent @ [[0.1], [0.1], [0.1]]])
    found = cur_columns(columns.T @ columns, 7)
    assert_array_equal(found.indices, [3, 4, 5])


@pytest.mark.parametrize("choose", [cur_columns, farthest_columns])
def test_columns_are_the_rows_of_the_transposed_table(choose):
    rows = random_rows(30, 9)
    found = choose(rows.T @ rows, 6)
    if choose is cur_columns:
        expected, scores = brute_cur(rows.T, 6)
    else:
        longest = int(np.argmax(np.linalg.norm(rows, axis=0)))
        expected, scores = brute_farthest(rows.T, 5, [rows[:, longest]])
        expected, scores = [longest, *expected], [np.inf, *scores]
    assert_array_equal(found.indices, expected)
    assert_allclose(found.scores, scores, rtol=1e-9)


def test_the_memory_of_a_table_is_a_chunk():
    import tracemalloc

    rows = np.ones((500, 200))
    with FeatureTable(200, chunk_bytes=1 << 20) as table:
        for _ in range(40):
            table.append(rows)
        tracemalloc.start()
        table.gram()
        farthest_points(table, 2)
        cur_rows(table, 2)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 6 << 20  # the table itself: 32 MB


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """Candidates: crystals, the last ten much hotter, two copies, and labels that are kept as they stand."""
    folder = tmp_path_factory.mktemp("pool")
    frames = [models.crystal((18,), (2, 1, 1), rattle=0.02 if n < 20 else 0.4, seed=n) for n in range(30)]
    frames += [frames[0].copy(), frames[29].copy()]
    for number, atoms in enumerate(frames):
        atoms.info.update(number=number, note="with spaces = and more")
        atoms.arrays["tag"] = np.arange(len(atoms))
    write_xyz(folder / "pool.xyz", frames)
    write_xyz(folder / "train.xyz", frames[25:])
    models.small_model().save(folder / "model.safetensors")
    return folder


def test_the_command_writes_the_frames_as_they_stand(pool, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    source = dict(enumerate(text for _, text in read_frames(pool / "pool.xyz")))
    for method in ("fps", "cur", "uncertain"):
        where = ["-o", "out.xyz", "--json", "out.json", "--model", str(pool / "model.safetensors")]
        cli.main(["select", str(pool / "pool.xyz"), "--count", "6", "--method", method, *where], standalone_mode=False)
        found = json.loads((tmp_path / "out.json").read_text())
        assert (tmp_path / "out.xyz").read_text() == "".join(source[index] for index in found["indices"])
        assert len(found["indices"]) == len(set(found["indices"])) == len(found["scores"]) == 6
        assert found["of"] == 32
        assert not {0, 30} <= set(found["indices"])
        assert not {29, 31} <= set(found["indices"])
        assert sum(index >= 20 for index in found["indices"]) >= 4
    assert "6 of 32 structures, largest uncertainty" in capsys.readouterr().out


def test_the_uncertainty_is_that_of_the_committee(pool):
    import comitia

    potential = comitia.load(pool / "model.safetensors")
    frames = [atoms for atoms, _ in read_frames(pool / "pool.xyz")][:30]
    largest = [np.max(p.force_uncertainty) for p in potential.compute(frames, members=True)]
    found = select(pool / "pool.xyz", 5, "uncertain", pool / "model.safetensors")
    assert_array_equal(found["indices"], np.argsort(largest)[::-1][:5])
    assert_allclose(found["scores"], np.sort(largest)[::-1][:5])


def test_what_is_chosen_already_is_not_chosen_again(pool):
    for method in ("fps", "cur"):
        found = select(pool / "pool.xyz", 32, method, pool / "model.safetensors", initial=pool / "train.xyz")
        assert not set(found["indices"]) & {0, *range(25, 32)}
        assert None not in found["scores"]


def test_features_and_no_model(pool, tmp_path, capsys):
    for method in ("fps", "cur"):
        arguments = ["select", str(pool / "pool.xyz"), "--count", "5", "--features", "--method", method]
        cli.main([*arguments, "--cutoff", "4.5"], standalone_mode=False)
        found = json.loads(capsys.readouterr().out)
        assert len(set(found["indices"])) == len(found["features"]) == 5
        assert max(found["indices"]) < found["of"]
        assert all(len(feature) == 10 for feature in found["features"])


@pytest.mark.parametrize(
    ("arguments", "kind", "sentence"),
    [
        (["--method", "uncertain", "-o", "o.xyz"], UsageError, "needs the committee of a --model"),
        (["--features", "-o", "o.xyz"], UsageError, "--features chooses no structures"),
        (["--cutoff", "4", "--model", "m", "-o", "o.xyz"], UsageError, "leave one of them out"),
        ([], UsageError, "--json"),
        (["-o", "nowhere/o.xyz"], ComitiaError, "does not exist"),
        (["--model", "m.safetensors", "-o", "o.xyz"], ComitiaError, "cannot be read"),
        (["--initial", "none.xyz", "-o", "o.xyz"], ComitiaError, "none.xyz"),
    ],
)
def test_sentences(pool, tmp_path, monkeypatch, arguments, kind, sentence):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(kind, match=sentence):
        cli.main(["select", str(pool / "pool.xyz"), "--count", "3", *arguments], standalone_mode=False)
    assert not list(tmp_path.iterdir())
