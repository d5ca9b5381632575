"""Frames with reference energies, what a reference changes, and the free energy of a strained crystal."""

import json
from types import SimpleNamespace

import ase.io
import numpy as np
import pytest
from models import cluster, small_model
from numpy.testing import assert_allclose
from scipy.special import logsumexp

from comitia.errors import SeriesError, SettingsError
from comitia.files import file_hash
from comitia.report.page import report_page
from comitia.study.observables import SampledRun, averages
from comitia.study.perturbation import perturb_samples, shift_to_reference
from comitia.study.perturbed_frames import evaluate_members, stored_frames
from comitia.study.settings import read_study
from comitia.study.strain import moved, strain_free_energy
from comitia.thermodynamics import reweight_to_reference, uncorrelated_frames
from comitia.units import KB

STUDY = """
fit: {data: train.xyz, cutoff: 5.0}
sample:
  hot: {input: nvt.xml}
  cold: {input: nvt.xml}
observables:
  r: {from: hot, cv: {distance: [0, 1]}, unit: Å}
perturb:
  references: {dft: {with: "ase:dft:make"}}
  frames: {hot: 50}
  differences: {}
"""


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("frames: {hot: 50}", "frames: {warm: 50}", "no sample 'warm'"),
        ("frames: {hot: 50}", "frames: {}", "at least one reference"),
        ("frames: {hot: 50}", "frames: {hot: 0}", "frames"),
        ("differences: {}", "differences: {gap: [hot, cold]}", "no frames of 'cold'"),
        ("differences: {}", "stored: {frames: f.xyz}", "model"),
        ("{with:", "{engine:", "engine"),
        ("cv: {distance: [0, 1]}", "relative_to: warm", "no sample 'warm'"),
        ("cv: {distance: [0, 1]}", "relative_to: cold, property: potential", "give one of"),
    ],
)
def test_a_perturbation_that_makes_no_sense_is_refused(tmp_path, old, new, says):
    assert old in STUDY
    (tmp_path / "study.yaml").write_text(STUDY.replace(old, new))
    with pytest.raises(SettingsError, match=says):
        read_study(tmp_path / "study.yaml")


@pytest.fixture
def stored(tmp_path):
    """A model, and 12 frames of three beads that say it sampled them."""
    potential, rng = small_model(), np.random.default_rng(4)
    potential.save(tmp_path / "model.safetensors")
    images = []
    for step in range(0, 120, 10):
        for bead in range(3):
            atoms = cluster()
            atoms.positions += 0.05 * rng.normal(size=(7, 3))
            atoms.positions = np.round(atoms.positions, 8)
            energy = potential.compute(atoms).energy
            atoms.info = {"sample": "hot", "step": step, "bead": bead, "temperature": 80.0, "model_energy": energy}
            atoms.info |= {
                "dft_energy": energy + 0.01 * bead,
                "model_sha256": file_hash(tmp_path / "model.safetensors"),
            }
            images.append(atoms)
    return tmp_path, images


def read(folder, images, references=("dft",)):
    ase.io.write(folder / "frames.xyz", images, format="extxyz")
    model = folder / "model.safetensors"
    return stored_frames(folder / "frames.xyz", model, small_model(), references, ["hot"])["hot"]


def test_stored_frames_are_read_bead_by_bead(stored):
    folder, images = stored
    order = np.random.default_rng(1).permutation(len(images))
    frames = read(folder, [images[i] for i in order])
    assert frames.positions.shape == (12, 3, 7, 3)
    assert_allclose(frames.steps, np.arange(0, 120, 10))
    assert_allclose(frames.stored["dft"] - frames.model_energies, np.broadcast_to([0, 0.01, 0.02], (12, 3)), atol=1e-7)
    for atoms, image in zip(frames.structures(), images, strict=True):
        assert_allclose(atoms.positions, image.positions, atol=1e-8)
        assert not atoms.pbc.any()
    del images[7].info["dft_energy"]
    assert np.isnan(read(folder, images).stored["dft"]).sum() == 1
    assert frames.without(np.arange(12) < 2).positions.shape == (10, 3, 7, 3)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda images: images.pop(4), "2 of 3 beads"),
        (lambda images: images.append(images[3]), "twice"),
        (lambda images: images[5].info.pop("model_energy"), "frame 5: has no model_energy"),
        (lambda images: [atoms.info.pop("dft_energy") for atoms in images[1::3]], "none has dft_energy"),
        (lambda images: images[5].info.update(model_sha256="abc"), "was sampled with model"),
        (lambda images: images[5].info.update(model_energy=0.0), "differ from the stored ones"),
        (
            lambda images: images[5].positions.__iadd__(0.01 * np.arange(21).reshape(7, 3)),
            "differ from the stored ones",
        ),
        (lambda images: images[5].info.update(temperature=90.0), "different atoms or temperatures"),
        (lambda images: [atoms.info.update(sample="warm") for atoms in images], "no frames of 'hot'"),
    ],
)
def test_stored_frames_that_are_not_what_they_say_are_refused(stored, damage, says):
    folder, images = stored
    damage(images)
    with pytest.raises(SeriesError, match=says):
        read(folder, images)


