"""Frames of several states at once: pymbar's numbers, exact averages, and errors that cover."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from series import autoregressive

from comitia.errors import SeriesError, UsageError
from comitia.thermodynamics import MultistateEnsemble, error_of_sum, reweight
from comitia.units import KB

pymbar = pytest.importorskip("pymbar")
pytestmark = pytest.mark.filterwarnings("ignore:Unknown solver options")
TEMPERATURE = 300.0
KT = KB * TEMPERATURE
CHANGES = np.array([-0.06, 0.0, 0.06])
CENTRES = np.array([-2.0, 0.0, 2.0])


def umbrella(n_frames, seed, persistence=0.0):
    """An oscillator, kbar = kT, in three windows of half its force constant; member energies, states, biases."""
    x = autoregressive(persistence, n_frames, 3, seed) / np.sqrt(1.5) + CENTRES / 3
    x = x.T.ravel()
    energies = 0.5 * KT * (1 + CHANGES) * (x**2)[:, None]
    return x, energies, np.repeat(np.arange(3), n_frames), 0.25 * KT * (x[:, None] - CENTRES) ** 2


def exchange(n_frames, seed):
    """The same oscillator sampled at three temperatures."""
    temperatures = np.array([250.0, 300.0, 400.0])
    x = np.random.default_rng(seed).normal(size=(3, n_frames)) * np.sqrt(temperatures / TEMPERATURE)[:, None]
    x = x.ravel()
    return x, 0.5 * KT * (1 + CHANGES) * (x**2)[:, None], np.repeat(np.arange(3), n_frames), temperatures


def test_umbrella_windows_equal_pymbar():
    """The members are extra states without samples."""
    x, energies, states, bias = umbrella(400, seed=1)
    found = MultistateEnsemble(energies + 30.0, states, np.full(3, TEMPERATURE), TEMPERATURE, bias)
    reduced = np.vstack([(energies.mean(axis=1)[:, None] + bias).T, energies.T]) / KT
    theirs = pymbar.MBAR(reduced, np.array([400, 400, 400, 0, 0, 0]))
    assert_allclose(found.free_energies, theirs.f_k[:3], atol=1e-8)
    assert_allclose(found.weights, theirs.W_nk[:, 3:], atol=1e-8)
    average = found.average(x**2)
    expected = [theirs.compute_expectations(x**2, state_dependent=False)["mu"][k] for k in (3, 4, 5)]
    assert_allclose(average.members, expected, atol=1e-8)
    value, error = found.member_free_energies()
    differences = theirs.compute_free_energy_differences()
    assert_allclose(value, differences["Delta_f"][0, 3:], atol=1e-8)
    assert_allclose(error, differences["dDelta_f"][0, 3:], rtol=0.3)


def test_temperatures_equal_pymbar():
    x, energies, states, temperatures = exchange(300, seed=2)
    found = MultistateEnsemble(energies, states, temperatures, TEMPERATURE)
    reduced = np.vstack([energies.mean(axis=1) / (KB * temperatures)[:, None], energies.T / KT])
    theirs = pymbar.MBAR(reduced, np.array([300, 300, 300, 0, 0, 0]))
    expected = theirs.compute_expectations(x**2)["mu"][3:]
    assert_allclose(found.average(x**2).members, expected, atol=1e-8)


def test_one_state_is_direct_reweighting():
    x, energies, _, _ = exchange(2_000, seed=3)
    x, energies = x[2_000:4_000], energies[2_000:4_000]
    found = MultistateEnsemble(energies, np.zeros(2_000, dtype=int), [TEMPERATURE], TEMPERATURE).average(x**2)
    plain = reweight(x**2, energies, TEMPERATURE, method="direct")
    assert_allclose(found.members, plain.members, rtol=1e-10)
    assert found.statistical_error == pytest.approx(plain.statistical_error, rel=0.02)
    assert found.committee_error == pytest.approx(plain.committee_error, rel=0.05)
    assert found.verdict == plain.verdict == "reliable"


@pytest.mark.parametrize("persistence", [0.0, pytest.param(0.8, marks=pytest.mark.long)])
def test_errors_cover_as_often_as_they_claim(persistence):
    """<x^2>_k = 1/(1 + c_k) from three windows; free energies ln(1 + c_k)/2 beside the mean potential."""
    z, z_free = [], []
    for seed in range(150):
        x, energies, states, bias = umbrella(300 if persistence == 0 else 1_500, 100 + seed, persistence)
        ensemble = MultistateEnsemble(energies, states, np.full(3, TEMPERATURE), TEMPERATURE, bias)
        average = ensemble.average(x**2)
        z.append((average.members - 1 / (1 + CHANGES)) / error_of_sum(average.contributions))
        value, error = ensemble.member_free_energies()
        # window 0 has 1.5 times the force constant, ln(1.5)/2, and is lifted by c^2/6 where x = c/3
        z_free.append((value[1] + 0.5 * np.log(1.5) + CENTRES[0] ** 2 / 6) / error[1])
    z = np.array(z)
    assert np.all(np.abs(z.mean(axis=0)) < 0.3)
    assert np.all((z.var(axis=0) > 0.75) & (z.var(axis=0) < 1.3))
    assert abs(np.mean(z_free)) < 0.3
    assert 0.75 < np.var(z_free) < 1.3


def test_a_constant_is_exact_and_members_have_their_estimators():
    x, energies, states, bias = umbrella(2_000, seed=5)
    ensemble = MultistateEnsemble(energies, states, np.full(3, TEMPERATURE), TEMPERATURE, bias)
    assert ensemble.average(np.full(len(x), 2.0)).verdict == "exact"
    potential = ensemble.average(energies)
    assert np.all(np.abs(potential.members - 0.5 * KT) < 4 * potential.statistical_error)


@pytest.mark.parametrize(("distance", "verdict"), [(2.0, "reliable"), (12.0, "doubtful"), (14.5, "unreliable")])
def test_windows_that_do_not_overlap_are_seen(distance, verdict):
    """The weights of the middle window alone look good: what the others add to it is not known."""
    rng = np.random.default_rng(7)
    x = (rng.normal(size=(3, 4_000)) / np.sqrt(1.5) + distance * np.array([[-1.0], [0.0], [1.0]]) / 3).ravel()
    centres = distance * np.array([-1.0, 0.0, 1.0])
    bias = 0.25 * KT * (x[:, None] - centres) ** 2
    energies = 0.5 * KT * (1 + CHANGES) * (x**2)[:, None]
    ensemble = MultistateEnsemble(energies, np.repeat(np.arange(3), 4_000), np.full(3, TEMPERATURE), TEMPERATURE, bias)
    found = ensemble.average(x**2)
    assert found.verdict == verdict
    assert ("overlap" in found.reason) == (verdict != "reliable")
    assert ensemble.average(x**2, [("unreliable", "the frames are those of another run")]).verdict == "unreliable"


def test_copies_of_frames_add_nothing():
    x, energies, states, bias = umbrella(500, seed=8)
    once = MultistateEnsemble(energies, states, np.full(3, TEMPERATURE), TEMPERATURE, bias).average(x**2)
    twice = np.concatenate([np.tile(np.arange(500) + 500 * i, 2) for i in range(3)])
    ensemble = MultistateEnsemble(energies[twice], states[twice], np.full(3, TEMPERATURE), TEMPERATURE, bias[twice])
    found = ensemble.average(x[twice] ** 2)
    assert found.verdict == "doubtful"
    assert "50 % of the frames are copies" in found.reason
    assert found.statistical_error == pytest.approx(once.statistical_error, rel=0.15)


def test_what_does_not_fit_is_named():
    x, energies, states, bias = umbrella(50, seed=6)
    temperatures = np.full(3, TEMPERATURE)
    apart = bias + 100.0 * ((states[:, None] == 0) != (np.arange(3) == 0))  # eV
    with pytest.raises(SeriesError, match="states 0 and the others have no frames in common"):
        MultistateEnsemble(energies, states, temperatures, TEMPERATURE, apart)
    with pytest.raises(SeriesError, match="0 to 1"):
        MultistateEnsemble(energies, states, temperatures[:2], TEMPERATURE)
    with pytest.raises(SeriesError, match="150 frames in each of 3 states"):
        MultistateEnsemble(energies, states, temperatures, TEMPERATURE, bias[:, :2])
    with pytest.raises(UsageError, match="above 0"):
        MultistateEnsemble(energies, states, -temperatures, TEMPERATURE)
    with pytest.raises(SeriesError, match="sample longer"):
        MultistateEnsemble(energies[:105], states[:105], temperatures, TEMPERATURE, bias[:105])
    with pytest.raises(SeriesError, match="observable has shape"):
        MultistateEnsemble(energies, states, temperatures, TEMPERATURE, bias).average(x[:40])
