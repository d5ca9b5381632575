"""`comitia check` without an input says which programs are there, and how the others are installed."""

import importlib.util
import json

import pytest
from click.testing import CliRunner

from comitia.cli.check import command
from comitia.engines.lammps_plugin import PLUGIN, cached, installed_headers, read_headers
from comitia.engines.programs import programs


@pytest.fixture
def bare(monkeypatch):
    """An environment that has only what comitia itself needs."""
    find_spec = importlib.util.find_spec

    def find(name, *others):
        return None if name in ("ipi", "lammps", "plumed") else find_spec(name, *others)

    monkeypatch.setattr(importlib.util, "find_spec", find)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("MPICXX", "/nowhere/mpicxx")
    monkeypatch.delenv("PLUMED_KERNEL", raising=False)


def test_what_is_missing_and_the_line_that_installs_it(bare):
    assert [one.found for one in programs()] == [None] * 5
    done = CliRunner().invoke(command, [])
    assert done.exit_code == 0
    for line in (
        "warning: i-PI (comitia sample): i-PI is not installed; pip install 'comitia[run]'",
        "warning: LAMMPS (comitia lammps): LAMMPS is not installed; pip install 'comitia[lammps]'",
        "warning: plugin (pair_style comitia, fix comitia): LAMMPS is not installed; pip install 'comitia[lammps]', or "
        "say --include DIR",
        "warning: PLUMED (a bias, with any of them): PLUMED is not installed; pip install --no-deps hillclimber==0.1.8",
    ):
        assert line in done.output.splitlines()
    assert "apt install g++" in done.output
    assert "refusals 0, warnings 5" in done.output


def test_a_named_kernel_of_plumed_must_be_there_with_its_interface(bare, monkeypatch, tmp_path):
    monkeypatch.setenv("PLUMED_KERNEL", str(tmp_path / "libplumedKernel.so"))
    assert "libplumedKernel.so, which is not there" in programs()[4].missing
    (tmp_path / "libplumedKernel.so").write_bytes(b"")
    assert programs()[4].missing.startswith("PLUMED has no Python interface here; pip install")


def test_whether_the_plugin_is_built_and_for_which_lammps(monkeypatch, tmp_path):
    pytest.importorskip("lammps", reason="no LAMMPS; pip install 'comitia[lammps]'")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    headers = read_headers(installed_headers())
    sentence = f"not built for LAMMPS {headers.version}, which is installed; comitia lammps build"
    assert programs()[3].missing == sentence
    other = tmp_path / "comitia" / "lammps" / "20240829-smallbig-0" / PLUGIN
    for plugin in (other, cached(headers)):
        assert programs()[3].found is None
        plugin.parent.mkdir(parents=True)
        plugin.write_bytes(b"")
    assert programs()[3].found == f"{cached(headers)} for LAMMPS {headers.version}"


def test_a_compiler_works_without_any_path(monkeypatch):
    """As in the environment of a queue that passes nothing on."""
    if programs()[2].missing:
        pytest.skip("no mpicxx")
    monkeypatch.setenv("MPICXX", programs()[2].found)
    monkeypatch.delenv("PATH")
    assert programs()[2].missing is None


def test_json(tmp_path):
    done = CliRunner().invoke(command, ["--json", str(tmp_path / "found.json")])
    assert done.exit_code == 0
    assert set(json.loads((tmp_path / "found.json").read_text())["programs"]) == {
        "i-PI",
        "LAMMPS",
        "compiler",
        "plugin",
        "PLUMED",
    }
