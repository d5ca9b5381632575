"""`baseline:` of a fit: what is stored is the near-zero rest, and on its baseline it is the reference again."""

import json

import numpy as np
import pytest
from ase.io import read
from ase.io.extxyz import write_xyz
from fits import BASIS, CUTOFF, labelled
from models import crystal, small_model
from numpy.testing import assert_allclose

import comitia
from comitia.cli import cli
from comitia.engines.composed import load_composed
from comitia.errors import ComitiaError, ModelError, SettingsError
from comitia.settings import convert
from comitia.structures import label_structure, read_structures
from comitia.training import FitSettings, fit
from comitia.training.corrections import corrected
from comitia.training.dataset import fingerprint

SPECIES = (18, 36)
E0 = {18: -2000.0, 36: -5000.0}  # eV; another zero of energy than that of the baseline
FACTORY = """
from ase.calculators.morse import MorsePotential


def make(epsilon=0.02):
    return MorsePotential(epsilon=epsilon, r0=3.3, rho0=4.3, rcut1=1.2, rcut2=1.8)
"""
FIT = {"data": "data.xyz", "cutoff": CUTOFF, "basis": BASIS, "members": 4}
CALCULATOR = {"calculator": "morse_pairs:make", "arguments": {"epsilon": 0.021}}
STEP = 3e-4  # Å; the weight changes within hundredths


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Data with their own zero of energy, corrections to a model and to a calculator, and both as potentials."""
    folder = tmp_path_factory.mktemp("corrections")
    (folder / "morse_pairs.py").write_text(FACTORY)
    frames = labelled(40, species=SPECIES)
    for atoms in frames:
        atoms.calc.results["energy"] += sum(E0[z] for z in atoms.numbers)
    write_xyz(folder / "data.xyz", frames)
    small_model(SPECIES).save(folder / "base.safetensors")
    baselines = {"model": {"model": "base.safetensors"}, "calculator": CALCULATOR}
    for name, baseline in baselines.items():
        (folder / f"{name}.yaml").write_text(json.dumps(FIT | {"baseline": baseline, "keep_sums": name == "model"}))
        run("fit", folder / f"{name}.yaml", "-o", folder / f"{name}.safetensors", "-q")
        potential = {"committee": f"{name}.safetensors", "baseline": baseline, "baseline_uncertainty": 0.05}
        (folder / f"potential-{name}.yaml").write_text(json.dumps(potential))
    return folder


def run(*arguments):
    cli.main([str(argument) for argument in arguments], standalone_mode=False)


def evaluate(potential, atoms):
    evaluator = potential.evaluator(atoms.numbers, atoms.pbc, 1)
    return evaluator.compute(atoms.positions[None], atoms.cell.array[None])


def test_labels_lose_those_of_the_baseline():
    structure = label_structure(labelled(2)[1], comitia.structures.Keys(), "here")
    structure.virial = np.eye(3)
    (found,) = corrected([structure], lambda atoms: (1.5, np.full((len(atoms), 3), 0.25), 2 * np.eye(3)))
    assert found.energy == structure.energy - 1.5
    assert_allclose(found.forces, structure.forces - 0.25)
    assert_allclose(found.virial, -np.eye(3))
    assert found.reference is structure
    assert fingerprint([found]) == fingerprint([structure])  # of the data, whatever was taken off
    with pytest.warns(UserWarning, match="no stress; the virials of 1 structures"):
        (found,) = corrected([structure], lambda atoms: (1.5, np.zeros((len(atoms), 3)), None))
    assert found.virial is None


@pytest.mark.parametrize("name", ["model", "calculator"])
def test_what_is_stored_is_near_zero(name, folder):
    """Beside reference energies of their own; the file says what it corrects, and has no core."""
    model = comitia.load(folder / f"{name}.safetensors")
    atoms = read(folder / "data.xyz", "3")
    left = model.compute(atoms).member_energies - model.reference_energy(atoms.numbers)
    assert np.abs(left).max() < 0.1 * len(atoms)
    assert abs(model.reference_energy(atoms.numbers)) > 1000 * len(atoms)
    assert model.core is None
    assert model.corrects.keys() >= ({"sha256"} if name == "model" else {"calculator", "arguments"})
    taken = model.corrects["removed"]["forces"]
    assert taken["corrections"] < taken["reference"]


@pytest.mark.parametrize("name", ["model", "calculator"])
def test_on_its_baseline_it_is_the_reference(name, folder):
    potential = comitia.load(folder / f"potential-{name}.yaml")
    errors, spread = [], []
    for atoms in read(folder / "data.xyz", ":8"):
        found = evaluate(potential, atoms)
        assert potential.compute(atoms).energy == found.energies[0]
        errors.append(found.energies[0] - atoms.get_potential_energy())
        spread.append(atoms.get_potential_energy() - sum(E0[z] for z in atoms.numbers))
        assert found.mixing[0] > 0.9
        assert np.abs(found.member_energies).max() < 0.1 * len(atoms)
    assert np.std(errors) < 0.1 * np.std(spread)
    assert np.abs(np.mean(errors)) < 0.1


def test_forces_and_virial_are_the_gradient(folder):
    """Of corrections and baseline together, where the weight changes."""
    potential = load_composed(folder / "potential-model.yaml")
    atoms = crystal(SPECIES, (2, 1, 1), rattle=0.3, seed=7)
    potential.settings.baseline_uncertainty = float(evaluate(potential, atoms).energy_uncertainties[0])
    found = evaluate(potential, atoms)
    assert_allclose(found.mixing[0], 0.5)

    def energy(shift=0.0, strain=0.0):
        moved = atoms.copy()
        moved.positions += shift
        moved.set_cell(moved.cell.array @ (np.eye(3) + strain), scale_atoms=True)
        return evaluate(potential, moved).energies[0]

    def slope(function):
        factors = (4 / 5, -1 / 5, 4 / 105, -1 / 280)
        return sum(c * (function(n * STEP) - function(-n * STEP)) for n, c in enumerate(factors, 1)) / STEP

    for i, a in ((0, 0), (5, 2)):
        unit = np.zeros_like(atoms.positions)
        unit[i, a] = 1.0
        assert_allclose(found.forces[0, i, a], -slope(lambda x, unit=unit: energy(shift=x * unit)), atol=1e-6)
    strain = np.diag([1.0, 0.0, 0.0])
    assert_allclose(found.virials[0, 0, 0], -slope(lambda x: energy(strain=x * strain)), atol=1e-6)


@pytest.mark.parametrize(
    "command",
    [
        ["serve", "model.safetensors", "--template", "data.xyz", "--unix", "nobody"],
        ["sample", "nve.xml", "--model", "model.safetensors", "--quiet"],
        ["label", "data.xyz", "--with", "model:model.safetensors", "-o", "out.xyz", "-q"],
    ],
)
def test_corrections_are_not_taken_for_total_energies(command, folder, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / "nve.xml").write_text("<simulation><ffsocket mode='unix' name='a'/></simulation>")
    with pytest.raises(ModelError, match="is a model of corrections to model base"):
        run(*command)
    assert not (folder / "out.xyz").exists()


def test_a_server_that_adds_the_baseline_is_served(folder, monkeypatch):
    monkeypatch.chdir(folder)
    with pytest.raises(ComitiaError, match="no server within"):
        run("serve", "model.safetensors", "--template", "data.xyz", "--unix", "nobody", "--wait", 0.1, "--corrections")


def test_eval_judges_them_on_their_baseline(folder, monkeypatch, capsys):
    """Errors are those of the sum, and so are the energies and forces written."""
    monkeypatch.chdir(folder)
    write_xyz("some.xyz", read("data.xyz", ":12"))
    run("eval", "calculator.safetensors", "some.xyz", "-o", "out.xyz", "--json", "errors.json")
    assert "judged together with their baseline, calculator morse_pairs:make" in capsys.readouterr().out
    assert json.loads((folder / "errors.json").read_text())["errors"]["forces"]["rmse"] < 0.05
    for atoms, reference in zip(read("out.xyz", ":4"), read("data.xyz", ":4"), strict=True):
        assert abs(atoms.get_potential_energy() - reference.get_potential_energy()) < 0.01 * len(atoms)
        assert atoms.info["reference_energy"] == reference.get_potential_energy()
        assert (
            np.abs(atoms.get_forces() - reference.get_forces()).max() < 0.5 if "forces" in reference.calc.results else 1
        )


def test_a_baseline_that_has_changed_is_refused(folder, tmp_path, monkeypatch):
    """By `eval`, and in a POTENTIAL.yaml; as is another calculator."""
    for path in folder.glob("*.*"):
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.chdir(tmp_path)
    small_model(SPECIES, seed=1).save(tmp_path / "base.safetensors")
    with pytest.raises(ModelError, match=r"corrects model base\.safetensors, which has changed since"):
        run("eval", "model.safetensors", "data.xyz")
    with pytest.raises(
        ModelError, match=r"the committee corrects model base\.safetensors, and the baseline is model base"
    ):
        load_composed("potential-model.yaml")
    text = (tmp_path / "potential-calculator.yaml").read_text()
    (tmp_path / "potential-calculator.yaml").write_text(text.replace("0.021", "0.03"))
    with pytest.raises(ModelError, match="the baseline is calculator morse_pairs:make, another one"):
        load_composed("potential-calculator.yaml")
    (tmp_path / "base.safetensors").unlink()
    with pytest.raises(ModelError, match=r"base\.safetensors, which is not there"):
        run("eval", "model.safetensors", "data.xyz")


def test_a_fit_goes_on_with_the_same_baseline(folder, tmp_path):
    write_xyz(tmp_path / "data.xyz", labelled(10, 400, SPECIES))
    more = FIT | {
        "previous": str(folder / "model.safetensors"),
        "baseline": {"model": str(folder / "base.safetensors")},
    }
    (tmp_path / "fit.yaml").write_text(json.dumps(more | {"data": str(tmp_path / "data.xyz")}))
    run("fit", tmp_path / "fit.yaml", "-o", tmp_path / "more.safetensors", "-q")
    found = comitia.load(tmp_path / "more.safetensors")
    assert found.metadata["data"]["structures"]["training"] == 50
    assert found.corrects["sha256"] == comitia.load(folder / "model.safetensors").corrects["sha256"]
    del more["baseline"]
    (tmp_path / "fit.yaml").write_text(json.dumps(more | {"data": str(tmp_path / "data.xyz")}))
    with pytest.raises(SettingsError, match="baseline: is not that of"):
        run("fit", tmp_path / "fit.yaml", "-o", tmp_path / "more.safetensors", "-q")


def test_what_cannot_be_a_baseline_is_refused(folder, tmp_path):
    def refused(baseline, sentence, error=ComitiaError):
        (tmp_path / "fit.yaml").write_text(json.dumps(FIT | {"baseline": baseline, "data": str(folder / "data.xyz")}))
        with pytest.raises(error, match=sentence):
            run("fit", tmp_path / "fit.yaml", "-o", tmp_path / "model.safetensors", "-q")

    refused({"model": str(folder / "model.safetensors")}, "is a model of corrections")
    refused({"model": "nowhere.safetensors"}, "nowhere.safetensors")
    refused({"calculator": "morse_pairs:nothing"}, "cannot be made")
    refused({}, "one of `model`, `calculator` and `workers`")
    small_model((18,)).save(tmp_path / "argon.safetensors")
    refused({"model": "argon.safetensors"}, r"data.xyz, frame 0: baseline: .*Kr")
    settings = convert(FIT | {"baseline": CALCULATOR}, FitSettings, "test")
    with pytest.raises(SettingsError, match="baseline: is opened by `comitia fit`"):
        fit(settings, folder, tmp_path / "model.safetensors", progress=False)
    assert read_structures(folder / "data.xyz")[0].reference is None
