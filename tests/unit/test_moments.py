"""Sums over blocks of frames: any chunks, several observables, other temperatures, functions of averages."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from series import autoregressive

from comitia.errors import NumericalError, SeriesError, UsageError
from comitia.thermodynamics import MemberMoments, averages, combine, heat_capacity, reweight, reweight_all
from comitia.units import KB

TEMPERATURE = 300.0
KT = KB * TEMPERATURE
CHANGES = np.array([-0.06, -0.02, 0.03, 0.05])


def series(n_frames, seed):
    """Member energies, two observables, one observable with member estimators, and a bias."""
    x = autoregressive(0.8, n_frames, 3, seed)
    energies = 0.5 * KT * (1 + CHANGES) * np.sum(x**2, axis=1)[:, None] + 0.05 * KT * x[:, :1] * [1, -1, 0, 0]
    return energies, x[:, :2] ** 2 + 5, energies[:, None] - 3, 0.2 * KT * np.sin(x[:, 0])


def same(first, second, size_rtol=1e-9):
    for name in ("members", "statistical_error", "committee_error", "spread"):
        assert_allclose(getattr(first, name), getattr(second, name), rtol=1e-9)
    assert_allclose(first.effective_sample_size, second.effective_sample_size, rtol=size_rtol)
    assert first.verdict == second.verdict


@pytest.mark.parametrize("method", ["cea", "direct"])
def test_chunks_of_any_size_give_the_same(method):
    """The sums merge blocks as frames come in, and follow the largest weight, wherever it comes."""
    n_frames = 3_001
    energies, observables, estimators, bias = series(n_frames, seed=1)
    bias[n_frames // 2 :] += 3 * KT
    whole = MemberMoments(TEMPERATURE, method)
    whole.add(energies, observables, estimators, bias=bias)
    cuts = np.sort(np.random.default_rng(2).integers(0, n_frames, size=60))
    pieces = MemberMoments(TEMPERATURE, method, driving="given")
    for part in np.split(np.arange(n_frames), cuts):
        pieces.add(energies[part], observables[part], estimators[part], energies[part].mean(axis=1), bias[part])
    assert pieces.n_frames == n_frames
    for first, second in zip(averages(whole), averages(pieces), strict=True):
        same(first, second, size_rtol=1e-3)  # its correlation is that of fluctuations about the first chunk's mean


@pytest.mark.parametrize("method", ["cea", "direct"])
def test_several_observables_are_those_taken_one_by_one(method):
    energies, observables, estimators, bias = series(2_000, seed=3)
    named = {"energy": estimators[:, 0], "x": observables[:, 0], "y": observables[:, 1]}
    together = reweight_all(named, energies, TEMPERATURE, method, bias=bias)
    assert list(together) == list(named)
    for name, values in named.items():
        same(together[name], reweight(values, energies, TEMPERATURE, method, bias=bias))
    as_matrix = reweight_all(observables, energies, TEMPERATURE, method, bias=bias)
    same(as_matrix[1], together["y"])


@pytest.mark.parametrize("method", ["cea", "direct"])
def test_another_temperature(method):
    """Sampled at 300 K; the oscillator at 310 K has <r^2> and <V> larger by a thirtieth, to first order at least."""
    rng = np.random.default_rng(4)
    square = np.sum(rng.normal(size=(40_000, 3)) ** 2, axis=1)
    energies = 0.5 * KT * (1 + CHANGES) * square[:, None]
    warm = reweight(square, energies, 310.0, method, sampled_temperature=TEMPERATURE)
    ratio = 310 / TEMPERATURE
    exact = 3 * ratio / (1 + CHANGES) if method == "direct" else 3 * (2 - (1 + CHANGES) / ratio)
    assert np.all(np.abs(warm.members - exact) < 4 * warm.statistical_error)
    assert warm.mean - 3 > 4 * warm.statistical_error
    biased = reweight(square, energies, 310.0, method, sampled_temperature=TEMPERATURE, bias=0.1 * KT * square)
    assert_allclose(biased.mean, 1 / (1 / exact.mean() - 0.2 / 3), rtol=0.05)


@pytest.mark.parametrize("method", ["cea", "direct"])
def test_heat_capacity_of_an_oscillator_is_that_of_equipartition(method):
    """3/2 k for each member, whatever its force constant; in the expansion only to first order."""
    rng = np.random.default_rng(5)
    square = np.sum(rng.normal(size=(40_000, 3)) ** 2, axis=1)
    energies = 0.5 * KT * (1 + CHANGES) * square[:, None] - 2.0e4
    found = heat_capacity(energies, TEMPERATURE, method)
    slack = 3 * np.max(CHANGES**2) if method == "cea" else 0
    assert np.all(np.abs(found.members / (1.5 * KB) - 1) < 4 * found.statistical_error / (1.5 * KB) + slack)
    # the fluctuation of the mean potential alone moves by twice the change of the force constant
    wrong = combine(
        lambda e, ee: (ee - e**2) / (KB * TEMPERATURE**2),
        [energies.mean(axis=1) + 2.0e4, (energies.mean(axis=1) + 2.0e4) ** 2],
        energies,
        TEMPERATURE,
        method,
    )
    assert wrong.committee_error > 5 * found.committee_error


def test_a_quantity_that_is_not_defined_under_a_member_is_refused():
    """The expansion makes <a> of the last member negative: its logarithm is no number, and no average either."""
    x = np.random.default_rng(11).normal(size=2_000)
    energies = KT * np.array([-1.0, 0.0, 8.0]) * (x**2)[:, None]

    def logarithm(a):
        with np.errstate(invalid="ignore"):
            return np.log(a)

    with pytest.raises(NumericalError, match="quantity 0 is not finite under member 2"):
        combine(logarithm, [x**2], energies, TEMPERATURE)


def test_a_quantity_that_is_not_defined_beyond_first_order_is_unreliable():
    x = np.random.default_rng(12).normal(size=20_000)
    energies = 0.1 * KT * np.array([-1.0, 0.0, 1.0]) * (x**2)[:, None]
    first_order = combine(lambda a: a, [x**2], energies, TEMPERATURE).members

    def near(a):
        """Not defined elsewhere than near the averages of first order."""
        return np.where(np.abs(a / first_order - 1) < 1e-2, a, np.nan)

    found = combine(near, [x**2], energies, TEMPERATURE)
    assert found.verdict == "unreliable"


def test_error_of_a_fluctuation_covers_as_often_as_it_claims():
    z = []
    x = autoregressive(0.5, 4_000, 400, seed=6)
    for column in x.T:
        energies = 0.5 * KT * np.array([0.98, 1.02]) * (column**2)[:, None]
        found = heat_capacity(energies, TEMPERATURE, "direct")
        z.append((found.mean / (0.5 * KB) - 1) / (found.statistical_error / (0.5 * KB)))
    assert abs(np.mean(z)) < 0.25  # the tail of the fourth moment: an error bar that grows with the average leans z
    assert 0.8 < np.var(z) < 1.2


def test_interval_holds_both_errors():
    energies, observables, _, _ = series(4_000, seed=7)
    found = reweight(observables[:, 0], energies, TEMPERATURE)
    low, high = found.interval(n_replicas=20_000)
    expected = 1.96 * found.statistical_error
    assert (high - low) / 2 > expected
    committee = found.committee_interval()
    assert np.hypot(expected, committee) * 0.85 < (high - low) / 2 < 1.05 * (expected + committee)
    alone = reweight(observables[:, 0], energies[:, :1], TEMPERATURE)
    low, high = alone.interval(n_replicas=20_000)
    assert (high - low) / 2 == pytest.approx(1.96 * alone.statistical_error, rel=0.05)
    exact = reweight(np.full(4_000, 2.5), energies, TEMPERATURE)
    assert exact.interval() == (2.5, 2.5)


def test_averages_of_blocks():
    energies, observables, estimators, _ = series(5_000, seed=9)
    moments = MemberMoments(TEMPERATURE)
    moments.add(energies, observables, estimators)
    values, n_frames = moments.block_averages()
    assert n_frames == 32
    assert_allclose(values[3, :2], observables[96:128].mean(axis=0))
    assert_allclose(values[-1, 2], estimators[4_992:].mean())
    assert_allclose(values[0, 2], estimators[:32].mean())


def test_what_does_not_fit_is_named():
    energies, observables, estimators, _ = series(100, seed=8)
    moments = MemberMoments(TEMPERATURE, driving="given")
    with pytest.raises(UsageError, match="no driving potential"):
        moments.add(energies, observables)
    moments = MemberMoments(TEMPERATURE)
    moments.add(energies, observables)
    assert moments.n_frames == 100
    with pytest.raises(SeriesError, match="all chunks alike"):
        moments.add(energies, observables[:, :1])
    observables[3, 1] = np.nan
    with pytest.raises(NumericalError, match="the observable, frame 103, column 1"):
        moments.add(energies, observables)
    with pytest.raises(SeriesError, match="does not fit 100 frames"):
        moments.add(energies, estimators=estimators[:99])
    with pytest.raises(UsageError, match="sampled temperature"):
        MemberMoments(TEMPERATURE, sampled_temperature=-3.0)
    few = MemberMoments(TEMPERATURE)
    few.add(energies[:9], observables[-9:])
    with pytest.raises(SeriesError, match="9 frames"):
        averages(few)
