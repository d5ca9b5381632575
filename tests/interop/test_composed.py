"""`comitia serve POTENTIAL.yaml`: committees of anything, driven by real servers."""

import copy
import json
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest
from ase.calculators.lj import LennardJones
from ase.calculators.socketio import SocketClosed, SocketIOCalculator
from ase.io import read, write
from models import crystal, small_model, write_ipi_xyz
from numpy.testing import assert_allclose

from comitia.engines.composed import load_composed, potential_hash
from comitia.engines.ipi import find_ipi
from comitia.errors import ModelError, SettingsError

CONSTANTS = 1e-6  # relative; hartree and bohr of ASE are not those of i-PI, and energies are small differences here
INPUTS = Path(__file__).resolve().parents[2] / "inputs"
FACTORY = """
from ase.calculators.lj import LennardJones


def make(sigma=3.4, epsilon=0.0104):
    return LennardJones(sigma=sigma, epsilon=epsilon, rc=5.0)
"""
FIRST, SECOND = {"sigma": 3.4, "epsilon": 0.0104}, {"sigma": 3.35, "epsilon": 0.0110}
COMMITTEE = """
members:
  - {calculator: "pairs:make", arguments: {sigma: 3.4, epsilon: 0.0104}}
  - {calculator: "pairs:make", arguments: {sigma: 3.35, epsilon: 0.0110}}
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "pairs.py").write_text(FACTORY)
    atoms = crystal(repeats=(2, 2, 2), seed=1)
    write(tmp_path / "init.xyz", atoms, format="extxyz")
    write_ipi_xyz(tmp_path / "init_ipi.xyz", atoms)
    return tmp_path


def lennard_jones(atoms, sigma, epsilon):
    atoms = atoms.copy()
    atoms.calc = LennardJones(sigma=sigma, epsilon=epsilon, rc=5.0)
    return atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress(voigt=False)


@contextmanager
def serving(folder, *options):
    command = [sys.executable, "-m", "comitia.cli", "serve", *options, "--threads", "1", "--wait", "30"]
    process = subprocess.Popen(list(map(str, command)), cwd=folder, stderr=subprocess.PIPE, text=True)
    try:
        yield process
        assert process.wait(30) == 0, process.stderr.read()
    finally:
        process.kill()
        process.communicate()


def ask(folder, text, *others):
    """Energy, forces and stress that ASE is told by a composed potential; `others` are clients of its members."""
    (folder / "potential.yaml").write_text(text)
    atoms, name = crystal(repeats=(2, 2, 2), seed=4), f"comitia-test-{os.getpid()}"
    template = ["--template", "init.xyz"]
    with ExitStack() as stack:
        for other in others:
            stack.enter_context(serving(folder, *other, *template))
        stack.enter_context(serving(folder, "potential.yaml", *template, "--unix", name))
        atoms.calc = stack.enter_context(SocketIOCalculator(unixsocket=name))
        found = atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress(voigt=False)
    atoms.calc = None
    return atoms, found


def compare(found, expected):
    for value, other in zip(found, expected, strict=True):
        assert_allclose(value, other, rtol=CONSTANTS, atol=1e-8)


def test_two_calculators_are_a_committee(folder):
    atoms, found = ask(folder, COMMITTEE + "weights: [1, 3]\n")
    first, second = lennard_jones(atoms, **FIRST), lennard_jones(atoms, **SECOND)
    compare(found, [0.25 * a + 0.75 * b for a, b in zip(first, second, strict=True)])


def test_a_member_that_drives(folder):
    atoms, found = ask(folder, COMMITTEE + "drive: 1\n")
    compare(found, lennard_jones(atoms, **SECOND))


def test_a_model_and_workers_are_a_committee(folder):
    """Client to ASE and server to another client of ours, in one process."""
    model = small_model()
    model.save(folder / "model.safetensors")
    text = f"members:\n  - {{model: model.safetensors}}\n  - {{workers: 'unix:{folder / 'door'}'}}\n"
    atoms, found = ask(folder, text, ["model.safetensors", "--unix", folder / "door"])
    expected = model.compute(atoms)
    compare(found, (expected.energy, expected.forces, expected.stress))


def test_a_committee_of_calculators_under_i_pi(folder):
    """NVE: the conserved quantity is flat, and every frame has the energies of both members."""
    (folder / "potential.yaml").write_text(COMMITTEE)
    (folder / "init_ipi.xyz").replace(folder / "init.xyz")
    text = (INPUTS / "nve.xml").read_text().replace("> 1000 </total_steps>", "> 20 </total_steps>")
    (folder / "nve.xml").write_text(text)
    with tempfile.TemporaryDirectory(prefix="ci-", dir="/tmp") as sockets:
        command = [sys.executable, "-P", find_ipi(), "-S", f"{sockets}/", "nve.xml"]
        server = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
        where = ("--unix", "comitia", "--sockets-prefix", f"{sockets}/")
        with serving(folder, "potential.yaml", "--template", "init.xyz", *where):
            assert server.wait(60) == 0
    members, table = np.loadtxt(folder / "nve.committee_pot_0"), np.loadtxt(folder / "nve.out")
    assert members.shape == (21, 2)
    assert_allclose(table[:, 5], members.mean(axis=1), rtol=1e-14)
    assert np.ptp(table[:, 2]) < 0.01 * np.ptp(table[:, 5])


def test_a_committee_of_calculators_is_sampled(folder):
    """Under one command; the record knows the potential by its content, and workers are not asked to serve two."""
    (folder / "potential.yaml").write_text(COMMITTEE + "weights: [1, 3]\n")
    (folder / "init_ipi.xyz").replace(folder / "init.xyz")
    (folder / "nve.xml").write_text((INPUTS / "nve.xml").read_text())
    command = [sys.executable, "-m", "comitia.cli", "sample", "nve.xml", "--model", "potential.yaml", "--quiet"]
    subprocess.run([*command, "--steps", "5"], cwd=folder, check=True, timeout=60, capture_output=True)
    members, table = np.loadtxt(folder / "nve.committee_pot_0"), np.loadtxt(folder / "nve.out")
    assert_allclose(table[:, 5], members @ [0.25, 0.75], rtol=1e-13)
    assert json.loads((folder / "sample.json").read_text())["model_sha256"] == potential_hash(folder / "potential.yaml")
    (folder / "potential.yaml").write_text("members: [{workers: 'unix:nobody'}, {calculator: 'pairs:make'}]\n")
    done = subprocess.run([*command, "--clients", "2"], cwd=folder, timeout=60, capture_output=True, text=True)
    assert done.returncode == 3
    assert "its workers connect to one client only" in done.stderr


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("alpha: 1\n", "give either `members`, or one model as `committee`"),
        ("members: [{calculator: 'pairs:make', model: x}]\n", "is one of `model`, `calculator` and `workers`"),
        ("members: [{model: x.safetensors, arguments: {a: 1}}]\n", "`arguments` are those of a `calculator`"),
        ("members: [{calculator: 'pairs:nothing'}]\n", "'pairs:nothing': cannot be made"),
        ("members: [{calculator: pairs}]\n", "MODULE:FACTORY"),
        ("members: [{calculator: 'pairs:make', arguments: {wrong: 1}}]\n", "cannot be made \\(TypeError"),
        ("member: []\n", "unknown key 'member'; did you mean 'members'"),
        (COMMITTEE + "drive: 2\n", "a member from 0 to 1"),
        (COMMITTEE + "baseline: {calculator: 'pairs:make'}\n", "belong together"),
        ("committee: nowhere.safetensors\n", "nowhere.safetensors"),
    ],
)
def test_what_cannot_be_composed_is_refused(text, sentence, folder):
    (folder / "potential.yaml").write_text(text)
    with pytest.raises((SettingsError, ModelError), match=sentence):
        load_composed(folder / "potential.yaml")


def test_extras_of_a_weighted_baseline_say_its_weight(folder):
    from comitia.protocol.boundary import WireResults
    from comitia.units import HARTREE

    model = copy.copy(small_model())
    model.metadata = {"baseline": "Lennard-Jones"}
    model.save(folder / "model.safetensors")
    (folder / "potential.yaml").write_text(
        "committee: model.safetensors\nbaseline: {calculator: 'pairs:make'}\nbaseline_uncertainty: 0.1\n"
    )
    potential = load_composed(folder / "potential.yaml")
    atoms = crystal(repeats=(2, 2, 2), seed=4)
    found = potential.evaluator(atoms.numbers, atoms.pbc, 1).compute(atoms.positions[None], atoms.cell.array[None])
    energies, _, _, extras = WireResults(mean=potential.drives_with_mean)(found)
    said = json.loads(extras[0])
    base = lennard_jones(atoms, **FIRST)[0] + model.reference_energy(atoms.numbers)
    mean = np.mean(said["committee_pot"]) * HARTREE
    assert_allclose(said["baseline_pot"] * HARTREE, base, rtol=1e-12)
    assert_allclose(energies[0] * HARTREE, base + said["wb_mixing"] * mean, rtol=1e-12)
    assert 0 < said["wb_mixing"] < 1


def test_an_uncertain_structure_stops_the_run_in_order(folder):
    """Exit code 5, the frame on disk, and a server that sees an orderly end."""
    small_model().save(folder / "model.safetensors")
    name, threshold = f"comitia-test-{os.getpid()}", "1e-9"
    command = [
        sys.executable,
        "-m",
        "comitia.cli",
        "serve",
        "model.safetensors",
        "--template",
        "init.xyz",
        "--unix",
        name,
    ]
    command += ["--threads", "1", "--on-uncertainty", "stop", "--energy-threshold", threshold]
    process = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)
    with SocketIOCalculator(unixsocket=name) as calculator:
        atoms = crystal(repeats=(2, 2, 2), seed=4)
        atoms.calc = calculator
        with pytest.raises(SocketClosed):
            atoms.get_potential_energy()
    _, said = process.communicate(timeout=30)
    assert process.returncode == 5
    assert "structure 1: sigma_E" in said
    assert len(read(folder / "extrapolation.xyz", ":")) == 1
