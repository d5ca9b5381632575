"""Readers of i-PI's output: against a real run, and against files cut, damaged or mixed up."""

import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from ipi_files import committee, write_beads, write_extras, write_properties
from numpy.testing import assert_allclose, assert_array_equal

from comitia.engines.frames import gather
from comitia.engines.ipi_files import bead_files, run_facts
from comitia.engines.ipi_output import common_steps, current_rows, read_committee, read_extras, read_properties
from comitia.engines.ipi_trajectory import read_trajectory
from comitia.engines.ipi_units import conversion
from comitia.engines.replica_exchange import find_exchange
from comitia.engines.sampled import open_series
from comitia.errors import SeriesError
from comitia.units import BOHR, HARTREE

POTENTIAL = """
import json
import numpy as np
from ipi.pes.dummy import Dummy_driver
__DRIVER_NAME__ = "oscillators"
__DRIVER_CLASS__ = "Oscillators"
class Oscillators(Dummy_driver):
    def compute_structure(self, cell, pos):
        members = 0.025 * np.array([0.94, 0.98, 1.03, 1.05]) * (pos**2).sum() - 75.0
        return members.mean(), -0.05 * pos, cell * 0.0, json.dumps({"committee_pot": members.tolist()})
"""
STRUCTURE = """2
# CELL(abcABC): 20 21 22 90 90 90 positions{angstrom} cell{angstrom}
H 0.1 0.0 0.05
O -0.1 0.05 0.0
"""
INPUT = """<simulation verbosity='low' floatformat='%24.16e'>
 <output prefix='run'>
  <properties stride='2' filename='out'> [step, time{picosecond}, temperature{kelvin}, potential{electronvolt},
    kinetic_cv, kinetic_cv{electronvolt}(H), atom_x{angstrom}(atom=0), ensemble_temperature, bead_potentials]
  </properties>
  <trajectory filename='pos' stride='3' format='xyz' cell_units='angstrom'> positions{angstrom} </trajectory>
  <trajectory filename='centroid' stride='3' format='xyz'> x_centroid </trajectory>
  <trajectory filename='committee_pot' stride='1' extra_type='committee_pot'> extras </trajectory>
  <checkpoint stride='5' filename='chk' overwrite='True'/>
 </output>
 <total_steps> 18 </total_steps> <prng><seed> 1 </seed></prng>
 <ffdirect name='potential'> <pes> custom </pes> <pes_path> potential.py </pes_path> </ffdirect>
 <system>
  <initialize nbeads='12'> <file mode='xyz'> init.xyz </file>
   <velocities mode='thermal' units='kelvin'> 300 </velocities> </initialize>
  <forces> <force forcefield='potential'/> </forces>
  <ensemble> <temperature units='kelvin'> 300 </temperature> </ensemble>
  <motion mode='dynamics'> <dynamics mode='nvt'> <timestep units='femtosecond'> 0.5 </timestep>
   <thermostat mode='pile_l'> <tau units='femtosecond'> 100 </tau> </thermostat> </dynamics> </motion>
 </system>
</simulation>
"""


@pytest.fixture(scope="module")
def real_run(tmp_path_factory):
    """A run of i-PI with 12 beads and 4 members, stopped at step 18 and taken up from the checkpoint of step 15."""
    pytest.importorskip("ipi")
    folder = tmp_path_factory.mktemp("ipi")
    for name, content in (("potential.py", POTENTIAL), ("init.xyz", STRUCTURE), ("input.xml", INPUT)):
        (folder / name).write_text(content)
    program = Path(sys.executable).with_name("i-pi")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([program, "input.xml"], cwd=folder, env=environment, check=True, capture_output=True, timeout=120)
    checkpoint = (folder / "run.chk").read_text().replace("<total_steps>18<", "<total_steps>24<")
    (folder / "again.xml").write_text(checkpoint)
    subprocess.run([program, "again.xml"], cwd=folder, env=environment, check=True, capture_output=True, timeout=120)
    return folder


