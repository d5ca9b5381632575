"""Potentials that are not ours: two tight-binding methods as a committee under i-PI, and the averages under each."""

import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest
from ase.build import molecule
from ase.io import read, write
from models import write_ipi_xyz
from numpy.testing import assert_allclose
from programs import ended_in_order, i_pi, programs, serve

from comitia.cli import main
from comitia.units import BOHR, HARTREE, KB

INPUTS = Path(__file__).resolve().parents[2] / "inputs"
METHODS = ("GFN1-xTB", "GFN2-xTB")
TEMPERATURE = 300.0  # K
FACTORY = """
def make(method):
    from tblite.ase import TBLite

    return TBLite(method=method, verbosity=0, accuracy=0.01)
"""
POTENTIAL = "members:\n" + "".join(
    f"  - {{calculator: 'tight_binding:make', arguments: {{method: {method}}}}}\n" for method in METHODS
)


@pytest.mark.skipif(importlib.util.find_spec("tblite") is None, reason="no tblite: pip install 'comitia[reference]'")
def test_two_methods_are_a_committee_and_give_an_average_with_its_error(tmp_path, monkeypatch, capsys):
    """NVT of water: potential and members are those of tblite, averages under each by the cumulant expansion."""
    atoms = molecule("H2O")
    atoms.rattle(0.02, seed=1)
    write(tmp_path / "init.xyz", atoms, format="extxyz")  # what the client learns: no cell
    atoms.center(vacuum=10.0)
    write_ipi_xyz(tmp_path / "init_ipi.xyz", atoms)
    (tmp_path / "tight_binding.py").write_text(FACTORY)
    (tmp_path / "potential.yaml").write_text(POTENTIAL)
    text = (INPUTS / "nvt.xml").read_text().replace("> init.xyz <", "> init_ipi.xyz <")
    text = re.sub(r"<total_steps> \d+ <", "<total_steps> 150 <", text)
    text = re.sub(r"<(properties|trajectory filename='committee_pot') stride='\d+'", r"<\1 stride='1'", text)
    text = re.sub(r"units='kelvin'> [\d.]+ <", f"units='kelvin'> {TEMPERATURE} <", text)
    text = re.sub(r"<timestep units='femtosecond'> [\d.]+ <", "<timestep units='femtosecond'> 0.5 <", text)
    text = re.sub(
        r"<properties([^>]*)>.*?</properties>",
        r"<properties\1> [step, potential, atom_x(0), atom_x(1)] </properties>",
        text,
    )
    text = re.sub(r"stride='\d+' overwrite='True'", "stride='50' overwrite='False'", text)
    (tmp_path / "nvt.xml").write_text(text)
    with programs(tmp_path) as start:
        assert ended_in_order(i_pi(start, "nvt.xml"), serve(start, model="potential.yaml"))

    table, members = np.loadtxt(tmp_path / "nvt.out"), np.loadtxt(tmp_path / "nvt.committee_pot_0")
    assert members.shape == (151, 2)
    assert_allclose(table[:, 1], members.mean(axis=1), rtol=1e-14)
    given = {}
    exec(FACTORY, given)
    for k, method in enumerate(METHODS):
        atoms = read(tmp_path / "init_ipi.xyz")
        atoms.calc = given["make"](method)
        assert_allclose(members[0, k] * HARTREE, atoms.get_potential_energy(), rtol=1e-9)

    monkeypatch.chdir(tmp_path)

    def reweight(observable, *options):
        arguments = ["--potentials", "nvt.committee_pot_0", "--observable", observable, "--temperature", TEMPERATURE]
        arguments = ["comitia", "reweight", *arguments, "--json", "out.json", *options]
        monkeypatch.setattr("sys.argv", [str(word) for word in arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        assert stop.value.code == 0, capsys.readouterr().err
        return json.loads(Path("out.json").read_text())

    distance = np.linalg.norm(table[:, 5:8] - table[:, 2:5], axis=1) * BOHR
    np.savetxt("distance", distance, fmt="%.17g")
    found = reweight("distance")
    delta = (members - members.mean(axis=1, keepdims=True)) * HARTREE
    shift = np.mean((distance - distance.mean())[:, None] * (delta - delta.mean(axis=0)), axis=0) / (KB * TEMPERATURE)
    assert_allclose(found["members"], distance.mean() - shift, rtol=1e-10)
    assert found["members"][0] - found["value"] == pytest.approx(found["value"] - found["members"][1], rel=1e-6)
    print({key: found[key] for key in ("value", "statistical_error", "committee_error", "verdict", "reason")})
    assert found["verdict"] in ("reliable", "doubtful")
    assert 0 < found["committee_error"] < 0.05 * found["value"]
    energy = reweight("nvt.out:potential")  # each member's own, two constants that are far apart
    print({key: energy[key] for key in ("value", "statistical_error", "committee_error", "verdict", "reason")})
