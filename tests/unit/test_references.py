"""Energies of a reference: each structure once, whatever happens in between."""

import sys

import numpy as np
import pytest
from ase.calculators.lj import LennardJones
from ase.io import write
from models import crystal

from comitia.engines.force_engines import EngineOptions
from comitia.engines.labels import label_file
from comitia.engines.references import reference_energies, structure_key
from comitia.errors import EngineError, SettingsError, StructureError

MODULE = """
import os

import numpy as np
from ase.calculators.lj import LennardJones


class Counted(LennardJones):
    implemented_properties = ["energy"]

    def calculate(self, atoms, properties, changes):
        with open("calls", "a") as file:
            file.write(f"{os.getpid()} {atoms.positions[0, 0]:.6f}\\n")
        if atoms.positions[0, 0] > 100:
            raise RuntimeError("no convergence")
        if atoms.positions[0, 0] < -100:
            os._exit(9)
        super().calculate(atoms, properties, changes)
        self.results = {"energy": self.results["energy"]}
        if np.isclose(atoms.positions[0, 0], 50):
            self.results = {"energy": np.nan}


def make():
    return Counted(sigma=3.4, epsilon=0.0104, rc=5.0)
"""
REFERENCE = "ase:counted_reference:make"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "counted_reference", raising=False)  # that of another test
    (tmp_path / "counted_reference.py").write_text(MODULE)
    return tmp_path


def structures(n):
    return [crystal((18,), (1, 1, 1), rattle=0.1, seed=seed) for seed in range(n)]


def moved(atoms, place):
    atoms = atoms.copy()
    atoms.positions[0, 0] = place
    return atoms


def calls(folder):
    return (folder / "calls").read_text().splitlines() if (folder / "calls").exists() else []


def expected(frames):
    found = []
    for atoms in frames:
        atoms = atoms.copy()
        atoms.calc = LennardJones(sigma=3.4, epsilon=0.0104, rc=5.0)
        found.append(atoms.get_potential_energy())
    return np.array(found)


@pytest.mark.parametrize("n_workers", [1, pytest.param(2, marks=pytest.mark.long)])
def test_each_structure_is_computed_once(folder, n_workers):
    """Copies and what is in the store are not computed again; forces are never asked for."""
    frames, options = structures(6), EngineOptions(n_workers=n_workers)
    first = reference_energies([*frames[:3], frames[0]], REFERENCE, folder / "store", options)
    assert (first.n_called, first.n_from_before) == (3, 0)
    found = reference_energies(frames, REFERENCE, folder / "store", options)
    assert (found.n_called, found.n_from_before) == (3, 3)
    np.testing.assert_allclose(found.energies, expected(frames), rtol=1e-13)
    assert len(calls(folder)) == 6
    assert reference_energies(frames, REFERENCE, folder / "store").n_called == 0


def test_a_store_belongs_to_one_reference(folder):
    reference_energies(structures(1), REFERENCE, folder / "store")
    (folder / "counted_reference.py").write_text(MODULE + "\n# another one\n")
    with pytest.raises(SettingsError, match="another reference"):
        reference_energies(structures(1), REFERENCE, folder / "store")
    with pytest.raises(SettingsError, match="pyscf"):
        reference_energies(structures(1), "pyscf:basos=def2-svp", folder / "other")


@pytest.mark.parametrize(("place", "reason"), [(101, "no convergence"), (50, "not finite")])
def test_a_failure_is_reported_and_skipped_within_the_limit(folder, place, reason):
    frames = structures(4)
    frames[1] = moved(frames[1], place)
    options = EngineOptions()
    with pytest.raises(EngineError, match=rf"structure 1: {REFERENCE}: .*{reason}.*none may be skipped"):
        reference_energies(frames, REFERENCE, folder / "store", options)
    found = reference_energies(frames, REFERENCE, folder / "store", options, skip_failed=1)
    assert np.isnan(found.energies).tolist() == [False, True, False, False]
    assert [failure["structure"] for failure in found.failed] == [1]
    assert reason in found.failed[0]["error"]
    frames[2] = moved(frames[2], 102)
    with pytest.raises(EngineError, match="2 failed, 1 may be skipped"):
        reference_energies(frames, REFERENCE, folder / "store", options, skip_failed=1)


def test_a_process_that_crashes_costs_its_structure(folder, no_leaks):
    frames = structures(5)
    frames[2] = moved(frames[2], -101)
    found = reference_energies(frames, REFERENCE, folder / "store", EngineOptions(n_workers=2), skip_failed=1)
    assert np.isnan(found.energies).tolist() == [False, False, True, False, False]
    assert "ended with code 9" in found.failed[0]["error"]
    kept = [0, 1, 3, 4]
    np.testing.assert_allclose(found.energies[kept], expected([frames[number] for number in kept]), rtol=1e-13)


def test_stored_energies_are_found_by_positions(folder):
    frames = structures(4)
    for number, atoms in enumerate(frames):
        atoms.info["other"] = float(number)
    write(folder / "stored.xyz", frames, format="extxyz")
    found = reference_energies([frames[2], frames[0]], f"file:{folder}/stored.xyz:other", folder / "store")
    assert found.energies.tolist() == [2.0, 0.0]
    with pytest.raises(StructureError, match="no energy of a structure with these positions"):
        reference_energies([moved(frames[0], 0.5)], f"file:{folder}/stored.xyz:other", folder / "store")


def test_the_key_of_a_structure_is_everything_that_its_energy_depends_on():
    atoms, keys = structures(1)[0], set()
    changes = [
        lambda a: None,
        lambda a: a.positions.__setitem__((0, 0), np.nextafter(a.positions[0, 0], 9)),
        lambda a: a.symbols.__setitem__(0, "Ne"),
        lambda a: a.set_pbc([True, True, False]),
        lambda a: a.set_cell(a.cell.array * (1 + 1e-15)),
    ]
    for change in changes:
        other = atoms.copy()
        change(other)
        keys.add(structure_key(other))
    assert len(keys) == len(changes)
    other = atoms.copy()
    other.info["step"] = 4
    assert structure_key(other) == structure_key(atoms)


@pytest.mark.long
def test_labelling_takes_the_same_processes(folder):
    frames = structures(4)
    write(folder / "pool.xyz", frames, format="extxyz")
    module = MODULE.replace('{"energy": self.results["energy"]}', "self.results")
    module = module.replace('["energy"]\n', '["energy", "forces"]\n')
    (folder / "counted_reference.py").write_text(module)
    report = label_file(folder / "pool.xyz", REFERENCE, folder / "out.xyz", EngineOptions(n_workers=2), progress=False)
    assert (report["labelled"], report["failed"]) == (4, [])
    assert len({line.split()[0] for line in calls(folder)}) == 2