def test_a_real_run_is_read_whole(real_run):
    files = bead_files(real_run / "run.committee_pot_07")
    assert [path.name for path in files] == [f"run.committee_pot_{bead:02d}" for bead in range(12)]
    assert bead_files(real_run / "run.committee_pot") == bead_files(real_run / "run.committee_pot_*") == files
    committee = read_committee(files)
    assert_array_equal(committee.steps, np.arange(25))
    assert committee.values.shape == (25, 12, 4)
    properties = read_properties(real_run / "run.out")
    assert_array_equal(properties.steps, np.arange(0, 25, 2))
    # the energy sent is the mean of the members: in i-PI's own electronvolt to rounding
    averaged = committee.values.mean(axis=(1, 2))
    assert_allclose(properties.column("potential").values, averaged[::2], rtol=1e-14)
    beads = properties.find("bead_potentials")[0]
    assert_allclose(beads.values, committee.values[::2].mean(axis=2), rtol=1e-14)
    assert beads.unit == "eV"
    assert_allclose(properties.column("time").values, 0.5 * properties.steps, rtol=1e-7)
    assert_allclose(properties.column("ensemble_temperature").values, 300, rtol=1e-7)
    assert properties.column("8").label == "atom_x{angstrom}(atom=0)[1]"
    assert_allclose(
        properties.column("kinetic_cv(H)").values, properties.column("kinetic_cv{electronvolt}(H)").values, rtol=0
    )


def test_a_real_trajectory_is_read_with_all_beads(real_run):
    trajectory = read_trajectory(bead_files(real_run / "run.pos_00.xyz"))
    assert_array_equal(trajectory.steps, np.arange(0, 25, 3))
    assert trajectory.positions.shape == (9, 12, 2, 3)
    assert trajectory.symbols == ["H", "O"]
    assert_allclose(trajectory.cell_parameters[0], [20, 21, 22, 90, 90, 90])
    # in bohr, with five decimals as well
    centroid = read_trajectory([real_run / "run.centroid.xyz"])
    assert_allclose(trajectory.positions.mean(axis=1), centroid.positions[:, 0], atol=2e-6)
    assert_allclose(centroid.cell_parameters, trajectory.cell_parameters, atol=1e-4)
    # positions and member energies belong to the same frames
    committee = read_committee(bead_files(real_run / "run.committee_pot_00"))
    common, rows = common_steps({"pot": committee.steps, "pos": trajectory.steps})
    assert_array_equal(common, trajectory.steps)
    square = np.sum((trajectory.positions / BOHR) ** 2, axis=(2, 3))
    expected = (0.025 * 0.94 * square - 75) * HARTREE
    assert_allclose(committee.values[rows["pot"], :, 0], expected[rows["pos"]], atol=1e-4)


def test_a_real_run_knows_its_beads_and_temperature(real_run, tmp_path):
    facts = run_facts(real_run / "run.out")
    assert facts.n_beads == 12
    assert facts.temperature == pytest.approx(300, rel=1e-6)
    assert not facts.replica_exchange
    assert find_exchange(real_run / "run.out") is None
    frames = gather(str(real_run / "run.committee_pot_00"), [f"{real_run / 'run.out'}:potential"], 300.0).read()
    assert frames.estimators[:, 0].shape == frames.member_energies.shape == (13, 4)
    with pytest.raises(SeriesError, match="not at --temperature 310"):
        gather(str(real_run / "run.committee_pot_00"), [f"{real_run / 'run.out'}:potential"], 310.0)
    with pytest.raises(SeriesError, match="one estimator for each member"):
        gather(str(real_run / "run.committee_pot_00"), [f"{real_run / 'run.out'}:5"], 300.0)


def test_rows_written_again_after_a_restart_count_once():
    assert_array_equal(current_rows([0, 1, 2, 3, 2, 3, 4]), [0, 1, 4, 5, 6])
    # a branch that was left behind goes altogether
    assert_array_equal(current_rows([0, 5, 10, 15, 20, 10]), [0, 1, 5])
    assert_array_equal(current_rows([3]), [0])


def test_steps_are_aligned_whatever_the_strides():
    common, rows = common_steps({"a": np.arange(0, 30, 2), "b": np.arange(3, 40, 3), "c": np.arange(30)})
    assert_array_equal(common, [6, 12, 18, 24])
    assert_array_equal(rows["a"], [3, 6, 9, 12])
    assert_array_equal(rows["b"], [1, 3, 5, 7])
    with pytest.raises(SeriesError, match="a has steps 0, 2, 4, … 8; b has steps 1, 3, 5, … 7"):
        common_steps({"a": np.arange(0, 10, 2), "b": np.arange(1, 9, 2)})


