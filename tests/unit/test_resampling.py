"""Errors from blocks: known errors of means, of functions of means, and of differences; replicas of the bootstrap."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from series import autoregressive

from comitia.errors import SeriesError
from comitia.thermodynamics.resampling import bootstrap, bootstrap_counts, error_of_sum, estimate
from comitia.thermodynamics.time_series import block_length, block_sums, error_of_mean


def sums_of(*series):
    """Weights of the blocks (their frames), and the sums of every series."""
    return block_sums(np.ones(len(series[0]))), *(block_sums(values) for values in series)


def mean(weights, sums):
    return sums / weights


@pytest.mark.parametrize("n_frames", [10, 255, 256, 257, 1_000, 100_000])
def test_blocks_hold_every_frame_once(n_frames):
    sums = block_sums(np.ones((n_frames, 2)))
    assert_allclose(sums.sum(axis=0), n_frames)
    assert len(sums) <= 256
    assert len(sums) >= min(n_frames, 128)
    assert np.all(sums[:-1] == block_length(n_frames))


@pytest.mark.parametrize("n_frames", [200, 3_001])
def test_leaving_blocks_out_gives_the_error_of_a_mean(n_frames):
    for series in autoregressive(0.7, n_frames, 5, seed=1).T:
        weights, sums = sums_of(series)
        found = estimate(mean, weights, weights, sums)
        assert found.value == pytest.approx(series.mean(), rel=1e-12)
        assert_allclose(found.contributions.sum(), 0, atol=1e-12)
        assert found.error == pytest.approx(error_of_mean(series), rel=0.01)


def test_error_of_a_function_of_averages_covers_as_often_as_it_claims():
    """The variance of a Gaussian from its first two moments, the quantity behind a heat capacity."""
    series = autoregressive(0.6, 3_000, 1_000, seed=2)
    weights, first, second = sums_of(series, series**2)
    weights = weights[:, None]
    found = estimate(lambda n, x, xx: xx / n - (x / n) ** 2, weights[:, 0], weights, first, second)
    z = (found.value - 1) / found.error
    assert abs(z.mean()) < 0.15
    assert 0.85 < z.var() < 1.15
    assert 0.93 < np.mean(np.abs(z) < 1.96) < 0.97


def test_noise_that_two_averages_share_leaves_their_difference():
    shared, own = autoregressive(0.9, 4_000, 2, seed=3).T
    weights, first, second = sums_of(shared, shared + 0.01 * own)
    found = [estimate(mean, weights, weights, sums) for sums in (first, second)]
    difference = error_of_sum(found[1].contributions - found[0].contributions)
    assert difference == pytest.approx(0.01 * error_of_mean(own), rel=0.02)
    assert difference < 0.02 * found[0].error


def test_weights_are_part_of_the_error():
    """A ratio of sums: weights that go with the observable make its average better known, others worse."""
    rng = np.random.default_rng(4)
    z = []
    for _ in range(400):
        x = rng.normal(size=600)
        weight = np.exp(0.5 * x)
        frames, totals, weighted = sums_of(weight, weight * x)
        found = estimate(mean, frames, totals, weighted)
        z.append((found.value - 0.5) / found.error)
    assert 0.8 < np.var(z) < 1.2


def test_replicas_are_drawn_in_runs_and_evenly():
    counts = bootstrap_counts(200, 10, 2_000, seed=5)
    assert counts.shape == (2_000, 200)
    assert np.all(counts.sum(axis=1) == 200)
    assert_allclose(counts.mean(axis=0), 1, atol=5 / np.sqrt(2_000))
    together = np.mean((counts[:, 1:] - 1) * (counts[:, :-1] - 1))
    assert together == pytest.approx(0.9, abs=0.05)
    assert np.array_equal(counts, bootstrap_counts(200, 10, 2_000, seed=5))


def test_bootstrap_has_the_error_and_the_skewness():
    """The mean of n exponentials: skewness 2/sqrt(n)."""
    series = np.random.default_rng(6).exponential(size=(250, 300))
    weights, sums = sums_of(series)
    found, replicas = bootstrap(mean, weights, weights[:, None], sums, n_replicas=2_000)
    assert_allclose(replicas.std(axis=0), found.error, rtol=1e-10)
    deviation = (replicas - replicas.mean(axis=0)) / replicas.std(axis=0)
    assert np.mean(deviation**3) == pytest.approx(2 / np.sqrt(250), rel=0.15)
    correlated = autoregressive(0.9, 20_000, 1, seed=7)[:, 0]
    weights, sums = sums_of(correlated)
    found, replicas = bootstrap(mean, weights, weights, sums)
    assert replicas.std() == pytest.approx(np.sqrt(19 / 20_000), rel=0.35)


def test_too_few_blocks_are_refused():
    with pytest.raises(SeriesError, match="9 blocks"):
        estimate(mean, np.ones(9), np.ones(9), np.ones(9))
