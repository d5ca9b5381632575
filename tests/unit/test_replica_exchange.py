"""A replica exchange of i-PI, followed by ensemble."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ipi_files import write_exchange, write_positions
from numpy.testing import assert_allclose, assert_array_equal

from comitia.engines.frames import gather
from comitia.engines.ipi_files import bead_files
from comitia.engines.ipi_output import read_committee, read_properties
from comitia.engines.ipi_trajectory import read_trajectory
from comitia.engines.replica_exchange import find_exchange
from comitia.engines.trajectories import read_sampled
from comitia.errors import SeriesError, SettingsError, UsageError
from comitia.study.settings import Observable
from comitia.study.simulations import of_ensembles, read_runs, read_simulation
from comitia.thermodynamics.sampled_states import gather_states
from comitia.units import BOHR, HARTREE

POTENTIAL = """
import json
import numpy as np
from ipi.pes.dummy import Dummy_driver
__DRIVER_NAME__ = "oscillators"
__DRIVER_CLASS__ = "Oscillators"
class Oscillators(Dummy_driver):
    def compute_structure(self, cell, pos):
        members = 0.025 * np.array([0.94, 0.98, 1.03, 1.05]) * (pos**2).sum()
        return members.mean(), -0.05 * pos, cell * 0.0, json.dumps({"committee_pot": members.tolist()})
"""
# replicas in threads would draw from the one generator of random numbers in any order
INPUT = """<simulation threading='False' verbosity='low' floatformat='%24.16e'>
 <output prefix='run'>
  <properties stride='3' filename='study'> [step, ensemble_temperature{kelvin}, potential{electronvolt}] </properties>
  <trajectory filename='pos' stride='6' cell_units='angstrom'> positions{angstrom} </trajectory>
  <properties stride='2' filename='out'> [step, potential{electronvolt}, ensemble_temperature, ensemble_pressure,
   temperature{kelvin}] </properties>
  <trajectory filename='committee_pot' stride='3' extra_type='committee_pot'> extras </trajectory>
 </output>
 <total_steps> 120 </total_steps> <prng><seed> 1 </seed></prng>
 <ffdirect name='potential'> <pes> custom </pes> <pes_path> potential.py </pes_path> </ffdirect>
 <system_template> <labels> [ID, TEMP] </labels>
  <instance> [cold, 100] </instance> <instance> [mild, 200] </instance> <instance> [hot, 300] </instance>
  <template> <system prefix='ID'>
   <initialize nbeads='2'> <file mode='xyz'> init.xyz </file>
    <velocities mode='thermal' units='kelvin'> TEMP </velocities> </initialize>
   <forces> <force forcefield='potential'/> </forces>
   <ensemble> <temperature units='kelvin'> TEMP </temperature> </ensemble>
   <motion mode='dynamics'> <fixcom> False </fixcom>
    <dynamics mode='nvt'> <timestep units='femtosecond'> 0.5 </timestep>
    <thermostat mode='pile_l'> <tau units='femtosecond'> 100 </tau> </thermostat> </dynamics> </motion>
  </system> </template> </system_template>
 <smotion mode='remd'> <remd> <stride> 3 </stride> </remd> </smotion>
