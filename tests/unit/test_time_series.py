"""Errors of correlated series, against AR(1) processes whose statistical inefficiency is known exactly."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from series import autoregressive

from comitia.errors import NumericalError, SeriesError
from comitia.thermodynamics.time_series import blocked_errors, equilibration, error_of_mean, statistical_inefficiency


@pytest.mark.parametrize("persistence", [0.0, 0.5, 0.9, 0.97])
def test_inefficiency_of_an_autoregressive_process(persistence):
    exact = (1 + persistence) / (1 - persistence)
    found = statistical_inefficiency(autoregressive(persistence, 20_000, 400, seed=1)) / exact
    # one of them is known to 20 %, their mean to 1 %; the monotone sequence errs a few per cent to the safe side
    assert -0.09 < found.mean() - 1 < 0.12
    assert np.mean(np.abs(found - 1) < 0.5) > 0.94


def two_time_scales(share, fast, slow, n_frames, n_series, seed):
    """Unit variance, of which `share` is slow; and the exact statistical inefficiency."""
    series = np.sqrt(1 - share) * autoregressive(fast, n_frames, n_series, seed)
    series += np.sqrt(share) * autoregressive(slow, n_frames, n_series, seed + 1)
    return series, (1 - share) * (1 + fast) / (1 - fast) + share * (1 + slow) / (1 - slow)


@pytest.mark.parametrize("persistence", [0.0, 0.8, 0.95])
def test_error_of_the_mean_covers_as_often_as_it_claims(persistence):
    series = autoregressive(persistence, 4_000 if persistence else 400, 1_000, seed=2)
    z = series.mean(axis=0) / error_of_mean(series)
    # the variance of z over 1000 repeats is known to 4.5 %
    assert abs(z.mean()) < 0.13
    assert 0.85 < z.var() < 1.15
    assert 0.93 < np.mean(np.abs(z) < 1.96) < 0.97


@pytest.mark.parametrize(
    ("share", "fast", "slow", "n_frames"),
    [(0.3, 0.0, 0.95, 12_400), pytest.param(0.1, 0.5, 0.99, 40_000, marks=pytest.mark.long)],
)
def test_a_slow_motion_of_small_amplitude_is_in_the_error(share, fast, slow, n_frames):
    """A tenth of the variance makes nearly nine tenths of the error; frame by frame it is lost in the noise."""
    series, inefficiency = two_time_scales(share, fast, slow, n_frames, 1_000, seed=31)
    z = series.mean(axis=0) / error_of_mean(series)
    assert abs(z.mean()) < 0.13
    assert 0.85 < z.var() < 1.15
    assert 0.93 <= np.mean(np.abs(z) < 1.96) < 0.97
    assert 0.85 < np.mean(error_of_mean(series) ** 2) / (inefficiency / n_frames) < 1.15


def test_independent_frames_have_the_textbook_error():
    series = np.random.default_rng(3).normal(size=500)
    if statistical_inefficiency(series) == 1:
        assert_allclose(error_of_mean(series), series.std(ddof=1) / np.sqrt(500), rtol=1e-12)
    assert_allclose(error_of_mean(series), series.std(ddof=1) / np.sqrt(500), rtol=0.15)


def test_columns_are_independent_of_each_other():
    series = autoregressive(0.7, 1_000, 3, seed=4)
    together = statistical_inefficiency(series)
    assert_allclose(together, [statistical_inefficiency(series[:, i]) for i in range(3)], rtol=1e-12)


def test_a_constant_offset_and_a_scale_change_nothing():
    series = autoregressive(0.9, 2_000, 1, seed=5)[:, 0]
    assert_allclose(statistical_inefficiency(1e4 + 1e-3 * series), statistical_inefficiency(series), rtol=1e-6)


def test_a_series_that_does_not_move_has_no_error():
    assert statistical_inefficiency(np.full(100, 7.3)) == 1
    assert error_of_mean(np.full(100, 7.3)) == pytest.approx(0, abs=1e-14)


def test_anticorrelation_is_not_made_use_of():
    assert statistical_inefficiency(np.tile([1.0, -1.0], 200)) == 1


def test_agrees_with_pymbar():
    timeseries = pytest.importorskip("pymbar.timeseries")
    series = autoregressive(0.9, 20_000, 40, seed=6)
    theirs = np.array([timeseries.statistical_inefficiency(column) for column in series.T])
    found = statistical_inefficiency(series)
    # theirs sums over frames, which is less noisy for one time scale: 8 % against 20 % each
    assert_allclose(found.mean(), theirs.mean(), rtol=0.1)
    assert np.mean(np.abs(found / theirs - 1) < 0.4) > 0.85


def test_blocking_levels_off_at_the_error():
    series = autoregressive(0.9, 2**15, 1, seed=7)[:, 0]
    length, error, uncertainty = blocked_errors(series)
    level = np.searchsorted(length, 256)
    assert abs(error[level] - np.sqrt(19 / 2**15)) < 4 * uncertainty[level]
    assert error[0] < 0.3 * error[level]
    assert_allclose(error[level], error_of_mean(series), rtol=0.35)


def test_equilibration_finds_the_end_of_the_approach():
    series = autoregressive(0.8, 4_000, 1, seed=8)[:, 0]
    start, _, n_independent = equilibration(series + 20 * np.exp(-np.arange(4_000) / 100))
    assert 300 <= start <= 1_000
    assert n_independent > 200
    assert equilibration(series)[0] <= 1_200
    timeseries = pytest.importorskip("pymbar.timeseries")
    theirs, _, _ = timeseries.detect_equilibration(series + 20 * np.exp(-np.arange(4_000) / 100), nskip=100)
    assert abs(start - theirs) <= 300


def test_a_number_that_is_not_finite_is_named():
    series = np.zeros((50, 3))
    series[17, 2] = np.nan
    with pytest.raises(NumericalError, match="frame 17, column 2"):
        error_of_mean(series)


def test_too_few_frames():
    with pytest.raises(SeriesError, match="9 frames"):
        error_of_mean(np.arange(9.0))
