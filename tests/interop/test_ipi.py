"""i-PI 3.3 driven by `comitia serve`, in every dialect of the protocol, equals i-PI driven in its own process."""

import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from models import crystal, small_model, write_ipi_xyz
from numpy.testing import assert_allclose

from comitia.engines import ipi_driver
from comitia.engines.ipi import find_ipi, sample
from comitia.engines.ipi_input import read_xml

INPUTS = Path(__file__).resolve().parents[2] / "inputs"
UNIX = "<ffsocket name='comitia' mode='unix' pbc='False'> <address> comitia </address> {} </ffsocket>"
INET = UNIX.replace("unix", "inet").replace("> comitia <", "> localhost <").replace("{}", "<port> {} </port> {}")
FLAT = 2e-8  # hartree per atom and bead, 0.5 µeV: what a step of 1 fs leaves of the conserved quantity
LEGACY = "<consolidate_messages> False </consolidate_messages>"
DIALECTS = ["unix", "unix legacy", "inet", "inet legacy", "shm", "shm legacy"]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def forcefield(dialect, folder):
    """The XML that connects i-PI to the potential."""
    legacy = LEGACY if "legacy" in dialect else ""
    if dialect == "in-process":
        return (
            "<ffdirect name='comitia'> <pes> custom </pes> "
            f"<pes_path> {ipi_driver.__file__} </pes_path> "
            f"<parameters> {{model: {folder / 'model.safetensors'}, template: {folder / 'init.xyz'}, threads: 1}} "
            "</parameters> </ffdirect>"
        )
    if dialect.startswith("inet"):
        return INET.format(free_port(), legacy)
    where = UNIX.replace("'unix'", "'shm'") if "shm" in dialect else UNIX
    return where.format("<batch_size> 8 </batch_size>" if "batch" in dialect else legacy)


def prepare(folder, dialect, n_steps, n_beads=1):
    """An NVE run of 64 atoms from the template in inputs/."""
    small_model().save(folder / "model.safetensors")
    write_ipi_xyz(folder / "init.xyz", crystal(seed=1))
    text = (INPUTS / "nve.xml").read_text()
    start, end = text.index("<ffsocket"), text.index("</ffsocket>") + len("</ffsocket>")
    text = text[:start] + forcefield(dialect, folder) + text[end:]
    text = text.replace("<total_steps> 1000 </total_steps>", f"<total_steps> {n_steps} </total_steps>")
    text = text.replace("nbeads='1'", f"nbeads='{n_beads}'")
    (folder / "nve.xml").write_text(text)


def result(folder):
    """What a run left: properties by column, positions in RESTART (bohr), the members' energies of bead 0."""
    step, _, conserved, _, _, potential = np.loadtxt(folder / "nve.out").T
    root = read_xml(folder / "RESTART")
    positions = np.array(root.find(".//beads/q").text.strip().strip("[]").split(","), float)
    extras = sorted(folder.glob("nve.committee_pot_*"))
    return SimpleNamespace(
        step=step,
        conserved=conserved,
        potential=potential,
        positions=positions,
        members=np.loadtxt(extras[0]),
        n_beads=len(extras),
    )


def in_process(folder, n_steps, n_beads=1):
    prepare(folder, "in-process", n_steps, n_beads)
    command = [sys.executable, "-P", str(find_ipi()), "nve.xml"]
    subprocess.run(command, cwd=folder, check=True, timeout=300, stdout=subprocess.DEVNULL)
    return result(folder)


def through_sockets(folder, dialect, n_steps, n_beads=1):
    prepare(folder, dialect, n_steps, n_beads)
    report = sample(folder / "nve.xml", folder / "model.safetensors", directory=folder, n_threads=1, progress=False)
    assert report["status"] == "finished"
    assert report["step"] == n_steps
    return result(folder)


def check_equal(run, reference, n_steps):
    flatness = np.ptp(run.conserved) / (64 * run.n_beads)
    print(
        f"{n_steps} steps, {run.n_beads} beads: largest relative difference of the potential "
        f"{np.abs(run.potential / reference.potential - 1).max():.1e}, of positions "
        f"{np.abs(run.positions / reference.positions - 1).max():.1e}; conserved within {flatness:.1e} hartree per atom"
    )
    assert_allclose(run.step, np.arange(n_steps + 1))
    assert_allclose(run.potential, reference.potential, rtol=1e-9)
    assert_allclose(run.positions, reference.positions, rtol=1e-9)
    assert_allclose(run.members, reference.members, rtol=1e-9)
    assert flatness < FLAT


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return in_process(tmp_path_factory.mktemp("in-process"), 60)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_sockets_equal_evaluation_in_process(dialect, reference, tmp_path):
    check_equal(through_sockets(tmp_path, dialect, 60), reference, 60)


@pytest.mark.parametrize("dialect", ["batch", "shm batch"])
def test_a_batch_of_beads_equals_evaluation_in_process(dialect, tmp_path_factory, tmp_path):
    reference = in_process(tmp_path_factory.mktemp("in-process"), 30, n_beads=8)
    check_equal(through_sockets(tmp_path, dialect, 30, n_beads=8), reference, 30)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("dialect", [*DIALECTS, "batch"])
def test_a_thousand_steps_equal_evaluation_in_process(dialect, tmp_path_factory, tmp_path):
    n_beads = 8 if dialect == "batch" else 1
    reference = in_process(tmp_path_factory.mktemp("in-process"), 1000, n_beads)
    check_equal(through_sockets(tmp_path, dialect, 1000, n_beads), reference, 1000)
