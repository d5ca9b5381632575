"""Reweighting against closed forms: classical and path-integral harmonic oscillators, and their error bars."""

import json

import numpy as np
import pytest
from numpy.testing import assert_allclose
from series import autoregressive

import comitia
from comitia.errors import NumericalError, SeriesError, UsageError
from comitia.thermodynamics import reweight
from comitia.units import HARTREE, KB

TEMPERATURE = 300.0
KT = KB * TEMPERATURE
CHANGES = np.array([-0.06, -0.02, 0.03, 0.05])


def oscillator(n_frames, seed, changes=CHANGES):
    """Exact samples of a three-dimensional oscillator in units where kbar = kT: r^2 and the member energies (eV)."""
    rng = np.random.default_rng(seed)
    square = np.sum(rng.normal(size=(n_frames, 3)) ** 2, axis=1)
    return square, 0.5 * KT * (1 + np.asarray(changes)) * square[:, None]


def exact_expansion(changes=CHANGES):
    """<r^2>_k to first order in k - kbar."""
    return 3 * (1 - (changes - np.mean(changes)))


@pytest.mark.parametrize(("method", "exact"), [("cea", exact_expansion()), ("direct", 3 / (1 + CHANGES))])
def test_classical_oscillator(method, exact):
    square, energies = oscillator(40_000, seed=1)
    average = reweight(square, energies, TEMPERATURE, method=method)
    assert average.members.shape == average.effective_sample_size.shape == (4,)
    assert np.all(np.abs(average.members - exact) < 4 * average.statistical_error)
    # the spread is known much better than the average: its noise cancels between members
    assert_allclose(average.committee_error, exact.std(ddof=1), rtol=0.1)
    assert_allclose(average.total_error, np.hypot(average.statistical_error, average.committee_error), rtol=1e-12)
    assert average.verdict == "reliable"
    assert comitia.thermodynamics.reweight(square, energies, TEMPERATURE).mean == pytest.approx(square.mean())


@pytest.mark.parametrize("method", ["cea", "direct"])
def test_member_estimators_of_the_energy(method):
    """<V_k>_k = 3/2 kT whatever k: the whole shift of the mean estimator is undone by the member's own."""
    _, energies = oscillator(40_000, seed=2)
    average = reweight(energies, energies, TEMPERATURE, method=method)
    exact = 1.5 * KT * (1 - (CHANGES * (CHANGES - CHANGES.mean()) if method == "cea" else 0))
    assert np.all(np.abs(average.members - exact) < 4 * average.statistical_error)
    one_estimator = reweight(energies.mean(axis=1), energies, TEMPERATURE, method=method)
    assert one_estimator.committee_error > 5 * average.members.std(ddof=1)


def ring_polymer(n_frames, seed, change=0.05, n_beads=32, beta=10.0):
    """Exact samples of the normal modes of a ring polymer, m = hbar = kbar = 1; energies in units of hbar omega.

    Returns bead-averaged (n_frames, 2) member energies with k = 1 -+ change, the centroid-virial estimators of
    the kinetic energy under the mean and under each member, and the exact <K>_k.
    """
    rng = np.random.default_rng(seed)
    frequency_squared = (2 * n_beads / beta * np.sin(np.arange(n_beads) * np.pi / n_beads)) ** 2
    modes = rng.normal(size=(n_frames, n_beads)) * np.sqrt(n_beads / (beta * (1 + frequency_squared)))
    constants = np.array([1 - change, 1 + change])
    total = np.sum(modes**2, axis=1) / (2 * n_beads)
    internal = np.sum(modes[:, 1:] ** 2, axis=1) / (2 * n_beads)
    exact = [(1 + np.sum(k / (k + frequency_squared[1:]))) / (2 * beta) for k in (1.0, *constants)]
    mean_estimator = 1 / (2 * beta) + internal
    member_estimators = 1 / (2 * beta) + constants * internal[:, None]
    return constants * total[:, None], mean_estimator, member_estimators, np.array(exact), 1 / (beta * KB)


