"""Replica exchange and exchanges of atoms, from the templates, with real i-PI and our client."""

import re
from pathlib import Path

import numpy as np
from models import crystal, small_model, write_ipi_xyz
from numpy.testing import assert_allclose

from comitia.engines.ipi import sample
from comitia.engines.ipi_input import read_xml
from comitia.units import BOHR, HARTREE

INPUTS = Path(__file__).resolve().parents[2] / "inputs"
NEON_ARGON = (10, 18)


def run(folder, template, atoms, n_steps, **changes):
    """Run a template of inputs/ with the small model of these species."""
    small_model(tuple(sorted({int(z) for z in atoms.numbers}))).save(folder / "model.safetensors")
    write_ipi_xyz(folder / "init.xyz", atoms)
    text = (INPUTS / template).read_text()
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    (folder / template).write_text(text)
    report = sample(
        folder / template,
        folder / "model.safetensors",
        n_threads=1,
        directory=folder,
        total_steps=n_steps,
        progress=False,
    )
    assert report["status"] == "finished"


def last_positions(folder):
    """Positions of every system at the last step, (n_atoms, 3), Å, in full precision."""
    found = [q.text.strip().strip("[]").split(",") for q in read_xml(folder / "RESTART").iterfind(".//beads/q")]
    return [np.array(q, float).reshape(-1, 3) * BOHR for q in found]


def energy_of(folder, atoms, positions):
    """Energy (hartree) of these positions in this process."""
    moved = atoms.copy()
    moved.positions = positions
    species = tuple(sorted({int(z) for z in atoms.numbers}))
    return small_model(species).compute(moved).energy / HARTREE


def test_every_replica_of_an_exchange_gets_its_own_forces(tmp_path):
    atoms = crystal(seed=3)
    run(tmp_path, "remd.xml", atoms, 100, **{"<stride> 20 </stride>": "<stride> 2 </stride>"})
    temperatures = []
    for replica, positions in enumerate(last_positions(tmp_path)):
        out = np.loadtxt(tmp_path / f"{replica}_remd.out")
        members = np.loadtxt(tmp_path / f"{replica}_remd.committee_pot_0")
        assert_allclose(members.mean(axis=1), out[:, 5], rtol=1e-12)
        assert_allclose(energy_of(tmp_path, atoms, positions), out[-1, 5], rtol=1e-9)
        temperatures.append(out[:, 4])
    temperatures = np.array(temperatures)
    # at every step each temperature is in one replica, and they did change places
    assert_allclose(np.sort(temperatures, axis=0), np.broadcast_to([[60], [70], [80]], temperatures.shape), rtol=1e-6)
    assert (np.ptp(temperatures, axis=1) > 1).any()


def test_exchanges_of_atoms_jump_and_keep_the_conserved_quantity(tmp_path):
    atoms = crystal(NEON_ARGON, seed=4)
    run(tmp_path, "atomswap.xml", atoms, 100)
    out = np.loadtxt(tmp_path / "atomswap.out")
    (positions,) = last_positions(tmp_path)
    assert_allclose(energy_of(tmp_path, atoms, positions), out[-1, 4], rtol=1e-9)
    jump = np.linalg.norm(positions - atoms.positions, axis=1)
    assert (jump > 2.0).sum() >= 2  # a neighbour is 3.3 Å away
    assert np.ptp(out[:, 2]) < 64 * 1e-6  # hartree, a thousandth of kT an atom


def test_exchanges_of_atoms_are_evaluated_from_what_they_change(tmp_path):
    """More than a thousand trials by i-PI: the client compares one of them with its full evaluation, and says so."""
    atoms = crystal(NEON_ARGON, (4, 4, 4), seed=6)
    run(tmp_path, "atomswap.xml", atoms, 28, **{"<nxc> 1 </nxc>": "<nxc> 40 </nxc>"})
    out = np.loadtxt(tmp_path / "atomswap.out")
    (positions,) = last_positions(tmp_path)
    assert_allclose(energy_of(tmp_path, atoms, positions), out[-1, 4], rtol=1e-9)
    members = np.loadtxt(tmp_path / "atomswap.committee_pot_0")
    assert_allclose(members.mean(axis=1), out[:, 4], rtol=1e-12)
    log = "".join(path.read_text() for path in tmp_path.glob("*.log"))
    (difference,) = re.findall(r"1000 trials from what they change; a full evaluation differs by (\S+)", log)
    assert float(difference) < 1e-12
