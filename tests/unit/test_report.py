"""Tables show what the errors allow; figures are made of whatever a study has."""

import io

import numpy as np
import pytest
from rich.console import Console

from comitia.report.numbers import with_error
from comitia.report.plots import _drawn_curves, study_figure
from comitia.report.tables import print_results
from comitia.study.settings import Report

PROFILE = {
    "x": [-0.5, 0.0, 0.5],
    "unit": "eV",
    "x_unit": "Å",
    "value": [0.1, 0.0, None],
    "statistical_error": [0.01, 0.01, None],
    "committee_error": [0.005, 0.002, None],
}
RESULTS = {
    "study": "study.yaml",
    "setting": None,
    "observables": {
        "r": {
            "value": 1.23456,
            "unit": "Å",
            "statistical_error": 0.0123,
            "committee_error": 0.00456,
            "effective_sample_size": 41.6,
            "verdict": "doubtful",
        }
    },
    "references": {"k": {"value": 38.778, "unit": "meV"}},
    "reasons": {"r": "sample longer"},
    "profiles": {"classical": PROFILE, "one member": PROFILE | {"committee_error": None}},
    "samples": {"hot": {"temperature": 300.0}},
    "model": {"n_members": 16, "errors": {"test": {"energy": {"rmse": 0.31, "unit": "meV/atom"}}}},
}


@pytest.mark.parametrize(
    ("value", "errors", "shown"),
    [
        (1.23456, [0.0123, 0.00456], ["1.235", "0.012", "0.005"]),
        (-4160.64348, [0.0095, None], ["-4160.6435", "0.0095", ""]),
        (117.8, [44.0, 3.2], ["118", "44", "3"]),
        (1.5, [None, None], ["1.5000", "", ""]),
    ],
)
def test_decimals_follow_the_largest_error(value, errors, shown):
    assert with_error(value, errors) == shown


def test_the_table_has_every_average_and_reference():
    console = Console(file=io.StringIO(), width=120)
    print_results(RESULTS, console)
    text = console.file.getvalue()
    for word in ("1.235", "0.012", "0.005", "doubtful", "sample longer", "38.77800", "exact", "0.31 meV/atom"):
        assert word in text


@pytest.mark.parametrize("profiles", [RESULTS["profiles"], {}])
def test_a_figure_is_a_png_with_or_without_profiles(tmp_path, profiles):
    path = tmp_path / "figure.png"
    study_figure(RESULTS | {"profiles": profiles}, Report(title="t", labels={"classical": "c"}), path)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert len(np.frombuffer(path.read_bytes(), np.uint8)) > 2000


def test_averages_are_drawn_against_temperature(tmp_path):
    """Those with a label, in one unit; an exact one has no committee error."""
    names = {"r": ["r_100K", "r_200K"], "s": ["s_100K", "s_200K"], "potential": ["p_100K", "p_200K"]}
    observables = {own: RESULTS["observables"]["r"] for name in ("r", "s") for own in names[name]}
    observables["s_200K"] = observables["s_200K"] | {"committee_error": None}
    observables |= {own: RESULTS["observables"]["r"] | {"unit": "eV"} for own in names["potential"]}
    curves = {name: {"temperatures": [100.0, 200.0], "names": own} for name, own in names.items()}
    results = RESULTS | {"profiles": {}, "observables": observables, "against_temperature": curves}
    assert list(_drawn_curves(results, {})) == ["r", "s"]
    assert list(_drawn_curves(results, {"s": "second"})) == ["s"]
    study_figure(results, Report(title="t", labels={"s": "second"}), tmp_path / "one.png")
    study_figure(results, Report(), tmp_path / "two.png")
    assert (tmp_path / "two.png").read_bytes() != (tmp_path / "one.png").read_bytes()
