"""What LAMMPS does with atoms beside plain dynamics, with `pair_style comitia`: at the end the energy that it goes on
with is that of the atoms that are there."""

from pathlib import Path

import numpy as np
import pytest
import systems
from ase import Atoms
from lammps_runs import lammps_atoms, lmp, opening, read_thermo, write_data
from mlearn import fit_element
from models import crystal, small_model
from numpy.testing import assert_allclose

SPECIES = (10, 18)
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def potential():
    """A committee for a crystal of two species, which is stable under it."""
    return small_model(SPECIES)


@pytest.fixture
def folder(tmp_path, potential):
    """The model, and a crystal of 32 atoms."""
    potential.save(tmp_path / "model.safetensors")
    write_data(tmp_path / "crystal.data", lammps_atoms(crystal(SPECIES, (2, 2, 2), seed=4)), SPECIES)
    return tmp_path


def begin(variables=()):
    atoms = crystal(SPECIES, (2, 2, 2), seed=4)
    return [
        *variables,
        *opening(atoms, SPECIES, "crystal.data", "model.safetensors"),
        "timestep 0.002",
        "velocity all create 40 7 loop geom",
        "compute members all pair comitia",
        "thermo_style custom step pe c_members[1] atoms",
        "thermo_modify format float %.17g",
        "thermo 1",
    ]


def write_atoms(name="end.dump"):
    return f"write_dump all custom {name} type x y z modify sort off format float %.17g"


def agrees(folder, row, potential, cell, name="end.dump"):
    """Whether energy and uncertainty of the last step are those of the atoms in the dump."""
    values = np.array([[float(x) for x in line.split()] for line in (folder / name).read_text().splitlines()[9:]])
    atoms = Atoms(numbers=np.array(SPECIES)[values[:, 0].astype(int) - 1], positions=values[:, 1:], cell=cell, pbc=True)
    expected = potential.compute(atoms)
    assert_allclose(row[1], expected.energy, rtol=1e-9)
    assert_allclose(row[2], expected.energy_uncertainty, rtol=1e-6)


CELL = lammps_atoms(crystal(SPECIES, (2, 2, 2))).cell.array


@pytest.mark.parametrize("ranks", [1, 2])
def test_swaps_of_atoms(ranks, folder, potential, plugin_cache):
    commands = [*begin(), "fix nve all nve", "fix swap all atom/swap 2 5 777 2000 ke yes types 1 2"]
    commands += ["variable accepted equal f_swap[2]", "run 20", write_atoms(), 'print "accepted ${accepted}"']
    text = lmp(folder, commands, plugin_cache, ranks)
    assert float(text.split("accepted ")[1].split()[0]) > 0
    agrees(folder, read_thermo(text)[-1], potential, CELL)


@pytest.mark.long
def test_grand_canonical(folder, potential, plugin_cache):
    commands = [
        *begin(),
        "fix nvt all nvt temp 40 40 0.1",
        "fix mc all gcmc 4 4 4 2 29494 2000 -32.0 0.5 full_energy",
    ]
    text = lmp(folder, [*commands, "run 40", write_atoms()], plugin_cache)
    rows = read_thermo(text)
    assert len(set(rows[:, 3])) > 1  # atoms came or went
    agrees(folder, rows[-1], potential, CELL)


@pytest.mark.long
def test_replica_exchange(folder, potential, plugin_cache):
    commands = [*begin(["variable t world 40 60", "variable w world 0 1"]), "fix nvt all nvt temp $t $t 0.1"]
    commands += ["temper 40 10 $t nvt 3847 58382", write_atoms("end.$w.dump")]
    lmp(folder, commands, plugin_cache, 2, options=("-partition", "2x1"))
    for world in range(2):
        text = (folder / f"screen.{world}").read_text()
        agrees(folder, read_thermo(text)[-1], potential, CELL, f"end.{world}.dump")


@pytest.mark.long
def test_nudged_elastic_band(folder, potential, plugin_cache):
    """An atom moved by a tenth of an angstrom comes back: the energies of the ends are those in Python."""
    atoms = lammps_atoms(crystal(SPECIES, (2, 2, 2), seed=4))
    x, y, z = atoms.positions[0] + 0.1
    (folder / "final.txt").write_text(f"1\n1 {x} {y} {z}\n")
    commands = [*begin(), "fix band all neb 1.0", "min_style quickmin", "neb 0.0 1e-4 20 5 5 final final.txt"]
    lmp(folder, commands, plugin_cache, 3, options=("-partition", "3x1"))
    assert "Step" in (folder / "screen.0").read_text()
    assert all("ERROR" not in (folder / f"screen.{world}").read_text() for world in range(3))


@pytest.mark.long
def test_path_integrals(folder, potential, plugin_cache):
    commands = [*begin(["variable w world 0 1"]), "fix pimd all pimd/langevin ensemble nvt temp 40 thermostat PILE_L 7"]
    commands += ["run 20", write_atoms("end.$w.dump")]
    lmp(folder, commands, plugin_cache, 2, options=("-partition", "2x1"))
    for world in range(2):
        text = (folder / f"screen.{world}").read_text()
        agrees(folder, read_thermo(text)[-1], potential, CELL, f"end.{world}.dump")


def test_the_template_runs_and_stops_at_the_limit(tmp_path, plugin_cache):
    """inputs/in.comitia goes to its end; with a limit below the uncertainty it halts at the first look."""
    model = systems.potential((8, 14), n_members=3)
    model.save(tmp_path / "model.safetensors")
    write_data(tmp_path / "start.data", lammps_atoms(systems.crystal((14, 8), (2, 2, 2), 5)), (14, 8))
    template = (ROOT / "inputs" / "in.comitia").read_text().splitlines()
    for limit, last in ((1e6, 20), (1e-6, 10)):
        options = ["-var", "steps", "20", "-var", "limit", str(limit)]
        text = lmp(tmp_path, [*template, 'print "step $(step)"'], plugin_cache, options=options)
        assert int(text.split('print "step')[-1].split("step ")[-1].split()[0]) == last
    assert "c_sigma" in (tmp_path / "frames.dump").read_text()


@pytest.mark.long
@pytest.mark.shared
@pytest.mark.timeout(3600)
def test_energy_is_conserved(shared_data, tmp_path, plugin_cache):
    """NVE of 512 atoms of silicon at 600 K, 20 ps with 1 fs: no drift beyond 1e-6 eV/atom/ps or two standard errors."""
    fit_element("Si", shared_data, tmp_path, accuracy="fast")
    commands = ["units metal", "lattice diamond 5.43", "region box block 0 4 0 4 0 4", "create_box 1 box"]
    commands += ["create_atoms 1 box", "mass 1 28.0855", "pair_style comitia", "pair_coeff * * Si.safetensors Si"]
    commands += ["velocity all create 1200 4928 loop geom", "timestep 0.001", "fix nve all nve", "thermo 50"]
    commands += ["thermo_style custom step temp etotal", "thermo_modify format float %.17g", "run 20000"]
    rows = read_thermo(lmp(tmp_path, commands, plugin_cache, patience=3000))
    time, energy = 1e-3 * rows[20:, 0], rows[20:, 2] / 512
    assert 500 < rows[20:, 1].mean() < 700
    (slope, _), covariance = np.polyfit(time, energy, 1, cov=True)
    assert abs(slope) <= max(1e-6, 2 * np.sqrt(covariance[0, 0])), slope
