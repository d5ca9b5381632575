"""PLUMED beside a potential in one process: forces, hills, files and restarts."""

import os
from pathlib import Path

import numpy as np
import pytest
import systems
from numpy.testing import assert_allclose

from comitia.engines.composed import ComposedPotential, PotentialSettings
from comitia.engines.plumed import INSTALL, find_kernel
from comitia.errors import ModelError, SettingsError
from comitia.potential.mixing import UncertaintyLimit

pytestmark = pytest.mark.skipif(find_kernel() is None, reason=f"no PLUMED kernel; {INSTALL}")

SPECIES = [6, 14]
TIME_STEP = 0.001  # ps
HEAD = "UNITS LENGTH=A ENERGY=eV\n"
DISTANCE = HEAD + "d: DISTANCE ATOMS=1,2\n"
RESTRAINTS = (
    DISTANCE
    + """r: RESTRAINT ARG=d AT=3.0 KAPPA=0.7
s: EXTRACV NAME=sigma
limit: UPPER_WALLS ARG=s AT=0.02 KAPPA=3.0
v: VOLUME
p: RESTRAINT ARG=v AT=60.0 KAPPA=0.001
"""
)
ENERGY = HEAD + "e: ENERGY\nr: RESTRAINT ARG=e AT=-4.0 KAPPA=0.01\n"
METADYNAMICS = (
    DISTANCE
    + """m: METAD ARG=d PACE=5 HEIGHT=0.02 SIGMA=0.1 FILE=HILLS BIASFACTOR=8 TEMP=300
PRINT ARG=d,m.bias STRIDE=1 FILE=COLVAR FMT=%20.14f
"""
)


@pytest.fixture
def atoms():
    return systems.structures(SPECIES)["triclinic"]


@pytest.fixture(scope="module")
def potential():
    return systems.potential(SPECIES, n_members=5, alpha=(1.7, 1.2))


@pytest.fixture
def biased(tmp_path, monkeypatch, atoms, potential):
    """Function of an input to a function of step, positions and cell to what the biased potential says there."""
    from comitia.engines.plumed_bias import PlumedBias

    monkeypatch.chdir(tmp_path)
    opened = []

    def begin(text, potential=potential, **options):
        (tmp_path / "plumed.dat").write_text(text)
        bias = PlumedBias("plumed.dat", atoms.get_masses(), TIME_STEP, **options)
        opened.append(bias)
        evaluator = potential.evaluator(atoms.numbers, atoms.pbc, 1)

        def compute(step, positions, cell=None, pbc=True):
            cell = atoms.cell.array if cell is None else cell
            return bias.compute(step, positions, cell, evaluator, pbc)

        compute.close = bias.close
        return compute

    yield begin
    for bias in opened:
        bias.close()


def rows(name):
    return np.loadtxt(name, ndmin=2)


@pytest.mark.parametrize("text", [RESTRAINTS, ENERGY, RESTRAINTS + "e: ENERGY\nq: RESTRAINT ARG=e AT=-4 KAPPA=.01\n"])
def test_forces_and_virial_are_the_gradient(biased, atoms, text):
    compute, step = biased(text), iter(range(100))
    found = compute(next(step), atoms.positions)
    assert found.bias > 1e-3
    assert_allclose(found.energy, found.predictions.energies[0] + found.bias)
    for seed in range(3):
        direction = np.random.default_rng(seed).normal(size=atoms.positions.shape)
        ends = [compute(next(step), atoms.positions + sign * 1e-4 * direction).energy for sign in (-1, 1)]
        slope = (ends[1] - ends[0]) / 2e-4
        assert np.sum(found.forces * direction) == pytest.approx(-slope, rel=1e-5, abs=1e-6)
    for a, b in ((0, 0), (1, 2), (2, 2)):
        strain = np.zeros((3, 3))
        strain[a, b] += 0.5
        strain[b, a] += 0.5
        ends = []
        for sign in (-1, 1):
            change = np.eye(3) + sign * 1e-5 * strain
            ends.append(compute(next(step), atoms.positions @ change, atoms.cell.array @ change).energy)
        slope = (ends[1] - ends[0]) / 2e-5
        assert 0.5 * (found.virial[a, b] + found.virial[b, a]) == pytest.approx(-slope, rel=1e-5, abs=1e-5)


