"""A fit that goes on from an earlier one: equal to the fit to all of the data, without a look at the old structures."""

import json
import shutil

import pytest
from ase.io.extxyz import write_xyz
from fits import BASIS, CUTOFF, Killed, dies_after, labelled
from numpy.testing import assert_allclose, assert_array_equal

import comitia
from comitia.cli import cli
from comitia.errors import ComitiaError
from comitia.settings import convert
from comitia.structures import read_structures
from comitia.training import FitSettings, fit, sums

HELD = {"core": False, "reference_energies": {"Ar": -3.0, "Kr": -5.0}, "regularisation": 1e-8}
FIXED = BASIS | {"radial": "bessel"}  # the same whatever the data, so that an update can equal the fit to all of them


def settings(data, **changes):
    content = {"data": data, "cutoff": CUTOFF, "basis": FIXED, "members": 4, "keep_sums": True}
    return convert(content | changes, FitSettings, "test")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("update")
    frames = labelled(84)
    for atoms in frames[70:]:
        atoms.info["config_type"] = "fresh"
    write_xyz(folder / "old.xyz", frames[:50])
    write_xyz(folder / "new.xyz", frames[50:])
    write_xyz(folder / "all.xyz", frames)
    write_xyz(folder / "test.xyz", labelled(10, 500))
    fit(settings("old.xyz", **HELD), folder, folder / "old.safetensors", progress=False)
    fit(settings("old.xyz"), folder, folder / "free.safetensors", progress=False)
    return folder


def test_the_sums_lie_beside_the_model(folder):
    assert sorted(path.name for path in folder.glob("old.*")) == ["old.json", "old.safetensors", "old.sums", "old.xyz"]
    assert {path.suffix for path in (folder / "old.sums").iterdir()} == {".safetensors"}


def test_radial_functions_stay_those_of_the_first_fit(folder, tmp_path):
    path = tmp_path / "first.safetensors"
    fit(settings("old.xyz", basis=BASIS), folder, path, progress=False)
    changes = {"basis": BASIS, "previous": str(path)}
    updated = fit(settings("new.xyz", **changes), folder, tmp_path / "updated.safetensors", progress=False)
    first = comitia.load(path).descriptor
    assert first.factor_variance is not None
    for name in ("spline", "radial_offset", "features", "factor_variance"):
        assert_array_equal(getattr(updated.potential.descriptor, name), getattr(first, name))


@pytest.mark.parametrize("data", ["new.xyz", "all.xyz"])
def test_an_update_is_the_fit_to_all_of_the_data(folder, tmp_path, monkeypatch, data):
    whole = fit(settings("all.xyz", **HELD), folder, tmp_path / "whole.safetensors", progress=False)
    counted = dies_after(monkeypatch, 1000)
    changes = HELD | {"previous": "old.safetensors"}
    updated = fit(settings(data, **changes), folder, tmp_path / "updated.safetensors", progress=False)
    assert len(counted) == 34  # the new structures, and each once
    assert_allclose(updated.report["regularisation"]["strength"], whole.report["regularisation"]["strength"])
    for structure in read_structures(folder / "test.xyz"):
        one, other = (result.potential.compute(structure.atoms) for result in (updated, whole))
        assert_allclose(one.energy, other.energy, atol=1e-7)  # eV; normal equations against refined residuals
        assert_allclose(one.forces, other.forces, atol=1e-7)
    found = updated.report["data"]
    assert found["structures"]["training"] == 84
    assert found["atoms"] == whole.report["data"]["atoms"]
    assert found["config_types"] == ["cold", "fresh", "hot"]
    assert found["previous"] == {"model": str(folder / "old.safetensors"), "structures": 50, "added": 34}
    assert updated.report["calibration"]["count_energy"] == 84
    assert updated.report["errors"]["training"]["energy"]["count"] == 34


def test_one_by_one_is_all_at_once(folder, tmp_path):
    frames = [list(read_structures(folder / "new.xyz"))[start : start + 17] for start in (0, 17)]
    from ase.calculators.singlepoint import SinglePointCalculator

    for number, some in enumerate(frames):
        for structure in some:
            labels = {"energy": structure.energy, "forces": structure.forces}
            labels = {name: value for name, value in labels.items() if value is not None}
            structure.atoms.calc = SinglePointCalculator(structure.atoms, **labels)
        write_xyz(tmp_path / f"{number}.xyz", [structure.atoms for structure in some])
    shutil.copytree(folder / "old.sums", tmp_path / "m.sums")
    shutil.copy(folder / "old.safetensors", tmp_path / "m.safetensors")
    changes = HELD | {"previous": str(tmp_path / "m.safetensors")}
    for number in (0, 1):  # in place: the model goes on from itself
        twice = fit(settings(f"{number}.xyz", **changes), tmp_path, tmp_path / "m.safetensors", progress=False)
    once = fit(
        settings("new.xyz", **HELD | {"previous": "old.safetensors"}),
        folder,
        tmp_path / "o.safetensors",
        progress=False,
    )
    for structure in read_structures(folder / "test.xyz"):  # not the weights: where data leave them open, they round
        one, other = (result.potential.compute(structure.atoms) for result in (twice, once))
        assert_allclose(one.energy, other.energy, rtol=0, atol=1e-8)  # eV
        assert_allclose(one.forces, other.forces, rtol=0, atol=1e-7)
    assert twice.report["data"]["structures"]["training"] == 84
    with pytest.raises(ComitiaError, match="67 of the 84 structures"):
        fit(settings("1.xyz", **changes), tmp_path, tmp_path / "m.safetensors", progress=False)


