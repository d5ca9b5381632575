"""`comitia perturb` whatever happens: nothing that was computed is computed again, nothing that failed is silent."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from ase.io import read, write
from models import crystal, small_model

REFERENCE = """
import os
import time

import numpy as np
from ase.calculators.calculator import Calculator

import comitia


class Near(Calculator):
    implemented_properties = ["energy"]

    def __init__(self):
        super().__init__()
        self.potential = comitia.load("model.safetensors")
        self.pause = float(os.environ.get("REFERENCE_PAUSE", "0"))

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        super().calculate(atoms, properties, system_changes)
        x = atoms.positions[0, 0]
        with open("calls", "a") as file:
            file.write(f"{x!r}\\n")
        time.sleep(self.pause)
        if os.environ.get("REFERENCE_FAILS") == f"{atoms.positions[1, 0]:.7f}":
            raise RuntimeError("no convergence")
        self.results["energy"] = self.potential.compute(atoms).energy + 0.02 * np.cos(40 * x) + 3.0


def make():
    return Near()
"""
N_FRAMES = 30


@pytest.fixture
def folder(tmp_path):
    small_model().save(tmp_path / "model.safetensors")
    (tmp_path / "near_reference.py").write_text(REFERENCE)
    write_frames(tmp_path, N_FRAMES)
    return tmp_path


def write_frames(folder, count):
    frames = [crystal((18,), (1, 1, 1), rattle=0.1, seed=seed) for seed in range(count)]
    write(folder / "frames.xyz", frames, format="extxyz")


def start(folder, *options, environment=None):
    command = [sys.executable, "-m", "comitia.cli", "perturb", "--trajectory", "frames.xyz", "--temperature", "300"]
    command += ["--model", "model.safetensors", "--reference", "ase:near_reference:make", "--frames", "all", *options]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, cwd=folder, stdout=pipe, stderr=pipe, text=True, env=os.environ | (environment or {})
    )


def finish(process, timeout=120):
    said, complained = process.communicate(timeout=timeout)
    return process.returncode, said, complained


def lines(path):
    return path.read_bytes().split(b"\n")[:-1] if path.exists() else []


@pytest.mark.long
@pytest.mark.parametrize("n_workers", [1, 2])
def test_killed_twenty_times_it_repeats_no_call(folder, n_workers):
    """At random moments, from the start of the process on: what is in the store is never asked for again."""
    n_frames = 160
    write_frames(folder, n_frames)
    rng = np.random.default_rng(n_workers)
    store, calls = folder / "perturbation" / "reference.labels", folder / "calls"
    pause, n_kept, n_asked = {"REFERENCE_PAUSE": "0.02"}, 0, 0
    for _ in range(20):
        process = start(folder, "--workers", str(n_workers), environment=pause)
        deadline, wanted = time.monotonic() + 60, n_kept + rng.integers(0, 4)
        while max(0, len(lines(store)) - 1) < wanted and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.05))
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        time.sleep(0.2)  # workers notice that we have gone
        kept, asked = max(0, len(lines(store)) - 1), len(lines(calls))
        assert asked - n_asked <= kept - n_kept + n_workers  # only what was being computed may be asked for again
        n_kept, n_asked = kept, asked
    code, _, complained = finish(start(folder, "--workers", str(n_workers)))
    assert code == 0, complained
    assert len(lines(calls)) - n_asked == n_frames - n_kept
    content = json.loads((folder / "perturbation" / "perturbation.json").read_text())
    assert (content["n_frames"], content["n_from_before"]) == (n_frames, n_kept)
    assert finish(start(folder, "-o", "at_once"))[0] == 0
    assert json.loads((folder / "at_once" / "perturbation.json").read_text())["value"] == content["value"]


def test_what_is_in_the_store_is_not_asked_for_again(folder):
    """A kill in the middle; then every call that follows is of a structure that the store does not have."""
    store, calls = folder / "perturbation" / "reference.labels", folder / "calls"
    process = start(folder, environment={"REFERENCE_PAUSE": "0.05"})
    deadline = time.monotonic() + 60
    while len(lines(store)) < 8:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.kill()
    process.communicate()
    n_kept, n_asked = len(lines(store)) - 1, len(lines(calls))
    assert n_kept <= n_asked <= n_kept + 1
    code, said, complained = finish(start(folder))
    assert code == 0, complained
    assert f"{N_FRAMES - n_kept} structures computed now, {n_kept} before" in said
    assert len(lines(calls)) == n_asked + N_FRAMES - n_kept
    assert not set(lines(calls)[:n_kept]) & set(lines(calls)[n_asked:])


@pytest.mark.long
def test_a_signal_stops_it_in_order(folder):
    store = folder / "perturbation" / "reference.labels"
    process = start(folder, "--workers", "2", environment={"REFERENCE_PAUSE": "0.1"})
    deadline = time.monotonic() + 60
    while len(lines(store)) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    code, _, complained = finish(process)
    assert code == 130
    assert "Traceback" not in complained
    assert not (folder / "perturbation" / "perturbation.json").exists()


@pytest.mark.long
def test_a_failure_is_never_silent(folder):
    place = f"{read(folder / 'frames.xyz', 7).positions[1, 0]:.7f}"
    broken = {"REFERENCE_FAILS": place}
    code, _, complained = finish(start(folder, environment=broken))
    assert code == 6
    assert "structure 7" in complained
    assert "--skip-failed N" in complained
    code, _, complained = finish(start(folder, "--skip-failed", "1", environment=broken))
    assert code == 0
    assert "frame 7 was left out: ase:near_reference:make: RuntimeError: no convergence" in complained
    content = json.loads((folder / "perturbation" / "perturbation.json").read_text())
    assert content["n_frames"] == N_FRAMES - 1
    assert [failure["frame"] for failure in content["failed"]] == [7]
