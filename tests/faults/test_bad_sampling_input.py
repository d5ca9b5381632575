"""What `comitia serve` and `comitia sample` say of inputs that cannot be used; nothing is started or written."""

import re
from pathlib import Path

import pytest
from click.exceptions import UsageError as ClickUsageError
from models import crystal, small_model, write_ipi_xyz

from comitia.cli.sample import command as sample_command
from comitia.cli.serve import command as serve_command
from comitia.engines.ipi_input import IpiInput
from comitia.errors import ComitiaError, SettingsError, UsageError

TEMPLATES = sorted((Path(__file__).resolve().parents[2] / "inputs").glob("*.xml"))
NVE = (Path(__file__).resolve().parents[2] / "inputs" / "nve.xml").read_text()
BOMB = "<!DOCTYPE a [" + "".join(f'<!ENTITY x{i + 1} "&x{i};&x{i};&x{i};">' for i in range(30)) + "]>"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    small_model().save(tmp_path / "model.safetensors")
    write_ipi_xyz(tmp_path / "init.xyz", crystal())
    (tmp_path / "nve.xml").write_text(NVE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def failure(command, *arguments):
    """The error of a command; there must be one, and no new file."""
    before = sorted(Path.cwd().iterdir())
    with pytest.raises(ComitiaError) as caught:
        command.main([str(argument) for argument in arguments], standalone_mode=False)
    assert sorted(Path.cwd().iterdir()) == before
    assert "\n" not in str(caught.value)
    return caught.value


def sample_failure(*options):
    return failure(sample_command, "nve.xml", "--model", "model.safetensors", "--quiet", *options)


def serve_failure(*options):
    return failure(serve_command, "model.safetensors", "--template", "init.xyz", *options)


@pytest.mark.parametrize("length", [0, 1, 40, 1000, len(NVE) // 2, len(NVE) - 3])
def test_a_truncated_input(folder, length):
    (folder / "nve.xml").write_text(NVE[:length])
    error = sample_failure()
    assert error.exit_code == 3
    assert "nve.xml: not valid XML" in str(error)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"\x00\x01\x02\xff", "not valid XML"),
        (b"<?xml version='1.0' encoding='no-such-code'?><simulation/>", "not valid XML|cannot be decoded"),
        (b"<?xml version='1.0' encoding='utf-32'?><simulation/>", "not valid XML|cannot be decoded"),
        (BOMB.encode() + b"<simulation>&x30;</simulation>", "document type"),
        (b"<!DOCTYPE s SYSTEM 'file:///etc/passwd'><simulation/>", "document type"),
        (b"<html/>", "outermost element is <html>"),
        (b"<simulation/>", "no <ffsocket>"),
        (NVE.replace("mode='unix'", "mode='mpi'").encode(), "has mode 'mpi'"),
        (NVE.replace("<total_steps> 1000", "<total_steps> many").encode(), "<total_steps> is 'many'"),
        (NVE.replace("<latency> 1e-4", "<latency> soon").encode(), "<latency> is 'soon'"),
        (NVE.replace("<latency> 1e-4", "<latency> nan").encode(), "<latency> is 'nan'"),
        (NVE.replace("<total_steps> 1000", "<total_steps> inf").encode(), "<total_steps> is 'inf'"),
        (NVE.replace("<latency>", "<batch_size> 0 </batch_size> <latency>").encode(), "batches of 0 structures"),
        (NVE.replace("init.xyz </file>", "gone.xyz </file>").encode(), "gone.xyz is not there"),
        (NVE.replace("<file mode='xyz'> init.xyz </file>", "").encode(), "no <initialize>"),
        (NVE.replace("forcefield='comitia'", "forcefield='other'").encode(), "names no force field"),
        (
            NVE.replace("extra_type='committee_pot'", "extra_type='committee'").encode(),
            "'committee', at which i-PI ends",
        ),
    ],
)
def test_an_input_that_cannot_be_used(folder, text, sentence):
    (folder / "nve.xml").write_bytes(text)
    error = sample_failure()
    assert error.exit_code == 3
    assert re.search(sentence, str(error)), str(error)


