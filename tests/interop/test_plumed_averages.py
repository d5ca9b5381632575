"""Averages without the bias, recovered from biased runs of i-PI, against quadrature: a dimer with two minima."""

import json
import math
import re
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from ase import Atoms
from click.testing import CliRunner
from models import write_ipi_xyz

from comitia.cli.reweight import command
from comitia.engines.ipi import sample
from comitia.engines.plumed import INSTALL, find_kernel
from comitia.engines.plumed_bias import PlumedBias
from comitia.units import HARTREE, KB

pytestmark = pytest.mark.long
with_plumed = pytest.mark.skipif(find_kernel() is None, reason=f"no PLUMED kernel; {INSTALL}")

INPUTS = Path(__file__).resolve().parents[2] / "inputs"
TEMPERATURE = 300.0
BARRIER, MIDDLE, HALF = 0.15, 2.0, 0.4  # eV, Å, Å: minima at 1.6 and 2.4 Å, 6 kT between them
TILTS = (0.03, 0.07)  # eV/Å, of the two members
FACTORY = f"""
import numpy as np
from ase.calculators.calculator import Calculator


class TwoMinima(Calculator):
    implemented_properties = ["energy", "forces"]

    def __init__(self, tilt):
        super().__init__()
        self.tilt = tilt

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        apart = atoms.positions[1] - atoms.positions[0]
        r = np.sqrt(apart @ apart)
        x = (r - {MIDDLE}) / {HALF}
        slope = 4 * {BARRIER} * x * (x * x - 1) / {HALF} + self.tilt
        along = slope * apart / r
        self.results = {{
            "energy": {BARRIER} * (x * x - 1) ** 2 + self.tilt * (r - {MIDDLE}),
            "forces": np.array([along, -along]),
        }}


def make(tilt):
    return TwoMinima(tilt)
"""
POTENTIAL = "members:\n" + "".join(
    f"  - {{calculator: 'dimers:make', arguments: {{tilt: {tilt}}}}}\n" for tilt in TILTS
)
METADYNAMICS = """UNITS LENGTH=A ENERGY=eV
distance: DISTANCE ATOMS=1,2 NOPBC
metad: METAD ...
  ARG=distance PACE=100 HEIGHT=0.006 SIGMA=0.08 BIASFACTOR=8 TEMP=300 FILE=HILLS
  GRID_MIN=0.5 GRID_MAX=4 GRID_BIN=700 CALC_RCT
...
PRINT ARG=distance,metad.rbias STRIDE=1 FILE=COLVAR FMT=%.8f
FLUSH STRIDE=1
"""
OPES = """UNITS LENGTH=A ENERGY=eV
distance: DISTANCE ATOMS=1,2 NOPBC
opes: OPES_METAD ARG=distance PACE=100 BARRIER=0.2 SIGMA=0.08 TEMP=300 FILE=KERNELS
PRINT ARG=distance,opes.bias STRIDE=1 FILE=COLVAR FMT=%.8f
FLUSH STRIDE=1
"""


def exact(tilt):
    """Average distance, Å, of r² exp(-β V)."""
    r = np.linspace(1.0, 3.2, 20_001)
    x = (r - MIDDLE) / HALF
    energy = BARRIER * (x * x - 1) ** 2 + tilt * (r - MIDDLE)
    weight = r**2 * np.exp(-(energy - energy.min()) / (KB * TEMPERATURE))
    return np.sum(weight * r) / np.sum(weight)


def write_potential(folder, limit=""):
    """A committee of two dimers, and its structure."""
    (folder / "dimers.py").write_text(FACTORY)
    (folder / "potential.yaml").write_text(POTENTIAL + limit)
    return Atoms("H2", [[0, 0, 0], [1.6, 0, 0]], cell=[30, 30, 30])


def run(folder, template, n_steps, plumed=None, limit="", changes=()):
    """A biased run of the dimer with a template of inputs/."""
    write_ipi_xyz(folder / "init.xyz", write_potential(folder, limit))
    text = (INPUTS / f"{template}.xml").read_text()
    text = re.sub(r"(<temperature units='kelvin'>) \d+", r"\1 300", text)
    text = re.sub(r"(<velocities[^>]*>) \d+", r"\1 300", text)
    text = text.replace("<timestep units='femtosecond'> 1.0", "<timestep units='femtosecond'> 0.5")
    text = text.replace("<tau units='femtosecond'> 100", "<tau units='femtosecond'> 50")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (folder / f"{template}.xml").write_text(text)
    if plumed is not None:
        (folder / f"{template}.dat").write_text(plumed)
    files = folder / f"{template}.xml", folder / "potential.yaml"
    assert sample(*files, n_threads=1, directory=folder, total_steps=n_steps, progress=False)["status"] == "finished"


def reweight(*options):
    """What `comitia reweight` writes."""
    done = CliRunner().invoke(command, [*options, "--temperature", str(TEMPERATURE), "--json", "found.json"])
    assert done.exit_code == 0, done.output
    return json.loads(Path("found.json").read_text())


