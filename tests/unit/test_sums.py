"""Sums of a fit: in any order and number of threads the same; what a killed fit left is found again."""

import os
import signal
import subprocess
import sys
import time

import pytest
from ase.io.extxyz import write_xyz
from fits import BASIS, CUTOFF, Killed, dies_after, labelled
from numpy.testing import assert_array_equal

from comitia.settings import convert
from comitia.training import FitSettings, fit, sums


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sums")
    write_xyz(folder / "train.xyz", labelled(60))
    return folder


def settings(**changes):
    return convert({"data": "train.xyz", "cutoff": CUTOFF, "basis": BASIS, "members": 4} | changes, FitSettings, "test")


@pytest.fixture(scope="module")
def fitted(data, tmp_path_factory):
    return fit(settings(), data, tmp_path_factory.mktemp("fitted") / "m.safetensors", progress=False)


@pytest.mark.parametrize("n_designs", [0, 7, 30, 59])
def test_a_fit_that_was_killed_goes_on_to_the_same_bits(fitted, data, tmp_path, monkeypatch, n_designs):
    monkeypatch.setattr(sums, "SAVE_EVERY", 0.0)
    with monkeypatch.context() as patch:
        dies_after(patch, n_designs)
        with pytest.raises(Killed):
            fit(settings(threads=1), data, tmp_path / "m.safetensors", progress=False)
    kept = len(list(tmp_path.glob("m.sums.partial/*")))
    assert kept > 0 or n_designs == 0
    counted = dies_after(monkeypatch, 1000)
    again = fit(settings(threads=2), data, tmp_path / "m.safetensors", progress=False)
    assert_array_equal(again.potential.weights, fitted.potential.weights)
    assert again.report["calibration"] == fitted.report["calibration"]
    assert 60 - n_designs <= len(counted) <= 60 - kept  # rows of complete groups are never made again
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.json", "m.safetensors"]


def test_what_another_fit_or_a_damaged_disk_left_is_not_used(fitted, data, tmp_path, monkeypatch):
    monkeypatch.setattr(sums, "SAVE_EVERY", 0.0)
    with monkeypatch.context() as patch:
        dies_after(patch, 40)
        with pytest.raises(Killed):
            fit(settings(threads=1, cutoff=5.5), data, tmp_path / "m.safetensors", progress=False)
    for path in list(tmp_path.glob("m.sums.partial/*"))[:2]:
        path.write_bytes(path.read_bytes()[:-20])
    again = fit(settings(), data, tmp_path / "m.safetensors", progress=False)
    assert_array_equal(again.potential.weights, fitted.potential.weights)
    assert not (tmp_path / "m.sums.partial").exists()


def test_sums_of_a_process_that_is_killed(fitted, data, tmp_path):
    program = f"""
import time
from pathlib import Path
from comitia.density import Descriptor
from comitia.settings import convert
from comitia.training import FitSettings, fit, sums
sums.SAVE_EVERY, compute = 0.0, Descriptor.design
folder = Path({str(tmp_path)!r}, "m.sums.partial")
def design(*arguments, **options):
    while len(list(folder.glob("*.safetensors"))) >= 3:  # until it is killed
        time.sleep(0.01)
    return compute(*arguments, **options)
Descriptor.design = design
settings = convert({{"data": "train.xyz", "cutoff": {CUTOFF}, "basis": {BASIS}, "members": 4}}, FitSettings, "")
fit(settings, {str(data)!r}, {str(tmp_path / "m.safetensors")!r}, progress=False)
"""
    process = subprocess.Popen([sys.executable, "-c", program])
    while len(list(tmp_path.glob("m.sums.partial/*.safetensors"))) < 3 and process.poll() is None:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert list(tmp_path.glob("m.sums.partial/*.safetensors"))
    again = fit(settings(), data, tmp_path / "m.safetensors", progress=False)
    assert_array_equal(again.potential.weights, fitted.potential.weights)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.json", "m.safetensors"]
