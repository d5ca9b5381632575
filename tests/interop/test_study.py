"""A whole study with real i-PI: every stage once, only what changed again, and on after a kill."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator
from models import cluster, pair_energy_and_forces
from numpy.testing import assert_allclose

import comitia
from comitia.engines.ipi_trajectory import read_trajectory
from comitia.files import file_hash
from comitia.units import KB

TEMPERATURE = 20.0  # K
SIMULATION = """<simulation verbosity='low' floatformat='%24.16e'>
 <output prefix='{name}'>
  <properties stride='4' filename='out'> [ step, time, conserved, temperature, potential, kinetic_cv(0) ] </properties>
  <trajectory stride='4' filename='pos' cell_units='angstrom'> positions{{angstrom}} </trajectory>
  <trajectory stride='4' filename='committee_pot' extra_type='committee_pot'> extras </trajectory>
  <checkpoint stride='20' overwrite='True'/>
 </output>
 <total_steps> 600 </total_steps> <prng><seed> 8 </seed></prng>
 <ffsocket name='comitia' mode='unix' pbc='false'>
  <address> comitia </address> <latency> 1e-4 </latency> <batch_size> {n_beads} </batch_size>
 </ffsocket>
 <system>
  <initialize nbeads='{n_beads}'>
   <file mode='xyz' units='angstrom'> start.xyz </file> <cell mode='abc' units='angstrom'> [ 30, 30, 30 ] </cell>
   <velocities mode='thermal' units='kelvin'> 20 </velocities>
  </initialize>
  <forces><force forcefield='comitia'/></forces>
  <ensemble><temperature units='kelvin'> 20 </temperature></ensemble>
  <motion mode='dynamics'><fixcom> True </fixcom><dynamics mode='nvt'>
   <timestep units='femtosecond'> 2 </timestep>
   <thermostat mode='{thermostat}'><tau units='femtosecond'> 100 </tau></thermostat>
  </dynamics></motion>
 </system>
</simulation>
"""
STUDY = """
fit: {data: train.xyz, test: {file: test.xyz}, cutoff: 6.0, members: 4, basis: {max_features: 40}}
sample:
  classical: {input: classical.xml}
  quantum: {input: quantum.xml, steps: 300}
observables:
  r_classical: {from: classical, cv: {distance: [0, 1]}, unit: Å}
  r_quantum: {from: quantum, cv: {distance: [0, 1]}, unit: Å}
  r_profile: {from: quantum, cv: {distance: [0, 1]}, profile: {range: [2.5, 4.5], bins: 10}}
  k_classical: {from: classical, property: kinetic_cv(0), unit: meV}
  k_quantum: {from: quantum, property: kinetic_cv(0), unit: meV}
  v_quantum: {from: quantum, property: potential, unit: meV}
"""
PERTURB = """
perturb:
  references: {pair: {with: "ase:stiffer:make"}}
  frames: {quantum: 40}
  stored: {frames: frames.xyz, model: kept.safetensors, recompute: 3}
"""
EXCHANGE = """
fit: {data: train.xyz, cutoff: 6.0, members: 4, basis: {max_features: 40}}
sample:
  exchange: {input: exchange.xml, steps: 3000}
observables:
  r: {from: exchange, cv: {distance: [0, 1]}, unit: Å}
perturb:
  references: {pair: {with: "ase:stiffer:make"}}
  frames: {exchange: 25}
"""
STIFFER = f"""
import sys
sys.path.insert(0, "{Path(__file__).parents[1]}")
from ase.calculators.calculator import Calculator
from models import pair_energy_and_forces


class Stiffer(Calculator):
    implemented_properties = ["energy"]

    def calculate(self, atoms, properties, changes):
        super().calculate(atoms, properties, changes)
        self.results = {{"energy": 1.1 * pair_energy_and_forces(atoms, 6.0)[0] + 7.0}}


