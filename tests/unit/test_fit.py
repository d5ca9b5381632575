"""The whole fit on a pair potential whose answer is known: what is written, what is repeatable, what is refused."""

import importlib
import json
import subprocess
import sys

import models
import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.extxyz import write_xyz
from numpy.testing import assert_allclose, assert_array_equal

import comitia
from comitia.cli import cli
from comitia.errors import ComitiaError, OutputError
from comitia.settings import convert
from comitia.structures import read_structures
from comitia.training import FitSettings, evaluate_dataset, fit

CUTOFF = 6.0
BASIS = {"n_max": [8, 4, 2], "l_max": [0, 2, 1], "degree": [8, 6, 4]}
ATOM_ENERGIES = {18: -3.0, 36: -5.0}


def labelled(n_frames, seed, species=(18, 36)):
    """Rattled crystals with the energies and forces of a pair potential, and some stresses."""
    frames = []
    for frame in range(n_frames):
        amplitude = 0.05 + 0.25 * (frame >= n_frames // 2)
        atoms = models.crystal(species, (2, 2, 1), rattle=amplitude, seed=seed + frame)
        rng = np.random.default_rng(seed + frame)
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.03 * rng.normal(size=(3, 3))), scale_atoms=True)
        energy, forces = models.pair_energy_and_forces(atoms, CUTOFF)
        energy += sum(ATOM_ENERGIES[z] for z in atoms.numbers)
        stress = {"stress": numerical_stress(atoms)} if frame % 6 == 0 else {}
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces, **stress)
        atoms.info["config_type"] = "hot" if frame >= n_frames // 2 else "cold"
        atoms.info["held"] = frame % 7 == 0
        frames.append(atoms)
    return frames


def numerical_stress(atoms, step=1e-5):
    """Stress (6,) of the pair potential by central differences, eV/Å³."""
    stress = []
    for i, j in ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)):
        energies = []
        for sign in (1, -1):
            strain = np.zeros((3, 3))
            strain[i, j] += sign * step / 2
            strain[j, i] += sign * step / 2
            strained = atoms.copy()
            strained.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
            energies.append(models.pair_energy_and_forces(strained, CUTOFF)[0])
        stress.append((energies[0] - energies[1]) / (2 * step) / atoms.get_volume())
    return np.array(stress)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_xyz(folder / "train.xyz", labelled(60, 0))
    write_xyz(folder / "test.xyz", labelled(12, 1000))
    return folder


def settings(**changes):
    return convert({"data": "train.xyz", "cutoff": CUTOFF, "basis": BASIS, "members": 8} | changes, FitSettings, "test")


@pytest.fixture(scope="module")
def fitted(data):
    return fit(settings(test={"file": "test.xyz"}), data, data / "model.safetensors", progress=False)


def test_the_model_describes_what_it_did_not_see(fitted):
    errors = fitted.report["errors"]["test"]
    spread = np.std([s.forces for s in read_structures_of(fitted, "test")])
    assert errors["energy"]["rmse"] < 1.0  # meV/atom
    assert errors["forces"]["rmse"] < 0.05 * spread
    assert errors["virial"]["rmse"] < 20  # meV/atom
    assert errors["energy"]["count"] == 12
    assert set(errors["config_types"]) == {"cold", "hot"}


def read_structures_of(result, name):
    return read_structures(result.path.with_name(f"{name}.xyz"))