def test_the_shift_is_that_of_the_reweighted_average_and_its_error_covers_it():
    """A harmonic oscillator whose spring the reference makes stiffer: the mean square is kT/k."""
    rng, temperature = np.random.default_rng(8), 300.0
    kt, scores, errors = KB * temperature, [], []
    for _ in range(200):
        x = rng.normal(size=400) * np.sqrt(kt)
        energies = 0.5 * x**2, 0.6 * x**2
        shift, error = shift_to_reference(x**2, *energies, temperature)
        whole = reweight_to_reference(x**2, *energies, temperature)
        assert_allclose(np.mean(x**2) + shift, whole.mean, rtol=1e-10)
        errors.append([error, whole.statistical_error])
        scores.append((shift - (kt / 1.2 - kt)) / error)
    assert abs(np.mean(scores)) < 0.3
    assert 0.8 < np.std(scores) < 1.2
    assert np.divide(*np.mean(errors, axis=0)) < 0.5


def test_samples_are_carried_to_a_reference(tmp_path, monkeypatch):
    """A reference six times as deep, with a constant of its own: it enters nothing but the sample's own shift."""
    potential, rng, beta = small_model(), np.random.default_rng(6), 1 / (KB * 80)
    runs = {}
    for name, n_beads in (("hot", 1), ("cold", 2)):
        positions = cluster().positions + 0.03 * rng.normal(size=(40, n_beads, 7, 3))
        given = (80.0, cluster().numbers, np.zeros(3, bool), np.arange(40))
        energies = evaluate_members(potential, given[1], given[2], positions, np.zeros((40, 3, 3))).mean(axis=1)
        runs[name] = SampledRun(name, *given, energies, {}, positions, np.zeros((40, 3, 3)))
    calls = []

    def energies_of(structures, *_, **__):
        calls.append(len(structures))
        return SimpleNamespace(energies=np.array([6 * potential.compute(atoms).energy + 7 for atoms in structures]))

    monkeypatch.setattr("comitia.engines.references.reference_energies", energies_of)
    text = STUDY.replace("frames: {hot: 50}", "frames: {hot: 40, cold: 30}")
    (tmp_path / "study.yaml").write_text(text.replace("differences: {}", "differences: {gap: [hot, cold]}"))
    study = read_study(tmp_path / "study.yaml")[0]
    results = averages(study, runs, potential)
    found = perturb_samples(study, tmp_path, runs, potential, results, tmp_path / "perturb", progress=False)
    assert found.pop("checks") == {}
    found = found["dft"]
    assert calls == [sum(sample["n_frames"] * sample["n_beads"] for sample in found["samples"].values())]
    for sample in found["samples"].values():
        assert "value" not in sample
        assert set(sample["cumulants"]) == {"second", "second_error"}
    energies = {name: run.member_energies.mean(axis=1) for name, run in runs.items()}
    chosen = {name: uncorrelated_frames(energies[name], count) for name, count in (("hot", 40), ("cold", 30))}
    assert {name: sample["n_frames"] for name, sample in found["samples"].items()} == {
        name: len(frames) for name, frames in chosen.items()
    }
    shifts = {
        name: -logsumexp(-beta * 5 * energies[name][frames], b=1 / len(frames)) / beta
        for name, frames in chosen.items()
    }
    assert_allclose(found["differences"]["gap"]["value"], shifts["hot"] - shifts["cold"], rtol=1e-6)
    average = found["observables"]["r"]
    assert_allclose(average["value"], results["observables"]["r"]["value"] + average["shift"])
    # average and shift are of the same frames: one error of both, not two that are added
    distances = np.linalg.norm(runs["hot"].positions[:, 0, 0] - runs["hot"].positions[:, 0, 1], axis=1)
    of_model = energies["hot"][chosen["hot"]]
    whole = reweight_to_reference(distances, of_model, 6 * of_model + 7, 80.0, chosen=chosen["hot"])
    assert_allclose([average["value"], average["total_error"]], [whole.mean, whole.total_error], rtol=1e-6)
    apart = np.hypot(average["statistical_error"], average["perturbation_error"])
    assert 0.03 < abs(average["total_error"] / apart - 1) < 0.5


