"""Input that cannot be used ends every command with its exit code and one sentence, and leaves no file behind."""

import bz2
import gzip
import lzma
import zlib

import numpy as np
import pytest
from commands import COMMANDS, FIT, labelled, listing

READS = [
    ("fit", "fit.yaml"),
    ("fit", "data.xyz"),
    ("eval", "data.xyz"),
    ("eval", "model.safetensors"),
    ("select", "data.xyz"),
    ("select", "model.safetensors"),
    ("label", "data.xyz"),
    ("label", "model.safetensors"),
    ("inspect", "model.safetensors"),
    ("serve", "model.safetensors"),
    ("serve", "init.xyz"),
    ("sample", "nve.xml"),
    ("sample", "model.safetensors"),
    ("sample", "init.xyz"),
    ("run", "study.yaml"),
]
NOISE = np.random.default_rng(0).bytes(2000)


@pytest.mark.parametrize(("command", "name"), READS)
def test_files_that_are_something_else(folder, refused, originals, command, name):
    path, arguments = folder / name, COMMANDS[command]
    contents = [b"", b"\n\n", b"\0" * 300, NOISE, "Größe: 1\n".encode("latin-1")]
    contents += [other.read_bytes() for other in originals.iterdir() if other.suffix != path.suffix]
    for content in contents:
        path.write_bytes(content)
        assert name in refused(arguments)
    path.unlink()
    assert name in refused(arguments)
    path.mkdir()
    assert name in refused(arguments)


