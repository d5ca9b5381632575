"""`comitia label --with lammps:IN` with an input that has only the potential: any composition, any cell."""

import subprocess
import sys
from contextlib import closing

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import read, write
from numpy.testing import assert_allclose

from comitia.engines.baselines import open_baseline
from comitia.engines.composed import load_potential, potential_hash
from comitia.engines.force_engines import EngineOptions
from comitia.engines.labels import label_file
from comitia.errors import SettingsError
from comitia.files import file_hash
from comitia.potential.source import Source

CONSTANTS = 2e-7  # relative difference of the hartree and the bohr of LAMMPS and those of i-PI
BAR = 1.602176634e6  # eV/Å³
POTENTIAL = """pair_style lj/cut 5.0
pair_coeff * * 0.0104 3.4
pair_coeff 1 1 0.0141 3.6
pair_coeff 1 3 0.0040 3.1
"""
INPUT = f"""units metal
labelmap atom 1 Kr 2 Ar &
  3 Ne # in any order
{POTENTIAL}
fix 1 all nve
run 10
"""
ALONE = """
import sys

import numpy as np

from comitia.engines.lammps import import_lammps

given = np.load("frames.npz")
for number in range(int(given["n"])):
    lmp = import_lammps().lammps(cmdargs=["-log", "none", "-screen", "none", "-nocite"])
    (a, _, _), (xy, b, _), (xz, yz, c) = given[f"cell{number}"].tolist()
    lmp.command("units metal")
    lmp.command("box tilt large")
    lmp.command(f"region box prism 0 {a!r} 0 {b!r} 0 {c!r} {xy!r} {xz!r} {yz!r}")
    lmp.command("create_box 3 box")
    lmp.command("mass * 1")
    lmp.commands_string(sys.argv[1])
    types = given[f"types{number}"].tolist()
    lmp.create_atoms(len(types), list(range(1, len(types) + 1)), types, given[f"positions{number}"].ravel().tolist())
    lmp.commands_string("thermo_style custom pe pxx pyy pzz pxy pxz pyz\\nrun 0")
    pressure = [lmp.get_thermo(name) for name in ("pxx", "pyy", "pzz", "pyz", "pxz", "pxy")]
    forces = np.array(lmp.gather_atoms("f", 1, 3)).reshape(-1, 3)
    np.savez(f"alone{number}.npz", energy=lmp.get_thermo("pe"), forces=forces, pressure=pressure)
"""


def structures():
    """Crystals of several compositions, each in a cell of its own shape and orientation, atoms in any order."""
    rng, found = np.random.default_rng(8), []
    for n, repeat in enumerate([(2, 2, 2), (3, 2, 2), (2, 2, 2), (3, 2, 2), (2, 2, 2)]):
        atoms = bulk("Ar", "fcc", a=5.4).repeat(repeat)
        atoms.symbols = rng.permutation(["Ar", "Ne", "Kr", "Ar"] * len(atoms))[: len(atoms)] if n < 4 else ["Ne"] * 8
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.05 * rng.normal(size=(3, 3))), scale_atoms=True)
        atoms.rattle(0.15, rng=rng)
        found.append(atoms)
    return found


def label(folder, frames, n_workers=1):
    write(folder / "pool.xyz", frames, format="extxyz")
    options = EngineOptions(n_workers=n_workers, wait=20.0)
    specification = f"lammps:{folder / 'in.lammps'}"
    return label_file(folder / "pool.xyz", specification, folder / "out.xyz", options, progress=False)


def lammps_alone(folder, frames):
    """(energy, forces, stress) of LAMMPS in one process, in the orientation of each frame."""
    turned = [atoms.cell.standard_form() for atoms in frames]
    given = {"n": len(frames)}
    for number, (atoms, (cell, _)) in enumerate(zip(frames, turned, strict=True)):
        given[f"cell{number}"] = cell.array
        given[f"positions{number}"] = atoms.get_scaled_positions(wrap=True) @ cell.array
        given[f"types{number}"] = [{"Kr": 1, "Ar": 2, "Ne": 3}[symbol] for symbol in atoms.symbols]
    np.savez(folder / "frames.npz", **given)
    subprocess.run([sys.executable, "-c", ALONE, POTENTIAL], cwd=folder, check=True, timeout=120)
    for number, (_, rotation) in enumerate(turned):
        found = np.load(folder / f"alone{number}.npz")
        xx, yy, zz, yz, xz, xy = -found["pressure"] / BAR
        stress = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
        yield found["energy"], found["forces"] @ rotation, rotation.T @ stress @ rotation


