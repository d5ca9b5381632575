"""Frames without end: memory does not grow, descriptors and threads stay. In processes that do nothing else."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "soak.py"
SLOPE = 1.0  # kB per 10 000 frames
PAGES = 64  # kB, of a short run, in which single pages count


def soak(n_frames, timeout):
    command = [sys.executable, SCRIPT, "--frames", str(n_frames)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, done.stderr
    print(f"{n_frames} frames: {done.stdout.strip()}")
    return json.loads(done.stdout)


def test_ten_thousand_frames_leave_no_trace():
    assert max(soak(10_000, 200)["grown"]) < PAGES


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_million_frames_leave_no_trace():
    assert max(soak(1_000_000, 3500)["slopes"]) < SLOPE
