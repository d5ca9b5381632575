"""What i-PI does with what `comitia serve` sends: committees, virials, clients that leave."""

import signal
import time
from pathlib import Path

import numpy as np
import pytest
from ase.geometry import cellpar_to_cell
from models import crystal, small_model, write_ipi_xyz
from numpy.testing import assert_allclose
from programs import PATIENCE, i_pi, programs, serve

from comitia import units
from comitia.engines.ipi import sample

INPUTS = Path(__file__).resolve().parents[2] / "inputs"


@pytest.fixture
def folder(tmp_path):
    small_model().save(tmp_path / "model.safetensors")
    write_ipi_xyz(tmp_path / "init.xyz", crystal(repeats=(2, 2, 2), seed=1))
    (tmp_path / "nve.xml").write_text((INPUTS / "nve.xml").read_text())
    return tmp_path


def last_step(folder):
    path = folder / "nve.out"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []  # the last one may not be whole
    rows = [line for line in lines if not line.startswith("#")]
    return int(float(rows[-1].split()[0])) if rows else -1


def wait_for_step(folder, step):
    deadline = time.monotonic() + PATIENCE
    while last_step(folder) < step:
        assert time.monotonic() < deadline, f"no step {step}"
        time.sleep(0.05)


def test_a_client_that_is_stopped_hands_its_work_to_another(folder):
    text = (folder / "nve.xml").read_text()
    (folder / "nve.xml").write_text(text.replace("> 1000 </total_steps>", "> 10000000 </total_steps>"))
    with programs(folder) as start:
        server = i_pi(start)
        for _ in range(3):  # each is stopped somewhere in its work
            client = serve(start)
            wait_for_step(folder, last_step(folder) + 7)
            client.send_signal(signal.SIGTERM)
            assert client.wait(PATIENCE) == 128 + signal.SIGTERM
        client = serve(start)
        wait_for_step(folder, last_step(folder) + 7)
        server.terminate()
        assert server.wait(PATIENCE) == 0
        assert client.wait(PATIENCE) == 0


def test_one_client_serves_several_force_fields(folder):
    """Half of the potential from each of two sockets, for two beads: one model, the trajectory of one socket."""
    text = (folder / "nve.xml").read_text().replace("> 1000 </total_steps>", "> 30 </total_steps>")
    text = text.replace("nbeads='1'", "nbeads='2'")
    start_at, end = text.index("<ffsocket"), text.index("</ffsocket>") + len("</ffsocket>")
    one = text[start_at:end]
    two = one.replace("name='comitia'", "name='other'").replace("> comitia <", "> other <")
    half = "<force forcefield='comitia' weight='0.5'/> <force forcefield='other' weight='0.5'/>"
    (folder / "nve.xml").write_text(text.replace(one, one + two).replace("<force forcefield='comitia'/>", half))
    with programs(folder) as start:
        server = i_pi(start)
        client = serve(start, names=["comitia", "other"])
        assert server.wait(PATIENCE) == 0
        assert client.wait(PATIENCE) == 0
    found = np.loadtxt(folder / "nve.out")
    (folder / "nve.xml").write_text(text)
    sample(folder / "nve.xml", folder / "model.safetensors", directory=folder / "plain", progress=False)
    assert_allclose(found, np.loadtxt(folder / "plain" / "nve.out"), rtol=1e-9, atol=1e-12)


def as_committee(text):
    """The input with the socket inside a committee of i-PI, and the committee's uncertainty printed."""
    text = text.replace("<ffsocket name='comitia'", "<ffcommittee name='comitia'> <ffsocket name='member'")
    text = text.replace("</ffsocket>", "</ffsocket> <parse_json> True </parse_json> </ffcommittee>")
    sigma = "<trajectory filename='sigma' extra_type='committee_uncertainty' stride='1'> extras </trajectory>"
    return text.replace("</output>", f"{sigma} </output>")


def test_a_committee_of_i_pi_under_comitia_sample(folder):
    """Its sockets are where i-PI always puts those; energies and uncertainties are of the members as they were sent."""
    text = (folder / "nve.xml").read_text().replace("> 1000 </total_steps>", "> 10 </total_steps>")
    (folder / "nve.xml").write_text(as_committee(text))
    sample(folder / "nve.xml", folder / "model.safetensors", directory=folder, progress=False)
    members, table = np.loadtxt(folder / "nve.committee_pot_0"), np.loadtxt(folder / "nve.out")
    assert_allclose(np.loadtxt(folder / "nve.sigma_0"), members.std(axis=1, ddof=1), rtol=1e-6)
    assert_allclose(table[:, 5], members.mean(axis=1), rtol=1e-15)


def test_the_virial_moves_the_cell_without_losing_energy(folder):
    """The conserved quantity of a barostat is flat only with a virial that is the derivative of the energy."""
    text = (folder / "nve.xml").read_text().replace("> 1000 </total_steps>", "> 100 </total_steps>")
    text = text.replace("<ensemble>", "<ensemble> <pressure units='megapascal'> 300 </pressure>")
    text = text.replace("potential ]", "potential, volume ]")
    barostat = (
        "<barostat mode='isotropic'> <tau units='femtosecond'> 100 </tau> "
        "<thermostat mode='langevin'> <tau units='femtosecond'> 1e9 </tau> </thermostat> </barostat> "
        "<thermostat mode='langevin'> <tau units='femtosecond'> 1e9 </tau> </thermostat>"
    )
    text = text.replace("<dynamics mode='nve'>", f"<dynamics mode='npt'> {barostat}")
    (folder / "nve.xml").write_text(text)
    sample(folder / "nve.xml", folder / "model.safetensors", directory=folder, progress=False)
    _, _, conserved, _, _, potential, volume = np.loadtxt(folder / "nve.out").T
    assert np.ptp(volume) > 0.02 * volume[0]
    assert np.ptp(conserved) < 0.01 * np.ptp(potential)


def test_a_sheared_cell_arrives_as_it_was_meant(folder):
    """Energy and pressure tensor in i-PI are the potential's own; a transposed cell or virial would show."""
    atoms = crystal(repeats=(2, 2, 2), seed=6)
    atoms.set_cell(cellpar_to_cell([9.0, 9.6, 9.9, 75.0, 96.0, 112.0]), scale_atoms=True)
    write_ipi_xyz(folder / "init.xyz", atoms)
    text = (folder / "nve.xml").read_text().replace("> 1000 </total_steps>", "> 1 </total_steps>")
    (folder / "nve.xml").write_text(text.replace("potential ]", "potential, virial_md ]").replace("> 80 <", "> 1e-9 <"))
    sample(folder / "nve.xml", folder / "model.safetensors", directory=folder, progress=False)
    first = np.loadtxt(folder / "nve.out")[0]
    expected = small_model().compute(atoms)
    assert_allclose(first[5], expected.energy / units.HARTREE, rtol=1e-9)
    tensor = expected.virial[[0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]] / units.HARTREE
    volume = atoms.get_volume() / units.BOHR**3
    assert_allclose(first[6:], tensor / volume, rtol=1e-7, atol=1e-9 * np.abs(tensor / volume).max())
    assert np.abs(tensor[3:]).min() > 1e-3 * np.abs(tensor).max()  # the sheared parts are there to be seen
