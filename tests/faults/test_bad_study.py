"""A study that cannot be run: exit code 3, one sentence, and nothing written before the first stage."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "zundel"

FAULTS = [
    ("study.yaml", "observables:", "observabels:", "did you mean 'observables'"),
    ("study.yaml", "cutoff: 5.0", "cutof: 5.0", "did you mean 'cutoff'"),
    ("study.yaml", "data/zundel_train.xyz.xz", "data/nothing.xyz.xz", "nothing.xyz.xz: cannot be read"),
    ("study.yaml", "input: pimd.xml", "input: nothing.xml", "nothing.xml: cannot be read"),
    ("study.yaml", "{distance: [0, 1]}", "{distance: [0, 7]}", "no atom 7"),
    ("study.yaml", "{distance: [0, 1]}, unit: Å", "{distance: [0, 1]}, unit: eV", "does not fit"),
    ("study.yaml", "property: potential", "property: pressure_cv", "contains the potential"),
    ("study.yaml", "property: potential", "property: density", "prints no property 'density'"),
    ("study.yaml", "    sample:\n      classical: {steps", "    sample: 3\n    fit:\n      seed: {steps", "sample"),
    ("pimd.xml", "</output>", "", "not valid XML"),
    ("pimd.xml", "extra_type='committee_pot'", "extra_type='raw'", "prints no committee_pot of every bead"),
    ("pimd.xml", "positions{angstrom}", "velocities", "prints no positions of every bead"),
    ("zundel.xyz", "7\n", "8\n", "zundel.xyz"),
]


@pytest.mark.parametrize(("name", "old", "new", "says"), FAULTS)
def test_a_fault_is_said_before_anything_is_written(tmp_path, name, old, new, says):
    for source in ("study.yaml", "classical.xml", "pimd.xml", "zundel.xyz"):
        (tmp_path / source).write_text((EXAMPLE / source).read_text())
    (tmp_path / "data").symlink_to(EXAMPLE / "data")
    text = (tmp_path / name).read_text()
    assert old in text
    (tmp_path / name).write_text(text.replace(old, new, 1))
    before = sorted(tmp_path.iterdir())
    command = [sys.executable, "-m", "comitia.cli", "run", str(tmp_path / "study.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 3, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert sorted(tmp_path.iterdir()) == before