def assert_recovered(found, largest_error):
    """The average of the driving potential and those of the members are the exact ones, within their errors."""
    assert found["statistical_error"] < largest_error
    assert abs(found["value"] - exact(np.mean(TILTS))) < 3 * found["statistical_error"]
    for value, tilt in zip(found["members"], TILTS, strict=True):
        assert abs(value - exact(tilt)) < 4 * found["statistical_error"]


@with_plumed
def test_metadynamics_of_i_pi(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(tmp_path, "metad", 12_000, METADYNAMICS)
    bias = ("--bias", "COLVAR:metad.rbias", "--skip", "500", "--method", "direct")
    assert_recovered(reweight("--potentials", "metad.committee_pot_0", "--observable", "COLVAR:distance", *bias), 0.2)


class Dimers:
    """The two members and their mean, as an evaluator, for dynamics that cost next to nothing but PLUMED."""

    potential = SimpleNamespace(n_members=2)

    def compute(self, positions, cells):
        apart = positions[0, 1] - positions[0, 0]
        r = math.sqrt(apart @ apart)
        x = (r - MIDDLE) / HALF
        members = np.array([BARRIER * (x * x - 1) ** 2 + tilt * (r - MIDDLE) for tilt in TILTS])
        along = (4 * BARRIER * x * (x * x - 1) / HALF + np.mean(TILTS)) * apart / r
        forces = np.array([[along, -along]])
        return SimpleNamespace(
            energies=members.mean(keepdims=True), forces=forces, virials=np.zeros((1, 3, 3)), member_energies=members
        )


def langevin(bias, atoms, n_steps, time_step=0.0005, friction=20.0):
    """Energies of the members, eV, at every step of biased dynamics (BAOAB); ps.

    Leimkuhler, Matthews, Appl. Math. Res. Express 2013, 34 (2013).
    """
    rng, evaluator, found = np.random.default_rng(7), Dimers(), []
    mass = atoms.get_masses()[:, None] / 9648.5332  # eV ps²/Å²
    thermal = np.sqrt(KB * TEMPERATURE / mass)
    kept = np.exp(-friction * time_step)
    x, v = atoms.positions.copy(), thermal * rng.normal(size=(2, 3))
    for step in range(n_steps + 1):
        acts = bias.compute(step, x, np.zeros((3, 3)), evaluator, pbc=False)
        found.append(acts.predictions.member_energies)
        half = 0.5 * time_step * acts.forces / mass
        v += half if step == 0 else 2 * half  # the second half of one step and the first of the next
        x = x + 0.5 * time_step * v
        v = kept * v + np.sqrt(1 - kept**2) * thermal * rng.normal(size=(2, 3))
        x = x + 0.5 * time_step * v
    return np.array(found)


@with_plumed
@pytest.mark.parametrize(("plumed", "bias"), [(METADYNAMICS, "metad.rbias"), (OPES, "opes.bias")])
def test_biased_dynamics_in_one_process(tmp_path, monkeypatch, plumed, bias):
    monkeypatch.chdir(tmp_path)
    atoms = write_potential(tmp_path)
    Path("bias.dat").write_text(plumed)
    with closing(PlumedBias("bias.dat", atoms.get_masses(), time_step=0.0005, temperature=TEMPERATURE)) as acts:
        np.savetxt("members", langevin(acts, atoms, 80_000))
    options = ("--units", "eV", "--skip", "10000", "--method", "direct", "--bias", f"COLVAR:{bias}")
    assert_recovered(reweight("--potentials", "members", "--observable", "COLVAR:distance", *options), 0.08)


def test_a_limit_of_the_uncertainty(tmp_path, monkeypatch):
    """The members agree at the top of the barrier, so that a limit makes the dimer pass it."""
    monkeypatch.chdir(tmp_path)
    printed = "<trajectory filename='{0}' stride='4' extra_type='{0}'> extras </trajectory>"
    added = f"{printed.format('committee_pot')}\n    {printed.format('uncertainty_bias')}"
    positions = "atom_x{angstrom}(atom=0), atom_x{angstrom}(atom=1), pressure_md{megapascal}"
    changes = [(printed.format("committee_pot"), added), ("pressure_md{megapascal}", positions)]
    run(tmp_path, "nvt", 10_000, limit="uncertainty_limit: {sigma: 0.0, stiffness: 1500}\n", changes=changes)
    rows = np.loadtxt("nvt.out")
    distance = np.linalg.norm(rows[:, 9:12] - rows[:, 6:9], axis=1)
    np.savetxt("distance", distance)
    potential = rows[:, 5]
    bias, members = np.loadtxt("nvt.uncertainty_bias_0"), np.loadtxt("nvt.committee_pot_0")
    assert np.abs(potential - members.mean(axis=1) - bias).max() < 1e-10
    sigma = (TILTS[1] - TILTS[0]) * np.abs(distance - MIDDLE) / np.sqrt(2)
    assert np.abs(bias * HARTREE - 750 * sigma**2).max() < 1e-7
    options = ("--bias", "nvt.uncertainty_bias_0", "--skip", "100", "--method", "direct")
    assert_recovered(reweight("--potentials", "nvt.committee_pot_0", "--observable", "distance", *options), 0.15)
