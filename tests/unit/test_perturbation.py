"""Free-energy perturbation against closed forms and against pymbar."""

import json
import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.signal import lfilter

import comitia
from comitia.errors import NumericalError, SeriesError, UsageError
from comitia.thermodynamics import difference, perturb, perturb_both_ends
from comitia.units import HARTREE, KB

TEMPERATURE = 300.0
KT = KB * TEMPERATURE


def oscillators(ratio, n_frames, seed, n_dimensions=3):
    """Energies of exact samples of an oscillator, and of one whose force constant is `ratio` times larger."""
    energy = 0.5 * KT * np.sum(np.random.default_rng(seed).normal(size=(n_frames, n_dimensions)) ** 2, axis=1)
    return energy, ratio * energy, 0.5 * n_dimensions * KT * np.log(ratio)


def displaced(shift, n_frames, seed, correlation=0.0):
    """Energies of an oscillator, and of one about another place: dV is Gaussian, the free energies are equal.

    The frames are those of an autoregressive process with correlation time -1/ln(correlation).
    """
    noise = np.sqrt(1 - correlation**2) * np.random.default_rng(seed).normal(size=n_frames + 500)
    x = lfilter([1], [1, -correlation], noise)[500:]
    return 0.5 * KT * x**2, 0.5 * KT * (x - shift) ** 2, 0.0


def quartic(strength, n_frames, seed):
    """Energies of an oscillator, and of one with `strength` kT x⁴ more, whose partition function is a quadrature."""
    x = np.random.default_rng(seed).normal(size=n_frames)
    points, weights = np.polynomial.hermite_e.hermegauss(120)
    exact = -KT * np.log(weights @ np.exp(-strength * points**4) / np.sqrt(2 * np.pi))
    return 0.5 * KT * x**2, KT * (0.5 * x**2 + strength * x**4), exact


@pytest.mark.parametrize("ratio", [0.9, 1.1, 1.5])
def test_harmonic_free_energy(ratio):
    model, reference, exact = oscillators(ratio, 20_000, seed=1)
    found = perturb(model, reference, TEMPERATURE)
    assert abs(found.delta_f - exact) < 4 * found.error
    assert_allclose(found.cumulants[0], 1.5 * KT * (ratio - 1), rtol=0.03)
    assert_allclose(found.cumulants[1], -0.75 * KT * (ratio - 1) ** 2, rtol=0.1)
    assert found.verdict == "reliable"
    assert found.spread == pytest.approx(np.sqrt(1.5) * abs(ratio - 1), rel=0.05)
    assert comitia.thermodynamics.perturb is perturb


CLOSED_FORMS = {
    "stiffer": (lambda seed: oscillators(1.3, 400, seed), 0),
    "softer": (lambda seed: oscillators(0.9, 400, seed), 0),
    "displaced": (lambda seed: displaced(0.6, 500, seed), 0),
    "quartic": (lambda seed: quartic(0.05, 400, seed), 0),
    "correlated": (lambda seed: displaced(0.5, 4000, seed, 0.8), 0),
}


@pytest.mark.long
@pytest.mark.parametrize("system", CLOSED_FORMS)
def test_errors_cover_as_often_as_they_claim(system):
    """1000 seeded repeats with at least 200 effective samples and σ(βΔV) <= 1."""
    z, inside, sizes, spreads = [], [], [], []
    for seed in range(1000):
        model, reference, exact = CLOSED_FORMS[system][0](seed)
        found = perturb(model, reference, TEMPERATURE)
        z.append((found.delta_f - exact) / found.error)
        low, high = found.interval()
        inside.append(low <= exact <= high)
        sizes.append(found.effective_sample_size)
        spreads.append(found.spread)
    print(
        f"{system}: effective sample size {np.median(sizes):.0f}, spread {np.median(spreads):.2f}, mean z "
        f"{np.mean(z):+.3f}, variance {np.var(z):.3f}, coverage {100 * np.mean(inside):.1f} %"
    )
    assert np.median(sizes) >= 200
    assert np.median(spreads) <= 1
    assert abs(np.mean(z)) <= 0.15
    assert 0.85 <= np.var(z) <= 1.15
    assert 0.93 <= np.mean(inside) <= 0.97


def test_errors_of_the_cumulants_cover_as_often_as_they_claim():
    z = []
    for seed in range(300):
        model, reference, _ = displaced(0.6, 400, seed)
        found = perturb(model, reference, TEMPERATURE)
        truth = KT * np.array([0.18, -0.18, 0.0])
        values = np.r_[found.cumulants, found.cumulants.sum()]
        z.append((values - truth) / found.cumulant_errors)
    assert np.abs(np.mean(z, axis=0)).max() < 0.25
    assert np.var(z, axis=0).min() > 0.85
    assert np.var(z, axis=0).max() < 1.2


