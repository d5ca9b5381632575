"""`comitia reweight` over several sampled states and several models of an observable, from files."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from comitia.cli import main
from comitia.thermodynamics import MultistateEnsemble, reweight_models
from comitia.units import KB

TEMPERATURE = 300.0
KT = KB * TEMPERATURE
CHANGES = np.array([-0.06, 0.0, 0.06])
CENTRES = np.array([-2.0, 0.0, 2.0])


@pytest.fixture
def comitia(monkeypatch, capsys, tmp_path):
    """Call the command line in an empty folder: exit code, standard output, standard error, and the JSON it wrote."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        arguments = ["reweight", *map(str, arguments), "--json", "found.json"]
        monkeypatch.setattr("sys.argv", ["comitia", *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        captured = capsys.readouterr()
        content = json.loads((tmp_path / "found.json").read_text()) if stop.value.code == 0 else None
        return SimpleNamespace(code=stop.value.code, out=captured.out, err=captured.err, content=content)

    return call


@pytest.fixture
def windows(tmp_path):
    """An oscillator, kbar = kT, in three windows of half its force constant, and what is in their folders."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(3, 400)) / np.sqrt(1.5) + CENTRES[:, None] / 3
    energies = 0.5 * KT * (1 + CHANGES) * x[:, :, None] ** 2
    bias = 0.25 * KT * (x[:, :, None] - CENTRES) ** 2
    for i in range(3):
        folder = tmp_path / f"window_{i}"
        folder.mkdir()
        np.savetxt(folder / "potentials", energies[i], fmt="%.17g")
        np.savetxt(folder / "x", np.column_stack([x[i], x[i] ** 2]), fmt="%.17g")
        np.savetxt(folder / "bias", bias[i], fmt="%.17g")
    return SimpleNamespace(x=x.ravel(), energies=energies.reshape(-1, 3), bias=bias.reshape(-1, 3))


FILES = ("--potentials", "potentials", "--observable", "x:2", "--units", "eV", "--temperature", TEMPERATURE)
FOLDERS = [argument for i in range(3) for argument in ("--windows", f"window_{i}")]


def test_umbrella_windows_together(comitia, windows):
    found = comitia(*FILES, *FOLDERS, "--observable", "potentials", "--bias", "bias:1-3")
    states = np.repeat(np.arange(3), 400)
    ensemble = MultistateEnsemble(windows.energies, states, np.full(3, TEMPERATURE), TEMPERATURE, windows.bias)
    for content, observable in zip(found.content["averages"], (windows.x**2, windows.energies), strict=True):
        average = ensemble.average(observable)
        assert_allclose(content["members"], average.members, rtol=1e-12)
        assert content["statistical_error"] == pytest.approx(average.statistical_error, rel=1e-9)
        assert content["verdict"] == average.verdict
    assert abs(content["value"] - 0.5 * KT) < 4 * content["statistical_error"]
    assert found.content["method"] == "mbar"
    assert found.content["n_frames"] == 1200
    assert "3 windows" in found.out


def test_windows_at_another_temperature_and_without_their_start(comitia, windows):
    found = comitia(*FILES, *FOLDERS, "--bias", "bias:1-3", "--temperature-to", 330, "--skip", 100)
    kept = np.tile(np.arange(400) >= 100, 3)
    states, temperatures = np.repeat(np.arange(3), 300), np.full(3, TEMPERATURE)
    ensemble = MultistateEnsemble(windows.energies[kept], states, temperatures, 330.0, windows.bias[kept])
    assert_allclose(found.content["members"], ensemble.average(windows.x[kept] ** 2).members, rtol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ((*FILES, "--method", "mbar"), 2, "is not of a replica exchange"),
        ((*FILES, *FOLDERS, "--bias", "bias:2"), 3, "3 columns of energies are wanted, not 1"),
        ((*FILES, *FOLDERS, "--windows", "nowhere", "--bias", "bias:1-3"), 3, "nowhere: is not a folder"),
        ((*FILES, *FOLDERS, "--ensemble", 1), 2, "mbar takes all"),
        ((*FILES, *FOLDERS, "--bias", "bias:1-3", "--skip", 400), 2, "leaves nothing of 400 frames"),
    ],
)
def test_bad_requests_are_sentences(comitia, windows, tmp_path, arguments, code, words):
    if "mbar" in arguments:
        for name in ("potentials", "x"):
            (tmp_path / name).write_bytes((tmp_path / "window_0" / name).read_bytes())
    found = comitia(*arguments)
    assert found.code == code
    assert words in found.err
    assert len(found.err.strip().splitlines()) == 1


@pytest.mark.parametrize("method", ["cea", "direct"])
def test_models_of_an_observable(comitia, tmp_path, method):
    """Eqs. 26 to 28 from files; an observable beside it is what it is alone."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=2_000)
    energies = 0.5 * KT * (1 + CHANGES) * x[:, None] ** 2
    models = x[:, None] ** 2 * np.array([0.9, 1.0, 1.05, 1.1]) + 0.1 * rng.normal(size=4)
    np.savetxt(tmp_path / "potentials", energies, fmt="%.17g")
    np.savetxt(tmp_path / "chi", models, fmt="%.17g")
    arguments = ("--potentials", "potentials", "--units", "eV", "--temperature", TEMPERATURE, "--method", method)
    expected = reweight_models(models, energies, TEMPERATURE, method)
    found = comitia(*arguments, "--observable", "chi:models", "--observable", "chi:2")
    combined, alone = found.content["averages"]
    assert combined["observable"] == "chi:models"
    assert_allclose(combined["table"], expected.table, rtol=1e-10)
    for name in ("model_error", "potential_error", "committee_error", "statistical_error"):
        assert combined[name] == pytest.approx(getattr(expected, name), rel=1e-8)
    assert_allclose(alone["members"], expected.table[1], rtol=1e-10)
    assert "chi:models" in found.out
    assert comitia(*arguments, "--observable", "chi:models").content["verdict"] == expected.verdict
    np.savetxt(tmp_path / "one", x)
    assert "two of each" in comitia(*arguments, "--observable", "one:models").err
