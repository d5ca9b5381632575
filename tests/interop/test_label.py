"""`comitia label` drives real force engines; what they say equals what they say by themselves."""

import os
import signal
import socket
import subprocess
import sys
import sysconfig
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from ase.calculators.lj import LennardJones
from ase.calculators.socketio import SocketClient
from ase.io import read, write
from models import crystal, small_model
from numpy.testing import assert_allclose

from comitia.engines.force_engines import EngineOptions
from comitia.engines.labels import label_file
from comitia.engines.lammps_engine import LammpsProcesses
from comitia.errors import SettingsError, StructureError

CONSTANTS = 2e-7  # relative difference of the hartree and the bohr of other programs and those of i-PI
LAMMPS = """units metal
atom_style atomic
boundary p p p
region box prism 0 10 0 10 0 10 0 0 0
create_box 2 box
create_atoms 1 random {n_argon} 1 NULL
create_atoms 2 random {n_neon} 2 NULL
mass 1 39.948
mass 2 20.1797
pair_style lj/cut 5.0
pair_coeff 1 1 0.0104 3.4
pair_coeff 2 2 0.0031 2.74
pair_coeff 1 2 0.0057 3.07
"""


def pool(folder, n=12, turned=True):
    """Crystals of one set of atoms in cells of any shape and orientation."""
    rng = np.random.default_rng(5)
    frames = []
    for seed in range(n):
        atoms = crystal((18, 10), (2, 2, 2), rattle=0.15, seed=seed)
        atoms = atoms[np.argsort(-atoms.numbers, kind="stable")]
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.04 * rng.normal(size=(3, 3))), scale_atoms=True)
        if not turned:
            atoms.set_cell(atoms.cell.standard_form()[0], scale_atoms=True)
        frames.append(atoms)
    write(folder / "pool.xyz", frames, format="extxyz")
    return read(folder / "pool.xyz", ":")


@contextmanager
def programs(*commands, cwd):
    """Programs beside us, ended at the end."""
    processes = [subprocess.Popen(list(map(str, command)), cwd=cwd) for command in commands]
    try:
        yield processes
        for process in processes:
            process.wait(20)
    finally:
        for process in processes:
            process.kill()
            process.wait()


def label(folder, engine, **options):
    report = label_file(folder / "pool.xyz", engine, folder / "out.xyz", EngineOptions(**options), progress=False)
    assert report["failed"] == []
    return read(folder / "out.xyz", ":")


def compare(found, expected, rtol, atol=1e-7):
    for atoms, (energy, forces, stress) in zip(found, expected, strict=True):
        assert_allclose(atoms.get_potential_energy(), energy, rtol=rtol, atol=10 * atol)
        assert_allclose(atoms.get_forces(), forces, rtol=rtol, atol=atol)
        if stress is not None:
            assert_allclose(atoms.get_stress(voigt=False), stress, rtol=rtol, atol=1e-9)


def serve(where):
    command = [sys.executable, "-m", "comitia.cli", "serve", "model.safetensors", "--template", "pool.xyz"]
    return [*command, "--threads", "1", *where]


@pytest.mark.parametrize("transport", ["unix", "tcp"])
def test_our_own_client(transport, tmp_path):
    model, frames = small_model((18, 10)), pool(tmp_path)
    model.save(tmp_path / "model.safetensors")
    path = tmp_path / "socket"
    port = free_port()
    where = ["--unix", path] if transport == "unix" else ["--port", port]
    engine = f"unix:{path}" if transport == "unix" else f"tcp:localhost:{port}"
    with programs(serve(where), cwd=tmp_path) as workers:
        found = label(tmp_path, engine)
    assert workers[0].returncode == 0
    expected = [model.compute(atoms) for atoms in frames]
    compare(found, [(e.energy, e.forces, e.stress) for e in expected], 1e-12, atol=1e-8)
    for atoms, e in zip(found, expected, strict=True):
        assert_allclose(atoms.info["energy_uncertainty"], e.energy_uncertainty, rtol=1e-12)


