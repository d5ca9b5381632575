"""i-PI 3.3 driven by `comitia serve`, in every dialect and kind of sampling, equals evaluation in a process.

Every step of a run is compared with `Potential.compute` on the very positions that i-PI wrote, and the whole run with
one in which i-PI calls the potential itself.
"""

import os
import re
import socket
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from models import crystal, small_model, write_ipi_xyz
from numpy.testing import assert_allclose
from programs import ended_in_order, i_pi, programs, serve

from comitia.engines import ipi_driver
from comitia.engines.ipi_input import read_xml
from comitia.engines.ipi_output import read_properties
from comitia.units import BOHR, HARTREE

INPUTS = Path(__file__).resolve().parents[2] / "inputs"
N_STEPS = 12
FLAT = 2e-8  # hartree per atom and bead, 0.5 µeV: what a step of 1 fs leaves of the conserved quantity
SPECIES = {"atomswap": (10, 18)}  # otherwise argon
NESTED = f"comitia-test-{os.getpid()}"  # i-PI puts a socket inside a force field into /tmp, whatever -S says

SOCKET = "<ffsocket name='{name}' mode='{mode}' pbc='False'> {where} {more} </ffsocket>"
ADDRESS = "<address> {} </address>"
LEGACY = "<consolidate_messages> False </consolidate_messages>"
BATCH = "<batch_size> {} </batch_size>"
COMMITTEE = "<ffcommittee name='comitia'> {socket} <parse_json> True </parse_json> </ffcommittee>"
ROTATIONS = (
    "<ffrotations name='comitia'> {socket} <random> True </random> <inversion> True </inversion> "
    "<grid_order> 3 </grid_order> </ffrotations>"
)
FORCES = ("--extras", "committee_force,committee_virial")


@dataclass(frozen=True)
class Case:
    """A run of i-PI with our client.

    Attributes
    ----------
    template : str, of inputs/
    mode : str, of the <ffsocket>
    more : str, inside the <ffsocket>
    around : str, a force field around the <ffsocket>
    options : of `comitia serve`
    """

    template: str = "nve"
    mode: str = "unix"
    more: str = ""
    around: str = "{socket}"
    options: tuple = ()


CASES = {
    "unix": Case(),
    "unix, legacy": Case(more=LEGACY),
    "inet": Case(mode="inet"),
    "inet, legacy": Case(mode="inet", more=LEGACY),
    "shm": Case(mode="shm"),
    "shm, legacy": Case(mode="shm", more=LEGACY),
    "ffcommittee": Case(around=COMMITTEE),
    "ffcommittee with committee_force": Case(around=COMMITTEE, options=FORCES),
    "ffrotations": Case(around=ROTATIONS),
    "PIMD, 8 beads": Case("pimd"),
    "PIMD, 8 beads in a batch": Case("pimd", more=BATCH.format(8)),
    "PIMD, batches of 3": Case("pimd", more=BATCH.format(3)),
    "PIMD, shm, a batch": Case("pimd", mode="shm", more=BATCH.format(8)),
    "REMD, 3 replicas": Case("remd"),
    "REMD, 3 replicas in a batch": Case("remd", more=BATCH.format(3)),
    "atomswap": Case("atomswap"),
}
DEFAULT = {  # one of each kind; the others are long
    "unix",
    "inet, legacy",
    "shm",
    "ffcommittee with committee_force",
    "ffrotations",
    "PIMD, 8 beads in a batch",
    "REMD, 3 replicas",
    "atomswap",
}
EVERY_CASE = [name if name in DEFAULT else pytest.param(name, marks=pytest.mark.long) for name in CASES]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def in_process(folder):
    """The force field by which i-PI calls the potential itself."""
    parameters = f"model: {folder / 'model.safetensors'}, template: {folder / 'init.xyz'}, threads: 1"
    return (
        f"<ffdirect name='comitia'> <pes> custom </pes> <pes_path> {ipi_driver.__file__} </pes_path> "
        f"<parameters> {{{parameters}}} </parameters> </ffdirect>"
    )


def connected(case):
    """The force field of a case, and what `serve` is told of it."""
    name, nested = "comitia", case.around != "{socket}"
    where, options = ADDRESS.format(name), {"names": [name]}
    if nested:
        name, where, options = "inner", ADDRESS.format(NESTED), {"names": [f"/tmp/ipi_{NESTED}"]}
    if case.mode == "inet":
        port = free_port()
        where = ADDRESS.format("localhost") + f" <port> {port} </port>"
        options = {"names": [], "more": ("--port", port)}
    elif case.mode == "shm":
        options = {"names": [], "more": ("--shm", name)}
    inner = SOCKET.format(name=name, mode=case.mode, where=where, more=case.more)
    return case.around.format(socket=inner), options


def prepare(folder, template, forcefield, n_steps, every):
    """The input of a run in this folder, from a template of inputs/; all is printed at `every` step."""
    species = SPECIES.get(template, (18,))
    small_model(species).save(folder / "model.safetensors")
    write_ipi_xyz(folder / "init.xyz", crystal(species, seed=1))
    text = (INPUTS / f"{template}.xml").read_text()
    matching = " matching='any'" if "matching='any'" in text and "<ffsocket" in forcefield else ""
    start, end = text.index("<ffsocket"), text.index("</ffsocket>") + len("</ffsocket>")
    text = text[:start] + forcefield.replace("<ffsocket ", f"<ffsocket{matching} ") + text[end:]
    text = re.sub(r"<total_steps> \d+ <", f"<total_steps> {n_steps} <", text)
    text = re.sub(r"stride='\d+' overwrite='True'", f"stride='{every}' overwrite='False'", text)
    text = re.sub(r"<(properties|trajectory filename='committee_pot') stride='\d+'", r"<\1 stride='1'", text)
    if template == "remd":  # replicas move in threads of their own, which draw noise in any order: here there is none
        text = re.sub(
            r"<dynamics mode='nvt'>(.*)<thermostat.*</thermostat>", r"<dynamics mode='nve'>\1", text, flags=re.S
        )
        text = re.sub(r"<remd> <stride> \d+ <", "<remd> <stride> 2 <", text)
    (folder / "input.xml").write_text(text)