def test_a_wall_on_the_uncertainty_is_the_limit_of_a_potential(biased, atoms, potential):
    """The template of inputs/ in PLUMED, and the same wall in the potential itself."""
    sigma = potential.compute(atoms).energy_uncertainty
    text = (Path(__file__).resolve().parents[2] / "inputs" / "sigma.dat").read_text()
    at = 0.4 * sigma
    found = biased(text.replace("AT=0.3", f"AT={at!r}"))(0, atoms.positions)
    settings = PotentialSettings(committee="x", uncertainty_limit=UncertaintyLimit(at, 10.0))
    expected = ComposedPotential([potential], settings).compute(atoms)
    assert found.bias == pytest.approx(5 * (sigma - at) ** 2, rel=1e-9)
    assert found.energy == pytest.approx(expected.energy, rel=1e-12)
    assert_allclose(found.forces, expected.forces, rtol=0, atol=1e-10 * np.abs(expected.forces).max())
    assert_allclose(found.virial, expected.virial, rtol=0, atol=1e-10 * np.abs(expected.virial).max())


def walk(atoms, step):
    """Positions of a step."""
    moved = atoms.positions.copy()
    moved[0, 0] += 0.3 * np.sin(0.1 * step)
    return moved


def gaussians(value, steps):
    """Sum of the hills in HILLS of these steps at a value of the distance, eV, cut off as PLUMED cuts them."""
    hills = rows("HILLS")
    assert_allclose(hills[:, 0] / TIME_STEP, steps, atol=1e-6)
    center, width, height, biasfactor = hills[:, 1:5].T
    arguments = 0.5 * ((value - center) / width) ** 2
    stretched = (np.exp(-arguments) - np.exp(-6.25)) / (1 - np.exp(-6.25))
    return np.sum(np.where(arguments < 6.25, height * (biasfactor - 1) / biasfactor * stretched, 0))


def test_a_hill_is_added_once_however_often_a_step_is_asked_for(biased, atoms):
    compute = biased(METADYNAMICS, temperature=300)
    for step in range(21):
        compute(step, walk(atoms, step + 0.5))  # a trial move, which LAMMPS makes before the step
        first = compute(step, walk(atoms, step))
        again = compute(step, walk(atoms, step))  # as a second `run` of LAMMPS, or ASE asking for the stress
        assert again.bias == first.bias
    last = compute(21, walk(atoms, 21)).bias
    compute.close()
    colvar = rows("COLVAR")
    assert_allclose(colvar[:, 0] / TIME_STEP, np.arange(22), atol=1e-6)
    assert last == pytest.approx(gaussians(colvar[-1, 1], [5, 10, 15, 20]), abs=1e-9)
    assert colvar[-1, 2] == pytest.approx(last, abs=1e-10)


def on_disk():
    """What a kill would leave now of PLUMED's hills and variables, by path."""
    return {path: path.read_bytes() for name in ("**/HILLS*", "KERNELS", "COLVAR") for path in Path().glob(name)}


def table(content):
    return [[float(x) for x in line.split()] for line in content.decode().splitlines() if line[:1] != "#"]


COLVAR = "PRINT ARG=d,m.bias FILE=COLVAR FMT=%20.14f\n"
ADDING = {
    "METAD": METADYNAMICS,
    "OPES": DISTANCE + "m: OPES_METAD ARG=d PACE=5 BARRIER=0.5 TEMP=300 SIGMA=0.1\n" + COLVAR,
    "PBMETAD": DISTANCE + "e: DISTANCE ATOMS=2,3\n"
    "m: PBMETAD ARG=d,e PACE=5 HEIGHT=0.02 SIGMA=0.1,0.1 BIASFACTOR=8 TEMP=300\n" + COLVAR,
    "INCLUDE": "INCLUDE FILE=part/bias.dat\n",
}
KILLS = [(5, 0), (9, 1), (10, 0), (10, 1), (10, 9), (12, 0), (14, 3), (15, None)]


