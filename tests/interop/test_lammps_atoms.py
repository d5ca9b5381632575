"""What `comitia lammps run` says of single atoms: as `pair_style comitia`, and in a sentence where it cannot."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import systems
from lammps_runs import EV_PER_BAR, lammps_atoms, lmp, opening, write_data
from numpy.testing import assert_allclose

SPECIES = (8, 14)
OF_ATOMS = [
    "compute energies all pe/atom",
    "compute stresses all stress/atom NULL virial",
    "compute sum all reduce sum c_energies c_stresses[*]",
    "compute pressure all pressure NULL virial",
    "thermo_style custom step pe vol c_sum[*] c_pressure[*]",
    "velocity all create 900 5 loop geom",
    "timestep 0.001",
    "fix nve all nve",
    "dump out all custom 5 NAME.dump id c_energies c_stresses[*]",
    "dump_modify out sort id format float %.17g",
    "run 20",
]
SUMS = " ".join(f"$(c_{name}[{n}]:%.17g)" for name, last in (("sum", 7), ("pressure", 6)) for n in range(1, last + 1))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a model and three structures."""
    monkeypatch.chdir(tmp_path)
    systems.potential(SPECIES, n_members=5).save("model.safetensors")
    for name, atoms in structures().items():
        write_data(f"{name}.data", lammps_atoms(atoms), SPECIES)
    return tmp_path


def structures():
    found = systems.structures(SPECIES)
    return {"triclinic": found["triclinic"], "slab": found["slab"], "alloy": systems.crystal(SPECIES, (2, 2, 1), 5)}


def commands(name):
    """A few steps with per-atom energies and stresses, and what they add up to."""
    begin = opening(structures()[name], SPECIES, f"{name}.data", "model.safetensors")
    lines = [line.replace("NAME", name) for line in OF_ATOMS]
    return ["clear", *begin, *lines, f"print '$(pe:%.17g) $(vol:%.17g) {SUMS}' file {name}.sums screen no"]


def comitia(lines, *options):
    """Code of `comitia lammps run`, and what it said."""
    Path("in.lammps").write_text("\n".join(lines) + "\n")
    command = [sys.executable, "-m", "comitia.cli", "lammps", "run", "in.lammps", "--threads", "1", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    return done.returncode, done.stderr


def dumped(name):
    """Energies (n_frames, n_atoms), eV, and virials (n_frames, n_atoms, 6), eV, of the atoms."""
    rows = [line.split() for line in Path(f"{name}.dump").read_text().splitlines()]
    values = np.array([row for row in rows if len(row) == 8 and row[0] != "ITEM:"], float)
    values = values.reshape(5, -1, 8)
    return values[:, :, 1], -values[:, :, 2:] * EV_PER_BAR


def test_energies_and_stresses_of_atoms_are_those_of_the_pair_style(folder, plugin_cache):
    lines = [line for name in structures() for line in commands(name)]
    lmp(folder, lines, plugin_cache)
    expected = {name: dumped(name) for name in structures()}
    code, said = comitia(lines)
    assert code == 0, said
    for name, (of_pair_style, virials_of_pair_style) in expected.items():
        energies, virials = dumped(name)
        assert_allclose(energies, of_pair_style, rtol=1e-9, err_msg=name)
        scale = np.abs(virials_of_pair_style).max()
        assert_allclose(virials, virials_of_pair_style, rtol=0, atol=1e-9 * scale, err_msg=name)
        energy, volume, sum_energies, *rest = np.loadtxt(f"{name}.sums")
        assert_allclose(sum_energies, energy, rtol=1e-12)
        stresses, pressures = np.reshape(rest, (2, 6)) * EV_PER_BAR
        assert_allclose(-stresses, pressures * volume, rtol=0, atol=1e-10 * scale)


def test_what_a_potential_of_several_cannot_say_of_atoms_is_a_sentence(folder):
    """Where an input asks for it, and only there."""
    (folder / "composed.yaml").write_text("committee: model.safetensors\nweights: [1, 1, 1, 1, 1]\n")
    lines = [line for line in commands("alloy")[:-1] if not line.startswith(("pair_", "compute", "thermo", "dump"))]
    asked = ["compute of all stress/atom NULL", "dump out all custom 1 out id c_of[1]", "run 5"]
    code, said = comitia([*lines, *asked], "--model", "composed.yaml", "--species", "O Si")
    assert code == 3, said
    assert "energies and virials of all atoms only" in said
    assert json.loads(Path("in.lammps.json").read_text())["last_evaluation"]["step"] == 20