def written(folder, template):
    """What a run left, in the units of i-PI.

    Returns
    -------
    list of one SimpleNamespace for each system: potential and conserved (n_steps + 1,), member energies
    (n_steps + 1, n_beads, ...), and the positions (n_beads, 3 n_atoms) of every checkpoint, by its step
    """
    systems = []
    checkpoints = sorted(folder.glob(f"{template}.checkpoint_*"), key=lambda path: int(path.name.rpartition("_")[2]))
    states = [read_xml(path) for path in [*checkpoints, folder / "RESTART"]]
    tables = sorted(folder.glob(f"*{template}.out"))
    for place, path in enumerate(tables):
        columns = read_properties(path)
        prefix = path.name.removesuffix(".out")
        members = [np.loadtxt(bead) for bead in sorted(folder.glob(f"{prefix}.committee_pot_*"))]
        potential = columns.find("potential")[0].values / HARTREE
        positions = {}
        for state in states:
            element = state.findall(".//beads")[place]
            q = np.array(element.find("q").text.strip().strip("[]").split(","), float)
            step = len(positions) if state is not states[-1] else "last"
            positions[step] = q.reshape(int(element.get("nbeads")), -1)
        systems.append(
            SimpleNamespace(
                potential=potential,
                conserved=columns.find("conserved")[0].values / HARTREE,
                # of several rotations, a row for each
                members=np.stack([m.reshape(len(potential), -1, m.shape[1]).mean(axis=1) for m in members], axis=1),
                positions=positions,
            )
        )
    return systems


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """Runs in which i-PI calls the potential itself, by template and number of steps, each made once."""
    made = {}

    def find(template, n_steps, every):
        if (template, n_steps) not in made:
            folder = tmp_path_factory.mktemp(template)
            prepare(folder, template, in_process(folder), n_steps, every)
            with programs(folder) as start:
                assert ended_in_order(i_pi(start, "input.xml"))
            made[template, n_steps] = written(folder, template)
        return made[template, n_steps]

    return find


def through_sockets(folder, case, n_steps, every):
    forcefield, options = connected(case)
    prepare(folder, case.template, forcefield, n_steps, every)
    with programs(folder) as start:
        server = i_pi(start, "input.xml")
        client = serve(start, *options.get("more", ()), *case.options, names=options["names"])
        assert ended_in_order(server, client)
    return written(folder, case.template)


def evaluated(template, positions):
    """Energies (hartree) of the members for the positions of beads (n_beads, 3 n_atoms), bohr."""
    species = SPECIES.get(template, (18,))
    beads = []
    for position in positions:
        atoms = crystal(species, seed=1)
        atoms.positions = position.reshape(-1, 3) * BOHR
        beads.append(atoms)
    return np.array([found.member_energies for found in small_model(species).compute(beads)]) / HARTREE


@pytest.mark.parametrize("name", EVERY_CASE)
def test_potential_and_positions_are_those_of_evaluation_in_a_process(name, reference, tmp_path):
    case = CASES[name]
    found, expected = through_sockets(tmp_path, case, N_STEPS, 1), reference(case.template, N_STEPS, 1)
    assert len(found) == (3 if case.template == "remd" else 1)
    largest = np.zeros(4)
    for run, other in zip(found, expected, strict=True):
        assert len(run.potential) == N_STEPS + 1
        for step in range(N_STEPS + 1):
            members = evaluated(case.template, run.positions[step])
            assert_allclose(run.members[step], members, rtol=1e-9)
            assert_allclose(run.potential[step], members.mean(), rtol=1e-9)
            largest[0] = max(largest[0], np.abs(run.potential[step] / members.mean() - 1))
            largest[1] = max(largest[1], np.abs(run.members[step] / members - 1).max())
            assert_allclose(run.positions[step], other.positions[step], rtol=1e-9, atol=1e-9)
            largest[3] = max(largest[3], np.abs(run.positions[step] - other.positions[step]).max())
        assert_allclose(run.potential, other.potential, rtol=1e-9)
        largest[2] = max(largest[2], np.abs(run.potential / other.potential - 1).max())
        moved = np.abs(run.positions[N_STEPS] - run.positions[0]).max()
        assert moved > (5.0 if case.template == "atomswap" else 0.01)  # bohr
    print(
        "{}: potential within {:.0e}, members {:.0e} of those evaluated here; potential within {:.0e}, positions "
        "{:.0e} bohr of the run in one process".format(name, *largest)
    )


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case == Case(mode=case.mode, more=case.more)])
def test_a_thousand_steps_equal_evaluation_in_process(name, reference, tmp_path):
    (run,), (other,) = through_sockets(tmp_path, CASES[name], 1000, 1000), reference("nve", 1000, 1000)
    flatness = np.ptp(run.conserved) / 64
    potential = np.abs(run.potential / other.potential - 1).max()
    positions = np.abs(run.positions["last"] / other.positions["last"] - 1).max()
    print(f"{name}: potential within {potential:.0e}, positions {positions:.0e}, conserved {flatness:.0e} hartree/atom")
    assert_allclose(run.potential, other.potential, rtol=1e-9)
    assert_allclose(run.positions["last"], other.positions["last"], rtol=1e-9)
    assert_allclose(run.members, other.members, rtol=1e-9)
    assert flatness < FLAT
