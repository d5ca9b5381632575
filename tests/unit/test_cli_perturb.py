"""`comitia perturb` from the command line, on frames whose reference energies a file has."""

import json

import numpy as np
import pytest
from ase import Atoms
from ase.io import write
from ipi_files import write_exchange, write_positions, write_properties, write_restart
from models import crystal, small_model

from comitia.cli import main
from comitia.files import file_hash
from comitia.thermodynamics import perturb
from comitia.units import KB

KT = KB * 300
N_FRAMES = 120


@pytest.fixture
def no_figure(monkeypatch):
    """Drawing takes longer than all else; one test looks at the figure."""
    monkeypatch.setattr("comitia.report.perturbation.perturbation_figure", lambda *arguments, **keywords: None)


@pytest.fixture
def comitia(monkeypatch, capsys, tmp_path):
    """Call the command line in a folder with a model and frames: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)
    potential = small_model()
    potential.save(tmp_path / "model.safetensors")
    frames = [crystal((18,), (1, 1, 1), rattle=0.1, seed=seed) for seed in range(N_FRAMES)]
    write(tmp_path / "frames.xyz", frames, format="extxyz")
    from ase.io import read

    frames = read(tmp_path / "frames.xyz", ":")
    for number, atoms in enumerate(frames):
        x = atoms.positions[0, 0]
        atoms.info["reference"] = potential.compute(atoms).energy + 0.5 * KT * np.cos(40 * x) - 75.0
        atoms.info["x"], atoms.info["state"] = x, number % 2
    write(tmp_path / "frames.xyz", frames, format="extxyz")

    def call(*arguments, trajectory="frames.xyz"):
        command = ["comitia", "perturb", "--trajectory", trajectory, "--model", "model.safetensors", "--temperature"]
        command += ["300", "--reference", "file:frames.xyz:reference", *arguments]
        monkeypatch.setattr("sys.argv", list(map(str, command)))
        with pytest.raises(SystemExit) as stop:
            main()
        captured = capsys.readouterr()
        return stop.value.code, captured.out, captured.err

    call.frames, call.potential = frames, potential
    return call


def result(folder="perturbation"):
    with open(f"{folder}/perturbation.json") as file:
        return json.load(file)


def test_the_numbers_are_those_of_the_energies(comitia, tmp_path):
    code, said, _ = comitia("--frames", "all", "--constant", -75, "--molecules", 4, "--trained")
    assert code == 0
    content, frames = result(), comitia.frames
    model = np.array([comitia.potential.compute(atoms).energy for atoms in frames])
    expected = perturb(model, np.array([atoms.info["reference"] for atoms in frames]) + 75, 300.0)
    assert content["value"] == pytest.approx(expected.delta_f, abs=1e-7)
    assert content["statistical_error"] == pytest.approx(expected.error, rel=1e-3)
    assert content["per_atom"]["value"] == pytest.approx(expected.delta_f / 4, abs=1e-7)
    assert content["per_molecule"]["value"] == content["per_atom"]["value"]
    assert content["n_called"] == N_FRAMES
    assert content["calibration"]["verdict"] in ("consistent", "inconsistent")
    assert content["verdict"] in said
    assert (tmp_path / "perturbation" / "perturbation.png").stat().st_size > 10_000
    assert comitia("--frames", "all")[0] == 0
    assert result()["n_called"] == 0
    assert result()["value"] == pytest.approx(content["value"] - 75)


@pytest.mark.usefixtures("no_figure")
def test_observables_and_states_go_with_it(comitia):
    code, said, _ = comitia("--frames", "all", "--observable", "frames.xyz:x", "--states", "frames.xyz:state")
    assert code == 0
    content = result()
    shift = np.array([np.cos(40 * atoms.info["x"]) / 2 for atoms in comitia.frames])
    x, weights = np.array([atoms.info["x"] for atoms in comitia.frames]), np.exp(-shift)
    assert content["observables"]["frames.xyz:x"]["value"] == pytest.approx(weights @ x / weights.sum(), rel=1e-4)
    assert abs(content["difference_of_states"]["value"]) < 1  # no constant
    assert "under the reference" in said
    assert "depends on the energy constant" not in said


@pytest.mark.usefixtures("no_figure")
def test_stratified_frames_carry_their_weights(comitia):
    code, *_ = comitia("--stratify", "frames.xyz:x", "--bins", 4, "--frames", 40, "--constant", -75)
    assert code == 0
    content = result()
    assert content["n_frames"] == 40
    assert abs(content["value"]) < 5 * content["statistical_error"] + 0.25 * KT


@pytest.mark.usefixtures("no_figure")
def test_a_difference_compares_like_with_like(comitia, tmp_path):
    assert comitia("--frames", "all", "-o", "first")[0] == 0
    code, *_ = comitia("--frames", "all", "--skip", 20, "--minus", "first/perturbation.json")
    assert code == 0
    content, first = result(), result("first")
    assert content["difference"]["value"] == pytest.approx(content["value"] - first["value"])
    assert content["difference"]["statistical_error"] == pytest.approx(
        np.hypot(content["statistical_error"], first["statistical_error"])
    )
    code, _, complained = comitia("--frames", "all", "--constant", 1, "--minus", "first/perturbation.json")
    assert code == 2
    assert "energy constant" in complained
    assert comitia("--minus", "model.safetensors")[0] == 3


@pytest.mark.usefixtures("no_figure")
def test_phases_of_other_sizes_are_compared_by_molecule(comitia, tmp_path):
    assert comitia("--frames", "all", "--constant", "Ar=-18.75", "--molecules", 4, "-o", "first")[0] == 0
    double = [atoms.repeat((2, 1, 1)) for atoms in comitia.frames]
    for one, atoms in zip(comitia.frames, double, strict=True):
        atoms.info["reference"] = comitia.potential.compute(atoms).energy + KT * np.cos(40 * one.info["x"]) - 150.0
    write(tmp_path / "double.xyz", double, format="extxyz")
    options = ["--frames", "all", "--minus", "first/perturbation.json", "--reference", "file:double.xyz:reference"]
    code, _, complained = comitia(*options, "--constant", "Ar=-18.75", trajectory="double.xyz")
    assert code == 2
    assert "give --molecules in both" in complained
    first = json.loads((tmp_path / "first" / "perturbation.json").read_text())
    first |= {"reference": "file:double.xyz:reference", "reference_settings": result_settings(tmp_path / "double.xyz")}
    (tmp_path / "first" / "perturbation.json").write_text(json.dumps(first))
    code, _, complained = comitia(*options, "--constant", "Ar=-18.75", "--molecules", 8, trajectory="double.xyz")
    assert code == 0, complained
    content = result()
    assert content["difference"]["value"] == pytest.approx(
        content["per_molecule"]["value"] - first["per_molecule"]["value"]
    )
    assert abs(content["difference"]["value"]) < KT


def result_settings(path):
    return {"file": file_hash(path)}


@pytest.mark.usefixtures("no_figure")
def test_constants_of_one_composition(comitia, tmp_path):
    assert comitia("--frames", "all", "--constant", "Ar=-18.75")[0] == 0
    assert result()["constant"] == -75.0
    write(tmp_path / "one.xyz", comitia.frames[3], format="extxyz")
    assert comitia("--frames", "all", "--constant", "one.xyz")[0] == 0
    x = comitia.frames[3].info["x"]
    assert result()["constant"] == pytest.approx(-75 + 0.5 * KT * np.cos(40 * x), abs=1e-6)
    assert comitia("--frames", "all", "--constant", "He=1")[0] == 2
    write(tmp_path / "other.xyz", Atoms("Ar"), format="extxyz")
    assert comitia("--frames", "all", "--constant", "other.xyz")[0] == 3


def write_ipi(folder, frames, n_beads=2):
    """The frames as beads of path integrals: i-PI's files; structures of both beads for the reference."""
    stored = []
    for bead in range(n_beads):
        moved = [atoms.copy() for atoms in frames]
        for atoms in moved:
            atoms.positions = np.round(atoms.positions + 0.01 * bead, 5)
        write_positions(folder / f"run.pos_{bead}.xyz", range(len(frames)), moved, bead)
        stored += moved
    return stored


