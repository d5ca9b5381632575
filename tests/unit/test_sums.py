"""Sums of a fit: in any order and number of threads the same; what a killed fit left is found again."""

import os
import signal
import subprocess
import sys
import time

import models
import pytest
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.extxyz import write_xyz
from numpy.testing import assert_array_equal

from comitia.density import Descriptor
from comitia.settings import convert
from comitia.training import FitSettings, fit, sums

CUTOFF = 6.0
BASIS = {"n_max": [6, 3, 0], "l_max": [0, 2, 0]}


def labelled(n_frames, seed=0, species=(18, 36)):
    """Rattled crystals with the energies and forces of a pair potential; some without forces."""
    frames = []
    for frame in range(seed, seed + n_frames):
        atoms = models.crystal(species, (2, 1, 1), rattle=0.05 + 0.02 * (frame % 10), seed=frame)
        energy, forces = models.pair_energy_and_forces(atoms, CUTOFF)
        labels = {"energy": energy, "forces": forces} if frame % 5 else {"energy": energy}
        atoms.calc = SinglePointCalculator(atoms, **labels)
        atoms.info["config_type"] = "hot" if frame % 10 > 4 else "cold"
        frames.append(atoms)
    return frames


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


class Killed(BaseException):
    """Stands for a signal that ends the fit at once."""


def dies_after(monkeypatch, n_designs):
    """Count designs; from the last of `n_designs` on, computing one ends the fit."""
    counted, compute = [], Descriptor.design

    def design(self, atoms, *arguments, **options):
        counted.append(len(atoms))
        if len(counted) > n_designs:
            raise Killed
        return compute(self, atoms, *arguments, **options)

    monkeypatch.setattr(Descriptor, "design", design)
    return counted


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
    assert len(counted) == 60  # each design once: those of complete groups in the second reading only
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
from comitia.density import Descriptor
from comitia.settings import convert
from comitia.training import FitSettings, fit, sums
sums.SAVE_EVERY, compute = 0.0, Descriptor.design
Descriptor.design = lambda *a, **k: (time.sleep(0.01), compute(*a, **k))[1]
settings = convert({{"data": "train.xyz", "cutoff": {CUTOFF}, "basis": {BASIS}, "members": 4}}, FitSettings, "")
fit(settings, {str(data)!r}, {str(tmp_path / "m.safetensors")!r}, progress=False)
"""
    process = subprocess.Popen([sys.executable, "-c", program])
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("m.sums.partial/*.safetensors"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert list(tmp_path.glob("m.sums.partial/*.safetensors"))
    again = fit(settings(), data, tmp_path / "m.safetensors", progress=False)
    assert_array_equal(again.potential.weights, fitted.potential.weights)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.json", "m.safetensors"]
