"""The search for cutoff and basis: its front, its parts, its time limit, and that it goes on after a kill."""

import json
import sys
import time

import numpy as np
import pytest
from ase.io.extxyz import write_xyz
from click.testing import CliRunner
from fits import CUTOFF, Killed, labelled
from numpy.testing import assert_allclose

from comitia.cli import cli
from comitia.density import Descriptor
from comitia.errors import SettingsError
from comitia.settings import convert, load
from comitia.training import FitSettings, fit, front, tuning
from comitia.training.tuning import Trial

SIZES = {((6, 0, 0, 0), (0, 0, 0, 0)): (15,), ((6, 3, 0, 0), (0, 2, 0, 0)): (20, 40)}
N_CANDIDATES = 6


@pytest.fixture
def few(monkeypatch):
    """Six small candidates."""
    monkeypatch.setattr(tuning, "SIZES", SIZES)
    monkeypatch.setattr(tuning, "CUTOFFS", (1.0, 0.8))
    monkeypatch.setattr(tuning, "FEWEST_PROMOTED", 2)
    monkeypatch.setattr(tuning, "PARTS", (0.5, 1.0))
    monkeypatch.setattr("comitia.training.cost.N_TIMINGS", 1)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tuning")
    write_xyz(folder / "data.xyz", labelled(80))
    return folder


def settings(**changes):
    return convert({"data": "data.xyz", "cutoff": CUTOFF, "members": 2} | changes, FitSettings, "test")


def made_up(*pairs):
    return [Trial(i, 0, 10, 1.0, cost=cost, error=error) for i, (cost, error) in enumerate(pairs)]


def test_the_front_is_what_nobody_beats():
    trials = made_up((1, 9), (2, 5), (3, 6), (4, 4), (4, 3), (5, 3), (9, 1))
    assert [trial.candidate for trial in tuning.front(trials)] == [0, 1, 4, 6]
    rng = np.random.default_rng(0)
    trials = made_up(*rng.random((50, 2)))
    found = tuning.front(trials)
    for trial in trials:
        beaten = any(o.cost <= trial.cost and o.error <= trial.error and o is not trial for o in trials)
        assert beaten == (trial not in found)


def test_many_species_leave_room_for_few_features_each():
    assert len(tuning.candidates(settings(), 1)) == 45
    assert {one.max_features for one in tuning.candidates(settings(), 25)} == {120}
    assert max(one.max_features for one in tuning.candidates(settings(), 4)) == 1200
    assert [one.cutoff for one in tuning.candidates(settings(), 1)[:9]] == [CUTOFF] * 9


def test_a_third_is_promoted_front_after_front():
    trials = made_up(*((cost, 20 - cost) for cost in range(4)), *((cost, 30) for cost in range(4, 20)))
    assert tuning.promoted(trials) == [0, 1, 2, 3, 4, 5, 6]
    trials[0].failed = "no room"
    assert 0 not in tuning.promoted(trials)


def test_a_whole_search(few, data, tmp_path, monkeypatch):
    output = tmp_path / "model.safetensors"
    report = front.tune(settings(), 10, data, output, progress=False)
    folder = tmp_path / "model.tune"
    assert report == json.loads((folder / "tune.json").read_text()) | {"folder": str(folder)}
    assert (folder / "front.png").stat().st_size > 5000
    assert len(report["trials"]) == N_CANDIDATES + 2
    rows = report["table"]
    assert [row["structures"] for row in rows] == [report["structures"]["training"]] * 2
    assert sum(row["chosen"] for row in rows) == 1
    assert all(row["cost"] > 0 and row["error"] > 0 for row in rows)
    names = [row["settings"] for row in rows if row["front"]]
    assert sorted(path.name for path in folder.glob("FIT-*")) == sorted(names)
    monkeypatch.chdir(tmp_path)  # what is written goes on from anywhere
    chosen = next(row for row in rows if row["chosen"])
    found = load(folder / chosen["settings"], FitSettings)
    assert (found.cutoff, found.basis.n_max) == (chosen["cutoff"], chosen["n_max"])
    fitted = fit(found, folder, tmp_path / "m.safetensors", progress=False)
    assert fitted.potential.descriptor.n_features == chosen["features"]
    assert "go on with" in front.tune_lines(report)[-1]
    assert sum("chosen" in line for line in front.tune_lines(report)) == 1


