"""ASE's SocketIOCalculator, the strictest speaker of the old dialect, served by `comitia serve`."""

import os
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from ase.calculators.socketio import SocketIOCalculator
from ase.filters import FrechetCellFilter
from ase.io import write
from ase.optimize import BFGS
from models import cluster, crystal, small_model
from numpy.testing import assert_allclose

from comitia import units

ENERGY = 2e-7  # relative difference of the hartree of ASE and that of i-PI


def serve(folder, atoms, model, *where):
    """A client in a process of its own, ready to connect."""
    model.save(folder / "model.safetensors")
    write(folder / "init.xyz", atoms, format="extxyz")
    command = [sys.executable, "-m", "comitia.cli", "serve", "model.safetensors", "--template", "init.xyz"]
    return subprocess.Popen(
        [*command, "--threads", "1", "--wait", "30", *where],
        cwd=folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def free_port():
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize("transport", ["unix", "inet"])
def test_a_crystal_and_its_cell_relax(transport, tmp_path):
    model = small_model()
    atoms = crystal(repeats=(2, 2, 1), seed=4)  # thinner than the cutoff
    atoms.set_cell(atoms.cell @ (np.eye(3) + np.array([[0.02, 0.03, 0.0], [0.0, 0.0, -0.02], [0.0, 0.0, -0.01]])), True)
    name = f"comitia-test-{tmp_path.name[-20:]}"
    here = {"unixsocket": name} if transport == "unix" else {"port": free_port()}
    there = ["--unix" if transport == "unix" else "--port", *map(str, here.values())]
    client = serve(tmp_path, atoms, model, *there)
    with SocketIOCalculator(**here) as calculator:
        atoms.calc = calculator
        expected = model.compute(atoms)
        assert_allclose(atoms.get_potential_energy(), expected.energy, rtol=ENERGY)
        assert_allclose(atoms.get_forces(), expected.forces, rtol=ENERGY, atol=1e-9)
        assert_allclose(atoms.get_stress(voigt=False), expected.stress, rtol=ENERGY, atol=1e-9)
        assert BFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=0.002, steps=200)
    said, _ = client.communicate(timeout=30)
    assert client.returncode == 0, said
    assert "ended by end of stream" in said  # ASE never says EXIT
    relaxed = model.compute(atoms)
    assert np.abs(relaxed.forces).max() < 0.0025
    assert np.abs(relaxed.stress).max() < 1e-4


def test_a_molecule_without_a_cell(tmp_path):
    model = small_model(n_members=1)  # no extras: an empty message, which ASE must not take for a closed stream
    atoms = cluster(seed=2)
    ready, name = tmp_path / "ready", f"comitia-test-{os.getpid()}"
    client = serve(tmp_path, atoms, model, "--unix", name, "--ready-file", str(ready))
    while not ready.exists():  # the client comes first, and waits
        assert client.poll() is None
        time.sleep(0.02)
    assert f"Ar7, pbc FFF, 1 threads, server unix:/tmp/ipi_{name}" in ready.read_text()
    with SocketIOCalculator(unixsocket=name) as calculator:
        atoms.calc = calculator
        assert_allclose(atoms.get_potential_energy(), model.compute(atoms).energy, rtol=ENERGY)
        assert BFGS(atoms, logfile=None).run(fmax=0.001, steps=200)
    said, _ = client.communicate(timeout=30)
    assert client.returncode == 0, said
    assert np.abs(model.compute(atoms).forces).max() < 0.0011
    assert "1 members" in said


def test_constants_on_the_wire_are_those_of_i_pi():
    from ase import units as ase_units
    from ipi.utils.units import unit_to_internal

    assert abs(units.HARTREE * unit_to_internal("energy", "electronvolt", 1.0) - 1) < 1e-15
    assert abs(units.BOHR * unit_to_internal("length", "angstrom", 1.0) - 1) < 1e-15
    assert abs(units.HARTREE / ase_units.Hartree - 1) < ENERGY
