"""A folder of good files, and the command line in this process."""

import signal
import sys
from pathlib import Path

import pytest
from commands import FIT, labelled, listing
from models import crystal, small_model, write_ipi_xyz

from comitia import cli

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _nothing_left(no_leaks):
    """Every test in this folder is under the leak guard of tests/leaks.py."""


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """A folder with one good file of every kind."""
    folder = tmp_path_factory.mktemp("good")
    (folder / "data.xyz").write_text(labelled())
    (folder / "fit.yaml").write_text(FIT)
    small_model().save(folder / "model.safetensors")
    write_ipi_xyz(folder / "init.xyz", crystal())
    (folder / "nve.xml").write_text((ROOT / "inputs" / "nve.xml").read_text())
    (folder / "study.yaml").write_text(
        "fit: fit.yaml\nsample: {nve: {input: nve.xml}}\n"
        "observables: {energy: {from: nve, property: potential, unit: eV}}\n"
    )
    return folder


@pytest.fixture
def folder(originals, tmp_path, monkeypatch):
    """The working folder, with its own copies of the good files."""
    for path in originals.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def comitia(monkeypatch, capsys):
    """A function: arguments -> (exit code, standard error) of the command line."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")

    def run(arguments):
        monkeypatch.setattr(sys, "argv", ["comitia", *map(str, arguments)])
        try:
            with pytest.raises(SystemExit) as ended:
                cli.main()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        return ended.value.code, capsys.readouterr().err

    return run


@pytest.fixture
def refused(comitia):
    """A function: arguments -> the one sentence with which they are refused; no file appears or changes."""

    def refuse(arguments, code=3):
        before = listing()
        found, said = comitia(arguments)
        assert found == code, said
        lines = [line for line in said.splitlines() if "warning:" not in line and "  " not in line[:12]]
        assert len(lines) == 1, said
        assert lines[0].startswith("comitia: ")
        assert listing() == before
        return lines[0]

    return refuse