def test_errors_are_those_of_structures_left_out(few, data, tmp_path, monkeypatch):
    seen, judged = set(), set()
    compute, evaluate = Descriptor.design, tuning.evaluate
    monkeypatch.setattr(
        Descriptor, "design", lambda self, atoms, *a: (seen.add(atoms.positions.tobytes()), compute(self, atoms, *a))[1]
    )
    monkeypatch.setattr(
        tuning,
        "evaluate",
        lambda potential, structures, **o: (
            judged.update(s.atoms.positions.tobytes() for s in structures),
            evaluate(potential, structures, **o),
        )[1],
    )
    report = front.tune(settings(), 10, data, tmp_path / "m.safetensors", progress=False)
    assert len(judged) == report["structures"]["validation"] >= 10
    assert len(seen) == report["structures"]["training"]
    assert not seen & judged


def test_a_search_that_was_killed_goes_on(few, data, tmp_path, monkeypatch):
    whole = front.tune(settings(), 10, data, tmp_path / "whole.safetensors", progress=False)
    small_fit, counted = tuning.small_fit, []

    def dies(*arguments):
        counted.append(0)
        if len(counted) == 5:
            raise Killed
        return small_fit(*arguments)

    monkeypatch.setattr(tuning, "small_fit", dies)
    with pytest.raises(Killed):
        front.tune(settings(), 10, data, tmp_path / "again.safetensors", progress=False)
    with open(tmp_path / "again.tune" / "trials.jsonl", "ab") as file:
        file.write(b'{"candidate":4,"ru')  # what a kill in the middle of a line leaves
    again = front.tune(settings(), 10, data, tmp_path / "again.safetensors", progress=False)
    assert 9 <= len(counted) <= 10  # four, the one that died, and the rest; timings may promote another candidate
    errors = [{(t["candidate"], t["rung"]): t["error"] for t in found["trials"]} for found in (whole, again)]
    for key in set(errors[0]) & set(errors[1]):
        assert_allclose(errors[0][key], errors[1][key], rtol=1e-6)
    done = len(counted)
    front.tune(settings(), 10, data, tmp_path / "again.safetensors", progress=False)
    assert len(counted) == done
    front.tune(settings(seed=1), 10, data, tmp_path / "again.safetensors", progress=False)
    assert len(counted) >= done + N_CANDIDATES  # another search


def test_a_tiny_limit_gives_one_trial(data, tmp_path):
    (tmp_path / "FIT.yaml").write_text(f"data: {data / 'data.xyz'}\ncutoff: {CUTOFF}\n")
    begin = time.monotonic()
    command = ["fit", str(tmp_path / "FIT.yaml"), "-o", str(tmp_path / "m.safetensors"), "--tune", "1e-6"]
    result = CliRunner().invoke(cli, command)
    assert result.exit_code == 0, result.output
    assert time.monotonic() - begin < 60  # alive; a whole search takes minutes
    assert "1 trials of 45 candidates" in result.output
    assert (tmp_path / "m.tune" / "FIT-1.yaml").exists()


def test_a_trial_ends_in_the_middle_when_time_is_up(few, data, tmp_path, monkeypatch):
    compute, counted = Descriptor.design, []

    def slow(*arguments):
        counted.append(0)
        if len(counted) > 40:  # the first trial is through
            time.sleep(1.0)
        return compute(*arguments)

    monkeypatch.setattr(Descriptor, "design", slow)
    begin = time.monotonic()
    report = front.tune(settings(threads=1), 5 / 60, data, tmp_path / "m.safetensors", progress=False)
    assert time.monotonic() - begin < 5 * 5
    assert len(report["trials"]) < N_CANDIDATES


@pytest.mark.parametrize("changes", [{"previous": "m.safetensors"}, {"target_cost": 5.0}, {"columns": 40}])
def test_what_a_search_cannot_keep(data, tmp_path, changes):
    with pytest.raises(SettingsError, match="a search for the basis cannot keep it"):
        front.tune(settings(**changes), 1, data, tmp_path / "m.safetensors", progress=False)


def test_without_matplotlib_there_is_a_table(few, data, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr(tuning, "PARTS", (1.0,))
    with pytest.warns(UserWarning, match="matplotlib is missing"):
        front.tune(settings(), 1e-6, data, tmp_path / "m.safetensors", progress=False)
    assert (tmp_path / "m.tune" / "tune.json").exists()