</simulation>
"""


@pytest.fixture(scope="module")
def exchange_run(tmp_path_factory):
    """Three replicas at 100, 200 and 300 K, of two beads and four members, that exchange often."""
    return run_of_beads(tmp_path_factory.mktemp("remd"), 2)


def run_of_beads(folder, n_beads):
    pytest.importorskip("ipi")
    (folder / "potential.py").write_text(POTENTIAL)
    (folder / "init.xyz").write_text(
        "1\n# CELL(abcABC): 20 21 22 90 90 90 positions{angstrom} cell{angstrom}\nH 0 0 0\n"
    )
    (folder / "input.xml").write_text(INPUT.replace("nbeads='2'", f"nbeads='{n_beads}'"))
    program = Path(sys.executable).with_name("i-pi")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([program, "input.xml"], cwd=folder, env=environment, check=True, capture_output=True, timeout=120)
    return folder


@pytest.mark.parametrize("temperature", [100.0, 200.0, 300.0])
def test_frames_of_a_temperature_come_from_all_replicas(exchange_run, temperature):
    """Against i-PI's own record of the temperature of every replica; energies belong to the same frames."""
    potentials = str(exchange_run / "mild_run.committee_pot_1")
    frames = gather(potentials, [f"{exchange_run / 'hot_run.out'}:potential,5"], temperature)
    read = frames.read()
    steps = frames.series["potentials"].steps
    assert_array_equal(steps, np.arange(0, 121, 6))
    expected, temperatures = np.full((21, 4), np.nan), np.full(21, np.nan)
    for name in ("cold", "mild", "hot"):
        properties = read_properties_of(exchange_run / f"{name}_run.out")
        committee = read_committee(bead_files(exchange_run / f"{name}_run.committee_pot_0"))
        here = np.abs(properties["ensemble_temperature"][::3] - temperature) < 1e-3
        expected[here] = committee.values[::2].mean(axis=1)[here]
        temperatures[here] = properties["temperature"][::3][here]
    assert_allclose(read.member_energies, expected, rtol=1e-12)
    assert_allclose(read.estimators[:, 0], expected, rtol=1e-12)
    assert_allclose(read.observables[:, 0], temperatures, rtol=1e-12)
    assert len(np.unique(frames.series["potentials"].replica)) == 3
    # the potential that i-PI printed is that of the same frames
    drive = gather(potentials, ["potentials"], temperature, driving=f"{exchange_run / 'cold_run.out'}:potential").read()
    assert_allclose(drive.driving, read.member_energies.mean(axis=1), rtol=1e-6)


@pytest.mark.parametrize("temperature", [100.0, 200.0, 300.0])
def test_structures_of_a_temperature_come_from_all_replicas(exchange_run, temperature):
    """Against i-PI's own record of the temperature; the energies of their positions are those of the same frames."""
    sampled = read_sampled(exchange_run / "mild_run.pos_1.xyz", False, temperature)
    assert_array_equal(sampled.steps, np.arange(0, 121, 6))
    expected = np.full(sampled.positions.shape, np.nan)
    for name in ("cold", "mild", "hot"):
        here = (
            np.abs(read_properties_of(exchange_run / f"{name}_run.study")["ensemble_temperature"] - temperature) < 1e-3
        )
        own = read_trajectory(bead_files(exchange_run / f"{name}_run.pos_0.xyz"))
        expected[here[::2]] = own.positions[here[::2]]
    assert_array_equal(sampled.positions, expected)
    assert sampled.temperature == pytest.approx(temperature)
    energies, _, unit = sampled.take(f"{exchange_run / 'hot_run.out'}:potential", energies=True)
    of_positions = 0.025 * HARTREE / BOHR**2 * (sampled.positions**2).sum(axis=(2, 3)).mean(axis=1)
    assert_allclose(energies, of_positions, rtol=1e-3)  # xyz keeps five decimals
    assert unit == "eV"


@pytest.mark.parametrize("seed", range(8))
def test_structures_follow_the_index_through_every_swap(tmp_path, seed):
    """Replica, bead and step stand in the positions; swaps at any steps, rows written again, one file cut by a kill."""
    rng, n_steps = np.random.default_rng(seed), 60
    swaps = [[step, *rng.permutation(4)] for step in np.sort(rng.choice(n_steps, 25, replace=False))]
    abandoned = [[step + 1, *rng.permutation(4)] for step, *_ in swaps[10:]]  # before a restart
    write_exchange(tmp_path, [100, 200, 200, 300], swaps[:10] + abandoned + swaps[10:], n_beads=2)
    again = int(swaps[10][0])
    before, after = range(0, again, 2), range(again + again % 2, n_steps, 2)
    for replica in range(4):
        for bead in range(2):
            of = [replica + 0.1 * bead + 0.001 * step for step in (*before, *after)]
            x = of[: len(before)] + len(after) * [-1] + of[len(before) :]
            frames = [Atoms("ArNe", [[one, 0, 0], [0, one, 0]], cell=[9, 9, 9 + replica]) for one in x]
            write_positions(tmp_path / f"{replica}_run.pos_{bead}.xyz", [*before, *after, *after], frames, bead)
    cut = tmp_path / "2_run.pos_1.xyz"
    cut.write_text(cut.read_text()[:-9])
    for ensemble, temperature in enumerate([100, 200, 200, 300]):
        sampled = read_sampled(tmp_path / "3_run.pos_0.xyz", True, temperature, ensemble)
        assert_array_equal(sampled.steps, np.arange(0, n_steps - 2, 2))
        for place, step in enumerate(sampled.steps):
            index = next((row[1:] for row in reversed(swaps) if row[0] < step), range(4))
            replica = list(index).index(ensemble)
            assert_allclose(sampled.positions[place, :, 0, 0], replica + np.array([0, 0.1]) + 0.001 * step, atol=1e-5)
            assert_allclose(sampled.cells[place, 2, 2], 9 + replica)