def test_path_integral_kinetic_energy_needs_member_estimators():
    """k + 5 % moves <K> by +0.0059 at P = 32; with the estimator of the mean even the sign is wrong."""
    energies, mean_estimator, member_estimators, exact, temperature = ring_polymer(200_000, seed=3)
    right = reweight(member_estimators, energies, temperature)
    wrong = reweight(mean_estimator, energies, temperature)
    assert exact[2] - exact[0] == pytest.approx(0.0059, abs=5e-5)
    assert wrong.members[1] - wrong.mean == pytest.approx(-0.0038, abs=3e-4)
    assert right.members[1] - exact[0] == pytest.approx(0.0059, abs=4 * right.statistical_error + 2e-4)
    assert np.all(np.abs(right.members - exact[1:]) < 4 * right.statistical_error + 2e-4)


@pytest.mark.shared
@pytest.mark.parametrize("n_beads", [1, 8, 32])
def test_path_integral_averages_equal_the_closed_form(shared_data, n_beads):
    """<V> and <K> of an oscillator of 3500 cm^-1 at 300 K; its members differ only by constants."""
    content = json.loads((shared_data / "pimd_analytic" / "harmonic_oscillator_PIMD.json").read_text())["w3500_T300"]
    quantum = 3500 * 4.556335e-6 * HARTREE
    energies, mean_estimator, _, _, _ = ring_polymer(20_000, 25, n_beads=n_beads, beta=quantum / KT, change=0.0)
    member_energies = quantum * energies + np.array([0.0, 0.3])
    exact = content["P"][str(n_beads)]
    potential = reweight(quantum * energies, member_energies, TEMPERATURE)
    assert abs(potential.mean - exact["V_hartree"] * HARTREE) < 4 * potential.statistical_error
    kinetic = reweight(quantum * mean_estimator, member_energies, TEMPERATURE)
    if n_beads == 1:
        assert kinetic.verdict == "exact"
        assert kinetic.mean == pytest.approx(exact["K_virial_hartree"] * HARTREE, rel=1e-5)
    else:
        assert abs(kinetic.mean - exact["K_virial_hartree"] * HARTREE) < 4 * kinetic.statistical_error


@pytest.mark.parametrize("method", ["cea", "direct"])
def test_statistical_error_covers_as_often_as_it_claims(method):
    x = autoregressive(0.8, 2_000, 300, seed=4)  # oscillators, beta k = 1
    changes = np.array([-0.1, 0.1])
    exact = np.mean(1 - changes if method == "cea" else 1 / (1 + changes))
    z = []
    for repeat in range(300):
        square = x[:, repeat] ** 2
        average = reweight(square, 0.5 * KT * (1 + changes) * square[:, None], TEMPERATURE, method=method)
        z.append((average.mean - exact) / average.statistical_error)
    assert abs(np.mean(z)) < 0.3  # an error bar that grows with the average leans z a little
    assert 0.9 < np.std(z) < 1.15
    assert np.mean(np.abs(z) < 2) > 0.91


@pytest.mark.parametrize("method", ["cea", "direct"])
def test_committee_error_is_free_of_sampling_noise(method):
    """With short runs the raw spread is mostly noise; over repeats the corrected variance is right on average."""
    changes = np.array([-0.03, -0.01, 0.01, 0.03])
    rng = np.random.default_rng(5)
    raw, corrected = [], []
    for _ in range(300):
        x = rng.normal(size=60)
        y = rng.normal(size=(60, 4))
        # each member also sees noise that has nothing to do with the observable
        energies = KT * (0.5 * (1 + changes) * x[:, None] ** 2 + 0.15 * y)
        average = reweight(x**2, energies, TEMPERATURE, method=method)
        raw.append(average.members.var(ddof=1))
        if average.reason.startswith("the spread of the members is within"):
            corrected.append(0.0)
            assert average.committee_error > 0
            assert average.verdict != "reliable"
        else:
            corrected.append(average.committee_error**2)
    exact = np.var(changes, ddof=1)
    assert np.mean(raw) > 1.5 * exact
    # clipping at zero leaves a small positive remainder
    assert abs(np.mean(corrected) - exact) < 0.5 * (np.mean(raw) - exact)


@pytest.mark.parametrize("method", ["cea", "direct"])
def test_constants_between_members_do_not_matter(method):
    square, energies = oscillator(4_000, seed=6)
    plain = reweight(square, energies, TEMPERATURE, method=method)
    moved = reweight(square, energies + np.array([0, 10 * HARTREE, 0, 0]), TEMPERATURE, method=method)
    assert_allclose(moved.members, plain.members, rtol=0, atol=1e-8)
    assert_allclose(
        [moved.mean, moved.statistical_error, moved.committee_error],
        [plain.mean, plain.statistical_error, plain.committee_error],
        rtol=0,
        atol=1e-8,
    )
    assert_allclose(moved.effective_sample_size, plain.effective_sample_size, rtol=1e-8)
    total = reweight(square, energies - 75 * HARTREE * 64, TEMPERATURE, method=method)
    assert_allclose(total.members, plain.members, rtol=0, atol=1e-8)