def test_what_is_written_can_be_read_back(fitted, data):
    report = json.loads((data / "model.json").read_text())
    potential = comitia.load(data / "model.safetensors")
    assert report["data"]["structures"] == {"training": 60, "validation": 0, "test": 12}
    assert report["calibration"]["recentred"]
    assert report["cost"]["value"] > 0
    assert report["errors"] == fitted.report["errors"]
    assert potential.metadata["data"]["sha256"] == report["data"]["sha256"]
    assert potential.n_members == 8
    found = evaluate_dataset(potential, read_structures(data / "test.xyz"))
    assert_allclose(found["errors"]["forces"]["rmse"], report["errors"]["test"]["forces"]["rmse"], rtol=1e-12)
    labelled = read_structures(data / "test.xyz")[0]
    first = potential.compute(labelled.atoms, members=True)
    assert found["structures"][0]["energy_uncertainty"] == pytest.approx(first.energy_uncertainty, rel=1e-9)
    of_forces = np.mean((labelled.forces - first.forces) ** 2) ** 0.5, np.mean(first.force_uncertainty**2) ** 0.5
    assert found["structures"][0]["force_error"] == pytest.approx(of_forces[0], rel=1e-9)
    assert found["structures"][0]["force_uncertainty"] == pytest.approx(of_forces[1], rel=1e-9)
    assert found["calibration"]["energy"]["count"] == 12
    assert sorted(path.name for path in data.iterdir()) == ["model.json", "model.safetensors", "test.xyz", "train.xyz"]


def test_folds_calibrate_the_committee(fitted):
    calibration = fitted.report["calibration"]
    assert calibration["source"] == "5-fold"
    assert calibration["count_energy"] == 60
    error, spread, _ = fitted.held_out.energies()
    expected = np.sqrt((8 - 3) / (8 - 1) * np.mean((error / spread) ** 2))
    assert calibration["alpha_energy"] == pytest.approx(expected)
    assert fitted.potential.alpha_energy == calibration["alpha_energy"]
    assert_allclose(fitted.potential.weights.mean(axis=0), fitted.potential.mean_weights.ravel())


@pytest.mark.parametrize("threads", [1, 2])
def test_a_fit_is_repeatable(fitted, data, tmp_path, threads):
    again = fit(settings(threads=threads), data, tmp_path / "m.safetensors", progress=False)
    assert_array_equal(again.potential.weights, fitted.potential.weights)
    assert again.potential.alpha_energy == fitted.potential.alpha_energy
    other = fit(settings(seed=1), data, tmp_path / "m.safetensors", progress=False)
    assert not np.allclose(other.potential.weights, fitted.potential.weights, rtol=1e-3)


def test_members_may_be_drawn_from_the_posterior(fitted, data, tmp_path):
    drawn = fit(settings(committee={"kind": "llpr"}), data, tmp_path / "m.safetensors", progress=False)
    mean, scale = fitted.potential.mean_weights, np.abs(fitted.potential.weights).max()
    assert_allclose(drawn.potential.mean_weights, mean, rtol=0, atol=1e-6 * scale)
    assert np.abs(drawn.potential.weights - fitted.potential.weights).max() > 1e-6 * scale
    assert drawn.report["settings"]["committee"] == {"kind": "llpr"}
    quality = drawn.report["calibration"]["quality"]
    assert 0.8 < quality["energy"]["rms_z"] < 1.25
    assert 0.8 < quality["forces"]["rms_z"] < 1.25


def test_forces_have_their_own_calibration(fitted):
    calibration, potential = fitted.report["calibration"], fitted.potential
    assert (calibration["alpha_forces"], calibration["force_floor"]) == (potential.alpha_forces, potential.force_floor)
    for found in calibration["quality"].values():
        assert set(found) >= {"rms_z", "nll", "miscalibration_area", "rank_correlation", "curve", "bins"}
        assert len(found["bins"]["rmse"]) == len(found["bins"]["expected_rmse"])


@pytest.mark.parametrize("members", [1, 2])
def test_few_members(data, tmp_path, members):
    result = fit(settings(members=members), data, tmp_path / "m.safetensors", progress=False)
    prediction = result.potential.compute(read_structures(data / "test.xyz")[0].atoms)
    if members == 1:
        assert prediction.energy_uncertainty is None
        assert result.report["errors"]["folds"]["energy"]["rmse"] < 2.0
    else:
        assert prediction.energy_uncertainty > 0
        assert "fewer than 4 members" in result.report["calibration"]["warnings"][0]


