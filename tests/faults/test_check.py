"""`comitia check`: every fault that is put into a good input is found by name, and the good input passes."""

import json
import re
import shutil
from pathlib import Path

import pytest
from commands import FIT, labelled
from models import crystal, small_model, write_ipi_xyz

from comitia.cli.check import command
from comitia.engines.check import check_input, check_potential
from comitia.engines.plumed import find_kernel
from comitia.errors import SettingsError, UsageError
from comitia.study.check import check_fit, check_study

INPUTS = Path(__file__).resolve().parents[2] / "inputs"
SPECIES = (10, 18)
FACTORY = """
from ase.calculators.lj import LennardJones


def make(sigma=3.4):
    return LennardJones(sigma=sigma, epsilon=0.0104, rc=5.0)


class WithoutStress(LennardJones):
    implemented_properties = ["energy", "forces"]


def without_stress():
    return WithoutStress(sigma=3.4, epsilon=0.0104, rc=5.0)
"""
CALCULATOR = {"calculator": "lj_pairs:make", "arguments": {}}
MEMBERS = (
    "members: [{calculator: 'lj_pairs:make'}, {calculator: 'lj_pairs:make', arguments: {sigma: 3.35}}]\nalpha: 1.5\n"
)
COMMITTEE = (
    "<ffcommittee name='comitia'> <ffsocket name='one' mode='unix'><address> a </address></ffsocket> {} </ffcommittee>"
)
SOCKET = re.compile(r"<ffsocket.*</ffsocket>", re.DOTALL)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The templates, a model of neon and argon, and what they start from."""
    small_model(SPECIES).save(tmp_path / "model.safetensors")
    write_ipi_xyz(tmp_path / "init.xyz", crystal(SPECIES))
    for path in INPUTS.glob("*"):
        shutil.copy(path, tmp_path)
    (tmp_path / "lj_pairs.py").write_text(FACTORY)
    (tmp_path / "members.yaml").write_text(MEMBERS)
    (tmp_path / "member.yaml").write_text(MEMBERS + "drive: 1\n")
    (tmp_path / "limited.yaml").write_text(MEMBERS + "uncertainty_limit: {sigma: 0.1, stiffness: 5}\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def findings(check):
    return [f"{found.severity}: {found.sentence}" for found in check.findings]


@pytest.mark.parametrize("path", sorted(INPUTS.glob("*.xml")), ids=lambda path: path.stem)
def test_a_good_input_passes(path, folder):
    if "<ffplumed" in path.read_text() and find_kernel() is None:
        pytest.skip("PLUMED is not installed")
    check = check_input(path.name, "model.safetensors", template="init.xyz", n_threads=1)
    assert findings(check) == []
    assert check.facts["structure"]["n_atoms"] == 64
    assert check.facts["trial"]["seconds_per_step"] > 0


FAULTS = {
    "digits": ("nvt", " floatformat='%24.16e'", "", "warning: .*keeps too few digits"),
    "latency": ("nvt", "1e-4", "1e-2", "warning: .*sleeps 0.01 s"),
    "batch": ("pimd", "<batch_size> 8", "<batch_size> 3", "warning: .*batches of 3 do not divide the 8"),
    "no extra_type": ("nvt", " extra_type='committee_pot'", "", "warning: .*without extra_type"),
    "no committee": ("nvt", r"<trajectory filename='committee_pot'.*?y>", "", "warning: .*does not print"),
    "misspelt extra": ("nvt", "extra_type='committee_pot'", "extra_type='committee'", "refusal: .*extra 'committee'"),
    "asked extra": ("nvt", "extra_type='committee_pot'", "extra_type='committee_force'", "warning: .*--extras co"),
    "stride": ("nvt", "stride='4' extra_type", "stride='5' extra_type", "warning: .*every 5 steps and"),
    "one bead": ("pimd", "stride='4' extra_type", "stride='4' bead='0' extra_type", "warning: .*one bead of 8"),
    "contraction": ("pimd", "forcefield='comitia'/>", "forcefield='comitia' nbeads='2'/>", "refusal: .*2 of 8"),
    "socket": ("nvt", "(?s)<ffsocket.*</ffsocket>", "", "refusal: .*has no <ffsocket>"),
    "force field": ("nvt", "<force forcefield='comitia'", "<force forcefield='other'", "refusal: .*there are comitia"),
    "lock": ("pimd", "<ffsocket ", "<ffsocket matching='lock' ", "refusal: .*matching='lock' and batches"),
    "structure": ("nvt", "init.xyz </file>", "gone.xyz </file>", "refusal: .*gone.xyz is not there"),
    "swap with beads": ("atomswap", "nbeads='1'", "nbeads='4'", "refusal: .*whose masses differ, with 4 beads"),
    "swap with bias": (
        "atomswap",
        "</temperature> </ensemble>",
        "</temperature> <bias> <force forcefield='comitia'/> </bias> </ensemble>",
        "refusal: .*<atomswap> beside a <bias>",
    ),
    "swap of one": ("atomswap", r"\[ Ne, Ar \]", "[ Ne, Xe ]", "refusal: .*search for a pair for ever"),
    "metadynamics": ("plumed", "<smotion.*</smotion>", "", "warning: .*neither COLVAR nor HILLS"),
    "plumed.dat": ("plumed", "plumed.dat </plumed_dat>", "gone.dat </plumed_dat>", "refusal: .*gone.dat is not there"),
    "weights": ("nvt", SOCKET, COMMITTEE.format("<weights> [1] </weights>"), "warning: .*i-PI 3.3 reads and ignores"),
    "direct": ("nvt", SOCKET, COMMITTEE.format("<ffdirect name='d'/>"), "refusal: .*fails at the first checkpoint"),
    "baseline": (
        "nvt",
        SOCKET,
        COMMITTEE.format("<parse_json> True </parse_json> <baseline_name> b </baseline_name>"),
        "warning: .*needs forces of the members",
    ),
    "no images": ("nvt", "<system>", "<fflj name='lj'/>\n<system>", "warning: .*<fflj> counts no periodic image"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found(name, folder):
    """And nothing else is."""
    stem, pattern, replacement, sentence = FAULTS[name]
    path = folder / f"{stem}.xml"
    text, count = re.subn(pattern, replacement, path.read_text())
    assert count >= 1
    path.write_text(text)
    found = findings(check_input(path, "model.safetensors", n_threads=1))
    found = [line for line in found if "PLUMED is not installed" not in line]
    assert re.match(sentence, found[0]), found
    assert name == "asked extra" or len(found) == 1, found


@pytest.mark.skipif(find_kernel() is None, reason="PLUMED is not installed")
@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("FLUSH STRIDE=1\n", "", "warning: .*metad.dat: has no FLUSH"),
        ("FLUSH", "s: EXTRACV NAME=sigma\nFLUSH", "refusal: .*metad.dat: EXTRACV: .*uncertainty_limit"),
        ("STRIDE=1 FILE=COLVAR", "STRIDE=4 FILE=COLVAR", "warning: .*metad.dat: PRINT STRIDE=4: .*write STRIDE=1"),
    ],
)
def test_what_i_pi_makes_of_an_input_of_plumed_is_found(folder, old, new, sentence):
    path = folder / "metad.dat"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    (found,) = findings(check_input("metad.xml", "model.safetensors", n_threads=1))
    assert re.match(sentence, found)


@pytest.mark.skipif(find_kernel() is None, reason="PLUMED is not installed")
def test_a_restraint_that_writes_nothing_needs_no_end_of_a_step(folder):
    for name, pattern in (("plumed.xml", "<smotion.*</smotion>"), ("plumed.dat", "PRINT [^\n]*\n")):
        text, count = re.subn(pattern, "", (folder / name).read_text(), flags=re.DOTALL)
        assert count == 1
        (folder / name).write_text(text)
    assert findings(check_input("plumed.xml", "model.safetensors", n_threads=1)) == []


def test_another_order_of_the_atoms_is_found(folder):
    """The template of the client against the structure that i-PI starts from, and against that of another system."""
    write_ipi_xyz(folder / "other.xyz", crystal(SPECIES[::-1]))
    found = findings(check_input("nvt.xml", "model.safetensors", template="other.xyz", n_threads=1))
    assert [line for line in found if re.match("refusal: other.xyz: atom 0 is Ar, in nvt.xml it is Ne", line)] == found
    write_ipi_xyz(folder / "other.xyz", crystal(SPECIES, (2, 2, 2)))
    found = findings(check_input("nvt.xml", "model.safetensors", template="other.xyz", n_threads=1))
    assert [line for line in found if re.match("refusal: other.xyz: has 32 atoms, nvt.xml has 64", line)] == found


def test_a_species_that_the_model_does_not_know_is_found(folder):
    write_ipi_xyz(folder / "init.xyz", crystal((10, 36)))
    (found,) = findings(check_input("nvt.xml", "model.safetensors", n_threads=1))
    assert re.match("refusal: .*init.xyz.*species Kr is not in the model", found)


def test_bohr_are_told_from_angstrom(folder):
    """Without units in the comment i-PI reads bohr; and extended XYZ is not what its mode 'xyz' reads."""
    text = (folder / "init.xyz").read_text()
    (folder / "init.xyz").write_text(text.replace("positions{angstrom} cell{angstrom}", ""))
    found = findings(check_input("nvt.xml", "model.safetensors", n_threads=1))
    assert re.match("warning: .*names no units, and i-PI reads bohr", found[0]), found
    text = (folder / "nvt.xml").read_text()
    (folder / "nvt.xml").write_text(
        text.replace("<file mode='xyz'>", "<file mode='xyz' units='angstrom' cell_units='angstrom'>")
    )
    check = check_input("nvt.xml", "model.safetensors", n_threads=1)
    assert findings(check) == []
    assert check.facts["structure"]["heights"][0] == pytest.approx(crystal(SPECIES).cell.lengths()[0], rel=1e-7)
    crystal(SPECIES).write(folder / "init.xyz", format="extxyz")
    found = findings(check_input("nvt.xml", "model.safetensors", n_threads=1))
    assert any(re.match("refusal: .*finds no cell in its second line", line) for line in found), found


def test_a_thin_cell_is_found(folder):
    """A comitia model counts every image; a calculator may not."""
    write_ipi_xyz(folder / "init.xyz", crystal(SPECIES, (1, 2, 2)))
    (found,) = findings(check_input("nvt.xml", "model.safetensors", n_threads=1))
    assert re.match("warning: .*4.67 Å thin and the cutoff 5 Å.*every image is counted", found)
    (folder / "mixed.yaml").write_text(
        "members: [{model: model.safetensors}, {calculator: 'lj_pairs:make'}]\nalpha: 2\n"
    )
    found = findings(check_input("nvt.xml", "mixed.yaml", n_threads=1))
    assert len(found) == 2
    assert "a calculator that takes the nearest image" in found[1]


def test_what_does_not_drive_with_the_mean_is_found_under_a_committee_of_i_pi(folder):
    path = folder / "nvt.xml"
    parsed = COMMITTEE.format("<parse_json> True </parse_json>")
    path.write_text(SOCKET.sub(parsed, path.read_text()))
    assert findings(check_input(path, "members.yaml", n_threads=1)) == []
    (found,) = findings(check_input(path, "member.yaml", n_threads=1))
    assert re.match("refusal: .*drives with their plain mean, not with what member.yaml says", found)
    found, bias = findings(check_input(path, "limited.yaml", n_threads=1))
    assert re.match("refusal: .*drives with their plain mean, not with what limited.yaml says.* a limit of", found)
    assert re.match("warning: .*does not print uncertainty_bias", bias)


def test_the_bias_of_a_limit_can_be_printed(folder):
    path = folder / "nvt.xml"
    line = "<trajectory filename='uncertainty_bias' stride='4' extra_type='uncertainty_bias'> extras </trajectory>"
    path.write_text(path.read_text().replace("<checkpoint", f"{line}\n    <checkpoint"))
    assert findings(check_input(path, "limited.yaml", n_threads=1)) == []
    (found,) = findings(check_input(path, "members.yaml", n_threads=1))
    assert re.match("refusal: .*prints the extra 'uncertainty_bias', at which i-PI ends", found)


def test_constant_pressure_without_stress_is_found(folder):
    path = folder / "nvt.xml"
    (folder / "mixed.yaml").write_text(MEMBERS.replace("'lj_pairs:make'}", "'lj_pairs:without_stress'}", 1))
    assert findings(check_input(path, "mixed.yaml", n_threads=1)) == []
    path.write_text(path.read_text().replace("<dynamics mode='nvt'>", "<dynamics mode='npt'>"))
    assert findings(check_input(path, "members.yaml", n_threads=1)) == []
    (found,) = findings(check_input(path, "mixed.yaml", n_threads=1))
    assert re.match("refusal: .*lj_pairs:without_stress gives no stress", found)


def test_a_composed_potential_is_tried(folder):
    assert findings(check_potential(folder / "members.yaml", "init.xyz", 1)) == []
    (folder / "members.yaml").write_text(MEMBERS.replace("alpha: 1.5", ""))
    (found,) = findings(check_potential(folder / "members.yaml", "init.xyz", 1))
    assert re.match("warning: .*alpha is 1 and the members are not calibrated", found)
    (folder / "members.yaml").write_text(
        "members: [{workers: 'unix:nobody'}, {calculator: 'lj_pairs:make'}]\nalpha: 2\n"
    )
    (found,) = findings(check_potential(folder / "members.yaml", "init.xyz", 1))
    assert re.match("warning: .*workers must connect; no step was tried", found)
    (folder / "members.yaml").write_text(MEMBERS.replace("sigma", "delta"))
    (found,) = findings(check_potential(folder / "members.yaml", "init.xyz", 1))
    assert re.match("refusal: .*cannot be made", found)


def test_the_command(folder, capsys):
    """Prints what it found, leaves it as JSON, and its exit code says whether the run may start."""

    def run(*arguments):
        code = command.main([*arguments, "--threads", "1"], standalone_mode=False)
        return code, capsys.readouterr().out

    code, said = run("nvt.xml", "--model", "model.safetensors", "--json", "check.json")
    assert code == 0
    for word in ("atoms       64, Ar32Ne32", "species Ne Ar, cutoff 5 Å", "MiB", "s a step", "refusals 0, warnings 0"):
        assert word in said
    written = json.loads((folder / "check.json").read_text())
    assert written["findings"] == []
    assert written["trial"]["seconds_of_run"] > 0
    (folder / "init.xyz").unlink()
    code, said = run("nvt.xml", "--model", "model.safetensors")
    assert code == 3
    assert "init.xyz is not there" in said
    code, said = run("members.yaml", "--template", "lj_pairs.py")
    assert code == 3
    code, said = run("fit.yaml")
    assert code == 3
    assert "training.xyz.xz" in said
    (folder / "other.yaml").write_text("surprise: 1\n")
    with pytest.raises(SettingsError, match="has none of the keys"):
        run("other.yaml")
    with pytest.raises(UsageError, match="--model belongs to an input of i-PI"):
        run("members.yaml", "--model", "model.safetensors")


def test_corrections_without_their_baseline_are_found(folder):
    model = small_model(SPECIES)
    corrections = type(model)(model.descriptor, model.weights, [0.0, 0.0], metadata={"baseline": CALCULATOR})
    corrections.save(folder / "corrections.safetensors")
    (found,) = findings(check_input("nvt.xml", "corrections.safetensors", n_threads=1))
    assert re.match("refusal: .*a model of corrections to calculator lj_pairs:make", found)
    text = "committee: corrections.safetensors\nbaseline: {calculator: 'lj_pairs:make'}\nbaseline_uncertainty: 0.5\n"
    (folder / "weighted.yaml").write_text(text)
    path = folder / "nvt.xml"
    (found,) = findings(check_input(path, "weighted.yaml", n_threads=1))
    assert re.match("warning: .*does not print baseline_pot", found)
    printed = "extra_type='{0}'> extras </trajectory>"
    more = printed.format("committee_pot") + "<trajectory filename='b' stride='4' " + printed.format("baseline_pot")
    path.write_text(path.read_text().replace(printed.format("committee_pot"), more))
    assert findings(check_input(path, "weighted.yaml", n_threads=1)) == []
    path.write_text(SOCKET.sub(COMMITTEE.format("<parse_json> True </parse_json>"), path.read_text()))
    (found,) = findings(check_input(path, "weighted.yaml", n_threads=1))
    assert re.match("refusal: .*not with what weighted.yaml says", found)
    (folder / "weighted.yaml").write_text(text.replace("corrections", "model"))
    (found,) = findings(check_potential("weighted.yaml", "init.xyz", 1))
    assert re.match("refusal: .*a model of total energies", found)


@pytest.fixture(scope="module")
def data():
    return labelled(24)


@pytest.fixture
def study(folder, data):
    """A fit, and a study of it, that are good."""
    (folder / "data.xyz").write_text(data)
    (folder / "fit.yaml").write_text(FIT)
    write_ipi_xyz(folder / "init.xyz", crystal())
    (folder / "study.yaml").write_text(
        "fit: fit.yaml\nsample: {cold: {input: nvt.xml}}\n"
        "observables: {energy: {from: cold, property: potential, unit: eV}}\n"
        "perturb: {references: {a: {with: 'ase:lj_pairs:make'}}, frames: {cold: 9}, differences: {}}\n"
    )
    return folder


def test_a_good_fit_and_a_good_study_pass(study):
    check = check_fit("fit.yaml")
    assert findings(check) == []
    assert check.facts["fit"]["structures"] == {"training": 24, "validation": 0, "test": 0}
    assert check.facts["fit"]["labels"] == {"energy": 24, "forces": 24, "virial": 0}
    assert check.facts["fit"]["largest_memory"] > 1e8
    check = check_study("study.yaml")
    assert findings(check) == []
    assert check.facts["samples"]["cold"]["structure"]["n_atoms"] == 64


@pytest.mark.parametrize(
    ("file", "before", "after", "sentence"),
    [
        ("fit.yaml", "data.xyz", "gone.xyz", "refusal: gone.xyz: cannot be read"),
        ("fit.yaml", "members", "member", "refusal: .*unknown key 'member'"),
        ("fit.yaml", "members", "baseline: {calculator: 'lj_pairs:none'}\nmembers", "refusal: .*cannot be made"),
        ("fit.yaml", "members", "keys: {virial: v}\nmembers", "warning: .*no frame has a virial or stress"),
        ("fit.yaml", "members", "test: {fraction: 0.5}\nmembers", "warning: .*structures to train on; errors"),
        ("fit.yaml", "members", "previous: gone.safetensors\nmembers", "refusal: previous: gone.safetensors"),
        ("data.xyz", "Ar", "Ne", "refusal: .*init.xyz.*species Ar is not in the model"),
        ("nvt.xml", "extra_type='committee_pot'", "", "warning: .*without extra_type"),
        ("study.yaml", "property: potential", "property: pressure", "refusal: .*pressure"),
        ("study.yaml", "input: nvt.xml", "input: gone.xml", "refusal: .*gone.xml"),
        ("study.yaml", "pairs:make", "pairs:none", "refusal: calculator 'lj_pairs:none': cannot be made"),
        ("study.yaml", "differences: {}", "stored: {frames: f.xyz, model: m}", "refusal: perturb.stored: f.xyz is not"),
    ],
)
def test_a_fault_in_a_fit_or_a_study_is_found(file, before, after, sentence, study):
    path = study / file
    path.write_text(path.read_text().replace(before, after))
    found = findings(check_study("study.yaml"))
    assert any(re.match(sentence, line) for line in found), found
    if file == "fit.yaml":
        (line,) = findings(check_fit("fit.yaml"))
        assert re.match(sentence, line), line
