"""Labels of a file: kept as they come, found again after any end, written whole."""

import json
import re

import numpy as np
import pytest
from ase.calculators.lj import LennardJones
from ase.io import read, write
from models import cluster, crystal, small_model
from numpy.testing import assert_allclose

from comitia.engines import labels
from comitia.engines.force_engines import EngineOptions, Label
from comitia.engines.labels import Journal, label_file
from comitia.errors import EngineError, OutputError, SettingsError, StructureError

HEADER = {"version": 1, "file of structures": "a", "engine": ["model:x", {}]}


def a_label(number):
    rng = np.random.default_rng(number)
    return Label(rng.normal(), rng.normal(size=(3, 3)), rng.normal(size=(3, 3)), {"energy_uncertainty": 0.1})


def same(label, other):
    return (
        label.energy == other.energy and (label.forces == other.forces).all() and (label.virial == other.virial).all()
    )


def test_a_journal_is_found_again_to_the_last_bit(tmp_path):
    path = tmp_path / "labels"
    with Journal(path, HEADER) as journal:
        for number in (3, 0, 7):
            journal.add(number, a_label(number))
    with Journal(path, HEADER) as journal:
        assert len(journal) == 3
        assert 7 in journal
        assert 1 not in journal
        assert all(same(journal.label(number), a_label(number)) for number in (0, 3, 7))


def test_a_journal_cut_anywhere_keeps_what_is_whole(tmp_path):
    path = tmp_path / "labels"
    with Journal(path, HEADER) as journal:
        for number in range(3):
            journal.add(number, a_label(number))
    content = path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(content) if byte == ord("\n")]
    for cut in {*range(ends[0] + 5), *range(ends[0], len(content), 17), *ends}:
        path.write_bytes(content[:cut])
        with Journal(path, HEADER) as journal:
            assert len(journal) == max(0, sum(end <= cut for end in ends) - 1)
            assert all(same(journal.label(number), a_label(number)) for number in range(len(journal)))
            journal.add(9, a_label(9))
            assert same(journal.label(9), a_label(9))


def test_a_flipped_bit_costs_the_label_it_is_in(tmp_path):
    path = tmp_path / "labels"
    with Journal(path, HEADER) as journal:
        for number in range(3):
            journal.add(number, a_label(number))
    content = path.read_bytes()
    start = content.index(b"\n") + 1
    for place in range(start, len(content), 7):
        damaged = bytearray(content)
        damaged[place] ^= 1 << (place % 8)
        path.write_bytes(damaged)
        with Journal(path, HEADER) as journal:
            kept = [number for number in range(3) if number in journal]
            assert len(kept) >= 1
            assert all(same(journal.label(number), a_label(number)) for number in kept)


def test_a_journal_of_something_else_is_refused(tmp_path):
    path = tmp_path / "labels"
    with Journal(path, HEADER) as journal:
        journal.add(0, a_label(0))
        with pytest.raises(OutputError, match="another process"):
            Journal(path, HEADER)
    with pytest.raises(SettingsError, match="labels of another engine"):
        Journal(path, HEADER | {"engine": ["model:y", {}]})
    path.write_text("something of the user's\n")
    with pytest.raises(SettingsError, match="labels of another"):
        Journal(path, HEADER)
    assert path.read_text() == "something of the user's\n"


def structures(n):
    frames = [crystal(repeats=(1, 1, 1), rattle=0.1, seed=seed) for seed in range(n - 1)]
    return [*frames, cluster(seed=1)]