@pytest.mark.parametrize("validation", [{"fraction": 0.4, "seed": 2}, {"file": "test.xyz"}, {"key": "held"}])
def test_hold_out_calibrates_and_is_not_trained_on(data, tmp_path, monkeypatch, validation):
    monkeypatch.setattr(importlib.import_module("comitia.training.fit"), "FEWEST_TO_CALIBRATE", 9)
    result = fit(settings(validation=validation), data, tmp_path / "m.safetensors", progress=False)
    counts = result.report["data"]["structures"]
    held = {"fraction": 24, "file": 12, "key": 9}[next(iter(validation))]
    assert counts["validation"] == pytest.approx(held, abs=3)
    assert counts["training"] == 60 - (0 if "file" in validation else counts["validation"])
    assert result.report["calibration"]["source"] == "validation"
    assert result.report["calibration"]["count_energy"] == counts["validation"]
    assert "folds" not in result.report["errors"]


def test_a_small_hold_out_leaves_calibration_to_the_folds(data, tmp_path):
    result = fit(settings(validation={"key": "held"}), data, tmp_path / "m.safetensors", progress=False)
    assert result.report["calibration"]["source"] == "5-fold"
    assert result.report["errors"]["validation"]["energy"]["count"] == 9


def test_given_reference_energies_are_kept(data, tmp_path):
    given = {"Ar": -3.0, "Kr": -5.0}
    result = fit(settings(reference_energies=given), data, tmp_path / "m.safetensors", progress=False)
    assert_allclose(result.potential.reference_energies, [-3.0, -5.0])
    assert 0 not in result.potential.descriptor.orders
    assert result.report["errors"]["folds"]["energy"]["rmse"] < 2.0


def test_weights_of_a_config_type(data, tmp_path):
    plain = fit(settings(regularisation=1e-4), data, tmp_path / "m.safetensors", progress=False)
    heavy = {"config_type": {"cold": 1e4}}
    weighted = fit(settings(regularisation=1e-4, weights=heavy), data, tmp_path / "m.safetensors", progress=False)
    cold = [r.report["errors"]["training"]["config_types"]["cold"]["forces"]["rmse"] for r in (plain, weighted)]
    assert cold[1] < cold[0]
    assert plain.report["regularisation"]["chosen_by"] == "settings"


def test_the_command_line(data, tmp_path, monkeypatch, capsys):
    (data / "FIT.yaml").write_text(f"data: train.xyz\ncutoff: {CUTOFF}\nmembers: 4\nbasis: {json.dumps(BASIS)}\n")
    monkeypatch.chdir(tmp_path)
    try:
        cli.main(["fit", str(data / "FIT.yaml"), "--figure", "train.png"], standalone_mode=False)
    finally:
        (data / "FIT.yaml").unlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["train.json", "train.png", "train.safetensors"]
    printed = capsys.readouterr().out
    assert all(
        word in printed for word in ("training", "folds", "alpha", "strength", "time", "meV/atom", "eV/Å", "µs/atom")
    )
    cli.main(
        ["eval", "train.safetensors", str(data / "test.xyz"), "--json", "e.json", "-o", "out.xyz", "--figure", "e.png"],
        standalone_mode=False,
    )
    assert (tmp_path / "e.png").read_bytes()[:4] == b"\x89PNG"
    found = json.loads((tmp_path / "e.json").read_text())
    assert found["errors"]["energy"]["count"] == 12
    assert {"nll", "miscalibration_area"} <= set(found["calibration"]["energy"])
    written = read_structures("out.xyz")
    assert written[0].atoms.info["energy_uncertainty"] == pytest.approx(found["structures"][0]["energy_uncertainty"])
    alone = comitia.load("train.safetensors").compute(written[0].atoms, members=True)
    assert_allclose(written[0].atoms.arrays["force_uncertainty"], alone.force_uncertainty, atol=1e-6)
    reference = read_structures(data / "test.xyz")
    assert written[3].energy == pytest.approx(reference[3].energy - found["structures"][3]["energy_error"])
    capsys.readouterr()
    cli.main(["inspect", "train.safetensors"], standalone_mode=False)
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("Ar Kr", "Å", "eV", "members", "alpha"))
    cli.main(["inspect", "train.safetensors", "--json"], standalone_mode=False)
    assert json.loads(capsys.readouterr().out)["settings"]["members"] == 4