def test_structures_of_any_composition_and_cell(tmp_path):
    (tmp_path / "in.lammps").write_text(INPUT)
    frames = structures()
    odd = [bulk("Xe", "fcc", a=6.0), Atoms("Ne2", positions=[[0, 0, 0], [0, 0, 3.0]]), frames[1].copy()]
    odd[2].positions[1] = odd[2].positions[0]
    report = label(tmp_path, [*frames[:2], *odd, *frames[2:]])
    assert [failure["frame"] for failure in report["failed"]] == [2, 3, 4]
    assert "holds Xe, which is no type of in.lammps; add it to `labelmap atom`" in report["failed"][0]["error"]
    assert "put it into a cell with vacuum" in report["failed"][1]["error"]
    labelled, given = read(tmp_path / "out.xyz", ":"), read(tmp_path / "pool.xyz", ":")
    assert len(labelled) == len(frames)
    assert "the energy is inf" in report["failed"][2]["error"]
    del given[2:5]
    for atoms, frame, expected in zip(labelled, given, lammps_alone(tmp_path, given), strict=True):
        energy, forces, stress = expected
        assert atoms.get_chemical_symbols() == frame.get_chemical_symbols()
        assert_allclose(atoms.get_potential_energy(), energy, rtol=2 * CONSTANTS)
        assert_allclose(atoms.get_forces(), forces, rtol=0, atol=2 * CONSTANTS * np.abs(forces).max())
        assert_allclose(atoms.get_stress(voigt=False), stress, rtol=0, atol=4 * CONSTANTS * np.abs(stress).max())


def test_lammps_as_a_baseline_and_as_a_member(tmp_path):
    """Started by us in both places; a baseline goes from one composition to another, as a fit does."""
    (tmp_path / "in.lammps").write_text(INPUT)
    frames = structures()
    expected = list(lammps_alone(tmp_path, frames))
    baseline = open_baseline(Source(workers="lammps:in.lammps"), tmp_path)
    for atoms, (energy, forces, stress) in zip(frames, expected, strict=True):
        found = baseline(atoms)
        assert_allclose(found[0], energy, rtol=2 * CONSTANTS)
        assert_allclose(found[1], forces, rtol=0, atol=2 * CONSTANTS * np.abs(forces).max())
        atol = 4 * CONSTANTS * np.abs(stress).max() * atoms.cell.volume
        assert_allclose(found[2], -atoms.cell.volume * stress, rtol=0, atol=atol)
    known = baseline.description(tmp_path)
    assert known == {"workers": "lammps:in.lammps", "sha256": file_hash(tmp_path / "in.lammps")}
    baseline.close()
    member = "{workers: 'lammps:in.lammps'}"
    (tmp_path / "potential.yaml").write_text(f"members: [{member}, {member}]\nalpha: 2\n")
    before = potential_hash(tmp_path / "potential.yaml")
    potential = load_potential(tmp_path / "potential.yaml")
    with closing(potential):
        found = potential.compute(frames[0])
    assert_allclose(found.energy, expected[0][0], rtol=2 * CONSTANTS)
    assert_allclose(found.energy_uncertainty, 0, atol=1e-9)
    (tmp_path / "in.lammps").write_text(INPUT + "\n")
    assert potential_hash(tmp_path / "potential.yaml") != before


def test_what_lammps_does_not_understand_is_said_in_its_words(tmp_path):
    (tmp_path / "in.lammps").write_text(INPUT + "pair_coeff 4 4 1 1\n")
    with pytest.raises(SettingsError, match="stopped before it ran: ERROR: Numeric index 4 is out of bounds"):
        label(tmp_path, structures()[:1])


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ("labelmap atom 1 Kr 2 Argon", "does not name one element for each type"),
        ("labelmap atom 1 Kr 3 Ar", "does not name one element for each type"),
        ("boundary p p f\nlabelmap atom 1 Kr", "needs `boundary p p p`"),
        ("atom_style full\nlabelmap atom 1 Kr", "atom_style full need more than an element"),
    ],
)
def test_inputs_that_cannot_be_are_refused(tmp_path, lines, sentence):
    (tmp_path / "in.lammps").write_text(f"units metal\n{lines}\n")
    with pytest.raises(SettingsError, match=sentence):
        label(tmp_path, structures()[:1])
