"""Forty prepared cases of a reweighting, sound and faulty: the verdict, the reason, and the error that goes with it.

The system is an oscillator in three dimensions at kbar = kT; the members scale its energy, so that <r^2> under each
is known. A fault that the numbers show must be in the verdict; none may make an error of zero or a silent nan.
"""

from types import SimpleNamespace

import numpy as np
import pytest
from series import autoregressive

from comitia.errors import NumericalError, SeriesError
from comitia.thermodynamics import check_sampling, reweight
from comitia.units import HARTREE, KB

TEMPERATURE = 300.0
KT = KB * TEMPERATURE
N_FRAMES = 4_000
CHANGES = np.array([-0.06, -0.02, 0.03, 0.05])


def sound(n_frames=N_FRAMES, seed=1, changes=CHANGES, persistence=0.6, noise=0.0):
    """Arguments of a reweighting in which nothing is wrong, with what the sampler printed beside it."""
    x = autoregressive(persistence, n_frames, 3, seed)
    square = np.sum(x**2, axis=1)
    own = KT * noise * np.random.default_rng(seed).normal(size=(n_frames, len(changes)))
    changes = changes - changes.mean()
    kinetic = np.random.default_rng(seed + 1).normal(TEMPERATURE, 60, size=n_frames)
    energies = 0.5 * KT * (1 + changes) * square[:, None] + own
    return {"observable": square, "energies": energies, "sampled": energies.mean(axis=1), "kinetic": kinetic}


def changed(**changes):
    """A sound case with some of its arrays replaced by functions of it."""

    def make():
        case = sound()
        return case | {name: change(case) for name, change in changes.items()}

    return make


def permuted(name, seed=5):
    order = np.random.default_rng(seed).permutation(N_FRAMES)
    return lambda case: case[name][order]


def twice(case):
    return {name: np.concatenate([values, values]) for name, values in case.items()}


def every_frame_twice_and_shuffled(case):
    order = np.random.default_rng(6).permutation(2 * N_FRAMES)
    return {name: values[order] for name, values in twice(case).items()}


def wide(spread, n_frames=N_FRAMES, seed=7):
    """Members that differ from the sampled potential by noise of that width, in kT, and a little along r^2."""
    case = sound(n_frames, seed)
    noise = np.random.default_rng(seed).normal(size=(n_frames, 4))
    noise -= noise.mean(axis=1, keepdims=True)
    case["energies"] = case["energies"] + spread * KT * noise / np.sqrt(0.75)
    return case


def pseudo_members():
    from comitia.potential.mixing import pseudo_members as of

    case = sound()
    energies = case["energies"]
    mean, spread = energies.mean(axis=1), energies.std(axis=1, ddof=1)
    predictions = SimpleNamespace(energies=mean, energy_uncertainties=spread, member_energies=energies)
    predictions.forces = predictions.uncertainty_gradients = np.zeros((N_FRAMES, 1, 3))
    predictions.virials = predictions.uncertainty_virials = np.zeros((N_FRAMES, 3, 3))
    case["energies"] = of(predictions).member_energies
    return case