@pytest.mark.parametrize(
    ("damage", "given", "words"),
    [
        (None, {"temperature": 250.0}, r"no ensemble is at 250 K .*0: 200 K; 1: 300 K"),
        (None, {}, "give the temperature of one"),
        (None, {"temperature": 300.0, "ensemble": 0}, "no ensemble is number 0, at 300 K"),
        (lambda folder: (folder / "1_run.pos_0.xyz").unlink(), {}, r"1_run\.pos_0\.xyz: cannot be read"),
        (lambda folder: (folder / "RESTART").unlink(), {}, "bring its RESTART here"),
        (
            lambda folder: write_replica(folder, 1, 3),
            {},
            r"1_run\.pos_0\.xyz: step 2 is not in the files of every replica",
        ),
        (lambda folder: write_replica(folder, 0, 2, 40), {}, "no step is in the files of every replica"),
        (lambda folder: write_replica(folder, 1, 2, symbols="NeAr"), {}, "its atoms are not those of .*0_run"),
    ],
)
def test_structures_of_an_exchange_that_are_refused(tmp_path, damage, given, words):
    write_exchange(tmp_path, [200, 300], [[4, 1, 0]])
    for replica in range(2):
        write_replica(tmp_path, replica, 2)
    if damage is not None:
        damage(tmp_path)
        given = {"temperature": 300.0}
    with pytest.raises((SeriesError, UsageError), match=words):
        read_sampled(tmp_path / "0_run.pos_0.xyz", False, **given)


def write_replica(folder, replica, stride, first=0, symbols="ArNe"):
    steps = range(first, first + 30, stride)
    frames = [Atoms(symbols, [[step, 0, 0], [0, step, 0]], cell=[9, 9, 9]) for step in steps]
    write_positions(folder / f"{replica}_run.pos_0.xyz", steps, frames)


def test_a_study_averages_every_temperature(exchange_run):
    """Each ensemble has all frames; its temperature is i-PI's own record, its energies those of its positions."""
    simulation = read_simulation(exchange_run / "input.xml")
    assert simulation.replicas == ("cold_", "mild_", "hot_")
    assert_allclose(simulation.temperatures, [100, 200, 300])
    runs = read_runs("oscillators", simulation, exchange_run, first_step=12)
    assert list(runs) == ["oscillators_100K", "oscillators_200K", "oscillators_300K"]
    for temperature, run in zip([100.0, 200.0, 300.0], runs.values(), strict=True):
        assert_array_equal(run.steps, np.arange(12, 121, 6))
        assert_allclose(run.properties["ensemble_temperature"][0], temperature, rtol=1e-6)
        assert run.temperature == pytest.approx(temperature)
        members = 0.025 * np.array([0.94, 0.98, 1.03, 1.05]) * (run.positions**2).sum(axis=(2, 3))[..., None] / BOHR**2
        assert_allclose(run.member_energies, HARTREE * members.mean(axis=1), rtol=1e-3)  # xyz keeps five decimals
        assert_allclose(run.properties["potential"][0], run.member_energies.mean(axis=1), rtol=1e-6)
    observables = {"x": Observable("oscillators", property="potential")}
    single, curves = of_ensembles(observables, {"oscillators": simulation})
    assert curves["x"] == {"temperatures": list(simulation.temperatures), "names": ["x_100K", "x_200K", "x_300K"]}
    assert [single[name].source for name in curves["x"]["names"]] == list(runs)
    pair = {"x": Observable("oscillators", relative_to="oscillators")}
    with pytest.raises(SettingsError, match="samples of one temperature"):
        of_ensembles(pair, {"oscillators": simulation})


