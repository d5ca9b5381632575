"""Tests with real programs leave nothing behind."""

import subprocess
import sys

import pytest
from lammps_runs import lammps_environment


@pytest.fixture(autouse=True)
def _nothing_left(no_leaks):
    """Every test in this folder is under the leak guard of tests/leaks.py."""


@pytest.fixture(scope="session")
def plugin_cache(tmp_path_factory):
    """A cache in which `comitia lammps build` has put the plugin, once for all tests."""
    pytest.importorskip("lammps", reason="no LAMMPS; pip install 'comitia[lammps]'")
    cache = tmp_path_factory.mktemp("cache")
    done = subprocess.run(
        [sys.executable, "-m", "comitia.cli", "lammps", "build"],
        env=lammps_environment(cache), capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return cache