@pytest.mark.parametrize(("ending", "module"), [("xz", lzma), ("gz", gzip), ("bz2", bz2)])
def test_compressed_data_that_are_damaged(folder, refused, ending, module):
    whole = module.compress((folder / "data.xyz").read_bytes())
    for content in (b"", NOISE, whole[: len(whole) // 2], module.compress("Größe".encode("latin-1"))):
        (folder / f"data.xyz.{ending}").write_bytes(content)
        assert f"data.xyz.{ending}" in refused(["eval", "model.safetensors", f"data.xyz.{ending}"])


@pytest.mark.parametrize("command", ["eval", "select", "serve", "sample"])
def test_a_species_that_the_model_does_not_know(folder, refused, command):
    for name in ("data.xyz", "init.xyz"):
        (folder / name).write_text((folder / name).read_text().replace("Ar ", "Xe "))
    options = {
        "eval": ["--json", "errors.json"],
        "select": ["--json", "chosen.json"],
        "serve": ["--ready-file", "ready"],
        "sample": ["--directory", "new"],
    }
    assert "species Xe is not in the model" in refused(COMMANDS[command] + options[command])


@pytest.mark.parametrize("command", ["fit", "eval"])
@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e999", "high"])
def test_numbers_that_are_not_finite(folder, refused, command, value):
    lines = labelled().splitlines()
    second = next(number for number, line in enumerate(lines[1:], 1) if line == lines[0])
    header, atom = lines[second + 1], lines[second + 2].split()
    for changed, number in (
        (header.replace("energy=", f"energy={value} old="), second + 1),
        (header.replace('Lattice="', f'Lattice="{value} ').replace('" Prop', '" Prop'), second + 1),
        (header + f' virial="{value} 0 0 0 1 0 0 0 1"', second + 1),
        (" ".join([atom[0], value, *atom[2:]]), second + 2),
        (" ".join([*atom[:6], value]), second + 2),
    ):
        (folder / "data.xyz").write_text("\n".join([*lines[:number], changed, *lines[number + 1 :]]) + "\n")
        assert "data.xyz, frame 1" in refused(COMMANDS[command]), changed


def test_rows_with_a_column_too_many(folder, refused):
    text = (folder / "data.xyz").read_text().replace("Ar ", "Ar 0.5 ", 1)
    (folder / "data.xyz").write_text(text)
    assert "8 columns, Properties names 7" in refused(COMMANDS["eval"])


@pytest.mark.parametrize("kind", ["energy", "forces"])
def test_a_key_that_no_frame_has(folder, refused, kind):
    (folder / "fit.yaml").write_text(f"{FIT}keys: {{{kind}: REF}}\n")
    assert "'REF'" in refused(COMMANDS["fit"])
    assert "'REF'" in refused([*COMMANDS["eval"], f"--{kind}-key", "REF"])


@pytest.mark.parametrize("kind", ["virial", "stress"])
def test_a_virial_that_no_frame_has_is_one_warning(folder, comitia, kind):
    (folder / "fit.yaml").write_text(f"{FIT}keys: {{{kind}: REF}}\n")
    code, said = comitia(COMMANDS["fit"])
    assert code == 0
    assert said.count("warning:") == said.count("'REF'") == 1
    assert (folder / "data.safetensors").is_file()


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("cutof: 4.5", "did you mean 'cutoff'"),
        ("basis: {n_mx: [3, 2, 0]}", "did you mean 'n_max'"),
        ("weights: {energie: 1}", "did you mean 'energy'"),
        ("validation: {fractoin: 0.1}", "did you mean 'fraction'"),
        ("seed: 1\nseed: 2", "'seed' is given twice"),
        ("basis: {n_max: [1, 1, 1], n_max: [2, 2, 2]}", "'n_max' is given twice"),
        ("cutoff: abc", "cutoff"),
        ("cutoff: 0", "cutoff"),
        ("cutoff: -4", "cutoff"),
        ("cutoff: .nan", "not a finite number"),
        ("cutoff: .inf", "not a finite number"),
        ("cutoff: null", "cutoff"),
        ("cutoff: [5]", "cutoff"),
        ("members: 0", "members"),
        ("members: 2.5", "members"),
        ("members: 99999999999", "members"),
        ("threads: 0", "threads"),
        ("threads: 1000000", "threads"),
        ("seed: -1", "seed"),
        ("folds: 1", "folds"),
        ("data: 3", "data"),
        ("data: nothing.xyz", "nothing.xyz"),
        ("keys: energy", "keys"),
        ("weights: {energy: -1}", "energy"),
        ("weights: {energy: 0, forces: 0}", "nothing is left to fit"),
        ("weights: {config_type: {default: .inf}}", "not a finite number"),
        ("reference_energies: {Ar: .inf}", "not a finite number"),
        ("reference_energies: {Qq: 1}", "no chemical symbol"),
        ("regularisation: 0", "regularisation"),
        ("regularisation: .inf", "not a finite number"),
        ("validation: 0.1", "validation"),
        ("validation: {}", "give one of"),
        ("validation: {fraction: 1}", "fraction"),
        ("test: {file: nothing.xyz}", "nothing.xyz"),
        ("test: {key: none}", "'none'"),
        ("groups: {key: none}", "'none'"),
        ("previous: none.safetensors", "none.safetensors"),
        ("previous: model.safetensors", "previous: "),
        ("previous: data.xyz", "data.xyz"),
        ("previous: 3", "previous"),
        ("keep_sums: 3", "keep_sums"),
        ("basis: 3", "basis"),
        ("basis: {n_max: 3}", "n_max"),
        ("basis: {n_max: [3, 2]}", "n_max"),
        ("basis: {n_max: [2.5, 2, 0]}", "n_max"),
        ("basis: {n_max: [0, 0, 0]}", "n_max"),
        ("basis: {l_max: [0, 9, 0]}", "l_max"),
        ("basis: {l_max: abc}", "l_max"),
        ("basis: {degree: [-1, -1, -1]}", "degree"),
        ("basis: {max_features: many}", "max_features"),
        ("basis: {max_features: 1}", "max_features"),
        ("basis: {radial: chebyshev}", "radial"),
        ("basis: {radial: gaussian, width: 0}", "width"),
        ("? [a, b]\n: 3", "a key is a list"),
        ("1: 2", "unknown key 1"),
        ("seed: &a [*a]", "seed|alias"),
        ("data: !!python/object/apply:os.system [x]", "not valid YAML"),
        ("seed: 2026-13-45", "not valid YAML"),
        ("seed: " + 3000 * "[", "YAML|deeply"),
    ],
    ids=lambda text: text[:40],
)
def test_settings_of_a_fit(folder, refused, line, says):
    key = line.partition(":")[0]
    kept = [given for given in FIT.splitlines() if not given.startswith(f"{key}:")]
    (folder / "fit.yaml").write_text("\n".join([*kept, line]) + "\n")
    sentence = refused(COMMANDS["fit"])
    assert any(part in sentence for part in says.split("|")), sentence


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["fit", "fit.yaml", "-o", "nowhere/model.safetensors"], 3),
        (["fit", "fit.yaml", "-o", "taken"], 3),
        (["fit", "fit.yaml", "-o", "data.xyz"], 3),
        (["fit", "fit.yaml", "-o", "model.json"], 3),
        (["eval", "model.safetensors", "data.xyz", "--json", "nowhere/errors.json"], 3),
        (["eval", "model.safetensors", "data.xyz", "--json", "taken"], 3),
        (["eval", "model.safetensors", "data.xyz", "--json", "errors.json", "-o", "taken"], 3),
        ([*COMMANDS["select"], "-o", "nowhere/chosen.xyz"], 3),
        ([*COMMANDS["select"], "--json", "taken"], 3),
        ([*COMMANDS["serve"], "--ready-file", "nowhere/ready"], 3),
        ([*COMMANDS["serve"], "--ready-file", "taken"], 3),
        ([*COMMANDS["sample"], "--directory", "data.xyz"], 3),
        ([*COMMANDS["run"], "--directory", "data.xyz"], 3),
    ],
    ids=lambda value: " ".join(value[-2:]) if isinstance(value, list) else str(value),
)
def test_places_that_cannot_be_written(folder, refused, options, code):
    (folder / "taken").mkdir()
    refused(options, code)