def test_driven_by_a_member_or_by_an_array():
    """Frames of member 2 reweighted to the others; the array form is the same thing."""
    changes = CHANGES - CHANGES[2]
    square, energies = oscillator(40_000, seed=7, changes=changes)
    average = reweight(square, energies, TEMPERATURE, method="direct", driving=2)
    assert average.members[2] == pytest.approx(square.mean(), rel=1e-12)
    assert np.all(np.abs(average.members - 3 / (1 + changes)) < 4 * average.statistical_error)
    as_array = reweight(square, energies, TEMPERATURE, method="direct", driving=energies[:, 2] + 5.0)
    assert_allclose(as_array.members, average.members, rtol=1e-10)


@pytest.mark.parametrize("method", ["cea", "direct"])
def test_a_bias_is_undone(method):
    """Sampled with k = 1.5 kbar, that is with the bias 0.25 kbar r^2."""
    rng = np.random.default_rng(8)
    square = np.sum(rng.normal(size=(60_000, 3)) ** 2, axis=1) / 1.5
    energies = 0.5 * KT * (1 + CHANGES) * square[:, None]
    average = reweight(square, energies, TEMPERATURE, method=method, bias=0.25 * KT * square)
    exact = exact_expansion() if method == "cea" else 3 / (1 + CHANGES)
    assert np.all(np.abs(average.members - exact) < 4 * average.statistical_error)
    assert np.all(average.effective_sample_size < 0.9 * 60_000)


def test_effective_sample_size_of_gaussian_weights():
    """beta dV of variance s^2: exp(-s^2) of the frames count directly, 1/(1 + s^2) in the expansion."""
    rng = np.random.default_rng(9)
    sizes = {"direct": [], "cea": []}
    for _ in range(30):
        energies = KT * np.column_stack([rng.normal(size=5_000), np.zeros(5_000)])
        for method, found in sizes.items():
            average = reweight(rng.normal(size=5_000), energies, TEMPERATURE, method=method, driving=1)
            found.append(average.effective_sample_size[0] / 5_000)
            assert_allclose(average.spread, [1, 0], atol=0.05)
    # each is divided by the inefficiency, which is known to 15 % and never below 1: a little to the safe side
    assert -0.1 < np.median(sizes["direct"]) / np.exp(-1) - 1 < 0.06
    assert -0.1 < np.median(sizes["cea"]) / 0.5 - 1 < 0.05


def test_verdict_of_direct_reweighting_follows_the_overlap():
    rng = np.random.default_rng(10)
    observable = rng.normal(size=4_000)
    noise = rng.normal(size=4_000)
    # the observable itself moves with the energy, so that the committee error is resolved
    verdicts = {}
    for spread in (0.3, 1.8, 6.0):
        energies = KT * spread * (0.8 * observable + 0.6 * noise)[:, None] * [1.0, -1.0]
        verdicts[spread] = reweight(observable, energies, TEMPERATURE, method="direct").verdict
    assert verdicts == {0.3: "reliable", 1.8: "doubtful", 6.0: "unreliable"}


def test_verdict_of_the_expansion_follows_the_second_order():
    rng = np.random.default_rng(11)
    x = rng.normal(size=20_000)
    verdicts = {}
    for curvature in (0.02, 0.4, 2.0):
        # x^2 under beta V_k = (1 + c_k) x^2/2: the term left out is of order c^2, the committee error of order c
        energies = 0.5 * KT * (x**2)[:, None] * (1 + curvature * np.array([-1.0, 1.0]))
        average = reweight(x**2, energies, TEMPERATURE)
        exact = curvature**2
        assert average.second_order == pytest.approx(exact, rel=0.2)
        verdicts[curvature] = average.verdict
    assert verdicts == {0.02: "reliable", 0.4: "reliable", 2.0: "unreliable"}


