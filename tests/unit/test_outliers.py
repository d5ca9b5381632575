"""Labels that do not fit the rest are named; good ones are not."""

import numpy as np
import pytest
from ase.io.extxyz import write_xyz
from fits import BASIS, CUTOFF, labelled

from comitia.settings import convert
from comitia.training import FitSettings, fit
from comitia.training.calibration import Calibration
from comitia.training.outliers import EXPECTED, expected_beyond, find_outliers, students_t
from comitia.training.summary import outlier_lines
from comitia.training.validation import Evaluation, Record


@pytest.mark.parametrize("degrees", [3.5, 4.5])
def test_students_t_from_its_quantiles(degrees):
    scores = 0.3 * np.abs(np.random.default_rng(0).standard_t(degrees, 100_000))
    scale, found = students_t(scores)
    # one standard error of the scale is 0.4 %, of the degrees of freedom about 3 %
    assert abs(scale - 0.3) < 4 * 0.004 * 0.3
    assert abs(found - degrees) < 4 * 0.03 * degrees


def test_good_data_are_rarely_named():
    """As often as stated: 200 data sets with normal errors, and with Student's t of 5 degrees of freedom."""
    rng = np.random.default_rng(1)
    for draw in (rng.standard_normal, lambda n: rng.standard_t(5, n)):
        named = sum((expected_beyond(np.abs(draw(200)))[1] < EXPECTED).sum() for _ in range(200))
        assert named < 20  # of 40 000; 2 where the two parameters were known


def test_a_tenth_of_bad_labels_do_not_hide_each_other():
    rng = np.random.default_rng(2)
    scores = np.abs(rng.standard_normal(200))
    scores[:15] = 100 * (1 + rng.random(15))
    assert set(np.flatnonzero(expected_beyond(scores)[1] < EXPECTED)) == set(range(15))


def test_forces_that_symmetry_makes_zero_name_nobody():
    rng = np.random.default_rng(3)
    records = [
        Record(
            "bulk" if i < 60 else "liquid", 8, force_error=rng.normal(size=24) * (1e-9 if i < 50 else 0.01), origin=""
        )
        for i in range(120)
    ]
    assert find_outliers(Evaluation(records, 1, True), Calibration(1.0, 0), "test") == []


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A function that fits frames and returns the report."""

    def run(frames, **changes):
        folder = tmp_path_factory.mktemp("outliers")
        write_xyz(folder / "data.xyz", frames)
        content = {"data": "data.xyz", "cutoff": CUTOFF, "basis": BASIS, "members": 8} | changes
        return fit(convert(content, FitSettings, "test"), folder, folder / "m.safetensors", progress=False).report

    return run


def test_good_data_names_nobody(run):
    report = run(labelled(100))
    assert report["outliers"] == []
    assert outlier_lines(report["outliers"]) == []


@pytest.mark.parametrize("members", [1, 8])
def test_corrupted_labels_are_named(run, members):
    frames = labelled(100)
    frames[22].calc.results["energy"] += 0.5
    frames[67].calc.results["forces"] = -frames[67].calc.results["forces"]
    frames[78].calc.results["forces"][3, 1] += 1.0
    outliers = run(frames, members=members)["outliers"]
    named = {(one["frame"], one["kind"]) for one in outliers}
    assert named >= {(22, "energy"), (67, "forces"), (78, "forces")}
    assert {frame for frame, _ in named} <= {
        22,
        67,
        78,
        8,
    }  # frame 8 is far from all others, which one model cannot say
    for one in outliers:
        assert one["file"].endswith("data.xyz")
        assert one["config_type"] == ("hot" if one["frame"] % 10 > 4 else "cold")
        assert one["set"] == "training"
        assert one["error"] > 5 * one["typical"]
    lines = outlier_lines(outliers)
    assert f"{len(outliers)}; look at these structures" in lines[0]
    assert any("frame 22 (cold, training): energy off by" in line for line in lines)
    assert len(outlier_lines(5 * outliers)) == 12
    assert outlier_lines(5 * outliers)[-1] == f"  and {5 * len(outliers) - 10} more, in the report"
