"""`comitia label` whatever happens: it ends with its exit code, leaves no part of a file, and goes on where it was."""

import json
import os
import signal
import subprocess
import sys
import time

import faulty_worker
import numpy as np
import pytest
from ase.io import read, write
from models import crystal, small_model

SLOW = """
import os
import time

from ase.calculators.lj import LennardJones


class Slow(LennardJones):
    n_computed = 0

    def calculate(self, *arguments, **keywords):
        time.sleep(0.02)
        while Slow.n_computed >= 10 and os.path.exists("hold"):
            time.sleep(0.02)
        Slow.n_computed += 1
        super().calculate(*arguments, **keywords)


def make():
    return Slow(sigma=3.4, epsilon=0.0104, rc=5.0)


def broken():
    calculator = make()
    calculator.calculate = lambda *arguments, **keywords: 1 / 0
    return calculator
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "slow.py").write_text(SLOW)
    frames = [crystal((18,), (1, 1, 1), rattle=0.1, seed=seed) for seed in range(40)]
    write(tmp_path / "pool.xyz", frames, format="extxyz")
    return tmp_path


def start(folder, engine="ase:slow:make", *options, output="out.xyz"):
    command = [sys.executable, "-m", "comitia.cli", "label", "pool.xyz", "--with", engine, "-o", output, *options]
    return subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def finish(process, timeout=60):
    said, complained = process.communicate(timeout=timeout)
    return process.returncode, said, complained


def content(path):
    """What is in a file; nothing where it is not there, or is removed meanwhile."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def lines_in(path):
    return content(path).count(b"\n")


def after(journal, n_lines):
    """Wait until the journal has so many lines; with a file `hold` the calculator waits too, after 10 structures."""
    deadline = time.monotonic() + 60
    while lines_in(journal) < n_lines:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def wait_until_ready(folder):
    """Until workers may come in: before that their socket may have its name, and refuse them."""
    deadline = time.monotonic() + 60
    while not content(folder / "ready").startswith(b"ready: "):
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_it_at_once_and_it_goes_on(number, folder):
    journal = folder / "out.xyz.labels"
    (folder / "hold").touch()
    process = start(folder)
    after(journal, 5)
    begin = time.monotonic()
    process.send_signal(number)
    code, _, complained = finish(process)
    assert time.monotonic() - begin < 25
    assert code == 128 + number
    assert "Traceback" not in complained
    assert not (folder / "out.xyz").exists()
    n_before = lines_in(journal) - 1
    (folder / "hold").unlink()
    code, said, _ = finish(start(folder))
    assert code == 0
    assert f"40 of 40 structures labelled ({n_before} of them before), 0 failed" in said
    assert not journal.exists()


@pytest.mark.long
def test_killed_again_and_again_it_writes_what_it_would_have_written(folder):
    rng = np.random.default_rng(3)
    assert finish(start(folder, output="at_once.xyz"))[0] == 0
    n_killed = 0
    while not (folder / "out.xyz").exists():
        process = start(folder)
        after_lines = lines_in(folder / "out.xyz.labels") + rng.integers(2, 12)
        while lines_in(folder / "out.xyz.labels") < after_lines and process.poll() is None:
            time.sleep(0.002)
        process.kill()
        process.communicate()
        n_killed += process.returncode == -signal.SIGKILL
    assert finish(start(folder))[0] == 0
    assert (folder / "out.xyz").read_bytes() == (folder / "at_once.xyz").read_bytes()
    assert n_killed > 2


def test_what_fails_is_named_and_the_exit_code_says_so(folder):
    code, said, complained = finish(start(folder, "ase:slow:broken", "--json", "report.json"))
    assert code == 6
    assert "pool.xyz, frame 0: ase:slow:broken: ZeroDivisionError" in complained
    assert "and 30 more" in complained
    assert "0 of 40 structures labelled, 40 failed" in said
    assert not (folder / "out.xyz").exists()
    report = json.loads((folder / "report.json").read_text())
    assert [failure["frame"] for failure in report["failed"]] == list(range(40))