@pytest.mark.usefixtures("no_figure")
def test_all_beads_of_a_path_integral(comitia, tmp_path):
    cubic = [Atoms("Ar4", np.round(atoms.positions, 5), cell=[6, 6, 6], pbc=True) for atoms in comitia.frames]
    stored = write_ipi(tmp_path, cubic)
    for atoms in stored:
        atoms.info["reference"] = comitia.potential.compute(atoms).energy + 0.3 * KT * np.cos(
            40 * atoms.positions[0, 0]
        )
    write(tmp_path / "beads.xyz", stored, format="extxyz")
    options = ["--reference", "file:beads.xyz:reference", "--frames", "all"]
    code, _, complained = comitia(*options, trajectory="run.pos_0.xyz")
    assert code == 2
    assert "give --pbc or --no-pbc" in complained
    code, _, complained = comitia(*options, "--pbc", trajectory="run.pos_0.xyz")
    assert code == 0, complained
    content = result()
    assert content["n_beads"] == 2
    assert content["n_called"] == 2 * N_FRAMES
    assert content["steps"] == list(range(N_FRAMES))
    shifts = 0.3 * KT * np.cos(40 * np.array([atoms.positions[0, 0] for atoms in stored])).reshape(2, -1).mean(axis=0)
    assert content["value"] == pytest.approx(-KT * np.log(np.mean(np.exp(-shifts / KT))), abs=1e-5)
    code, *_ = comitia(*options, "--pbc", "--beads", 1, trajectory="run.pos_0.xyz")
    assert code == 0
    assert result()["method"] == "first cumulant"
    assert comitia(*options, "--pbc", "--beads", 3, trajectory="run.pos_0.xyz")[0] == 2
    for place, atoms in enumerate(stored):
        atoms.info |= {"step": place % N_FRAMES, "bead": place // N_FRAMES, "temperature": 300.0}
    write(tmp_path / "stored.xyz", stored, format="extxyz")
    assert comitia(*options, trajectory="stored.xyz")[0] == 0
    assert result()["value"] == pytest.approx(content["value"], abs=1e-7)
    write(tmp_path / "stored.xyz", stored[:-1], format="extxyz")
    code, _, complained = comitia(*options, trajectory="stored.xyz")
    assert code == 3
    assert f"step {N_FRAMES - 1} has 1 of 2 beads" in complained
    (tmp_path / "run.pos_0.xyz").unlink()
    code, _, complained = comitia(*options, "--pbc", trajectory="run.pos_1.xyz")
    assert code == 3
    assert "missing" in complained


@pytest.mark.usefixtures("no_figure")
def test_the_temperature_of_the_run(comitia, tmp_path):
    cubic = [Atoms("Ar4", np.round(atoms.positions, 5), cell=[6, 6, 6], pbc=True) for atoms in comitia.frames]
    write_ipi(tmp_path, cubic, n_beads=1)
    write_restart(tmp_path, temperature=250.0)
    code, _, complained = comitia("--pbc", "--frames", "all", trajectory="run.pos_0.xyz")
    assert code == 3
    assert "the run is at 250 K" in complained


@pytest.mark.usefixtures("no_figure")
def test_one_ensemble_of_a_replica_exchange(comitia, tmp_path):
    """Frames and columns are those of the temperature, whichever replica was there."""
    cubic = [Atoms("Ar4", np.round(atoms.positions, 5), cell=[6, 6, 6], pbc=True) for atoms in comitia.frames]
    half, steps, expected = N_FRAMES // 2, np.arange(N_FRAMES // 2), {300.0: [], 400.0: []}
    swaps = [[step, *((0, 1) if number % 2 else (1, 0))] for number, step in enumerate(range(3, half, 7))]
    write_exchange(tmp_path, list(expected), swaps)
    for replica in range(2):
        own = cubic[replica * half : (replica + 1) * half]
        write_positions(tmp_path / f"{replica}_run.pos_0.xyz", steps, own)
        x = [atoms.positions[0, 0] for atoms in own]
        write_properties(tmp_path / f"{replica}_run.out", {"step": steps, "atom_x{angstrom}(0)": x})
    for step in steps:
        at_300 = sum(row[0] < step for row in swaps) % 2  # the replica that is there
        for temperature, replica in ((300.0, at_300), (400.0, 1 - at_300)):
            expected[temperature].append(cubic[replica * half + step])
    for atoms in cubic:
        atoms.info["reference"] = comitia.potential.compute(atoms).energy + 0.3 * KT * np.cos(
            40 * atoms.positions[0, 0]
        )
    write(tmp_path / "all.xyz", cubic, format="extxyz")
    options = ["--reference", "file:all.xyz:reference", "--frames", "all", "--pbc", "--observable", "0_run.out:2"]
    for number, (temperature, frames) in enumerate(expected.items()):
        code, _, complained = comitia(*options, "--temperature", temperature, trajectory="1_run.pos_0.xyz")
        assert code == 0, complained
        assert f"replica exchange, ensemble {number} of 0: 300 K; 1: 400 K" in complained
        content, x = result(), np.array([atoms.positions[0, 0] for atoms in frames])
        assert (content["ensemble"], content["steps"]) == (number, steps.tolist())
        weights = np.exp(-0.3 * 300 / temperature * np.cos(40 * x))
        assert content["value"] == pytest.approx(-KB * temperature * np.log(weights.mean()), abs=1e-6)
        average = content["observables"]["0_run.out:2"]["value"]
        assert average == pytest.approx(weights @ x / weights.sum(), rel=1e-5)
    for given, code, words in (
        (["--temperature", 350], 3, "no ensemble is at 350 K in this replica exchange (0: 300 K; 1: 400 K)"),
        (["--ensemble", 1], 3, "no ensemble is number 1, at 300 K"),
        (["--observable", "all.xyz:reference"], 3, "all.xyz: is not i-PI's output"),
        (["--trajectory", "frames.xyz", "--ensemble", 0], 2, "frames.xyz is not of a replica exchange; leave it out"),
    ):
        found, _, complained = comitia(*options, *given, trajectory="0_run.pos_0.xyz")
        assert found == code, complained
        assert words in complained.splitlines()[-1]


@pytest.mark.usefixtures("no_figure")
def test_other_energies_are_unreliable(comitia, tmp_path):
    """The reference energies of other frames: --strict says so with its exit code."""
    energies = np.random.default_rng(1).permutation([atoms.info["reference"] for atoms in comitia.frames])
    for atoms, energy in zip(comitia.frames, energies, strict=True):
        atoms.info["reference"] = energy
    write(tmp_path / "frames.xyz", comitia.frames, format="extxyz")
    code, said, _ = comitia("--frames", "all", "--strict")
    assert code == 6
    assert "not correlated" in said


@pytest.mark.usefixtures("no_figure")
def test_both_ends(comitia):
    code, said, _ = comitia("--frames", "all", "--reference-trajectory", "frames.xyz")
    assert code == 0
    assert result()["both_ends"]["method"] == "acceptance ratio"
    assert "both ends (BAR)" in said
