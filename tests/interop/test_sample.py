"""`comitia sample` with real i-PI: it stops, goes on, knows when it is done, and leaves nothing behind."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from models import crystal, small_model, write_ipi_xyz
from numpy.testing import assert_allclose

import comitia
from comitia import units
from comitia.engines.ipi import RETRIES
from comitia.engines.plumed import INSTALL, find_kernel

INPUTS = Path(__file__).resolve().parents[2] / "inputs"
FOR_EVER = 10_000_000  # steps
PATIENCE = 60  # s for what takes two


started = []


def sockets(process):
    """Folders of sockets of a run."""
    return list(Path("/tmp").glob(f"comitia-{process.pid}-*"))


@pytest.fixture
def folder(tmp_path):
    """A folder with all that a run of 64 atoms needs."""
    small_model().save(tmp_path / "model.safetensors")
    write_ipi_xyz(tmp_path / "init.xyz", crystal(seed=1))
    (tmp_path / "nve.xml").write_text((INPUTS / "nve.xml").read_text())
    started.clear()
    yield tmp_path
    assert not [path for process in started for path in sockets(process)]
    assert not (tmp_path / "EXIT").exists()


def start(folder, *options, steps=FOR_EVER, name="nve.xml", environment=None):
    command = [sys.executable, "-m", "comitia.cli", "sample", name, "--model", "model.safetensors"]
    process = subprocess.Popen(
        [*command, "--threads", "1", "--steps", str(steps), *options],
        cwd=folder,
        env=os.environ | (environment or {}),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    started.append(process)
    return process


def in_slow_motion(folder):
    """The environment in which i-PI sleeps in every step, until `slow` is removed: it is far from its end meanwhile."""
    (folder / "slow").touch()
    pause = "max(seconds, 0.03 * os.path.exists('slow'))"
    text = f"import os, time\nsleep = time.sleep\ntime.sleep = lambda seconds: sleep({pause})\n"
    (folder / "sitecustomize.py").write_text(text)
    return {"PYTHONPATH": str(folder)}


def finish(process):
    """(exit code, all that was said)."""
    said, _ = process.communicate(timeout=PATIENCE)
    return process.returncode, said


def steps(folder):
    lines = (folder / "nve.out").read_text().split("\n")[:-1]  # the last one may not be whole
    return [int(float(line.split()[0])) for line in lines if not line.startswith("#")]


def wait_for_step(folder, step, process):
    """Wait until i-PI has written `step`."""
    deadline = time.monotonic() + PATIENCE
    while not (folder / "nve.out").exists() or max(steps(folder), default=-1) < step:
        assert process.poll() is None, finish(process)
        assert time.monotonic() < deadline, "no steps"
        time.sleep(0.05)


def report(folder):
    return json.loads((folder / "sample.json").read_text())


def child(process, word):
    """Process id of the child of `process` whose command line holds `word`."""
    for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        if word in Path(f"/proc/{pid}/cmdline").read_text().split("\0"):
            return int(pid)
    raise AssertionError(f"no child {word}")


def test_a_stopped_run_goes_on_without_a_gap_and_ends_as_if_never_stopped(folder, tmp_path_factory):
    process = start(folder)
    wait_for_step(folder, 10, process)
    process.terminate()
    code, _ = finish(process)
    assert code == 128 + signal.SIGTERM
    assert report(folder)["status"] == "stopped"
    reached = report(folder)["step"]
    assert reached >= 10

    total = reached + 15
    code, said = finish(start(folder, steps=total))
    assert code == 0, said
    assert report(folder)["status"] == "finished"
    assert report(folder)["restarted_from"] == reached
    assert steps(folder) == list(range(total + 1))
    code, said = finish(start(folder, steps=total, name="RESTART"))  # finished, and not merely ended
    assert code == 0
    assert f"finished: step {total} of {total}" in said
    assert steps(folder) == list(range(total + 1))

    whole = tmp_path_factory.mktemp("whole")
    for name in ("model.safetensors", "init.xyz", "nve.xml"):
        (whole / name).write_bytes((folder / name).read_bytes())
    assert finish(start(whole, steps=total))[0] == 0
    assert_allclose(np.loadtxt(folder / "nve.out"), np.loadtxt(whole / "nve.out"), rtol=1e-9, atol=1e-12)

    (folder / "nve.xml").write_text((folder / "nve.xml").read_text().replace("> 1.0 </timestep", "> 0.5 </timestep"))
    code, said = finish(start(folder))
    assert code == 3
    assert "written by another input" in said
    assert steps(folder) == list(range(total + 1))


def test_an_interrupt_is_an_orderly_stop(folder):
    process = start(folder)
    wait_for_step(folder, 3, process)
    process.send_signal(signal.SIGINT)
    assert finish(process)[0] == 128 + signal.SIGINT
    assert (folder / "RESTART").exists()


def test_an_exit_file_is_not_the_end_of_the_run(folder):
    (folder / "EXIT").touch()  # left by somebody: it must not stop this run at once
    process = start(folder)
    wait_for_step(folder, 3, process)
    second = start(folder)  # nobody else may write in this folder
    assert finish(second)[0] == 3
    (folder / "EXIT").touch()
    code, said = finish(process)
    assert code == 4
    assert "same command again to go on" in said
    assert report(folder)["status"] == "stopped"


def _with_checkpoints(folder, n_beads=1):
    """The input with checkpoints that a run can go on from."""
    text = (folder / "nve.xml").read_text().replace("nbeads='1'", f"nbeads='{n_beads}'")
    (folder / "nve.xml").write_text(text.replace("stride='200' overwrite='True'", "stride='10' overwrite='False'"))


def _is_whole(folder, total, n_beads, n_atoms):
    """Every step is once in properties, trajectories and extras."""
    assert steps(folder) == list(range(total + 1))
    for bead in range(n_beads):
        for name, every in ((f"nve.committee_pot_{bead}", 1), (f"nve.pos_{bead}.xyz", 10)):
            text = (folder / name).read_text()
            found = re.findall(r"Step:\s*(\d+)", text)
            assert list(map(int, found)) == list(range(0, total + 1, every))
            lines = 2 + n_atoms if name.endswith(".xyz") else 2
            assert len(text.splitlines()) == lines * len(found)


@pytest.mark.parametrize(
    "loss",
    [
        "client killed in a force",
        pytest.param("client hangs", marks=pytest.mark.long),
        pytest.param("i-PI killed", marks=pytest.mark.long),
    ],
)
def test_a_run_that_loses_a_process_comes_to_its_end(folder, loss, tmp_path_factory):
    """i-PI 3.3.1 hangs for ever, another client or not, when one is killed with a request in hand."""
    n_beads, total = (4, 200) if loss == "client killed in a force" else (1, 1000)
    _with_checkpoints(folder, n_beads)
    atoms = crystal(repeats=(4, 4, 4) if n_beads > 1 else (2, 2, 4), seed=1)  # most of the time is that of a force
    write_ipi_xyz(folder / "init.xyz", atoms)
    options = ["--clients", "2"] if n_beads > 1 else ["--stall", "8"]
    process = start(folder, *options, steps=total, environment=in_slow_motion(folder))
    wait_for_step(folder, 25, process)
    victim = child(process, "serve")
    if loss == "i-PI killed":
        (victim,) = [pid for pid in _children(process) if "serve" not in Path(f"/proc/{pid}/cmdline").read_text()]
        os.kill(victim, signal.SIGKILL)
    else:
        os.kill(victim, signal.SIGSTOP)
    if loss == "client killed in a force":
        time.sleep(0.3)  # it is stopped, and its request waits in its socket
        os.kill(victim, signal.SIGKILL)
    (folder / "slow").unlink()
    begin, reached = time.monotonic(), max(steps(folder))
    while process.poll() is None and max(steps(folder)) <= reached:  # the outputs are cut back, then go on
        time.sleep(0.05)
    print(f"{loss}: {time.monotonic() - begin:.1f} s until the next step")
    code, said = finish(process)
    assert code == 0, said
    assert report(folder)["status"] == "finished"
    ((step, reason),) = [(restart["step"], restart["reason"]) for restart in report(folder)["restarts"]]
    assert step >= 20  # a client that was killed between two forces does not stop i-PI
    said_of = {
        "client killed in a force": "client was ended by signal 9",
        "client hangs": "hangs",
        "i-PI killed": "i-PI was ended by signal 9",
    }
    assert said_of[loss] in reason
    assert f"all start again from step {step}" in said
    _is_whole(folder, total, n_beads, len(atoms))
    _, _, conserved, _, _, potential = np.loadtxt(folder / "nve.out").T
    assert np.ptp(conserved) < 0.02 * np.ptp(potential)  # a step from another state would show
    if n_beads > 1:
        return
    whole = tmp_path_factory.mktemp("whole")
    for name in ("model.safetensors", "init.xyz", "nve.xml"):
        (whole / name).write_bytes((folder / name).read_bytes())
    assert finish(start(whole, steps=50))[0] == 0
    assert_allclose(np.loadtxt(folder / "nve.out")[:51], np.loadtxt(whole / "nve.out"), rtol=1e-9, atol=1e-12)


METADYNAMICS = """UNITS LENGTH=A ENERGY=eV
distance: DISTANCE ATOMS=1,2
metad: METAD ARG=distance SIGMA=0.05 HEIGHT=0.002 PACE=5 FILE=HILLS
PRINT ARG=distance,metad.bias STRIDE=1 FILE=COLVAR
FLUSH STRIDE=1
"""


def hold_between_checkpoints(ipi, path):
    """Stop i-PI where its checkpoint is whole; what that holds."""
    deadline = time.monotonic() + PATIENCE
    while True:
        os.kill(ipi, signal.SIGSTOP)
        saved = path.read_bytes()
        if saved.rstrip().endswith(b"</simulation>"):
            return saved
        os.kill(ipi, signal.SIGCONT)
        assert time.monotonic() < deadline, "no whole checkpoint"
        time.sleep(0.01)


def wait_for_copy(path, content):
    deadline = time.monotonic() + PATIENCE
    while not path.is_file() or path.read_bytes() != content:
        assert time.monotonic() < deadline, "the checkpoint was not copied"
        time.sleep(0.05)


@pytest.mark.skipif(find_kernel() is None, reason=f"no PLUMED kernel; {INSTALL}")
def test_a_biased_run_that_is_killed_goes_on_with_every_hill_once(folder):
    total = 300
    text = (INPUTS / "plumed.xml").read_text()
    for old, new in {"stride='200' overwrite": "stride='20' overwrite", "restraint.bias": "metad.bias"}.items():
        assert old in text
        text = text.replace(old, new)
    (folder / "nve.xml").write_text(text.replace("prefix='plumed'", "prefix='nve'"))
    (folder / "plumed.dat").write_text(METADYNAMICS)
    process = start(folder, steps=total, environment=in_slow_motion(folder))
    wait_for_step(folder, 50, process)
    (ipi,) = [pid for pid in _children(process) if "serve" not in Path(f"/proc/{pid}/cmdline").read_text()]
    saved = hold_between_checkpoints(ipi, folder / "nve.checkpoint")
    wait_for_copy(folder / ".nve.checkpoint.whole", saved)
    os.truncate(folder / "nve.checkpoint", 1000)  # as if the next one was being written
    os.kill(ipi, signal.SIGKILL)
    (folder / "slow").unlink()
    code, said = finish(process)
    assert code == 0, said
    assert not (folder / ".nve.checkpoint.whole").exists()
    ((step, _),) = [(restart["step"], restart["reason"]) for restart in report(folder)["restarts"]]
    assert 20 <= step < total
    for name, every in {"HILLS": 5, "COLVAR": 1}.items():
        times = np.loadtxt(folder / name)[:, 0]
        assert_allclose(times, np.arange(every if name == "HILLS" else times[0], total + 1, every))
    # the bias that acts is that of the hills written, but for the one that is added after the last line is printed
    _, centres, widths, heights = np.loadtxt(folder / "HILLS")[:-1, :4].T
    distance, bias = np.loadtxt(folder / "COLVAR")[-1, 1:3]
    gaussians = heights * np.exp(-0.5 * ((distance - centres) / widths) ** 2)
    assert_allclose(bias, gaussians.sum(), rtol=0.02)  # PLUMED cuts a hill off at 3.5 sigma


def test_a_run_whose_clients_die_at_once_is_given_up(folder):
    (folder / "sitecustomize.py").write_text("import os, sys\nif 'serve' in sys.argv: os.kill(os.getpid(), 9)\n")
    environment = {"PYTHONPATH": str(folder)}
    process = start(folder, environment=environment)
    code, said = finish(process)
    assert code == 4
    assert "the force client was ended by signal 9" in said
    assert len(report(folder)["restarts"]) == RETRIES
    assert report(folder)["status"] == "failed"


def _children(process):
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def test_a_command_that_is_killed_leaves_a_run_that_can_go_on(folder):
    process = start(folder)
    wait_for_step(folder, 3, process)
    i_pi = next(pid for pid in _children(process) if pid != child(process, "serve"))
    process.kill()
    finish(process)  # the leak guard of this folder sees the processes that are left
    deadline = time.monotonic() + PATIENCE
    while os.waitpid(i_pi, os.WNOHANG)[0] == 0:  # an orphan is ours; i-PI goes on until it looks at its signal
        assert time.monotonic() < deadline, "i-PI is still there"
        time.sleep(0.05)
    reached = max(steps(folder))
    code, said = finish(start(folder, steps=reached + 10))  # the sockets are cleared away
    assert code == 0, said
    assert report(folder)["restarted_from"] in (reached, reached + 1)  # the state that i-PI wrote when it was told
    assert steps(folder) == list(range(reached + 11))


def test_what_i_pi_refuses_is_said(folder):
    (folder / "nve.xml").write_text((folder / "nve.xml").read_text().replace("mode='nve'", "mode='nvx'"))
    code, said = finish(start(folder))
    assert code == 4
    assert "i-PI ended with code 1" in said
    assert "nvx" in said
    assert "Traceback" not in said


def test_a_run_that_diverges_is_a_numerical_failure(folder):
    text = (folder / "nve.xml").read_text()
    (folder / "nve.xml").write_text(text.replace("> 1.0 </timestep>", "> 1e200 </timestep>"))
    code, said = finish(start(folder))
    assert code == 6, said
    assert re.search(r"is (nan|inf|-inf) at structure 0, atom|not finite", said)


def test_several_clients_share_the_beads_in_single_precision_and_without_the_energies_of_the_atoms(folder):
    text = (folder / "nve.xml").read_text().replace("nbeads='1'", "nbeads='4'")
    (folder / "nve.xml").write_text(text)
    code, said = finish(start(folder, "--clients", "2", "--offset", "e0", "--precision", "float32", steps=10))
    assert code == 0, said
    model = comitia.load(folder / "model.safetensors", "float32")
    assert report(folder)["offset"] == pytest.approx(model.reference_energy(crystal().numbers))
    members = [np.loadtxt(path) for path in sorted(folder.glob("nve.committee_pot_*"))]
    assert len(members) == 4
    expected = (model.compute(crystal(seed=1)).member_energies - report(folder)["offset"]) / units.HARTREE
    assert_allclose(members[0][0], expected, rtol=1e-6)
    for number in range(2):
        log = (folder / f"client-comitia-{number}.log").read_text()
        assert re.search(r"ended by EXIT: [1-9]", log)
        assert "members, float32)" in log


@pytest.mark.long
def test_a_run_may_start_from_a_checkpoint_or_restart_of_i_pi(folder):
    assert finish(start(folder, steps=5))[0] == 0
    code, said = finish(start(folder, steps=8, name="RESTART"))
    assert code == 0, said
    code, said = finish(start(folder, steps=10))
    assert code == 0, said
    assert steps(folder) == list(range(11))
    text = (folder / "nve.xml").read_text().replace("prefix='nve'", "prefix='next'")
    text = re.sub("<velocities.*</velocities>", "", text)
    (folder / "next.xml").write_text(text.replace("'xyz'> init.xyz", "'chk'> RESTART"))
    code, said = finish(start(folder, "--directory", "next", steps=3, name="next.xml"))
    assert code == 0, said
    first, last = np.loadtxt(folder / "next" / "next.out")[0], np.loadtxt(folder / "nve.out")[-1]
    assert_allclose(first[5], last[5], rtol=1e-12)  # the potential energy where the first run ended