def test_a_client_with_other_atoms_refuses(tmp_path):
    small_model((18, 10)).save(tmp_path / "model.safetensors")
    frames = pool(tmp_path, n=2)
    write(tmp_path / "other.xyz", frames[0][::-1], format="extxyz")
    command = [word if word != "pool.xyz" else "other.xyz" for word in serve(["--unix", tmp_path / "socket"])]
    with ThreadPoolExecutor(1) as labelling:
        done = labelling.submit(label, tmp_path, f"unix:{tmp_path / 'socket'}")
        wrong = subprocess.run(list(map(str, command)), cwd=tmp_path, capture_output=True, text=True, timeout=60)
        with programs(serve(["--unix", tmp_path / "socket"]), cwd=tmp_path):
            assert len(done.result(60)) == len(frames)
    assert wrong.returncode == 4
    assert "the atoms of the server are not those of the template, Ne16Ar16" in wrong.stderr


def wait_until_ready(folder):
    """Until somebody listens: a socket has its name a moment before, and these clients do not try again."""
    while not (folder / "ready").exists():
        time.sleep(0.02)


def test_the_socket_client_of_ase(tmp_path):
    frames = pool(tmp_path)
    name = f"comitia-test-{os.getpid()}"

    def run():
        atoms = frames[0].copy()
        atoms.calc = LennardJones(sigma=3.4, epsilon=0.0104, rc=5.0)
        wait_until_ready(tmp_path)
        SocketClient(unixsocket=name).run(atoms, use_stress=True)

    workers = [threading.Thread(target=run) for _ in range(2)]
    for worker in workers:
        worker.start()
    found = label(tmp_path, f"unix:{name}", ready_file=tmp_path / "ready")
    for worker in workers:
        worker.join(20)
    expected = []
    for atoms in frames:
        atoms.calc = LennardJones(sigma=3.4, epsilon=0.0104, rc=5.0)
        expected.append((atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress(voigt=False)))
    compare(found, expected, 2 * CONSTANTS)


def test_the_python_driver_of_i_pi(tmp_path):
    frames = pool(tmp_path, turned=False)  # a potential that knows where the origin is
    driver = Path(sysconfig.get_path("scripts")) / "i-pi-py_driver"
    prefix = f"{tmp_path}/"
    command = [sys.executable, driver, "-u", "-a", "drv", "-S", prefix, "-m", "harmonic", "-o", "0.01"]
    path = tmp_path / "drv"
    processes = []

    def start():
        wait_until_ready(tmp_path)
        processes.append(subprocess.Popen(list(map(str, command)), cwd=tmp_path))

    thread = threading.Thread(target=start)
    thread.start()
    found = label(tmp_path, f"unix:{path}", ready_file=tmp_path / "ready")
    thread.join()
    assert processes[0].wait(20) == 0
    stiffness = 0.01 / 0.036749326 * 1.8897261**2  # eV/Å²
    expected = [(0.5 * stiffness * (a.positions**2).sum(), -stiffness * a.positions, None) for a in frames]
    compare(found, expected, 1e-9, atol=1e-6)


@pytest.mark.parametrize("box", ["prism 0 10 0 10 0 10 0 0 0", "block 0 10 0 10 0 10"])
def test_lammps(tmp_path, box):
    """Started by us; energies, forces and stress of cells in any orientation are those of LAMMPS by itself."""
    frames = pool(tmp_path)
    given = LAMMPS.format(n_argon=16, n_neon=16).replace("prism 0 10 0 10 0 10 0 0 0", box)
    (tmp_path / "in.lj").write_text(given)
    found = label(tmp_path, f"lammps:{tmp_path / 'in.lj'}", n_workers=2)
    compare(found, lammps_alone(tmp_path, frames), 2 * CONSTANTS)


