"""Errors against closed forms, 1000 repeats each: z has mean 0 and variance 1, and 95 % intervals hold 95 %.

Two systems, in units of kT: an oscillator x^2/2 in one dimension or three, and a quartic well x^4. Members scale the
energy by 1 + c_k. Samples are exact: independent, of one correlation time, or of a fast and a slow one.
"""

import itertools

import numpy as np
import pytest
from scipy.special import gamma, gammaincinv
from scipy.stats import norm
from series import autoregressive

from comitia.thermodynamics import error_of_sum, heat_capacity, profile, reweight
from comitia.units import KB

TEMPERATURE = 300.0
KT = KB * TEMPERATURE
N_REPEATS = 1000
CHANGES = np.array([-0.12, -0.02, 0.04, 0.1])

KEPT = {("harmonic", "one", "cea")}
"""Of the cases that the short run of the tests has."""

SERIES = {  # n_frames, and the inefficiency of x^2 is 1, 4.6 or 7.3
    "independent": lambda seed: autoregressive(0.0, 600, N_REPEATS, seed),
    "one": lambda seed: autoregressive(0.8, 3_000, N_REPEATS, seed),
    "two": lambda seed: (
        np.sqrt(0.5) * autoregressive(0.5, 7_000, N_REPEATS, seed)
        + np.sqrt(0.5) * autoregressive(0.95, 7_000, N_REPEATS, seed + 1)
    ),
}


def harmonic(series, seed):
    """x^2 and the energy of an oscillator."""
    square = SERIES[series](seed) ** 2
    return square, square / 2


def quartic(series, seed):
    """x^2 and the energy x^4, which has the gamma distribution of shape 1/4; the map from x keeps the correlation."""
    grid = np.linspace(0, 7, 20_001)
    energy = np.interp(np.abs(SERIES[series](seed)), grid, gammaincinv(0.25, 1 - 2 * norm.sf(grid)))
    return np.sqrt(energy), energy


SYSTEMS = {"harmonic": harmonic, "quartic": quartic}
MEAN_SQUARE = {"harmonic": 1.0, "quartic": gamma(0.75) / gamma(0.25)}
SHAPE = {"harmonic": 0.5, "quartic": 0.25}  # <V>/kT


def exact_square(system, method):
    """<x^2>_k: the power of 1 + c_k is -1 or -1/2; to first order 1 - c_k or 1 - c_k/2."""
    deviation = CHANGES - CHANGES.mean()
    power = 1.0 if system == "harmonic" else 0.5
    scale = (1 - power * deviation) if method == "cea" else (1 + deviation) ** -power
    return MEAN_SQUARE[system] * scale


def exact_energy(system, method):
    """<V_k>_k / kT does not depend on k; to first order (1 + c_k)(1 - c_k)."""
    deviation = CHANGES - CHANGES.mean()
    return SHAPE[system] * (1 - deviation**2 if method == "cea" else np.ones(4))


def member_energies(energy):
    return KT * (1 + CHANGES - CHANGES.mean()) * energy[:, None]


def judge(z, where):
    """The bounds of the project; `z` of 1000 repeats has a mean known to 0.03 and a variance known to 0.05."""
    inside = np.mean(np.abs(z) < norm.ppf(0.975))
    numbers = f"{where}: mean {np.mean(z):+.2f}, variance {np.var(z):.2f}, covers {100 * inside:.1f} %"
    assert abs(np.mean(z)) <= 0.15, numbers
    assert 0.85 <= np.var(z) <= 1.15, numbers
    assert 0.93 <= inside <= 0.97, numbers


CASES = [
    pytest.param(*case, marks=() if case in KEPT else pytest.mark.long)
    for case in itertools.product(SYSTEMS, SERIES, ("cea", "direct"))
]


@pytest.mark.parametrize(("system", "series", "method"), CASES)
def test_statistical_errors(system, series, method):
    """Of an observable and of one that contains the potential; the mean over members and each of them."""
    squares, energies = SYSTEMS[system](series, seed=1)
    z = {"<x^2>": [], "<x^2> of member 0": [], "<V>": [], "<V> of member 3": []}
    truth, energy_truth = exact_square(system, method), exact_energy(system, method) * KT
    for square, energy in zip(squares.T, energies.T, strict=True):
        of_members = member_energies(energy)
        for name, observable, exact, k in (("<x^2>", square, truth, 0), ("<V>", of_members, energy_truth, 3)):
            average = reweight(observable, of_members, TEMPERATURE, method)
            z[name].append((average.mean - exact.mean()) / average.statistical_error)
            error = error_of_sum(average.contributions[:, k])
            z[f"{name} of member {k}"].append((average.members[k] - exact[k]) / error)
    for name, values in z.items():
        judge(np.array(values), f"{system}, {series}, {method}, {name}")


