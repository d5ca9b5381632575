"""An alloy of four elements with learned pseudo-species, from its elements and binaries.

Li, Chen, Zheng, Zuo, Ong, npj Comput. Mater. 6, 70 (2020).
"""

import json

import pytest
from click.testing import CliRunner

import comitia
from comitia.cli import cli

ENERGY_LIMIT, FORCES_LIMIT = 4.5, 0.12  # meV/atom, eV/Å, mean absolute errors
# strong, as predictions of systems of the training set that were left out ask for: data that do not show four elements
# together cannot tell, by their evidence, what a fit does there
STRONG_PRIOR = {"strength": [3e-4], "roughness_exponent": 0.3, "column_exponent": 0.4}


def fitted(folder, **content):
    """Potential and report of `comitia fit` on a FIT.yaml."""
    (folder / "FIT.yaml").write_text(json.dumps(content))  # JSON is YAML
    done = CliRunner().invoke(cli, ["fit", str(folder / "FIT.yaml"), "-o", str(folder / "model.safetensors")])
    assert done.exit_code == 0, done.output
    return comitia.load(folder / "model.safetensors"), json.loads((folder / "model.json").read_text())


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
        regularisation=STRONG_PRIOR,
    )
    errors = report["errors"]["test"]
    with capsys.disabled():
        print(f"\nMoNbTaW  test MAE {errors['energy']['mae']:.2f} meV/atom, {errors['forces']['mae']:.4f} eV/Å")
    assert len(potential.descriptor.contraction) == 2
    assert errors["energy"]["mae"] <= ENERGY_LIMIT
    assert errors["forces"]["mae"] <= FORCES_LIMIT
    # what is learned is the group of the periodic table: Nb and Ta, Mo and W
    niobium, molybdenum, tantalum, tungsten = potential.descriptor.contraction[1]
    assert abs(niobium - tantalum) + abs(molybdenum - tungsten) < 0.2 * abs(niobium - molybdenum)