def read_properties_of(path):
    """What of a property file is finite, by name."""
    text = path.read_text().replace("nan", "0.0")
    path.with_suffix(".finite").write_text(text)
    return {column.name: column.values for column in read_properties(path.with_suffix(".finite")).columns}


@pytest.fixture(scope="module")
def classical_run(tmp_path_factory):
    return run_of_beads(tmp_path_factory.mktemp("classical"), 1)


def test_frames_of_all_temperatures_together(classical_run, exchange_run):
    """The frames of every replica stand in the order of its own time, and know the temperature of each."""
    pytest.importorskip("pymbar")
    potentials = str(classical_run / "mild_run.committee_pot_0")
    sampled = gather_states(potentials, ["potentials"], 300.0, driving="mean")
    assert_allclose(sampled.temperatures, [100, 200, 300], rtol=1e-6)
    assert len(sampled.states) == 3 * 41
    for replica, name in enumerate(("cold", "mild", "hot")):
        committee = read_committee([classical_run / f"{name}_run.committee_pot_0"])
        own = sampled.series == replica
        assert committee.values.std() > 0
        assert_allclose(sampled.piece.member_energies[own], committee.values.mean(axis=1), rtol=1e-12)
        properties = read_properties_of(classical_run / f"{name}_run.out")
        assert_allclose(sampled.temperatures[sampled.states[own]][::2], properties["ensemble_temperature"][::3])
    average = sampled.ensemble(250.0).average(sampled.piece.estimators[:, 0], sampled.frames.findings)
    assert average.method == "mbar"
    with pytest.raises(SeriesError, match="differ in their springs"):
        gather_states(str(exchange_run / "cold_run.committee_pot_0"), ["potentials"], 300.0, driving="mean")


def test_swaps_and_what_was_asked(exchange_run, tmp_path):
    exchange = find_exchange(exchange_run / "hot_run.out")
    assert_allclose(exchange.temperatures, [100, 200, 300], rtol=1e-6)
    assert exchange.prefixes == ["cold_run", "mild_run", "hot_run"]
    assert len(exchange.steps) > 10
    for ensemble in range(3):  # by replica: where each was at each step
        replicas = exchange.replica_of(ensemble, np.arange(121))
        assert_array_equal(exchange.ensembles[np.searchsorted(exchange.steps, 50), replicas[50]], ensemble)
    potentials = str(exchange_run / "cold_run.committee_pot_0")
    with pytest.raises(SeriesError, match=r"no ensemble is at 250 K.*0: 100 K; 1: 200 K; 2: 300 K"):
        gather(potentials, ["potentials"], 250.0)
    with pytest.raises(SeriesError, match=r"no ensemble is number 1, at 300 K"):
        gather(potentials, ["potentials"], 300.0, ensemble=1)
    np.savetxt(tmp_path / "table", np.zeros(41))
    with pytest.raises(SeriesError, match="is not i-PI's output"):
        gather(potentials, [str(tmp_path / "table")], 300.0)
    np.savetxt(tmp_path / "pots", np.zeros((41, 2)))
    with pytest.raises(UsageError, match="not of a replica exchange"):
        gather(str(tmp_path / "pots"), ["potentials"], 300.0, ensemble=0)


def test_a_replica_that_is_missing_and_a_damaged_record(exchange_run, tmp_path):
    for path in filter(Path.is_file, exchange_run.iterdir()):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "hot_run.committee_pot_1").unlink()
    potentials = str(tmp_path / "cold_run.committee_pot_0")
    with pytest.raises(SeriesError, match=r"hot_run\.committee_pot_1: cannot be read"):
        gather(potentials, ["potentials"], 300.0)
    record = tmp_path / "run.remd_idx"
    record.write_text(record.read_text().replace(" 2 ", " 1 "))
    with pytest.raises(SeriesError, match="not the ensembles of 3 replicas"):
        gather(potentials, ["potentials"], 300.0)
