"""Calibration: for a Gaussian truth alpha is the factor needed, and intervals cover what they claim."""

import numpy as np
import pytest
from scipy import stats

from comitia.training.calibration import (
    binned_errors,
    calibrate,
    calibrate_forces,
    miscalibration_area,
    negative_log_likelihood,
    predictive_sigma,
    summarise,
)
from comitia.training.validation import Evaluation, Record

N_STRUCTURES = 20_000


def gaussian_truth(n_members, alpha, recentred, seed=1, n=N_STRUCTURES):
    """Errors and raw spreads when members and truth scatter about one centre, the truth alpha times as widely."""
    rng = np.random.default_rng(seed)
    width = np.exp(rng.normal(size=n))
    members = width[:, None] * rng.normal(size=(n, n_members))
    truth = alpha * width * rng.normal(size=n)
    mean = 0.0 if recentred else members.mean(axis=1)
    return truth - mean, members.std(axis=1, ddof=1)


@pytest.mark.parametrize("recentred", [True, False])
@pytest.mark.parametrize("n_members", [8, 16, 64])
@pytest.mark.parametrize("alpha", [0.7, 3.0])
def test_alpha_of_a_gaussian_truth(n_members, alpha, recentred):
    found = calibrate(*gaussian_truth(n_members, alpha, recentred), n_members, recentred)
    # <e²/s²> scatters as the square of Student's t: relative variance 2 (M − 2)/(M − 5) per structure
    tolerance = 4 * 0.5 * np.sqrt(2 * (n_members - 2) / (n_members - 5) / N_STRUCTURES) * (1 + 1 / alpha**2)
    assert found.warning is None
    assert found.count == N_STRUCTURES
    assert abs(found.alpha / alpha - 1) < tolerance


@pytest.mark.parametrize("recentred", [True, False])
@pytest.mark.parametrize("n_members", [4, 16])
def test_intervals_cover_what_they_claim(n_members, recentred):
    alpha = 2.0
    error, spread = gaussian_truth(n_members, alpha, recentred, seed=2)
    scale = predictive_sigma(alpha * spread, n_members, alpha, recentred)
    for claimed in (0.5, 0.9, 0.95):
        covered = np.mean(np.abs(error / scale) < stats.t(n_members - 1).ppf(0.5 + claimed / 2))
        assert abs(covered - claimed) < 4 * np.sqrt(claimed * (1 - claimed) / N_STRUCTURES)
    assert miscalibration_area(error / scale, n_members) < 0.01


def test_three_members_or_tiny_errors_use_the_plain_formula_and_say_so():
    error, spread = gaussian_truth(3, 1.5, False)
    found = calibrate(error, spread, 3, False)
    assert "fewer than 4" in found.warning
    assert found.alpha == pytest.approx(np.sqrt(np.mean((error / spread) ** 2) / (1 + 1 / 3)))
    found = calibrate(1e-3 * error, spread, 8, False)
    assert "smaller than the noise" in found.warning
    assert found.alpha > 0


def test_no_spread_is_not_a_division_by_zero():
    found = calibrate(np.ones(5), np.zeros(5), 8, True)
    assert found.alpha == 1.0
    assert found.count == 0


@pytest.mark.parametrize("recentred", [True, False])
@pytest.mark.parametrize(("alpha", "floor"), [(2.0, 0.0), (2.0, 0.7), (0.8, 2.0)])
def test_forces_whose_members_agree_on_a_wrong_answer_have_a_floor(alpha, floor, recentred):
    n_members = 16
    error, spread = gaussian_truth(n_members, alpha, recentred, seed=3)
    error = error + floor * np.random.default_rng(4).normal(size=len(error))
    found = calibrate_forces(error, spread, n_members, recentred)
    assert found.warning is None
    # the scale is Student's t only where the floor does not count: a few per cent of bias stay
    assert found.alpha == pytest.approx(alpha, rel=0.08)
    assert found.floor == pytest.approx(floor, rel=0.08, abs=0.1)  # a twentieth of the median scale
    scale = predictive_sigma(found.alpha * spread, n_members, found.alpha, recentred, found.floor)
    for claimed in (0.5, 0.9, 0.95):
        covered = np.mean(np.abs(error / scale) < stats.t(n_members - 1).ppf(0.5 + claimed / 2))
        assert abs(covered - claimed) < 0.02
    assert miscalibration_area(error / scale, n_members) < 0.01
    assert summarise(error, scale, n_members)["rms_z"] == pytest.approx(1, abs=0.08)