def corrupted(text, kind):
    if kind == "nan":
        return text.replace("energy=-", "energy=nan comment=-", 1)
    if kind == "forces":
        return text.replace("forces:R:3", "strength:R:3")
    if kind == "energy":
        return text.replace("energy=", "total=")
    return "".join(text.splitlines(keepends=True)[:-3])


@pytest.mark.parametrize("kind", ["nan", "forces", "energy", "cut"])
def test_bad_data_leaves_nothing_behind(data, tmp_path, kind):
    (tmp_path / "train.xyz").write_text(corrupted((data / "train.xyz").read_text(), kind))
    with pytest.raises(ComitiaError) as caught:
        fit(settings(), tmp_path, tmp_path / "m.safetensors", progress=False)
    assert caught.value.exit_code == 3
    assert "train.xyz" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["train.xyz"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cutof": 3}, "did you mean 'cutoff'"),
        ({"weights": {"force": 1}}, "did you mean 'forces'"),
        ({"basis": {"nmax": [1, 1, 1]}}, "did you mean 'n_max'"),
        ({"keys": {"enery": "e"}}, "did you mean 'energy'"),
        ({"validation": {"fraction": 0.1, "key": "held"}}, "give one of"),
        ({"validation": {"key": "nobody"}}, "marks no frame"),
        ({"groups": {"key": "a", "block": 2}}, "key or block"),
        ({"groups": {"key": "nobody"}}, "nobody"),
        ({"weights": {"config_type": {"hott": 2.0}}}, "did you mean 'hot'"),
        ({"reference_energies": {"Ar": 1.0}}, "Kr"),
        ({"members": 0}, ">= 1"),
        ({"cutoff": "far"}, "float"),
        ({"data": "missing.xyz"}, "missing.xyz"),
        ({"test": {"file": "missing.xyz"}}, "missing.xyz"),
    ],
)
def test_settings_that_are_refused(data, tmp_path, changes, message):
    with pytest.raises(ComitiaError, match=message) as caught:
        fit(settings(**changes), data, tmp_path / "m.safetensors", progress=False)
    assert caught.value.exit_code == 3
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_missing_output_folder_is_found_before_the_work(data, tmp_path):
    with pytest.raises(OutputError, match="does not exist"):
        fit(settings(), data, tmp_path / "nowhere" / "m.safetensors", progress=False)


def test_exit_codes_and_sentences_of_the_commands(data, fitted, tmp_path):
    write_xyz(tmp_path / "other.xyz", labelled(2, 0, species=(18,)))
    other = (tmp_path / "other.xyz").read_text().replace("Ar ", "Ne ")
    (tmp_path / "other.xyz").write_text(other)
    (tmp_path / "bad.yaml").write_text("data: train.xyz\ncutof: 5\n")
    for arguments, sentence in (
        (["eval", str(fitted.path), str(tmp_path / "other.xyz")], "species Ne is not in the model"),
        (["fit", str(tmp_path / "bad.yaml")], "did you mean 'cutoff'"),
        (["inspect", str(data / "train.xyz")], "train.xyz"),
    ):
        run = subprocess.run(
            [sys.executable, "-m", "comitia.cli", *arguments], capture_output=True, text=True, check=False, cwd=tmp_path
        )
        assert run.returncode == 3, run.stderr
        assert sentence in run.stderr
        assert len(run.stderr.strip().splitlines()) == 1