def test_an_unresolved_committee_error_is_the_level_of_the_noise_and_doubtful():
    square, energies = oscillator(500, seed=12, changes=np.full(4, 1e-9))
    energies += KT * 0.1 * np.random.default_rng(13).normal(size=energies.shape)
    clipped = 0
    for seed in range(20):
        sign = np.sign(np.random.default_rng(seed).normal(size=500))
        average = reweight(sign * square, energies, TEMPERATURE)
        if average.reason.startswith("the spread of the members"):
            clipped += 1
            assert average.committee_error > 0.3 * average.members.std(ddof=1)
            assert average.verdict in ("doubtful", "unreliable")
    assert clipped > 3


def test_members_that_agree_are_not_called_reliable():
    square, energies = oscillator(500, seed=14)
    average = reweight(square, np.repeat(energies[:, :1], 3, axis=1) + np.arange(3), TEMPERATURE)
    assert average.committee_error == pytest.approx(0, abs=1e-10)
    assert average.verdict == "doubtful"


def test_few_independent_frames_are_not_called_reliable():
    x = autoregressive(0.99, 400, 1, seed=15)[:, 0]
    average = reweight(x**2, 0.5 * KT * (1 + CHANGES) * (x**2)[:, None], TEMPERATURE)
    assert average.verdict != "reliable"


def test_the_truth_lies_inside_the_interval():
    """Truth and members are drawn alike; the interval holds it as often as it says."""
    x = autoregressive(0.8, 1_000, 400, seed=30)
    rng = np.random.default_rng(31)
    inside = 0
    for repeat in range(400):
        truth, changes = 0.05 * rng.normal(), 0.05 * rng.normal(size=6)
        square = x[:, repeat] ** 2 / (1 + changes.mean())
        average = reweight(square, 0.5 * KT * (1 + changes) * square[:, None], TEMPERATURE)
        width = np.hypot(average.committee_interval(), 1.96 * average.statistical_error)
        inside += abs(average.mean - 1 / (1 + truth)) < width
    assert abs(inside / 400 - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 400)


def test_one_member():
    square, energies = oscillator(1_000, seed=16)
    average = reweight(square, energies[:, :1], TEMPERATURE)
    assert average.committee_error is None
    assert average.total_error == average.statistical_error > 0
    assert average.members.shape == (1,)
    assert average.committee_interval() is None
    assert average.verdict == "doubtful"
    assert reweight(square, energies[:, 0], TEMPERATURE).mean == average.mean


def test_a_constant_observable_is_exact():
    _, energies = oscillator(1_000, seed=17)
    average = reweight(np.full(1_000, 0.0388), energies, TEMPERATURE)
    assert average.verdict == "exact"
    assert average.mean == pytest.approx(0.0388, rel=1e-12)
    assert average.as_dict("eV")["statistical_error"] is None


def test_json_form_is_the_contract():
    square, energies = oscillator(1_000, seed=18)
    average = reweight(square, energies, TEMPERATURE)
    content = average.as_dict("Å^2")
    assert list(content) == [
        "value",
        "unit",
        "statistical_error",
        "committee_error",
        "total_error",
        "effective_sample_size",
        "verdict",
    ]
    assert content["value"] == average.mean
    assert content["effective_sample_size"] == average.effective_sample_size.min()


def test_committee_interval_is_that_of_student():
    square, energies = oscillator(1_000, seed=19)
    average = reweight(square, energies, TEMPERATURE)
    # t(3, 0.975) = 3.182446
    expected = 3.182446305 * average.committee_error * np.sqrt(1 + 1 / (4 * 1.2**2))
    assert average.committee_interval(alpha=1.2) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"observable": np.zeros(99)}, SeriesError, "99 frames"),
        ({"observable": np.zeros((100, 3))}, SeriesError, "3 columns for 4 members"),
        ({"observable": np.r_[np.zeros(41), np.nan, np.zeros(58)]}, NumericalError, "observable, frame 41"),
        ({"member_energies": np.full((100, 4), np.inf)}, NumericalError, "frame 0, column 0"),
        ({"temperature": 0.0}, UsageError, "above 0"),
        ({"method": "exact"}, UsageError, "cea, direct"),
        ({"driving": 4}, UsageError, "members 0 to 3"),
        ({"driving": "median"}, UsageError, "'mean'"),
        ({"driving": np.zeros(50)}, SeriesError, "50"),
        ({"bias": np.zeros(50)}, SeriesError, "50"),
    ],
)
def test_bad_input_is_named(change, error, words):
    square, energies = oscillator(100, seed=20)
    arguments = {"observable": square, "member_energies": energies, "temperature": TEMPERATURE} | change
    with pytest.raises(error, match=words):
        reweight(**arguments)