def test_beads_of_different_runs_are_refused(tmp_path):
    paths = write_beads(tmp_path, "run.committee_pot", np.arange(40), committee())
    write_extras(paths[2], np.arange(1, 41), committee()[:, 2])
    with pytest.raises(SeriesError, match=r"run\.committee_pot_2: step 0"):
        read_committee(paths)
    write_extras(paths[2], np.arange(40), committee(n_members=2)[:, 2])
    with pytest.raises(SeriesError, match=r"run\.committee_pot_2"):
        read_committee(paths)


def test_a_killed_run_loses_only_its_last_frame(tmp_path):
    values = committee()
    paths = write_beads(tmp_path, "run.committee_pot", np.arange(40), values)
    text = paths[3].read_text()
    for cut in range(1, 160, 7):
        paths[3].write_text(text[:-cut])
        read = read_committee(paths)
        assert len(read.steps) in (38, 39)
        assert_allclose(read.values, values[: len(read.steps)] * HARTREE, rtol=1e-14)
    write_properties(tmp_path / "run.out", {"step": np.arange(40), "volume": np.ones(40)})
    text = (tmp_path / "run.out").read_text()
    (tmp_path / "run.out").write_text(text[:-9])
    assert len(read_properties(tmp_path / "run.out").steps) == 39


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (" -1.7", " 1.0 -1.7", "line 4: 4 numbers, the rows before have 3"),
        (" -1.7", " x", "line 4: .*numbers only"),
        (" #EXTRAS(committee_pot)# Step:           3 \n", "", "line 7: expected a header"),
    ],
)
def test_a_damaged_extras_file_is_named_with_its_line(tmp_path, old, new, words):
    path = tmp_path / "run.committee_pot_0"
    write_extras(path, np.arange(40), committee()[:, 0])
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(SeriesError, match=f"committee_pot_0, {words}"):
        read_extras(path)


def test_numbers_that_are_not_finite_are_refused_with_file_and_line(tmp_path):
    values = committee()
    values[7, 0, 1] = np.nan
    write_extras(tmp_path / "pot_0", np.arange(40), values[:, 0])
    with pytest.raises(SeriesError, match="pot_0, line 16, column 2: nan"):
        read_extras(tmp_path / "pot_0")
    (tmp_path / "table").write_text("# x y\n1 2\n3 inf\n")
    with pytest.raises(SeriesError, match="table, line 3, column 2: inf"):
        open_series(f"{tmp_path / 'table'}:1-2")
    write_properties(tmp_path / "run.out", {"step": [0, 1], "potential": [1.0, np.nan]})
    with pytest.raises(SeriesError, match=r"run\.out, line 4, column 2"):
        read_properties(tmp_path / "run.out")


@pytest.mark.parametrize(
    ("name", "unit", "factor", "ours"),
    [
        ("potential", "", HARTREE, "eV"),
        ("potential", "electronvolt", 1.0, "eV"),
        ("potential", "millielectronvolt", 1e-3, "eV"),
        ("kinetic_cv", "kilocal/mol", 0.043393, "eV"),
        ("kinetic_md", "kilojoule/mol", 1.0, "kilojoule/mol"),
        ("temperature", "kelvin", 1.0, "K"),
        ("time", "picosecond", 1e3, "fs"),
        ("time", "", 0.02418884, "fs"),
        ("volume", "angstrom3", 1.0, "Å^3"),
        ("pressure_cv", "megapascal", 6.24132e-6, "eV/Å^3"),
        ("atom_x", "angstrom", 1.0, "Å"),
        ("atom_f", "ev/ang", 1.0, "eV/Å"),
        ("ti_pot_new", "", 1.0, "atomic_unit"),
    ],
)
def test_units(name, unit, factor, ours):
    found, our_unit = conversion(name, unit)
    assert found == pytest.approx(factor, rel=2e-5)
    assert our_unit == ours