def test_species_that_a_model_does_not_know_cost_their_structure_only(folder):
    small_model().save(folder / "model.safetensors")
    frames = read(folder / "pool.xyz", ":")[:4]
    frames[2].symbols[1] = "Xe"
    write(folder / "pool.xyz", frames, format="extxyz")
    code, _, complained = finish(start(folder, "model:model.safetensors"))
    assert code == 3
    assert "frame 2" in complained
    assert "Xe" in complained
    assert len(read(folder / "out.xyz", ":")) == 3


@pytest.mark.parametrize("where", ["unix", "tcp"])
def test_nobody_comes(where, folder):
    engine = f"unix:{folder / 'door'}" if where == "unix" else "tcp:localhost:0"
    code, _, complained = finish(start(folder, engine, "--wait", "0.5"))
    assert code == 4
    assert "no worker for 0.5 s (none came); start one, or give it more time with --wait" in complained
    assert not (folder / "door").exists()


def test_all_workers_have_gone(folder):
    """The place where workers come in is told; the limit without any is another one once there was one."""
    (folder / "ready").write_text("of an earlier run")
    options = ["--wait", "60", "--idle", "0.5", "--ready-file", "ready"]
    process = start(folder, f"unix:{folder / 'door'}", *options)
    wait_until_ready(folder)
    address = (folder / "ready").read_text().removeprefix("ready: ").strip()
    assert address == f"unix:{folder / 'door'}"
    subprocess.run([sys.executable, "-S", "-E", faulty_worker.__file__, address, "4", "computing", "close"], check=True)
    begin = time.monotonic()
    code, _, complained = finish(process)
    assert time.monotonic() - begin < 5 * 2
    assert code == 4
    assert "no worker for 0.5 s (all 1 that came were lost); start one, or give it more time with --idle" in complained


def test_a_worker_that_hangs_is_late(folder):
    """SIGSTOP in the middle: within the limit the structure goes to another worker, and nothing is lost."""
    (folder / "slow.yaml").write_text("members: [{calculator: 'slow:make'}, {calculator: 'slow:make'}]\n")
    serve = [sys.executable, "-m", "comitia.cli", "serve", "slow.yaml", "--template", "pool.xyz"]
    serve += ["--threads", "1", "--unix", str(folder / "door"), "--wait", "60"]
    (folder / "hold").touch()
    process = start(folder, f"unix:{folder / 'door'}", "--timeout", "3")
    first = subprocess.Popen(serve, cwd=folder, stdout=subprocess.DEVNULL)
    second = None
    try:
        after(folder / "out.xyz.labels", 2)
        os.kill(first.pid, signal.SIGSTOP)
        (folder / "hold").unlink()
        second = subprocess.Popen(serve, cwd=folder, stdout=subprocess.DEVNULL)
        code, said, complained = finish(process)
    finally:
        for child in (first, second):
            if child is not None:
                child.kill()
                child.wait()
    assert code == 0, complained
    assert "40 of 40 structures labelled" in said


def test_a_worker_that_hangs_after_its_forces_is_late(folder):
    """They are believed, and nobody waits longer for what should follow them than for the forces."""
    write(folder / "pool.xyz", crystal((18,), (1, 1, 1)), format="extxyz")
    process = start(folder, f"unix:{folder / 'door'}", "--timeout", "3", "--ready-file", "ready")
    worker = [sys.executable, "-S", "-E", faulty_worker.__file__, f"unix:{folder / 'door'}", "4", "answered", "stop"]
    wait_until_ready(folder)
    stopped = subprocess.Popen(worker)
    try:
        code, said, complained = finish(process)
    finally:
        stopped.kill()
        stopped.wait()
    assert code == 0, complained
    assert "1 of 1 structures labelled" in said


def test_the_door_is_in_use(folder):
    small_model().save(folder / "model.safetensors")
    other = start(folder, f"unix:{folder / 'door'}", "--wait", "60", "--ready-file", "ready", output="other.xyz")
    try:
        wait_until_ready(folder)
        code, _, complained = finish(start(folder, f"unix:{folder / 'door'}"))
        assert code == 3
        assert f"in use by process {other.pid}" in complained
    finally:
        other.terminate()
        assert finish(other)[0] == 143
    assert not (folder / "door").exists()
