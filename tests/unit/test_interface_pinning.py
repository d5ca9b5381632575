"""The example of a pinned interface: its arithmetic against known answers, and its bias against the formula."""

import importlib.util
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase.build import bulk
from numpy.testing import assert_allclose

from comitia.engines.plumed import INSTALL, find_kernel
from comitia.units import KB

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "interface-pinning"
N_ATOMS, KAPPA, CENTRE, TEMPERATURE = 400, 0.002, 180.0, 1500.0
CRYSTAL, MELT = 320.0, 20.0  # order parameter
FUSION = 0.3  # eV for an atom
DURATION = 100.0  # ps


@pytest.fixture(scope="module")
def pinning():
    spec = importlib.util.spec_from_file_location("coexistence", FOLDER / "coexistence.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def runs(rng, pull, slopes, n_frames=4000):
    """Series of crystal, melt and interface, in which Q is Gaussian and V_k - V is slopes_k times Q."""
    order, correlation = np.empty(n_frames), 0.9
    width = np.sqrt(KB * TEMPERATURE / KAPPA)
    order[0] = rng.normal()
    for i in range(1, n_frames):
        order[i] = correlation * order[i - 1] + np.sqrt(1 - correlation**2) * rng.normal()
    order = CENTRE - pull / KAPPA + width * order
    pinned = (order, order[:, None] * slopes)
    found = []
    for mean, energy in ((CRYSTAL, -4.0 * N_ATOMS), (MELT, (FUSION - 4.0) * N_ATOMS)):
        noise = rng.normal(size=(2, n_frames))
        found.append((mean + noise[0], energy + noise[1][:, None] * np.ones(len(slopes))))
    return *found, pinned


def test_the_members_differ_by_what_their_energies_say(pinning):
    slopes = 1e-3 * np.array([-1.0, -0.5, 0.0, 0.5, 1.0])
    found = pinning.coexistence(
        *runs(np.random.default_rng(1), 0.004, slopes, 40000), TEMPERATURE, KAPPA, CENTRE, N_ATOMS, DURATION
    )[0]
    found = {name: quantity for name, (quantity, _) in found.items()}
    potential = found["chemical_potential"]
    share = (CRYSTAL - MELT) / N_ATOMS
    # the mean force on Q, which the bias takes up, is that of the mean and the member's own slope
    assert_allclose(potential.members, (0.004 + slopes) * share, atol=5 * potential.statistical_error)
    assert_allclose(potential.committee_error, slopes.std(ddof=1) * share, rtol=0.05)
    assert_allclose(found["fusion_enthalpy"].value, FUSION, atol=5 * found["fusion_enthalpy"].statistical_error)
    expected = TEMPERATURE / (1 + potential.members / FUSION)
    assert_allclose(found["melting_temperature"].members, expected, rtol=1e-4)


def test_the_statistical_error_is_that_of_repeated_runs(pinning):
    rng = np.random.default_rng(2)
    z = []
    for _ in range(60):
        found, *_ = pinning.coexistence(
            *runs(rng, -0.003, np.zeros(1), 1500), TEMPERATURE, KAPPA, CENTRE, N_ATOMS, DURATION
        )
        temperature, _ = found["melting_temperature"]
        assert temperature.committee_error is None
        expected = TEMPERATURE / (1 - 0.003 * (CRYSTAL - MELT) / N_ATOMS / FUSION)
        z.append((temperature.value - expected) / temperature.statistical_error)
    assert 0.75 < np.sqrt(np.mean(np.square(z))) < 1.35  # 60 of them: 1 ± 0.09


def diffusing_runs(rng, n_runs, n_frames, interval, mobility, pull):
    """Order parameters (n_runs, n_frames) of an interface that diffuses, beside faster fluctuations of both phases.

    The number of crystalline atoms n begins in equilibrium; Q is that of n and of Gaussian noise under the bias.
    """
    thermal = KB * TEMPERATURE
    slope = (CRYSTAL - MELT) / N_ATOMS
    noise = 160.0 * slope**2  # variance of Q at given n
    stiffness = 1 / (1 / KAPPA + noise / thermal) * slope**2  # what holds n once Q is averaged out
    decay = np.exp(-mobility * stiffness / thermal * interval)
    width = np.sqrt(thermal / stiffness)
    order = np.empty((n_runs, n_frames))
    place = width * rng.normal(size=n_runs)
    for frame in range(n_frames):
        order[:, frame] = CENTRE + slope * (place - pull * slope / stiffness) * thermal / (thermal + KAPPA * noise)
        place = decay * place + np.sqrt(1 - decay**2) * width * rng.normal(size=n_runs)
    return order + np.sqrt(1 / (KAPPA / thermal + 1 / noise)) * rng.normal(size=order.shape)


def test_the_mobility_is_that_of_the_interface_and_gives_runs_that_are_too_short_their_errors(pinning):
    rng = np.random.default_rng(3)
    mobility, pull, n_runs, interval = 13.0, 0.004, 60, 0.1
    slope = (CRYSTAL - MELT) / N_ATOMS
    crystal, melt, _ = runs(rng, pull, np.zeros(1))
    orders = diffusing_runs(rng, n_runs, 4000, interval, mobility, pull)
    interface = pinning.moving_interface(orders, orders, n_runs * 400.0, TEMPERATURE, KAPPA, slope)
    assert_allclose(interface.mobility, mobility, rtol=0.3)
    short = diffusing_runs(rng, n_runs, 300, interval, mobility, pull)
    settings = (TEMPERATURE, KAPPA, CENTRE, N_ATOMS, 30.0)
    deviations = {}
    for given in (None, pinning.Interface(mobility, memory=20.0)):
        z = []
        for order in short:
            results = pinning.coexistence(crystal, melt, (order, np.zeros((300, 1))), *settings, given)
            potential, reference = results[0]["chemical_potential"]
            z.append((potential.value - pull * slope) / potential.statistical_error)
            assert reference is None
            if given:
                assert results[1] <= 30.0 / 20.0
                assert results[2] == "doubtful"
        deviations[given is not None] = np.sqrt(np.mean(np.square(z)))
    assert deviations[False] > 1.5
    assert 0.6 < deviations[True] < 1.3  # a short run begins where it should, and goes less far: 1 or less


def test_the_reference_is_one_more_potential_whose_difference_is_better_known(pinning):
    slopes = 1e-3 * np.array([-1.0, -0.5, 0.0, 0.5, 1.0, 0.8])
    series = runs(np.random.default_rng(4), 0.004, slopes, 4000)
    found, *_ = pinning.coexistence(*series, TEMPERATURE, KAPPA, CENTRE, N_ATOMS, DURATION, reference=True)
    members = [(order, energies[:, :5]) for order, energies in series]
    without, *_ = pinning.coexistence(*members, TEMPERATURE, KAPPA, CENTRE, N_ATOMS, DURATION)
    of_committee, shift = found["chemical_potential"]
    assert_allclose(of_committee.members, without["chemical_potential"][0].members)
    assert_allclose(of_committee.committee_error, without["chemical_potential"][0].committee_error)
    assert_allclose(shift.value, 0.8e-3 * (CRYSTAL - MELT) / N_ATOMS, atol=4 * shift.statistical_error)
    assert shift.statistical_error < of_committee.statistical_error


@pytest.mark.skipif(find_kernel() is None, reason=f"no PLUMED kernel; {INSTALL}")
def test_the_bias_is_that_of_the_density_wave(tmp_path, monkeypatch):
    from comitia.engines.lammps_run import NoPotential
    from comitia.engines.plumed_bias import PlumedBias

    monkeypatch.chdir(tmp_path)
    atoms = bulk("Si", "diamond", 5.46, cubic=True).repeat((3, 3, 6))
    atoms.rattle(0.25, seed=3)
    cell = np.array(atoms.cell) * [[1], [1], [1.03]]
    waves = 4 * np.pi / 5.46 * np.array([[1.0, 1.0, 0.0], [1.0, -1.0, 0.0]])
    amplitudes = np.exp(1j * atoms.positions @ waves.T)  # (n_atoms, 2)
    sums = amplitudes.sum(axis=0)
    order = abs(sums).sum()
    bias = PlumedBias(FOLDER / "pinned.dat", atoms.get_masses(), 0.002)
    found = bias.compute(0, atoms.positions, cell, NoPotential().evaluator(atoms.numbers, True))
    bias.close()
    assert_allclose(found.bias, 0.5 * 0.0015 * (order - 390) ** 2, rtol=1e-6)
    gradient = -np.imag(amplitudes * sums.conj() / abs(sums)) @ waves
    # every fifth step, and five times as large
    assert_allclose(found.forces, -5 * 0.0015 * (order - 390) * gradient, atol=1e-7)
    assert_allclose(found.virial[2, 2], 0.0, atol=1e-9)  # nothing pulls at the length along z


def test_the_training_data_are_those_of_the_potential(tmp_path):
    """Forces, energy and stress of a structure, by finite differences and by LAMMPS."""
    from comitia.engines.lammps import import_lammps

    structures = ase.io.read(FOLDER / "data" / "train.xyz.xz", ":")
    assert {atoms.info["config_type"].split("_")[0] for atoms in structures} == {"crystal", "melt", "both"}
    atoms = structures[-1]
    lmp = import_lammps().lammps(cmdargs=["-log", "none", "-screen", "none"])
    x, y, z = atoms.cell.lengths()
    lmp.commands_string(
        f"""
        units metal
        atom_modify map yes sort 0 0
        region cell block 0 {float(x)} 0 {float(y)} 0 {float(z)}
        create_box 1 cell
        """
    )
    lmp.create_atoms(len(atoms), None, [1] * len(atoms), atoms.positions.ravel().tolist())
    lmp.commands_string(f"mass 1 28.0855\npair_style sw\npair_coeff * * {FOLDER / 'silicon.sw'} Si\nrun 0")
    assert_allclose(lmp.get_thermo("pe"), atoms.get_potential_energy(), atol=1e-2)
    order = np.argsort(lmp.numpy.extract_atom("id")[: len(atoms)])
    assert_allclose(lmp.numpy.extract_atom("f")[: len(atoms)][order], atoms.get_forces(), atol=2e-3)
    lmp.close()