def test_what_is_chosen_anew(folder, tmp_path):
    """Regularisation by the evidence of all sums, alpha from all held-out structures; the committee covers the new."""
    changes = {"previous": "free.safetensors", "keep_sums": False, "test": {"file": "test.xyz"}}
    updated = fit(settings("new.xyz", **changes), folder, tmp_path / "m.safetensors", progress=False)
    whole = fit(settings("all.xyz", test={"file": "test.xyz"}), folder, tmp_path / "w.safetensors", progress=False)
    ratio = updated.potential.alpha_energy / whole.potential.alpha_energy
    assert 0.5 < ratio < 2  # alpha of 84 structures: other halves of the data, the same size of errors
    errors = [r.report["errors"]["test"]["forces"]["rmse"] for r in (updated, whole)]
    assert errors[0] < 1.2 * errors[1]
    assert_array_equal(
        updated.potential.reference_energies, comitia.load(folder / "free.safetensors").reference_energies
    )
    assert not (tmp_path / "m.sums").exists()


def test_an_update_that_was_killed_goes_on(folder, tmp_path, monkeypatch):
    changes = HELD | {"previous": "old.safetensors"}
    expected = fit(settings("new.xyz", **changes), folder, tmp_path / "e.safetensors", progress=False)
    monkeypatch.setattr(sums, "SAVE_EVERY", 0.0)
    with monkeypatch.context() as patch:
        dies_after(patch, 20)
        with pytest.raises(Killed):
            fit(settings("new.xyz", **changes), folder, tmp_path / "m.safetensors", progress=False)
    assert list((tmp_path / "m.sums.partial").iterdir())
    again = fit(settings("new.xyz", **changes), folder, tmp_path / "m.safetensors", progress=False)
    assert_array_equal(again.potential.weights, expected.potential.weights)


def test_structures_held_out_before_stay_out(folder, tmp_path):
    held = {"validation": {"fraction": 0.3, "seed": 1}}
    first = fit(settings("old.xyz", **held), folder, tmp_path / "m.safetensors", progress=False)
    n_held = first.report["data"]["structures"]["validation"]
    assert n_held > 10
    again = fit(
        settings("all.xyz", previous=str(tmp_path / "m.safetensors")),
        folder,
        tmp_path / "n.safetensors",
        progress=False,
    )
    assert again.report["data"]["structures"]["training"] == 84 - n_held


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda f: {"cutoff": 5.0}, "cutoff is 6.0 in .* and 5.0 here"),
        (lambda f: {"weights": {"config_type": {"hot": 2.0}}}, "weights is"),
        (lambda f: {"members": 8}, "members is 4"),
        (lambda f: {"data": "test.xyz", "previous": "none.safetensors"}, "none.safetensors: cannot be read"),
        (lambda f: {"data": "old.xyz"}, "holds no structure that"),
        (lambda f: {"data": "some.xyz"}, "20 of the 50 structures of .* are missing or have changed"),
        (lambda f: {"data": "xenon.xyz"}, "species Xe is not in the model"),
        (lambda f: shutil.rmtree(f / "free.sums"), "does not exist, so that .* cannot be gone on from"),
        (lambda f: shutil.copy(f / "old.sums/index.safetensors", f / "free.sums"), "belongs to another model"),
        (lambda f: shutil.copy(f / "old.sums/group-0003.safetensors", f / "free.sums"), "belongs to other data"),
        (lambda f: (f / "free.sums/group-0000.safetensors").unlink(), "group-0000.safetensors: cannot be read"),
        (lambda f: (f / "free.sums/group-0001.safetensors").write_bytes(b"{"), "not the sums of a fit"),
        (lambda f: (f / "free.sums/index.safetensors").write_bytes(b"\0" * 999), "not the sums of a fit"),
    ],
)
def test_what_cannot_be_gone_on_from(folder, tmp_path, change, sentence):
    shutil.copytree(folder, tmp_path / "f")
    write_xyz(tmp_path / "f" / "some.xyz", labelled(60)[20:])
    write_xyz(tmp_path / "f" / "xenon.xyz", labelled(6, 900, (18, 54)))
    found = change(tmp_path / "f")
    changes = {"data": "new.xyz", "previous": "free.safetensors"} | (found if isinstance(found, dict) else {})
    with pytest.raises(ComitiaError, match=sentence) as caught:
        fit(settings(**changes), tmp_path / "f", tmp_path / "m.safetensors", progress=False)
    assert caught.value.exit_code == 3
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_the_command_line(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copy(folder / "old.xyz", tmp_path)
    shutil.copy(folder / "all.xyz", tmp_path)
    for name in ("old", "all"):
        text = f"data: {name}.xyz\ncutoff: {CUTOFF}\nmembers: 4\nbasis: {json.dumps(FIXED)}\n"
        (tmp_path / f"{name}.yaml").write_text(text)
    cli.main(["fit", "old.yaml", "--keep-sums"], standalone_mode=False)
    cli.main(["fit", "all.yaml", "--previous", "old.safetensors"], standalone_mode=False)
    assert "34 added to the 50 of old.safetensors" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["old.sums"]