def test_energies_of_any_size_lose_no_digits():
    model, reference, _ = oscillators(1.1, 1_000, seed=2)
    plain = perturb(model, reference, TEMPERATURE)
    moved = perturb(model, reference - 2.0e4, TEMPERATURE)
    assert moved.delta_f + 2.0e4 == pytest.approx(plain.delta_f, abs=1e-9)
    assert moved.error == pytest.approx(plain.error, rel=1e-6)
    assert moved.effective_sample_size == pytest.approx(plain.effective_sample_size, rel=1e-6)


def test_a_bias_is_undone():
    """Sampled with twice the force constant, that is with the bias V; weights say the same in another way."""
    rng = np.random.default_rng(3)
    energy = 0.25 * KT * np.sum(rng.normal(size=(40_000, 3)) ** 2, axis=1)
    found = perturb(energy, 1.1 * energy, TEMPERATURE, bias=energy)
    assert abs(found.delta_f - 1.5 * KT * np.log(1.1)) < 4 * found.error
    weighted = perturb(energy, 1.1 * energy, TEMPERATURE, weights=np.exp(energy / KT))
    assert weighted.delta_f == pytest.approx(found.delta_f, abs=1e-12)
    assert weighted.error == pytest.approx(found.error, rel=1e-9)


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
    with pytest.raises(SeriesError, match="same in every frame"):
        perturb(np.zeros(50), np.arange(50.0), TEMPERATURE)
    with pytest.raises(UsageError, match="n_beads is 2"):
        perturb(np.ones((50, 3)), np.ones((50, 3)), TEMPERATURE, n_beads=2)
    with pytest.raises(SeriesError, match="positive"):
        perturb(np.arange(50.0), np.arange(50.0), TEMPERATURE, weights=np.zeros(50))


def test_for_one_atom_it_is_a_share():
    model, reference, _ = oscillators(1.1, 500, seed=2)
    found, share = perturb(model, reference, TEMPERATURE), perturb(model, reference, TEMPERATURE).per(4)
    assert share.delta_f == found.delta_f / 4
    assert share.error == found.error / 4
    assert share.effective_sample_size == found.effective_sample_size
    assert share.as_dict()["cumulants"]["second"] == found.cumulants[1] / 4
    with pytest.raises(UsageError):
        found.per(0)


def test_four_times_the_frames_halve_the_error():
    model, reference, _ = oscillators(1.2, 2_000, seed=2)
    first = perturb(model[:500], reference[:500], TEMPERATURE)
    more = perturb(model, reference, TEMPERATURE)
    assert first.more_frames == 1500
    assert more.error == pytest.approx(first.error / 2, rel=0.15)


# ------------------------------------------------------------------------------------------------ pymbar
@pytest.mark.parametrize("shift", [0.3, 1.0, 2.0])
def test_the_exponential_average_is_that_of_pymbar(shift):
    other = pytest.importorskip("pymbar.other_estimators")
    model, reference, _ = displaced(shift, 700, seed=5)
    expected = other.exp((reference - model) / KT)["Delta_f"] * KT
    assert perturb(model, reference, TEMPERATURE).delta_f == pytest.approx(expected, abs=1e-8 * KT)


@pytest.mark.parametrize("sizes", [(400, 400), (300, 900)])
def test_both_ends_give_what_bar_and_mbar_of_pymbar_give(sizes):
    pymbar = pytest.importorskip("pymbar")
    other = pytest.importorskip("pymbar.other_estimators")
    model_end = oscillators(1.4, sizes[0], seed=6)
    stiff = np.random.default_rng(7).normal(size=(sizes[1], 3)) / np.sqrt(1.4)
    energy = 0.5 * KT * np.sum(stiff**2, axis=1)
    found = perturb_both_ends(model_end[:2], (energy, 1.4 * energy), TEMPERATURE)
    work = (model_end[1] - model_end[0]) / KT, -0.4 * energy / KT
    bar = other.bar(*work)
    assert found.delta_f == pytest.approx(bar["Delta_f"] * KT, abs=1e-8 * KT)
    assert found.error == pytest.approx(bar["dDelta_f"] * KT, rel=0.05)
    u = np.vstack([np.r_[model_end[0], energy], np.r_[model_end[1], 1.4 * energy]]) / KT
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the optimisers that it tries
        mbar = pymbar.MBAR(u, np.array(sizes), relative_tolerance=1e-12).compute_free_energy_differences()
    assert found.delta_f == pytest.approx(mbar["Delta_f"][0, 1] * KT, abs=1e-8 * KT)
    assert found.verdict == "reliable"
    assert abs(found.disagreement) < 0.05 * KT