def damaged(content, rng):
    """The file cut at 100 places, and with one to three of its bytes changed, 100 times."""
    for length in np.linspace(0, len(content) - 1, 100).astype(int):
        yield content[:length]
    for _ in range(100):
        changed = bytearray(content)
        for place in rng.integers(len(content), size=rng.integers(1, 4)):
            changed[place] ^= int(rng.integers(1, 256))
        if changed != content:
            yield bytes(changed)


def test_a_damaged_model(folder, refused):
    path = folder / "model.safetensors"
    for content in damaged(path.read_bytes(), np.random.default_rng(2)):
        path.write_bytes(content)
        refused(COMMANDS["inspect"])


@pytest.mark.parametrize("version", [np.array(0), np.array(2), np.array(1.0), np.array([1, 1]), None], ids=str)
def test_another_version_of_the_model_file(folder, refused, version):
    from safetensors.numpy import load, save

    path = folder / "model.safetensors"
    tensors = {name: np.array(tensor) for name, tensor in load(path.read_bytes()).items()}
    tensors |= {"format_version": version, "checksum": np.zeros(4, np.uint8)}
    content = bytearray(save({name: value for name, value in tensors.items() if value is not None}, {"comitia": "{}"}))
    content[-4:] = zlib.crc32(content[:-4]).to_bytes(4, "little")
    path.write_bytes(content)
    for command in ("inspect", "eval", "serve", "sample"):
        assert "version" in refused(COMMANDS[command])


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["--nonsense"],
        ["fit"],
        ["fit", "a", "b"],
        ["fit", "fit.yaml", "--members", "0"],
        ["eval", "model.safetensors"],
        ["inspect"],
        ["select", "data.xyz", "--count", "3"],
        [*COMMANDS["select"], "--count", "0"],
        [*COMMANDS["select"], "--closest", "nan"],
        [*COMMANDS["select"], "--method", "random"],
        ["serve", "model.safetensors"],
        [*COMMANDS["serve"], "--wait", "nan"],
        [*COMMANDS["serve"], "--wait", "-1"],
        [*COMMANDS["serve"], "--timeout", "inf"],
        ["sample", "nve.xml"],
        [*COMMANDS["sample"], "--clients", "0"],
        ["reweight", "--potentials", "a", "--observable", "b", "--temperature", "nan"],
        ["run"],
        [*COMMANDS["run"], "--setting", "none"],
    ],
    ids=" ".join,
)
def test_a_command_line_that_makes_no_sense(folder, comitia, arguments):
    before = listing()
    code, said = comitia(arguments)
    assert code == 2
    assert said.strip()
    assert listing() == before