SOUND = {
    "members close to each other": sound,
    "more members": lambda: sound(changes=np.linspace(-0.05, 0.05, 16)),
    "uncorrelated frames": lambda: sound(persistence=0.0),
    "slow frames, many of them": lambda: sound(40_000, persistence=0.98),
    "an offset of one member": changed(energies=lambda case: case["energies"] + np.array([0, 10 * HARTREE, 0, 0])),
    "all-electron totals": changed(energies=lambda case: case["energies"] - 4_800 * HARTREE),
    "an offset of the sampled potential": changed(sampled=lambda case: case["sampled"] + 3.0),
    "frames in another order, all of them": lambda: {name: values[::-1] for name, values in sound().items()},
    "noise in the members, within reason": lambda: sound(noise=0.1),
    "a temperature within its error": changed(kinetic=lambda case: case["kinetic"] + 1.0),
    "a barostat's noise on the printed potential": changed(
        sampled=lambda case: case["sampled"] + 0.01 * KT * np.random.default_rng(8).normal(size=N_FRAMES)
    ),
}
FAULTY = {  # what is wrong: the case, the method, the verdict or verdicts, and words of the reason
    "direct: some overlap": (lambda: wide(1.6), "direct", {"doubtful"}, "spread of beta dV"),
    "direct: hardly any overlap": (lambda: wide(4.0), "direct", {"unreliable"}, "spread of beta dV"),
    "direct: no overlap": (lambda: wide(30.0), "direct", {"unreliable"}, "effective sample size"),
    "direct: overlap, but few frames": (lambda: wide(0.9, 60), "direct", {"doubtful", "unreliable"}, "sample size"),
    "direct: hundred frames, no overlap": (lambda: wide(6.0, 100), "direct", {"unreliable"}, "sample size"),
    "cea: expansion fails": (
        lambda: sound(20_000, changes=np.array([-2.0, 2.0])),
        "cea",
        {"unreliable"},
        "second-order term",
    ),
    "cea: expansion at its end": (
        lambda: sound(20_000, changes=np.array([-0.75, 0.75])),
        "cea",
        {"doubtful", "unreliable"},
        "second-order term",
    ),
    "cea: members are noise": (lambda: wide(3.0, 300), "cea", {"doubtful", "unreliable"}, ""),
    "few independent frames": (lambda: sound(400, persistence=0.995), "cea", {"doubtful", "unreliable"}, "independent"),
    "fourteen frames": (lambda: sound(14, persistence=0.0), "cea", {"doubtful", "unreliable"}, "independent"),
    "one member": (
        lambda: (lambda case: case | {"energies": case["energies"][:, :1], "sampled": case["energies"][:, 0]})(sound()),
        "cea",
        {"doubtful"},
        "one member",
    ),
    "members that agree exactly": (
        changed(energies=lambda case: np.repeat(case["sampled"][:, None], 3, axis=1)),
        "cea",
        {"doubtful"},
        "within the sampling noise",
    ),
    "another temperature": (changed(kinetic=lambda case: case["kinetic"] + 30), "cea", {"unreliable"}, "329"),
    "half the temperature": (changed(kinetic=lambda case: case["kinetic"] / 2), "cea", {"unreliable"}, "149"),
    "a temperature that is 32 beads times too high": (
        changed(kinetic=lambda case: 32 * case["kinetic"]),
        "cea",
        {"unreliable"},
        "own temperature",
    ),
    "energies of other frames": (changed(sampled=permuted("sampled")), "cea", {"unreliable"}, "not correlated"),
    "members shuffled": (changed(energies=permuted("energies")), "cea", {"unreliable"}, "not correlated"),
    "members one frame late": (
        lambda: (lambda case: case | {"energies": np.roll(case["energies"], 1, axis=0)})(sound(persistence=0.0)),
        "cea",
        {"unreliable"},
        "moved by -1 frames",
    ),
    "members two frames early": (
        lambda: (lambda case: case | {"energies": np.roll(case["energies"], -2, axis=0)})(sound(persistence=0.0)),
        "direct",
        {"unreliable"},
        "moved by +2 frames",
    ),
    "member energies in Hartree": (
        changed(energies=lambda case: case["energies"] / HARTREE),
        "cea",
        {"unreliable"},
        "unit right",
    ),
    "member energies added over 32 beads": (
        changed(energies=lambda case: 32 * case["energies"]),
        "cea",
        {"unreliable"},
        "times as much",
    ),
    "driven by something else": (
        changed(sampled=lambda case: case["sampled"] + 0.3 * KT * np.random.default_rng(9).normal(size=N_FRAMES)),
        "cea",
        {"doubtful"},
        "what drove the sampling",
    ),
    "the whole run twice": (lambda: twice(sound()), "cea", {"doubtful"}, "50 % of the frames are copies"),
    "every frame twice, shuffled": (lambda: every_frame_twice_and_shuffled(sound()), "cea", {"doubtful"}, "copies"),
    "the last quarter again": (
        lambda: {name: np.r_["0", values, values[-N_FRAMES // 4 :]] for name, values in sound().items()},
        "direct",
        {"doubtful"},
        "20 % of the frames are copies",
    ),
    "pseudo-members": (pseudo_members, "cea", {"unreliable"}, "pseudo-members"),
}
REFUSED = {
    "nan in the observable": (changed(observable=lambda case: np.r_[case["observable"][:-1], np.nan]), NumericalError),
    "infinite member energy": (changed(energies=lambda case: case["energies"] / 0.0), NumericalError),
    "nan in one member": (
        changed(energies=lambda case: np.where(np.arange(4) == 2, np.nan, case["energies"])),
        NumericalError,
    ),
    "nine frames": (lambda: sound(9), SeriesError),
    "a frame without an observable": (changed(observable=lambda case: case["observable"][:-1]), SeriesError),
    "a bead of one frame is missing": (
        changed(observable=lambda case: case["observable"], energies=lambda case: case["energies"][:-1]),
        SeriesError,
    ),
}


def judged(case, method):
    findings = check_sampling(case["energies"], TEMPERATURE, "mean", case["sampled"], case["kinetic"])
    return reweight(case["observable"], case["energies"], TEMPERATURE, method, findings=findings)


def numbers_are_honest(average):
    numbers = [average.mean, average.statistical_error, average.total_error, *average.members]
    assert np.isfinite(numbers).all()
    assert average.statistical_error > 0
    assert average.total_error >= average.statistical_error


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", SOUND)
@pytest.mark.parametrize("method", ["cea", "direct"])
def test_a_sound_case_is_reliable(name, method):
    average = judged(SOUND[name](), method)
    assert average.verdict == "reliable", average.reason
    numbers_are_honest(average)
    assert abs(average.mean - 3) < 4 * average.statistical_error + 0.02


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", FAULTY)
def test_a_fault_is_in_the_verdict(name):
    make, method, verdicts, words = FAULTY[name]
    average = judged(make(), method)
    assert average.verdict in verdicts, average.reason
    assert words in average.reason
    numbers_are_honest(average)


@pytest.mark.filterwarnings("ignore:divide by zero")
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_averaged_is_refused(name):
    make, error = REFUSED[name]
    with pytest.raises(error):
        judged(make(), "cea")


@pytest.mark.parametrize("method", ["cea", "direct"])
@pytest.mark.parametrize("repeat", [twice, every_frame_twice_and_shuffled])
def test_copies_of_frames_do_not_make_errors_smaller(method, repeat):
    case = sound(persistence=0.0)
    once, again = judged(case, method), judged(repeat(case), method)
    assert again.mean == pytest.approx(once.mean, rel=1e-9)
    assert again.statistical_error == pytest.approx(once.statistical_error, rel=0.25)
    assert again.effective_sample_size.min() == pytest.approx(once.effective_sample_size.min(), rel=0.3)


def test_a_frame_that_monte_carlo_stayed_in_is_no_copy():
    case = {name: np.repeat(values, 3, axis=0) for name, values in sound(persistence=0.0).items()}
    average = judged(case, "cea")
    assert average.verdict == "reliable"
    assert average.statistical_error == pytest.approx(judged(sound(persistence=0.0), "cea").statistical_error, rel=0.25)