ALONE = """
import sys

import numpy as np

from comitia.engines.lammps import import_lammps

text = open("in.lj").read()
given = np.load("frames.npz")
out = []
for cell, positions in zip(given["cells"], given["positions"]):
    lmp = import_lammps().lammps(cmdargs=["-log", "none", "-screen", "none", "-nocite"])
    (a, _, _), (xy, b, _), (xz, yz, c) = cell.tolist()
    lmp.command("box tilt large")
    lines = [f"region box prism 0 {a!r} 0 {b!r} 0 {c!r} {xy!r} {xz!r} {yz!r}" if l.startswith("region") else l
             for l in text.splitlines()]
    lmp.commands_string("\\n".join(l for l in lines if not l.startswith("create_atoms")))
    types = [1] * 16 + [2] * 16
    lmp.create_atoms(32, list(range(1, 33)), types, positions.ravel().tolist())
    lmp.commands_string("thermo_style custom pe pxx pyy pzz pxy pxz pyz\\nrun 0")
    forces = np.array(lmp.gather_atoms("f", 1, 3)).reshape(-1, 3)
    p = [lmp.get_thermo(name) for name in ("pxx", "pyy", "pzz", "pyz", "pxz", "pxy")]
    out.append((lmp.get_thermo("pe"), forces, p))
np.savez("alone.npz", e=[o[0] for o in out], f=[o[1] for o in out], p=[o[2] for o in out])
"""


def lammps_alone(folder, frames):
    """(energy, forces, stress) of LAMMPS for each frame, in the orientation of the frame."""
    turned = [atoms.cell.standard_form() for atoms in frames]
    cells = np.array([cell.array for cell, _ in turned])
    fractional = np.array([atoms.get_scaled_positions(wrap=True) for atoms in frames])
    positions = fractional @ cells
    np.savez(folder / "frames.npz", cells=cells, positions=positions)
    subprocess.run([sys.executable, "-c", ALONE], cwd=folder, check=True, timeout=120)
    found = np.load(folder / "alone.npz")
    bar = 1.602176634e6  # eV/Å³
    for energy, forces, p, (_, rotation) in zip(found["e"], found["f"], found["p"], turned, strict=True):
        xx, yy, zz, yz, xz, xy = -p / bar
        stress = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
        yield energy, forces @ rotation, rotation.T @ stress @ rotation


def test_lammps_with_other_atoms_is_refused(tmp_path):
    pool(tmp_path, n=2)
    (tmp_path / "in.lj").write_text(LAMMPS.format(n_argon=16, n_neon=15))
    with pytest.raises(StructureError, match="makes 31 atoms, the structures have 32"):
        label(tmp_path, f"lammps:{tmp_path / 'in.lj'}")


def test_lammps_that_cannot_run_is_an_error_with_its_own_words(tmp_path):
    pool(tmp_path, n=2)
    (tmp_path / "in.lj").write_text("units metal\nnonsense 1\n")
    with pytest.raises(SettingsError, match="before it ran: ERROR: Unknown command: nonsense"):
        label(tmp_path, f"lammps:{tmp_path / 'in.lj'}")


def test_lammps_that_is_killed_is_started_again(tmp_path, monkeypatch):
    frames = pool(tmp_path)
    (tmp_path / "in.lj").write_text(LAMMPS.format(n_argon=16, n_neon=16))
    killed = []
    kept = LammpsProcesses._start_one

    def start_one(processes):
        kept(processes)
        if not killed:  # before it has connected
            killed.append(processes._children[-1].pid)
            os.kill(killed[0], signal.SIGKILL)

    monkeypatch.setattr(LammpsProcesses, "_start_one", start_one)
    found = label(tmp_path, f"lammps:{tmp_path / 'in.lj'}")
    compare(found, lammps_alone(tmp_path, frames), 2 * CONSTANTS)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
