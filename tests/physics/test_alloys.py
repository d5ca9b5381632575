"""Alloys with learned pseudo-species: four elements from pure ones and binaries, and 25 elements from 100 structures.

Li et al., npj Comput. Mater. 6, 70 (2020); Lopanitsyna et al., Phys. Rev. Mater. 7, 045802 (2023).
"""

import json

import numpy as np
import pytest
from click.testing import CliRunner

import comitia
from comitia.cli import cli
from comitia.report.element_map import group_and_period
from comitia.structures import read_structures
from comitia.training.calibration import Calibration
from comitia.training.validation import evaluate

ENERGY_LIMIT, FORCES_LIMIT = 4.5, 0.12  # meV/atom, eV/Å, mean absolute errors


def fitted(folder, **content):
    """Potential and report of `comitia fit` on a FIT.yaml."""
    (folder / "FIT.yaml").write_text(json.dumps(content))  # JSON is YAML
    done = CliRunner().invoke(cli, ["fit", str(folder / "FIT.yaml"), "-o", str(folder / "model.safetensors")])
    assert done.exit_code == 0, done.output
    return comitia.load(folder / "model.safetensors"), json.loads((folder / "model.json").read_text())


def judged(potential, path):
    """Root mean square of the force uncertainty, eV/Å, and of z, on structures of up to two elements and of more."""
    found = []
    structures = read_structures(path)
    for several in (False, True):
        some = [s for s in structures if (len(set(s.atoms.numbers)) > 2) == several]
        evaluation = evaluate(potential, some)
        forces = Calibration(potential.alpha_forces, 0, floor=potential.force_floor)
        score = evaluation.calibration(Calibration(potential.alpha_energy, 0), forces)["forces"]["rms_z"]
        spread = np.concatenate([record.force_spread for record in evaluation.records])
        found.append((np.sqrt(np.mean(forces.floor**2 + (forces.alpha * spread) ** 2)), score))
    return found


@pytest.mark.long
@pytest.mark.shared
@pytest.mark.timeout(3600)
def test_a_quaternary_alloy_from_its_elements_and_binaries(shared_data, tmp_path, capsys):
    """Two pseudo-species of every order; no structure of the training set has more than two elements."""
    data = shared_data / "monbtaw"
    potential, report = fitted(
        tmp_path,
        data=str(data / "train_noSQS.xyz.xz"),
        cutoff=5.0,
        members=4,
        validation={"fraction": 0.5},
        test={"file": str(data / "test.xyz.xz")},
        weights={"virial": 0.4},
        basis={"radial": "optimal", "pseudo_species": 2, "n_max": [10, 8, 6], "l_max": [0, 6, 5], "max_features": 500},
    )
    errors = report["errors"]["test"]
    known, unknown = judged(potential, data / "test.xyz.xz")
    with capsys.disabled():
        print(f"\nMoNbTaW  test MAE {errors['energy']['mae']:.2f} meV/atom, {errors['forces']['mae']:.4f} eV/Å")
        for name, (expected, rms_z) in (("elements and binaries", known), ("quaternaries", unknown)):
            print(f"         {name}: forces expected to be off by {expected:.3f} eV/Å, rms z {rms_z:.2f}")
    assert len(potential.descriptor.contraction) == 2
    assert errors["energy"]["mae"] <= ENERGY_LIMIT
    assert errors["forces"]["mae"] <= FORCES_LIMIT
    assert unknown[0] > known[0]  # the committee knows that it extrapolates, though not how far: rms z is above 1
    # what is learned is the group of the periodic table: Nb and Ta, Mo and W
    niobium, molybdenum, tantalum, tungsten = potential.descriptor.contraction[1]
    assert abs(niobium - tantalum) + abs(molybdenum - tungsten) < 0.2 * abs(niobium - molybdenum)


@pytest.mark.long
@pytest.mark.shared
@pytest.mark.timeout(3600)
def test_twenty_five_elements(shared_data, tmp_path, capsys):
    """Strongly distorted structures, each element in few of them; the composition alone leaves 565 meV/atom."""
    data = shared_data / "hea25_subset"
    potential, report = fitted(
        tmp_path,
        data=str(data / "hea25_100.xyz.xz"),
        cutoff=5.0,
        members=4,
        folds=3,
        test={"file": str(data / "hea25_10_metatrain.xyz.xz")},
        weights={"virial": 0.4},
        basis={"radial": "optimal", "pseudo_species": 3, "n_max": [8, 6, 4], "l_max": [0, 4, 3], "max_features": 80},
    )
    folds, test = (report["errors"][part] for part in ("folds", "test"))
    forces = np.concatenate([s.forces.ravel() for s in read_structures(data / "hea25_100.xyz.xz")])
    with capsys.disabled():
        for name, errors in (("folds", folds), ("test", test)):
            print(f"\nHEA25 {name} RMSE {errors['energy']['rmse']:.0f} meV/atom, {errors['forces']['rmse']:.2f} eV/Å")
    assert folds["energy"]["rmse"] < 0.8 * 565
    assert folds["forces"]["rmse"] < 0.4 * forces.std()
    assert test["energy"]["rmse"] < 0.6 * 565
    # elements of one group or of adjacent ones are closer to one another in the map than elements are on average
    group, u = np.array([group_and_period(int(z))[0] for z in potential.species]), potential.descriptor.contraction.T
    first, second = np.triu_indices(len(group), 1)
    distance = np.linalg.norm(u[first] - u[second], axis=1)
    assert distance[np.abs(group[first] - group[second]) <= 1].mean() < 0.9 * distance.mean()
    figure = tmp_path / "map.png"
    shown = CliRunner().invoke(cli, ["inspect", str(tmp_path / "model.safetensors"), "--figure", str(figure)])
    assert shown.exit_code == 0, shown.output
    assert figure.stat().st_size > 10_000
