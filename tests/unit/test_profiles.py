"""Free-energy profiles and their bands, against Gaussians and the harmonic oscillator."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import norm

from comitia.errors import SeriesError, UsageError
from comitia.thermodynamics import profile, reweight_all
from comitia.thermodynamics.profiles import bin_fractions
from comitia.units import KB

TEMPERATURE = 300.0
KT = KB * TEMPERATURE
EDGES = np.linspace(-2, 2, 21)


def test_profile_of_an_oscillator():
    """F_k(x) = (1 + c_k) x^2/2 kT + constant: the band is that of the normalised density, zero nowhere by fiat."""
    rng = np.random.default_rng(21)
    x = rng.normal(size=30_000)
    changes = np.array([-0.1, 0.1])
    energies = 0.5 * KT * (1 + changes) * (x**2)[:, None]
    found = profile(x, EDGES, energies, TEMPERATURE, method="direct")
    for k, change in enumerate(changes):
        exact = 0.5 * KT * (1 + change) * found.x**2
        difference = found.members[k] - exact
        difference -= np.average(difference, weights=found.density)
        assert np.all(np.abs(difference) < 4 * found.statistical_error + 0.004 * KT)
    assert found.value.min() == 0
    # members differ by kT (c x^2 - ln(1 + c))/2 when each density has integral one over the bins
    expected = np.abs(found.members[1] - found.members[0]) / np.sqrt(2)
    assert_allclose(found.committee_error, expected, atol=3e-3 * KT)
    expansion = profile(x, EDGES, energies, TEMPERATURE)
    assert_allclose(expansion.members, found.members, atol=0.02 * KT)


def test_profile_pools_beads_and_can_be_symmetrised():
    rng = np.random.default_rng(22)
    samples = rng.normal(size=(5_000, 8))
    energies = KT * rng.normal(scale=0.05, size=(5_000, 3))
    found = profile(samples, EDGES, energies, TEMPERATURE, symmetric=True)
    assert_allclose(found.value, found.value[::-1], atol=1e-12)
    assert_allclose(found.statistical_error, found.statistical_error[::-1], atol=1e-12)
    plain = profile(samples, EDGES, energies, TEMPERATURE)
    assert np.all(found.statistical_error[3:-3] < 1.1 * plain.statistical_error[3:-3])
    assert_allclose(np.sum(found.density * np.diff(EDGES)), 1, rtol=1e-12)
    histogram, _ = np.histogram(samples, EDGES, density=True)
    assert_allclose(plain.density, histogram, rtol=1e-10)


def test_profile_statistical_error_covers():
    rng = np.random.default_rng(23)
    edges = np.array([-1.5, -0.5, 0.5, 1.5])
    probability = np.diff(norm.cdf(edges))
    exact = -KT * np.log(probability)
    z = []
    for _ in range(200):
        x = rng.normal(size=1_000)
        found = profile(x, edges, np.zeros((1_000, 2)), TEMPERATURE)
        difference = (found.value - exact) - (found.value - exact) @ probability / probability.sum()
        z.append(difference / found.statistical_error)
    assert np.all(np.abs(np.mean(z, axis=0)) < 0.35)
    assert np.all((np.std(z, axis=0) > 0.85) & (np.std(z, axis=0) < 1.15))


def test_empty_bins_are_null():
    x = np.random.default_rng(24).uniform(0, 1, size=200)
    found = profile(x, np.linspace(-1, 1, 5), np.zeros((200, 1)), TEMPERATURE)
    content = found.as_dict()
    assert content["value"][:2] == [None, None]
    assert content["committee_error"] is None
    assert found.value[2:].min() == 0


def test_profile_refuses_bins_that_make_no_sense():
    x = np.zeros(50)
    with pytest.raises(UsageError, match="increasing"):
        profile(x, [1.0, 0.0], np.zeros((50, 1)), TEMPERATURE)
    with pytest.raises(UsageError, match="symmetric"):
        profile(x, [0.0, 1.0], np.zeros((50, 1)), TEMPERATURE, symmetric=True)
    with pytest.raises(SeriesError, match="no sample"):
        profile(x, [1.0, 2.0], np.zeros((50, 1)), TEMPERATURE)


@pytest.mark.parametrize("method", ["cea", "direct"])
def test_histograms_are_observables_with_bands(method):
    """Every bin of a histogram (or a radial distribution function) is an observable; they share the weights."""
    rng = np.random.default_rng(26)
    x = rng.normal(size=4_000)
    energies = 0.5 * KT * np.array([0.95, 1.05]) * (x**2)[:, None]
    fractions = bin_fractions(x, EDGES)
    bins = reweight_all(fractions, energies, TEMPERATURE, method)
    found = profile(x, EDGES, energies, TEMPERATURE, method)
    exact = np.diff(norm.cdf(EDGES[:, None] * np.sqrt([0.95, 1.05])), axis=0)
    members = np.array([average.members for average in bins])
    errors = np.array([average.statistical_error for average in bins])
    assert np.all(np.abs(members - exact) < 4.5 * errors[:, None] + 2e-4)
    # the band of a profile is the relative one of its histogram; the part that the bins share is not in it
    relative = found.statistical_error / KT
    assert_allclose(errors / members.mean(axis=1), relative, rtol=0.15)
    density = np.exp(-found.value / KT)
    assert_allclose(members.mean(axis=1) / density, (members.mean(axis=1) / density).mean(), rtol=5e-3)