def test_a_model_labels_as_it_computes(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(labels, "HEARTBEAT", 0.0)
    caplog.set_level("INFO")
    model, frames = small_model(), structures(4)
    model.save(tmp_path / "model.safetensors")
    frames[1].info["energy"] = 17.0  # of another reference
    frames[1].info["config_type"] = "warm"
    write(tmp_path / "in.xyz", frames, format="extxyz")
    report = label_file(
        tmp_path / "in.xyz", f"model:{tmp_path / 'model.safetensors'}", tmp_path / "out.xyz", progress=False
    )
    assert (report["labelled"], report["failed"], report["error"]) == (4, [], None)
    assert re.search(r"4 of 4 structures  \S+ per s  0 s left  0 failed", caplog.text)
    for found, atoms in zip(read(tmp_path / "out.xyz", ":"), read(tmp_path / "in.xyz", ":"), strict=True):
        expected = model.compute(atoms)
        assert_allclose(found.get_potential_energy(), expected.energy, rtol=1e-15)
        assert_allclose(found.get_forces(), expected.forces, atol=1e-8)
        assert_allclose(found.info["energy_uncertainty"], expected.energy_uncertainty, rtol=1e-12)
        if atoms.cell.rank == 3:
            assert_allclose(found.get_stress(voigt=False), expected.stress, rtol=1e-12, atol=1e-14)
    assert read(tmp_path / "out.xyz", 1).info["config_type"] == "warm"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.xyz", "model.safetensors", "out.xyz"]


FACTORY = """
from pathlib import Path

from ase.calculators.lj import LennardJones


class Moody(LennardJones):
    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        super().calculate(atoms, properties, system_changes)
        if Path("mood").read_text() == "bad" and abs(atoms.info["number"]) in (1, 2):
            if atoms.info["number"] == 2:
                self.results["forces"][0, 0] = float("nan")
            else:
                raise RuntimeError("not converged")


def make():
    return Moody(sigma=3.4, epsilon=0.0104, rc=5.0)
"""


def test_what_fails_is_reported_and_tried_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "moody.py").write_text(FACTORY)
    frames = structures(5)
    for number, atoms in enumerate(frames):
        atoms.info["number"] = number
    write("in.xyz", frames, format="extxyz")
    (tmp_path / "mood").write_text("bad")
    report = label_file("in.xyz", "ase:moody:make", "out.xyz", progress=False)
    assert [failure["frame"] for failure in report["failed"]] == [1, 2]
    assert isinstance(report["error"], EngineError)
    assert report["error"].exit_code == 6
    assert "RuntimeError: not converged" in report["failed"][0]["error"]
    assert "the force is not finite" in report["failed"][1]["error"]
    assert [atoms.info["number"] for atoms in read("out.xyz", ":")] == [0, 3, 4]
    (tmp_path / "mood").write_text("good")
    report = label_file("in.xyz", "ase:moody:make", "out.xyz", progress=False)
    assert (report["labelled"], report["from_before"], report["failed"]) == (5, 3, [])
    reference = LennardJones(sigma=3.4, epsilon=0.0104, rc=5.0)
    for found, atoms in zip(read("out.xyz", ":"), read("in.xyz", ":"), strict=True):
        atoms.calc = reference
        assert_allclose(found.get_potential_energy(), atoms.get_potential_energy(), rtol=1e-15)
        assert_allclose(found.get_forces(), atoms.get_forces(), atol=1e-8)
    assert not (tmp_path / "out.xyz.labels").exists()


def test_an_interrupted_run_goes_on(tmp_path, monkeypatch):
    """An end between any two structures loses none of those before it, and leaves no output."""
    monkeypatch.chdir(tmp_path)
    small_model().save("model.safetensors")
    write("in.xyz", structures(6), format="extxyz")
    kept = Journal.add
    for n_before in (0, 2, 1):

        def add(journal, number, label, left=[n_before]):  # noqa: B006 - a counter of its own for each run
            if left[0] == 0:
                raise KeyboardInterrupt
            left[0] -= 1
            kept(journal, number, label)

        monkeypatch.setattr(Journal, "add", add)
        with pytest.raises(KeyboardInterrupt):
            label_file("in.xyz", "model:model.safetensors", "out.xyz", progress=False)
        assert not (tmp_path / "out.xyz").exists()
    monkeypatch.setattr(Journal, "add", kept)
    report = label_file("in.xyz", "model:model.safetensors", "out.xyz", progress=False)
    assert (report["labelled"], report["from_before"]) == (6, 3)
    label_file("in.xyz", "model:model.safetensors", "at_once.xyz", progress=False)
    assert (tmp_path / "out.xyz").read_bytes() == (tmp_path / "at_once.xyz").read_bytes()


@pytest.mark.parametrize(
    ("engine", "sentence"),
    [
        ("vasp:x", "is no engine; give model:F"),
        ("unix:", "is no engine"),
        ("model", "is no engine"),
        ("ase:nowhere", "as MODULE:FACTORY"),
        ("ase:nowhere:make", "cannot be made \\(ModuleNotFoundError"),
        ("ase:json:nothing", "cannot be made \\(AttributeError"),
        ("tcp:31415", "give unix:NAME, or a host and a port"),
        ("tcp:0.0.0.0:0", "--allow-remote"),
        ("lammps:nowhere", "there is no such file"),
        ("model:nowhere.safetensors", "nowhere.safetensors"),
    ],
)
def test_engines_that_cannot_be_are_refused(engine, sentence, tmp_path):
    write(tmp_path / "in.xyz", structures(2), format="extxyz")
    with pytest.raises((SettingsError, StructureError), match=sentence):
        label_file(tmp_path / "in.xyz", engine, tmp_path / "out.xyz", EngineOptions(wait=0.1), progress=False)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.xyz"]


def test_numbers_of_the_journal_are_plain_json(tmp_path):
    with Journal(tmp_path / "labels", HEADER) as journal:
        journal.add(0, Label(1.0, np.zeros((2, 3)), None))
    lines = (tmp_path / "labels").read_text().splitlines()
    assert json.loads(lines[1].partition(" ")[2]) == {
        "frame": 0, "energy": 1.0, "forces": [[0, 0, 0], [0, 0, 0]], "virial": None, "extras": {},
    }  # fmt: skip