def test_both_ends_cover_as_often_as_they_claim():
    z = []
    for seed in range(150):
        model_end = oscillators(1.5, 200, seed=2 * seed)
        energy = oscillators(1.5, 200, seed=2 * seed + 1)[0] / 1.5
        found = perturb_both_ends(model_end[:2], (energy, 1.5 * energy), TEMPERATURE)
        z.append((found.delta_f - model_end[2]) / found.error)
    assert abs(np.mean(z)) < 0.3
    assert 0.75 < np.var(z) < 1.3


def test_no_overlap_of_both_ends_is_seen():
    model = displaced(12.0, 400, seed=1)
    x = np.random.default_rng(2).normal(size=400) + 12
    assert (
        perturb_both_ends(model[:2], (0.5 * KT * x**2, 0.5 * KT * (x - 12) ** 2), TEMPERATURE).verdict == "unreliable"
    )


# ------------------------------------------------------------------------------------------------ path integrals
def ring(n_frames, n_beads, seed, stiffness=3.0):
    """Beads that share a centroid: energies of 3 of them an oscillator with other constants, and its closed form."""
    rng = np.random.default_rng(seed)
    centroid, internal = rng.normal(size=(n_frames, 1)), rng.normal(size=(n_frames, n_beads)) / np.sqrt(stiffness)
    return centroid + internal - internal.mean(axis=1, keepdims=True)


def test_beads_are_averaged_inside_the_exponent():
    x = ring(5_000, 8, seed=1)
    model, reference = 0.5 * KT * x**2, 0.5 * KT * x**2 + 0.4 * KT * x
    found = perturb(model, reference, TEMPERATURE)
    assert found.delta_f == perturb(model.mean(axis=1), reference.mean(axis=1), TEMPERATURE).delta_f
    assert abs(found.delta_f + 0.5 * 0.16 * KT) < 4 * found.error  # the mean of the beads is the centroid


def test_two_beads_of_each_frame_give_the_second_cumulant():
    """Var(bead mean) = Var/P + (1 - 1/P) Cov, drawn anew 100 times; one bead gives the first cumulant alone."""
    z, first = [], []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        x = ring(400, 8, seed)
        chosen = np.stack([rng.choice(8, 2, replace=False) for _ in range(400)])
        x = np.take_along_axis(x, chosen, axis=1)
        model, reference = 0.5 * KT * x**2, 0.5 * KT * x**2 + 0.4 * KT * x
        found = perturb(model, reference, TEMPERATURE, n_beads=8)
        z.append((found.delta_f + 0.08 * KT) / found.error)
        first.append(perturb(model[:, 0], reference[:, 0], TEMPERATURE, n_beads=8))
    assert found.method == "second cumulant"
    assert found.verdict == "doubtful"
    assert abs(np.mean(z)) < 0.35
    assert 0.7 < np.var(z) < 1.4
    assert {one.method for one in first} == {"first cumulant"}
    assert "reliable" not in {one.verdict for one in first}
    assert np.isnan(first[0].cumulants[1])
    assert first[0].as_dict()["cumulants"]["second"] is None
    values, errors = np.array([(one.delta_f, one.error) for one in first]).T
    assert abs(np.mean(values / errors)) < 0.35
    assert 0.7 < np.var(values / errors) < 1.4


def ring_of_an_oscillator(n_beads, wavenumber, temperature, n_frames, seed):
    """Potential energies of the beads, eV, of an exact sample; and its free energy with another force constant.

    Normal modes of the ring polymer have the force constants m (ω² + ω_k²), ω_k = 2 P/(βħ) sin(πk/P).
    """
    kt, quantum = KB * temperature, wavenumber * 1.239841984e-4  # eV; ħω
    modes = np.arange(n_beads)
    springs = (2 * n_beads * kt / quantum * np.sin(np.pi * modes / n_beads)) ** 2  # ω_k²/ω²
    amplitude = np.random.default_rng(seed).normal(size=(n_frames, n_beads)) * np.sqrt(n_beads * kt / (1 + springs))
    k, b = np.meshgrid(modes, modes, indexing="ij")
    transform = (np.cos(2 * np.pi * k * b / n_beads) + np.sin(2 * np.pi * k * b / n_beads)) / np.sqrt(n_beads)
    beads = amplitude @ transform
    return 0.5 * beads**2, lambda ratio: 0.5 * kt * np.sum(np.log((ratio + springs) / (1 + springs)))