def test_every_unit_agrees_with_ipi():
    """Our table against i-PI's own, for every dimension it has with us."""
    units = pytest.importorskip("ipi.utils.units")
    from comitia.engines.ipi_units import DIMENSIONS

    for dimension, (_, _, known) in DIMENSIONS.items():
        for unit, value in known.items():
            assert value == pytest.approx(units.unit_to_internal(dimension, unit, 1.0), rel=1e-7), (dimension, unit)


def test_a_table_without_numbers_and_a_property_file_without_frames(tmp_path):
    (tmp_path / "empty").write_text("# nothing\n")
    with pytest.raises(SeriesError, match="no row"):
        open_series(str(tmp_path / "empty"))
    (tmp_path / "run.out").write_text("# column   1     --> step : The current simulation time step.\n")
    with pytest.raises(SeriesError, match="no frame"):
        read_properties(tmp_path / "run.out")
    with pytest.raises(SeriesError, match="cannot be read"):
        open_series(str(tmp_path / "absent"))
    with pytest.raises(SeriesError, match="check the path"):
        bead_files(tmp_path / "absent_0")


XYZ_HEAD = (
    "{}\n# CELL(abcABC):   9.0   9.0   9.0  90.0  90.0  90.0  "
    "Step: {:11d}  Bead:       0 positions{{angstrom}}  cell{{angstrom}}\n"
)


def test_of_a_trajectory_only_numbers_are_kept(tmp_path):
    positions, path = np.random.default_rng(3).random((200, 300, 3)).round(5), tmp_path / "run.pos_0.xyz"
    rows = ["".join(f"H {x:.5e} {y:.5e} {z:.5e}\n" for x, y, z in frame) for frame in positions]
    path.write_text("".join(XYZ_HEAD.format(300, step) + frame for step, frame in enumerate(rows)))
    tracemalloc.start()
    trajectory = read_trajectory([path])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert_allclose(trajectory.positions[:, 0], positions, atol=1e-9)
    assert peak < 5 * positions.nbytes
    path.write_text(path.read_text().replace("H ", "H #", 1))
    with pytest.raises(SeriesError, match=r"pos_0\.xyz, line 3: could not read"):
        read_trajectory([path])


@pytest.mark.parametrize("kind", ["properties", "extras", "trajectory", "table"])
def test_damaged_files_give_sentences_never_tracebacks(tmp_path, kind):
    """Whatever happens to the bytes, a file is read or refused with `SeriesError`."""
    path = tmp_path / ("run.table" if kind == "table" else "run.any_0.xyz")
    if kind == "properties":
        write_properties(path, {"step": np.arange(12), "cell_h": np.ones((12, 6)), "volume": np.arange(12.0)})
        read = read_properties
    elif kind == "extras":
        write_extras(path, np.arange(12), committee(n_frames=12)[:, 0])
        read = read_extras
    elif kind == "table":
        np.savetxt(path, np.arange(24.0).reshape(12, 2), header="one two")

        def read(path):
            return open_series(f"{path}:members")
    else:
        frame = "       H  1.00000e-01  0.00000e+00  5.00000e-02\n       H -1.00000e-01  5.00000e-02  0.00000e+00\n"
        path.write_text("".join(XYZ_HEAD.format(2, step) + frame for step in range(12)))

        def read(path):
            return read_trajectory([path])

    whole = path.read_bytes()
    read(path)
    rng = np.random.default_rng(4)
    refused = 0
    for _ in range(200):
        damaged = bytearray(whole)
        for _ in range(rng.integers(1, 4)):
            place = int(rng.integers(len(damaged)))
            action = rng.integers(4)
            if action == 0:
                damaged[place] = int(rng.integers(256))
            elif action == 1:
                del damaged[place : place + int(rng.integers(1, 40))]
            elif action == 2:
                damaged[place:place] = damaged[: int(rng.integers(1, 200))]
            else:
                damaged[place : place + 1] = rng.choice([b"-", b"9", b"e", b"\n", b"#", b" ", b"0"])
            damaged = damaged or bytearray(b"x")
        path.write_bytes(damaged)
        try:
            read(path)
        except SeriesError as error:
            refused += 1
            assert str(path) in str(error)  # noqa: PT017 (either outcome is right)
    assert refused > 10
