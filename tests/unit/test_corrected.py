"""Averages, profiles and differences carried to a reference, the test of the calibration, and the choice of frames."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.signal import lfilter

from comitia.errors import SeriesError, UsageError
from comitia.thermodynamics import (
    calibration_test,
    corrected_profile,
    difference_of_states,
    perturb,
    perturb_both_ends,
    profile,
    reweight_to_reference,
    stratified_frames,
    uncorrelated_frames,
)
from comitia.units import KB

TEMPERATURE = 300.0
KT = KB * TEMPERATURE


def test_an_average_under_the_reference_covers_as_often_as_it_claims():
    """<x²> of an oscillator with another force constant, from frames of the first."""
    z = []
    for seed in range(300):
        x = np.random.default_rng(seed).normal(size=400)
        energy = 0.5 * KT * x**2
        found = reweight_to_reference(x**2, energy, 1.3 * energy, TEMPERATURE)
        z.append((found.mean - 1 / 1.3) / found.statistical_error)
    assert abs(np.mean(z)) < 0.25
    assert 0.85 < np.var(z) < 1.2
    assert found.verdict == "reliable"
    assert found.as_dict("Å²")["committee_error"] is None
    assert reweight_to_reference(np.ones(400), energy, 1.3 * energy, TEMPERATURE).verdict == "exact"
    with pytest.raises(SeriesError, match="400 frames"):
        reweight_to_reference(np.ones(40), energy, 1.3 * energy, TEMPERATURE)


@pytest.mark.long
@pytest.mark.parametrize("correlation", [0.0, 0.8])
def test_averages_under_the_reference_1000_times(correlation):
    z = []
    for seed in range(1000):
        n_frames = 400 if correlation == 0 else 4_000
        noise = np.sqrt(1 - correlation**2) * np.random.default_rng(seed).normal(size=n_frames + 200)
        x = lfilter([1], [1, -correlation], noise)[200:]
        energy = 0.5 * KT * x**2
        found = reweight_to_reference(x**2, energy, 1.2 * energy, TEMPERATURE)
        z.append((found.mean - 1 / 1.2) / found.statistical_error)
    coverage = np.mean(np.abs(z) < 1.96)
    print(f"mean z {np.mean(z):+.3f}, variance {np.var(z):.3f}, coverage {100 * coverage:.1f} %")
    assert abs(np.mean(z)) <= 0.15
    assert 0.85 <= np.var(z) <= 1.15
    assert 0.93 <= coverage <= 0.97


def test_sampling_and_perturbation_have_one_error():
    """<x²> of correlated frames, a tenth of which have reference energies: as often inside the error as it claims."""
    z, errors, of_few = [], [], []
    for seed in range(150):
        x = lfilter([1], [1, -0.8], 0.6 * np.random.default_rng(seed).normal(size=6_200))[200:]
        energy, chosen = 0.5 * KT * x**2, np.arange(5, 6_000, 20)
        found = reweight_to_reference(x**2, energy[chosen], 1.1 * energy[chosen], TEMPERATURE, chosen=chosen)
        z.append((found.mean - 1 / 1.1) / found.statistical_error)
        errors.append(found.statistical_error)
        few = reweight_to_reference(x[chosen] ** 2, energy[chosen], 1.1 * energy[chosen], TEMPERATURE)
        of_few.append(few.statistical_error)
    assert abs(np.mean(z)) < 0.3
    assert 0.75 < np.var(z) < 1.3
    assert np.mean(errors) < 0.8 * np.mean(of_few)


def test_a_profile_is_carried_to_the_reference():
    """A double well that the reference tilts: F_ref(x) = F(x) + tilt x, up to a constant, bin by bin."""
    rng = np.random.default_rng(1)
    x = rng.choice([-1.0, 1.0], size=40_000) + 0.25 * rng.normal(size=40_000)
    y = rng.normal(size=40_000)
    model = 0.5 * KT * y**2
    reference = model + 0.5 * KT * x + 0.3 * KT * y
    edges = np.linspace(-1.6, 1.6, 17)
    of_model = profile(x, edges, model[:, None], TEMPERATURE)
    few = slice(None, None, 40)
    found = corrected_profile(of_model, x[few], edges, model[few], reference[few], TEMPERATURE)
    shift = found.value - of_model.value - 0.5 * KT * found.x
    seen = np.isfinite(shift) & (found.statistical_error < 0.1 * KT)
    assert seen.sum() >= 10
    assert_allclose(shift[seen] - np.median(shift[seen]), 0, atol=0.3 * KT)
    z = (shift - np.median(shift[seen]))[seen] / found.statistical_error[seen]
    assert np.sqrt(np.mean(z**2)) < 1.7
    assert found.committee_error is None


def test_two_states_of_one_trajectory():
    """The constant drops out, and the error covers as often as it claims while the states come and go."""
    z = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        common = lfilter([1], [1, -0.8], 0.6 * rng.normal(size=2_200))[200:]
        state = np.cumsum(rng.random(2_000) < 0.02) % 2
        model = 0.5 * KT * common**2
        reference = model + KT * (0.4 * common + 0.2 * state) - 1.0e4
        found = difference_of_states(model, reference, TEMPERATURE, state)
        z.append((found.delta_f - 0.2 * KT) / found.error)
    assert abs(np.mean(z)) < 0.4
    assert 0.6 < np.var(z) < 1.5
    with pytest.raises(UsageError, match="1, 0 or -1"):
        difference_of_states(model, reference, TEMPERATURE, state + 1)


@pytest.mark.parametrize(("alpha", "share"), [(1.0, 0.05), (0.2, 1.0)])
def test_the_reference_is_one_more_member(alpha, share):
    """Where members and reference come from one distribution the test refuses 5 %; with members too alike, most."""
    refused = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=300)
        model = 0.5 * KT * x**2
        members = model[:, None] + alpha * 0.2 * KT * _centred(rng.normal(size=8)) + 0 * x[:, None]
        reference = model + 0.2 * KT * rng.normal() + 0.05 * KT * x
        found = calibration_test(members, model, reference, TEMPERATURE)
        refused += found.verdict == "inconsistent"
    assert refused / 300 == pytest.approx(share, abs=0.035) or (share == 1.0 and refused / 300 > 0.5)
    assert found.as_dict()["spread"] == pytest.approx(found.members.std(ddof=1))
    with pytest.raises(SeriesError, match="two members"):
        calibration_test(model[:, None], model, reference, TEMPERATURE)


def _centred(values):
    return values - values.mean()


@pytest.mark.parametrize("size", [1.0, 50.0, 1e6])
def test_without_any_overlap_every_number_is_finite_and_unreliable(size):
    """One frame carries everything: no warning, no nan, no error of zero."""
    rng = np.random.default_rng(1)
    model = size * rng.normal(size=100)
    reference = rng.permutation(model)
    found = perturb(model, reference, TEMPERATURE)
    states = difference_of_states(model, reference, TEMPERATURE, np.arange(100) % 2)
    average = reweight_to_reference(rng.normal(size=100), model, reference, TEMPERATURE)
    both = perturb_both_ends((model, reference), (reference, model), TEMPERATURE)
    assert {found.verdict, states.verdict, average.verdict, both.verdict} == {"unreliable"}
    for value, error in (
        (found.delta_f, found.error),
        (states.delta_f, states.error),
        (average.mean, average.statistical_error),
        (both.delta_f, both.error),
    ):
        assert np.isfinite([value, error]).all()
        assert error > 0
    test = calibration_test(np.stack([model, reference, model], axis=1), model, reference, TEMPERATURE)
    assert np.isfinite([test.z, test.probability]).all()


def test_uncorrelated_frames_are_as_far_apart_as_the_correlation_asks():
    x = lfilter([1], [1, -0.9], np.random.default_rng(1).normal(size=20_000))
    chosen = uncorrelated_frames(x, first=0)
    assert len(chosen) == pytest.approx(20_000 / 19, rel=0.2)
    assert (np.diff(chosen) >= 14).all()
    fifty = uncorrelated_frames(x, n_frames=50)
    assert len(fifty) == 50
    assert np.ptp(np.diff(fifty)) <= 1
    assert len(uncorrelated_frames(x, n_frames=10**6, first=0)) == len(chosen)
    approach = np.r_[np.linspace(30, 0, 500), np.random.default_rng(2).normal(size=1500)]
    assert uncorrelated_frames(approach, n_frames=20)[0] > 350


def test_stratified_frames_stand_for_all():
    x = np.random.default_rng(1).normal(size=5_000)
    edges = np.linspace(-3, 3, 7)
    indices, weights = stratified_frames(x, 60, edges)
    assert len(indices) == 60
    assert (np.diff(indices) > 0).all()
    counts = np.histogram(x[indices], edges)[0]
    assert counts.min() >= 9
    assert weights.sum() == np.histogram(x, edges)[0].sum()
    assert weights @ x[indices] ** 2 / weights.sum() == pytest.approx(0.97, abs=0.1)
    with pytest.raises(UsageError, match="for 6 bins"):
        stratified_frames(x, 3, edges)