def test_files_that_are_not_there(folder):
    assert failure(sample_command, "gone.xml", "--model", "model.safetensors").exit_code == 3
    assert failure(sample_command, "nve.xml", "--model", "gone.safetensors").exit_code == 3
    assert failure(serve_command, "gone.safetensors", "--template", "init.xyz", "--unix", "x").exit_code == 3
    assert failure(serve_command, "model.safetensors", "--template", "gone.xyz", "--unix", "x").exit_code == 3


def test_a_structure_that_cannot_be_used(folder):
    whole = (folder / "init.xyz").read_text()
    for text, sentence in [
        (whole.replace("Ar", "Xe"), "species Xe is not in the model"),
        (whole.replace("Ar", "Qq"), "'Qq', which is no element"),
        (whole[: len(whole) // 2].rstrip() + "\n", "no complete xyz frame"),
        ("", "holds no structure"),
    ]:
        (folder / "init.xyz").write_text(text)
        for error in (sample_failure(), serve_failure("--unix", "x")):
            assert error.exit_code == 3
            assert sentence in str(error), str(error)


def test_a_damaged_model(folder):
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-100])
    assert sample_failure().exit_code == 3
    assert serve_failure("--unix", "x").exit_code == 3


def test_a_restart_of_something_else(folder):
    (folder / "RESTART").write_text(NVE.replace("prefix='nve'", "prefix='other'"))
    assert "another input" in str(sample_failure())
    (folder / "RESTART").write_text(NVE[:1000])
    assert "remove it to start anew" in str(sample_failure())


def test_addresses_that_make_no_sense(folder):
    assert isinstance(serve_failure(), UsageError)
    assert isinstance(serve_failure("--unix", "x", "--unix", "x"), UsageError)  # several servers, each once
    assert isinstance(serve_failure("--unix", "x", "--host", "localhost"), UsageError)
    assert serve_failure("--unix", 110 * "x").exit_code == 3
    assert serve_failure("--port", 70_000).exit_code == 3
    (folder / "file").touch()
    assert serve_failure("--unix", folder / "file").exit_code == 3
    with pytest.raises(ClickUsageError, match="not one of"):
        serve_command.main(["m", "--template", "t", "--unix", "x", "--extras", "everything"], standalone_mode=False)


def test_a_server_that_never_comes(folder):
    error = serve_failure("--unix", "comitia-test-nobody", "--wait", 0.1)
    assert error.exit_code == 4
    assert "unix:/tmp/ipi_comitia-test-nobody: no server within 0.1 s" in str(error)


def test_extras_of_members_need_members(folder):
    small_model(n_members=1).save(folder / "model.safetensors")
    assert "one member" in str(serve_failure("--unix", "x", "--extras", "committee_force"))


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_templates_are_precise_and_quick(path):
    run = IpiInput(path)
    assert run.warnings() == []
    assert run.step_files()
    strides = {e.get("stride") for e in run.root.iterfind("output/properties")}
    assert {e.get("stride") for e in run.root.iterfind("output/trajectory[@extra_type='committee_pot']")} == strides


def test_settings_that_cost_precision_or_time_are_pointed_out(folder):
    text = NVE.replace("1e-4 </latency>", "1e-2 </latency> <batch_size> 3 </batch_size>")
    text = re.sub("<checkpoint.*?/>", "", text)
    (folder / "nve.xml").write_text(text.replace("floatformat='%24.16e'", ""))
    said = " ".join(IpiInput(folder / "nve.xml").warnings())
    for word in ("floatformat", "sleeps 0.01 s", "batches of 3", "no <checkpoint>"):
        assert word in said


def test_an_input_moves_to_another_folder(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("run")
    text = IpiInput(folder / "nve.xml").copy_for(elsewhere, 7)
    (elsewhere / "copy.xml").write_text(text)
    moved = IpiInput(elsewhere / "copy.xml")
    assert moved.total_steps == 7
    assert moved.structure_file() == (folder / "init.xyz", "xyz")
    assert IpiInput(folder / "nve.xml").copy_for(folder) is None
    with pytest.raises(SettingsError):
        IpiInput(elsewhere / "gone.xml")
