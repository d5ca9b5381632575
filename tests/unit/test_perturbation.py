"""Free-energy perturbation against closed forms."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

import comitia
from comitia.errors import NumericalError, SeriesError
from comitia.thermodynamics import perturb
from comitia.units import KB

TEMPERATURE = 300.0
KT = KB * TEMPERATURE


def oscillators(ratio, n_frames, seed, n_dimensions=3):
    """Energies of exact samples of an oscillator, and of one whose force constant is `ratio` times larger."""
    energy = 0.5 * KT * np.sum(np.random.default_rng(seed).normal(size=(n_frames, n_dimensions)) ** 2, axis=1)
    return energy, ratio * energy, 0.5 * n_dimensions * KT * np.log(ratio)


@pytest.mark.parametrize("ratio", [0.9, 1.1, 1.5])
def test_harmonic_free_energy(ratio):
    model, reference, exact = oscillators(ratio, 20_000, seed=1)
    found = perturb(model, reference, TEMPERATURE)
    assert abs(found.delta_f - exact) < 4 * found.error
    assert_allclose(found.cumulants[0], 1.5 * KT * (ratio - 1), rtol=0.03)
    assert_allclose(found.cumulants[1], -0.75 * KT * (ratio - 1) ** 2, rtol=0.1)
    assert found.verdict == "reliable"
    assert comitia.thermodynamics.perturb is perturb


def test_error_covers_as_often_as_it_claims():
    z = []
    for seed in range(300):
        model, reference, exact = oscillators(1.2, 300, seed=seed)
        found = perturb(model, reference, TEMPERATURE)
        z.append((found.delta_f - exact) / found.error)
    assert abs(np.mean(z)) < 4 / np.sqrt(300)
    assert 0.9 < np.std(z) < 1.12


def test_energies_of_any_size_lose_no_digits():
    model, reference, _ = oscillators(1.1, 1_000, seed=2)
    plain = perturb(model, reference, TEMPERATURE)
    moved = perturb(model, reference - 2.0e4, TEMPERATURE)
    assert moved.delta_f + 2.0e4 == pytest.approx(plain.delta_f, abs=1e-9)
    assert moved.error == pytest.approx(plain.error, rel=1e-6)
    assert moved.effective_sample_size == pytest.approx(plain.effective_sample_size, rel=1e-6)


def test_a_bias_is_undone():
    """Sampled with twice the force constant, that is with the bias V."""
    rng = np.random.default_rng(3)
    energy = 0.25 * KT * np.sum(rng.normal(size=(40_000, 3)) ** 2, axis=1)
    found = perturb(energy, 1.1 * energy, TEMPERATURE, bias=energy)
    assert abs(found.delta_f - 1.5 * KT * np.log(1.1)) < 4 * found.error


def test_verdict_follows_the_overlap():
    rng = np.random.default_rng(4)
    model = rng.normal(size=2_000)
    verdicts = [
        perturb(model, model + KT * spread * rng.normal(size=2_000), TEMPERATURE).verdict for spread in (0.5, 1.6, 6.0)
    ]
    assert verdicts == ["reliable", "doubtful", "unreliable"]


def test_bad_input_is_named():
    with pytest.raises(SeriesError, match="one of each"):
        perturb(np.zeros(50), np.zeros(49), TEMPERATURE)
    with pytest.raises(NumericalError, match="reference energies, frame 3"):
        perturb(np.zeros(50), np.r_[np.zeros(3), np.inf, np.zeros(46)], TEMPERATURE)