@pytest.mark.parametrize("name", ADDING)
def test_a_kill_at_any_moment_loses_no_hill_and_doubles_none(biased, atoms, name):
    """A state is saved while its step goes on; bias, hills and variables are those of a run in one go."""

    def begin(restart_step=None):
        return biased(ADDING[name], temperature=300, restart_step=restart_step)

    Path("part").mkdir()
    Path("part/bias.dat").write_text(
        METADYNAMICS.replace("LENGTH=A", "LENGTH=A TIME=fs").replace("=HILLS", "=part/HILLS")
    )
    whole = begin()
    expected = [whole(step, walk(atoms, step)).bias for step in range(26)]
    whole.close()
    wanted = on_disk()
    for saved, ahead in KILLS if name != "OPES" else KILLS[1:]:  # it does not go on from no kernel
        for path in on_disk():
            path.unlink()
        first = begin()
        for step in range(saved + 1 + (ahead or 0)):
            first(step, walk(atoms, step))
        left = on_disk()
        first.close()
        if ahead is not None:
            for path, content in left.items():
                path.write_bytes(content)
        second = begin(saved)
        found = [second(step, walk(atoms, step)).bias for step in range(saved, 26)]
        second.close()
        assert_allclose(found, expected[saved:], rtol=0, atol=1e-9, err_msg=f"{saved} {ahead}")
        again = on_disk()
        assert again.keys() == wanted.keys()
        for path, content in again.items():
            assert_allclose(table(content), table(wanted[path]), rtol=1e-6, atol=1e-9, err_msg=f"{path} {saved}")


def test_a_run_in_two_parts_is_one_to_the_last_bit(biased, atoms):
    found = {}
    for name, steps in (("whole", [*range(21)]), ("parts", [*range(11), *range(10, 16), *range(15, 21)])):
        compute = biased(METADYNAMICS, temperature=300)
        found[name] = {step: compute(step, walk(atoms, step)).bias for step in steps}
        compute.close()
        found[name] |= {file: rows(file).tolist() for file in ("HILLS", "COLVAR")}
        for file in ("HILLS", "COLVAR"):
            os.remove(file)
    assert found["whole"] == found["parts"]


def test_nothing_is_folded_where_nothing_repeats(biased, atoms):
    compute = biased(DISTANCE + "r: RESTRAINT ARG=d AT=0 KAPPA=2\n")
    positions = atoms.positions.copy()
    positions[1] = positions[0] + 0.9 * atoms.cell.array[2]
    apart = 0.9 * np.linalg.norm(atoms.cell.array[2])
    assert compute(0, positions).bias < 0.5 * apart**2
    for pbc in ((True, True, False), False):
        assert_allclose(compute(0, positions, pbc=pbc).bias, apart**2, rtol=1e-9)


def test_masses_and_charges_are_those_given(biased, atoms):
    """Of a centre of mass and of a dipole."""
    charges = np.random.default_rng(4).normal(size=len(atoms))
    compute = biased(
        HEAD + "c: CENTER ATOMS=1,2,3 MASS\nd: DISTANCE ATOMS=c,4\np: DIPOLE GROUP=1,2\n"
        "r: RESTRAINT ARG=d,p AT=0,0 KAPPA=2,2\n",
        charges=charges,
    )
    masses, x = atoms.get_masses(), atoms.positions[:4]
    center = masses[:3] @ x[:3] / masses[:3].sum() - x[3]
    dipole = (charges[:2] - charges[:2].mean()) @ x[:2]  # of what is left when the charge is made zero
    assert_allclose(compute(0, atoms.positions, pbc=False).bias, center @ center + dipole @ dipole, rtol=1e-9)


def test_what_plumed_does_not_understand_is_said_in_one_sentence(biased):
    with pytest.raises(SettingsError, match=r"plumed.dat: PLUMED: .*NONSENSE"):
        biased(HEAD + "x: NONSENSE ATOMS=1,2\n")


def test_no_kernel_where_one_is_named(biased, monkeypatch):
    monkeypatch.setenv("PLUMED_KERNEL", "/nowhere/libplumedKernel.so")
    with pytest.raises(SettingsError, match=r"PLUMED_KERNEL names /nowhere.*pip install"):
        biased(DISTANCE)


def test_one_member_has_no_uncertainty(biased, atoms):
    compute = biased(RESTRAINTS, potential=systems.potential(SPECIES, n_members=1))
    with pytest.raises(ModelError, match="EXTRACV NAME=sigma"):
        compute(0, atoms.positions)