def test_a_few_outliers_do_not_widen_the_forces_of_all_others():
    error, spread = gaussian_truth(16, 2.0, True, seed=5)
    error[:20] *= 100
    found = calibrate_forces(error, spread, 16, True)
    assert found.alpha == pytest.approx(2.0, rel=0.05)
    assert calibrate(error, spread, 16, True).alpha > 4


def test_force_calibration_of_spreads_that_say_nothing_is_finite():
    rng = np.random.default_rng(6)
    error = rng.normal(size=2000)
    found = calibrate_forces(error, np.full(2000, 0.1), 16, True)
    assert np.hypot(found.floor, 0.1 * found.alpha) == pytest.approx(1, rel=0.1)
    assert calibrate_forces(np.zeros(9), np.ones(9), 16, True).alpha == 1
    assert calibrate_forces(np.empty(0), np.empty(0), 16, True).count == 0
    assert calibrate_forces(error, np.full(2000, 0.1), 3, True).floor == 0


def test_binned_errors_of_a_calibrated_committee_are_those_expected():
    error, spread = gaussian_truth(16, 2.0, True, seed=7)
    expected, observed = binned_errors(error, 2.0 * spread, 16)
    assert len(expected) == len(observed) == 12
    assert np.all(np.diff(expected) > 0)
    # the spread that sorts the bins is the estimate itself: the outer bins regress to the mean
    assert np.median(np.abs(np.log(np.array(observed) / expected))) < 0.1


def test_miscalibration_area_of_known_curves():
    quantiles = stats.norm.ppf((np.arange(10_000) + 0.5) / 10_000)
    assert miscalibration_area(quantiles) < 1e-3
    assert miscalibration_area(1e6 * quantiles) == pytest.approx(0.5, abs=0.01)
    assert miscalibration_area(1e-6 * quantiles) == pytest.approx(0.5, abs=0.01)


def test_likelihood_is_a_density():
    x = np.linspace(-400, 400, 800_001)
    for n_members in (None, 16):
        assert np.trapezoid(np.exp(-negative_log_likelihood(x, 1.7, n_members)), x) == pytest.approx(1, abs=1e-6)


def test_a_committee_that_ranks_errors_beats_a_constant_sigma():
    error, spread = gaussian_truth(16, 2.0, True)
    found = summarise(error, 2.0 * spread, 16)
    assert found["nll_difference"] < -5 * found["nll_difference_error"]
    assert found["rms_z"] == pytest.approx(1, abs=0.05)
    assert found["rank_correlation"] > 0.3
    assert found["curve"]["expected"][0] == 0
    assert found["curve"]["observed"][-1] == 1
    useless = summarise(error[np.random.default_rng(0).permutation(N_STRUCTURES)], 2.0 * spread, 16)
    assert useless["nll_difference"] > 0


def test_a_fold_is_judged_by_the_factor_of_the_others():
    error, spread = gaussian_truth(16, 2.0, True, n=500)
    records = [
        Record(
            "a", 1, energy_error=e, energy_spread=s, force_error=np.array([e]), force_spread=np.array([s]), fold=i % 5
        )
        for i, (e, s) in enumerate(zip(error, spread, strict=True))
    ]
    evaluation = Evaluation(records, 16, True)
    crossed = evaluation.cross_calibration()["energy"]
    assert 0.85 < crossed["rms_z"] < 1.2
    for record in records:
        if record.fold == 0:
            record.energy_error *= 10
    assert evaluation.cross_calibration()["energy"]["rms_z"] > 2  # its own errors must not widen its sigma