make = Stiffer
"""
AVERAGE = {
    "value",
    "unit",
    "statistical_error",
    "committee_error",
    "total_error",
    "effective_sample_size",
    "verdict",
}


@pytest.fixture
def folder(tmp_path):
    """A cluster of argon with data of a pair potential, and a study of it."""
    rng = np.random.default_rng(5)
    for name, count in (("train", 60), ("test", 20)):
        frames = []
        for _ in range(count):
            atoms = cluster()
            atoms.positions += rng.uniform(0.02, 0.25) * rng.normal(size=(7, 3))
            energy, forces = pair_energy_and_forces(atoms, 6.0)
            atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
            frames.append(atoms)
        ase.io.write(tmp_path / f"{name}.xyz", frames)
    atoms = cluster()
    ase.io.write(tmp_path / "start.xyz", atoms, format="extxyz")
    for name, n_beads, thermostat in (("classical", 1, "langevin"), ("quantum", 4, "pile_g")):
        text = SIMULATION.format(name=name, n_beads=n_beads, thermostat=thermostat)
        (tmp_path / f"{name}.xml").write_text(text)
    (tmp_path / "study.yaml").write_text(STUDY)
    return tmp_path


def keep_frames(folder):
    """Frames of the path integral with energies of a pair potential 10 % deeper, and the model that sampled them."""
    model, sampled = folder / "results" / "model.safetensors", folder / "results" / "sample" / "quantum"
    shutil.copy(model, folder / "kept.safetensors")
    (folder / "stiffer.py").write_text(STIFFER)
    potential, images = comitia.load(model), []
    beads = read_trajectory([sampled / f"quantum.pos_{bead}.xyz" for bead in range(4)])
    for step, positions in list(zip(beads.steps, beads.positions, strict=True))[-15:]:
        for bead, position in enumerate(positions):
            atoms = cluster()
            atoms.positions = position
            energy, reference = potential.compute(atoms).energy, pair_energy_and_forces(atoms, 6.0)[0]
            atoms.info = {"sample": "quantum", "step": int(step), "bead": bead, "temperature": TEMPERATURE}
            atoms.info |= {"model_energy": energy, "model_sha256": file_hash(model)}
            atoms.info["pair_energy"] = 1.1 * reference + 7.0
            images.append(atoms)
    ase.io.write(folder / "frames.xyz", images)


# for the Python of i-PI: it sleeps in every step
SLOW = "import time\nsleep = time.sleep\ntime.sleep = lambda seconds: sleep(max(seconds, 0.02))\n"


def command(folder, *options):
    return [sys.executable, "-m", "comitia.cli", "run", str(folder / "study.yaml"), *options]


def run(folder, *options):
    """Everything that the command said."""
    done = subprocess.run(command(folder, *options), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def done_again(said):
    """Stages that were not skipped."""
    return [line.removesuffix(" ...") for line in said.splitlines() if line.endswith(" ...")]


def test_a_study_runs_once_and_then_only_what_changed(folder):
    said = run(folder)
    assert done_again(said) == ["fit", "sample classical", "sample quantum", "reweight", "report"]
    results = json.loads((folder / "results" / "results.json").read_text())
    assert set(results["observables"]) == {"r_classical", "r_quantum", "k_quantum", "v_quantum"}
    assert all(set(average) == AVERAGE for average in results["observables"].values())
    classical = results["references"]["k_classical"]
    assert_allclose(classical["value"], 1500 * KB * TEMPERATURE, rtol=1e-6)  # i-PI's temperature has its own constants
    kinetic = results["observables"]["k_quantum"]
    assert kinetic["value"] > classical["value"] + kinetic["total_error"]
    assert results["checks"]["k_quantum.largest_difference_to_ipi"] < 1e-5
    curve = results["profiles"]["r_profile"]
    assert {len(curve[key]) for key in ("x", "value", "statistical_error", "committee_error")} == {10}
    assert min(value for value in curve["value"] if value is not None) == 0
    assert (folder / "results" / "figure.png").read_bytes().startswith(b"\x89PNG")

    assert done_again(run(folder)) == []
    before = (folder / "results" / "results.json").read_bytes()
    text = STUDY.replace("cv: {distance: [0, 1]}, unit: Å}", "cv: {distance: [0, 2]}, unit: Å}", 1)
    (folder / "study.yaml").write_text(text)
    assert done_again(run(folder)) == ["reweight", "report"]
    assert (folder / "results" / "results.json").read_bytes() != before
    (folder / "study.yaml").write_text(text.replace("steps: 300", "steps: 400"))
    assert done_again(run(folder)) == ["sample quantum", "reweight", "report"]
    steps = np.loadtxt(folder / "results" / "sample" / "quantum" / "quantum.out")[:, 0]
    assert_allclose(steps, np.arange(0, 401, 4))  # went on from 300
    (folder / "results" / "figure.png").unlink()
    assert done_again(run(folder)) == ["report"]

    keep_frames(folder)
    (folder / "study.yaml").write_text(text.replace("steps: 300", "steps: 400") + PERTURB)
    assert done_again(run(folder)) == ["perturb", "report"]
    results = json.loads((folder / "results" / "results.json").read_text())
    assert results["checks"]["perturb.pair.recomputed"] == 3
    assert results["checks"]["perturb.pair.largest_difference_to_stored"] < 1e-6
    assert results["checks"]["perturb.largest_difference_of_models"] < 1e-9
    found = results["perturbation"]["pair"]
    assert found["samples"]["quantum"]["n_beads"] == 4
    assert_allclose(found["profiles"]["r_profile"]["x"], results["profiles"]["r_profile"]["x"])
    assert set(found["observables"]) == {"r_quantum"}
    assert done_again(run(folder)) == []
    (folder / "stiffer.py").write_text((folder / "stiffer.py").read_text().replace("7.0", "7.1"))
    (folder / "results" / "perturbation.json").unlink()
    (folder / "results" / "perturb" / "pair.references").unlink()
    refused = subprocess.run(command(folder), capture_output=True, text=True, timeout=120, check=False)
    assert refused.returncode == 3
    assert "differ from the stored ones by up to 0.1 eV" in refused.stderr


def test_a_replica_exchange_is_perturbed_at_each_of_its_temperatures(folder):
    """Every ensemble has frames, a figure and averages of its own; a difference needs samples of one temperature."""
    text = SIMULATION.format(name="run", n_beads=2, thermostat="pile_g").replace("<system>", "<system prefix='ID'>")
    # replicas in threads share one generator of random numbers; with 8 fs any seed gives 29 to 87 uncorrelated frames
    text = text.replace("<simulation ", "<simulation threading='False' ").replace("> 2 </timestep>", "> 8 </timestep>")
    begin, end = text.index(" <system prefix"), text.index("</simulation>")
    system = text[begin:end].replace("> 20 <", "> TEMP <")
    template = "<system_template><labels> [ID, TEMP] </labels><instance> [cold, 20] </instance>"
    template += f"<instance> [hot, 24] </instance><template>{system}</template></system_template>"
    text = f"{text[:begin]}{template}<smotion mode='remd'><remd><stride> 10 </stride></remd></smotion></simulation>"
    (folder / "exchange.xml").write_text(text)
    (folder / "stiffer.py").write_text(STIFFER)
    (folder / "study.yaml").write_text(EXCHANGE + "  differences: {gap: [exchange, exchange]}\n")
    refused = subprocess.run(command(folder), capture_output=True, text=True, timeout=120, check=False)
    assert refused.returncode == 3
    assert "perturb.differences.gap: needs samples of one temperature" in refused.stderr
    (folder / "study.yaml").write_text(EXCHANGE)
    run(folder)
    results = json.loads((folder / "results" / "results.json").read_text())
    found = results["perturbation"]["pair"]
    for temperature in ("20K", "24K"):
        sample, average = found["samples"][f"exchange_{temperature}"], found["observables"][f"r_{temperature}"]
        assert (sample["n_beads"], 10 <= sample["n_frames"] <= 25) == (2, True)
        assert_allclose(average["value"], results["observables"][f"r_{temperature}"]["value"] + average["shift"])
        assert (folder / "results" / "perturb" / f"pair-exchange_{temperature}.png").is_file()


@pytest.mark.parametrize(("ending", "code"), [(signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_a_study_that_was_stopped_goes_on(folder, ending, code):
    text = STUDY.replace("steps: 300", "steps: 1000").replace(
        "input: classical.xml", "input: classical.xml, steps: 100"
    )
    (folder / "study.yaml").write_text(text)
    (folder / "slow").mkdir()
    (folder / "slow" / "sitecustomize.py").write_text(SLOW)  # far from its end when it is stopped, however late that is
    with open(folder / "log", "w") as log:
        environment = os.environ | {"PYTHONPATH": str(folder / "slow")}
        process = subprocess.Popen(command(folder), stdout=log, stderr=log, env=environment)
    output = folder / "results" / "sample" / "quantum" / "quantum.out"
    deadline = time.monotonic() + 60
    while not output.exists() or len(output.read_bytes()) < 2000:
        assert process.poll() is None, (folder / "log").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(ending)
    assert process.wait(30) == code
    reached = len(output.read_text().splitlines()) - 6
    assert reached < 251
    assert done_again(run(folder)) == ["sample quantum", "reweight", "report"]
    record = json.loads((folder / "results" / "sample" / "quantum" / "sample.json").read_text())
    assert record["restarted_from"] > 0
    results = json.loads((folder / "results" / "results.json").read_text())
    assert results["samples"]["quantum"] | {"temperature": None} == {
        "temperature": None,
        "n_beads": 4,
        "n_frames": 226,
        "first_step": 100,
        "last_step": 1000,
    }