class Einstein:
    """Springs to the sites of a cubic cell: k and the bottom depend on its edge."""

    sites = np.array([[0.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.5, 0.0, 0.5], [0.0, 0.5, 0.5]])

    @staticmethod
    def spring(edge):
        return 2.0 * (4.0 / edge) ** 3

    @staticmethod
    def bottom(edge):
        return 0.4 * (edge - 4.0) ** 2 + 0.05 * edge

    def evaluator(self, numbers, pbc):
        return self

    def compute(self, positions, cells):
        edges = cells[:, 0, 0]
        square = np.sum((positions - edges[:, None, None] * self.sites) ** 2, axis=(1, 2))
        return SimpleNamespace(energies=self.bottom(edges) + 0.5 * self.spring(edges) * square)


def test_the_free_energy_of_a_strained_crystal_is_the_one_of_its_springs():
    rng, potential, temperature, scores = np.random.default_rng(2), Einstein(), 400.0, []
    kt, edges = KB * temperature, (4.0, 4.05)
    exact = np.diff([potential.bottom(a) + 6 * kt * np.log(potential.spring(a)) for a in edges])[0]
    for _ in range(60):
        runs = []
        for edge in edges:
            spread = np.sqrt(kt / potential.spring(edge))
            positions = edge * potential.sites + spread * rng.normal(size=(500, 4, 3))
            cells = np.broadcast_to(edge * np.eye(3), (500, 3, 3))
            energies = potential.compute(positions, cells).energies
            members = energies[:, None] + np.array([-0.002, 0.0, 0.002]) * (edge - 4.0) / 0.05
            given = (
                temperature,
                np.full(4, 18),
                np.ones(3, bool),
                np.arange(500),
                members,
                {},
                positions[:, None],
                cells,
            )
            runs.append(SampledRun("strained", *given))
        value, error, committee, _ = strain_free_energy(runs[1], runs[0], potential, "observables.f")
        assert_allclose(committee, 0.002, rtol=1e-6)
        scores.append((value - exact) / error)
    assert abs(np.mean(scores)) < 0.5
    assert 0.75 < np.std(scores) < 1.3


def test_atoms_move_with_the_cell():
    rng = np.random.default_rng(0)
    cells = np.eye(3) * 4 + 0.1 * rng.normal(size=(5, 3, 3))
    scaled, other = rng.uniform(size=(5, 4, 3)), np.eye(3) * 4.2 + 0.1 * rng.normal(size=(3, 3))
    assert_allclose(moved(scaled @ cells, cells, other), scaled @ other, atol=1e-12)


AVERAGE = {
    "value": 0.1234,
    "unit": "Å",
    "statistical_error": 0.002,
    "committee_error": None,
    "total_error": 0.0022,
    "effective_sample_size": 120.0,
    "verdict": "doubtful",
}
FREE_ENERGY = AVERAGE | {"unit": "eV", "spread": 0.3, "n_frames": 150, "n_beads": 1, "reason": "few <frames>"}
RESULTS = {
    "study": "a&b.yaml",
    "setting": "quick",
    "observables": {"r": AVERAGE},
    "references": {"k": {"value": 38.778, "unit": "meV"}},
    "reasons": {"r": "the tail is not sampled"},
    "perturbation": {
        "mp2": {
            "observables": {"r": AVERAGE | {"perturbation_error": 0.001, "shift": -0.02}},
            "differences": {"gap": AVERAGE},
            "samples": {"hot": FREE_ENERGY},
        }
    },
    "model": {"errors": {"test": {"energy": {"rmse": 0.31, "unit": "meV/atom"}}}},
    "checks": {"largest difference": 1e-6},
    "versions": {"comitia": "0.1.0"},
}


def test_the_page_of_a_study_holds_its_numbers_and_figures(tmp_path):
    (tmp_path / "results.json").write_text(json.dumps(RESULTS))
    (tmp_path / "figure.png").write_bytes(b"\x89PNG")
    page = report_page(tmp_path).read_text()
    for text in (
        "a&amp;b.yaml",
        "0.1234",
        "-0.0200",
        "few &lt;frames&gt;",
        "data:image/png;base64,iVBORw==",
        "38.77800",
    ):
        assert text in page
    assert "http" not in page


@pytest.mark.parametrize("content", [None, "{", "{}", "[]"])
def test_a_folder_without_results_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "results.json").write_text(content)
    with pytest.raises(SettingsError, match=r"results\.json"):
        report_page(tmp_path)