@pytest.mark.long
@pytest.mark.parametrize(("system", "n_frames"), [("harmonic", 220), ("quartic", 280)])
@pytest.mark.parametrize("method", ["cea", "direct"])
def test_statistical_errors_of_200_effective_samples(system, n_frames, method):
    """Of the averages that are quoted. An average and its own error go together where frames are skewed: z has the mean
    -skewness / (2 sqrt(n)) whatever the estimate of the error, -0.10 for x^2 of 220 frames and -0.12 for x^4 of 280."""
    squares, energies = SYSTEMS[system]("independent", seed=1)
    z, sizes = {"<x^2>": [], "<V>": []}, []
    exact = {"<x^2>": exact_square(system, method).mean(), "<V>": exact_energy(system, method).mean() * KT}
    for square, energy in zip(squares[:n_frames].T, energies[:n_frames].T, strict=True):
        of_members = member_energies(energy)
        for name, observable in (("<x^2>", square), ("<V>", of_members)):
            average = reweight(observable, of_members, TEMPERATURE, method)
            z[name].append((average.mean - exact[name]) / average.statistical_error)
        sizes.append(average.effective_sample_size.mean())
    assert np.median(sizes) >= 200
    for name, values in z.items():
        judge(np.array(values), f"{system}, {n_frames} frames, {method}, {name}")


@pytest.mark.long
@pytest.mark.parametrize("system", SYSTEMS)
def test_statistical_errors_of_a_heat_capacity(system):
    """k/2 or k/4 whatever the member. Energies of 8 equal degrees of freedom: less skewed than those of one."""
    energies = sum(SYSTEMS[system]("one", seed=10 + i)[1] for i in range(8))
    z = []
    for energy in energies.T:
        average = heat_capacity(member_energies(energy / 4), TEMPERATURE, "cea", sampled_temperature=TEMPERATURE)
        exact = 8 * SHAPE[system] / 16 * KB
        z.append((average.mean - exact) / average.statistical_error)
    judge(np.array(z), f"heat capacity, {system}")


@pytest.mark.long
@pytest.mark.parametrize("method", ["cea", "direct"])
def test_statistical_errors_of_a_profile(method):
    """-kT ln p_k in four bins of the oscillator, the ends included; to first order in the exponent."""
    x = autoregressive(0.7, 4_000, N_REPEATS, seed=5)
    edges = np.array([-np.inf, -0.8, 0.0, 0.8, np.inf])
    deviation = CHANGES - CHANGES.mean()
    exact = np.diff(norm.cdf(edges[:, None] * np.sqrt(1 + deviation)), axis=0)
    if method == "cea":
        sampled = np.diff(norm.cdf(edges))
        squares = sampled - np.diff(np.where(np.isfinite(edges), edges, 0) * norm.pdf(edges))
        exact = sampled[:, None] * np.exp(-0.5 * deviation * (squares / sampled - 1)[:, None])
    finite = np.array([-20.0, -0.8, 0.0, 0.8, 20.0])
    truth = -KT * np.log(exact / np.diff(finite)[:, None])
    z = []
    for column in x.T:
        found = profile(column, finite, member_energies(column**2 / 2), TEMPERATURE, method)
        # the lowest value is at 0; the densities, normalised for each member, give the constant back
        if method == "cea":
            level = np.mean(-KT * np.log(found.density) - found.value)
        else:
            level = KT * np.log(np.sum(np.exp(-found.members[0] / KT) * np.diff(finite)))
        z.append((found.value + level - truth.mean(axis=1)) / found.statistical_error)
    for i in range(4):
        judge(np.array(z)[:, i], f"profile, bin {i}")


@pytest.mark.parametrize(
    ("n_members", "alpha"),
    [(8, 1.0), (4, 1.0), (16, 1.6)],
)
@pytest.mark.long
@pytest.mark.parametrize("contains_potential", [False, True])
def test_the_committee_interval_is_that_of_student(n_members, alpha, contains_potential):
    """The truth is drawn like the members, which are then spread by alpha about their mean."""
    x = autoregressive(0.0, 4_000, N_REPEATS, seed=3)
    rng = np.random.default_rng(4)
    inside = 0
    for column in x.T:
        drawn = 0.12 * rng.normal(size=n_members)  # several times the sampling noise
        truth = 0.12 * alpha * rng.normal()
        changes = drawn.mean() + alpha * (drawn - drawn.mean())
        stiffness = 1 + changes.mean()  # of the driving mean; the truth is an average to first order, as the members'
        square = column**2 / stiffness
        energies = 0.5 * KT * (1 + changes) * square[:, None]
        exact = (1 - (truth - changes.mean()) / stiffness) / stiffness
        observable = square
        if contains_potential:
            observable, exact = (1 + changes) ** 2 * square[:, None], (1 + truth) ** 2 * exact
        average = reweight(observable, energies, TEMPERATURE)
        width = np.hypot(average.committee_interval(alpha), norm.ppf(0.975) * average.statistical_error)
        inside += abs(average.mean - exact) < width
    assert 0.92 <= inside / N_REPEATS <= 0.97