@pytest.mark.shared
@pytest.mark.parametrize("n_beads", [1, 8, 32])
def test_a_quantum_oscillator(n_beads, shared_data):
    """The first cumulant is the known <V> at P beads times the change of the force constant; F is a closed form."""
    known = json.loads((shared_data / "pimd_analytic" / "harmonic_oscillator_PIMD.json").read_text())["w3500_T300"]
    model, free_energy = ring_of_an_oscillator(n_beads, 3500.0, 300.0, 20_000, seed=1)
    found = perturb(model, 1.1 * model, 300.0)
    potential = known["P"][str(n_beads)]["V_hartree"] * 27.211386245988
    assert abs(found.cumulants[0] - 0.1 * potential) < 4 * found.cumulant_errors[0]
    assert abs(found.delta_f - free_energy(1.1)) < 4 * found.error
    slope = (free_energy(1 + 1e-5) - free_energy(1 - 1e-5)) / 2e-5
    assert slope == pytest.approx(potential, rel=1e-5)  # dF/d ln k


# ------------------------------------------------------------------------------------------------ faults
def test_a_constant_is_exact_and_has_no_error():
    model, _, _ = oscillators(1.0, 100, seed=1)
    found = perturb(model, model - 76.25, TEMPERATURE)
    assert found.verdict == "exact"
    assert found.error is None
    assert found.delta_f == pytest.approx(-76.25)
    assert found.as_dict()["statistical_error"] is None
    assert found.as_dict()["cumulants"]["first_error"] is None


FAULTS = {
    "other frames": (lambda m, r: (m, np.random.default_rng(1).permutation(r)), "unreliable", "not correlated"),
    "one frame late": (lambda m, r: (m, np.roll(r, 1)), "unreliable", "moved by -1 frames"),
    "hartree": (lambda m, r: (m, r / HARTREE), "unreliable", "is it in hartree"),
    "the model in kcal/mol": (lambda m, r: (m * 23.060548, r), "unreliable", "is the model in kcal/mol"),
    "twice the same": (lambda m, r: (np.r_[m, m], np.r_[r, r]), "doubtful", "copies of others"),
    "a constant that changes": (lambda m, r: (m, r + np.repeat([0, 0.03], 150)), "unreliable", "dV changes by"),
    "too few frames": (lambda m, r: (m[:15], r[:15]), "unreliable", "effective sample size"),
    "none": (lambda m, r: (m, r), "reliable", "effective sample size"),
    "a constant": (lambda m, r: (m, r + 2.0e5), "reliable", "effective sample size"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_the_energies_show_is_in_the_verdict(fault):
    change, verdict, sentence = FAULTS[fault]
    found = perturb(*change(*oscillators(1.05, 300, seed=8, n_dimensions=6)[:2]), TEMPERATURE)
    assert found.verdict == verdict, found.reason
    assert any(sentence in text for text in [found.reason, *found.findings])
    assert found.error > 0


def test_copies_of_frames_make_no_error_smaller():
    model, reference, _ = oscillators(1.2, 300, seed=3)
    once = perturb(model, reference, TEMPERATURE)
    twice = perturb(np.r_[model, model], np.r_[reference, reference], TEMPERATURE)
    assert twice.error == pytest.approx(once.error, rel=0.12)
    assert twice.effective_sample_size == pytest.approx(once.effective_sample_size, rel=0.2)


def test_frames_without_a_fault_are_seldom_accused():
    model, reference, _ = oscillators(1.2, 120 * 60, seed=3)
    found = [perturb(m, r, TEMPERATURE) for m, r in zip(np.split(model, 60), np.split(reference, 60), strict=True)]
    assert not any("effective sample size" not in text for one in found for text in one.findings)


def test_a_difference_holds_no_constant():
    first = perturb(*oscillators(1.2, 400, seed=1)[:2], TEMPERATURE)
    model, reference, _ = oscillators(1.1, 400, seed=2)
    second = perturb(model, reference + 7.0, TEMPERATURE)
    moved = perturb(*oscillators(1.2, 400, seed=1)[:1], oscillators(1.2, 400, seed=1)[1] + 7.0, TEMPERATURE)
    both = difference(moved, second)
    assert both.delta_f == pytest.approx(difference(first, second).delta_f + 7.0)
    assert both.error == pytest.approx(np.hypot(first.error, second.error))
    assert abs(both.delta_f - 1.5 * KT * np.log(1.2 / 1.1)) < 4 * both.error
