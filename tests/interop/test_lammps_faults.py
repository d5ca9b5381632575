"""What is wrong with a model, an input or an installation is said in a sentence, by LAMMPS or by `comitia lammps`."""

import os
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import systems
from lammps_runs import lammps_atoms, lammps_environment, lmp, opening, write_data

SPECIES = (8, 14)


@pytest.fixture
def folder(tmp_path):
    """A folder with a model and a data file."""
    systems.potential(SPECIES, n_members=3).save(tmp_path / "model.safetensors")
    write_data(tmp_path / "bulk.data", lammps_atoms(systems.structures(SPECIES)["bulk"]), SPECIES)
    return tmp_path


def refused(folder, commands, cache, ranks=1):
    """What LAMMPS says of an input that it cannot run; it says so as an ERROR, and does not crash."""
    text, code = lmp(folder, commands, cache, ranks, check=False)
    assert code > 0, text[-2000:]
    assert "ERROR" in text, text[-2000:]
    return text


def resealed(content):
    """A file with a checksum that is right."""
    return content[:-4] + zlib.crc32(content[:-4]).to_bytes(4, "little")


def damaged(content):
    """Files that are no model, by name, and a part of what is said of them."""
    half, header = len(content) // 2, int.from_bytes(content[:8], "little")
    flipped = bytearray(content)
    flipped[half] ^= 1
    long_header = struct.pack("<Q", 2**63) + content[8:]
    return {
        "flipped": (bytes(flipped), "damaged"),
        "cut": (content[:half], "damaged"),
        "empty": (b"", "cut short"),
        "text": (b"not a model, but a text of some length", "no comitia model"),
        "header": (resealed(long_header), "cut short"),
        "json": (resealed(content[:8] + b"{" * header + content[8 + header :]), "JSON"),
        "version": (resealed(content.replace(b'"format_version"', b'"another_version"', 1)), "tensors|version|fit"),
        "tensors": (resealed(content.replace(b'"l_max"', b'"l_mux"', 1)), "l_max is missing"),
        "shape": (resealed(content.replace(b'"n_radial":{"dtype":"I64"', b'"n_radial":{"dtype":"F64"', 1)), "n_radial"),
    }


def test_a_damaged_model_is_refused(folder, plugin_cache):
    content = (folder / "model.safetensors").read_bytes()
    atoms = systems.structures(SPECIES)["bulk"]
    for name, (bad, _) in damaged(content).items():
        (folder / f"{name}.safetensors").write_bytes(bad)
    for name, (_, words) in damaged(content).items():
        text = refused(folder, opening(atoms, SPECIES, "bulk.data", f"{name}.safetensors"), plugin_cache)
        assert f"Model {name}.safetensors cannot be used" in text, text
        assert any(word in text for word in words.split("|")), (name, text)


@pytest.mark.long
def test_random_damage_never_crashes(folder, plugin_cache):
    """Bytes changed anywhere, under a checksum that is right: the file is used, or refused in a sentence."""
    content, rng = (folder / "model.safetensors").read_bytes(), np.random.default_rng(3)
    atoms, header = systems.structures(SPECIES)["bulk"], int.from_bytes(content[:8], "little")
    for _ in range(100):
        changed = bytearray(content)
        for place in rng.integers(8, 8 + header, 3):
            changed[place] = rng.integers(32, 127)
        (folder / "random.safetensors").write_bytes(resealed(bytes(changed)))
        commands = [*opening(atoms, SPECIES, "bulk.data", "random.safetensors"), "run 0"]
        text, code = lmp(folder, commands, plugin_cache, check=False)
        assert code == 0 or (code > 0 and "ERROR" in text), text[-2000:]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("O Si", "O Ge"), "Element Ge of atom type 2 is not in model model.safetensors, which knows O, Si"),
        (("O Si", "O"), "one element for each of the 2 atom types"),
        (("model.safetensors", "nowhere.safetensors"), "nowhere.safetensors cannot be read"),
        (("units metal", "units real"), "say units metal"),
        (("pair_style comitia", "pair_style comitia 5.0"), "takes no arguments"),
        (("units metal", "newton off\nunits metal"), "needs newton pair on"),
        (("O Si", "O NULL"), "All pair coeffs are not set"),
        (("run 0", "comm_style tiled\nbalance 1.0 rcb\nrun 0"), "comm_style tiled cannot exceed periodic box length"),
        (("run 0", "pair_style zero 5.0\npair_coeff * *\ncompute s all comitia/sigma\nrun 0"), "needs one pair_style"),
        (("run 0", "set atom 1 x 0.0 y 0.0 z 0.0\nset atom 2 x 0.0 y 0.0 z 0.0\nrun 0"), "is not finite at step 0"),
    ],
)
def test_a_wrong_input_is_refused(change, words, folder, plugin_cache):
    atoms = systems.structures(SPECIES)["bulk"]
    script = "\n".join([*opening(atoms, SPECIES, "bulk.data", "model.safetensors"), "run 0"])
    assert change[0] in script
    assert words in refused(folder, script.replace(*change).splitlines(), plugin_cache)


def test_a_correction_needs_its_baseline(folder, plugin_cache):
    potential = systems.potential(SPECIES, n_members=3)
    potential.metadata["baseline"] = {"pair": "something"}
    potential.save(folder / "model.safetensors")
    atoms = systems.structures(SPECIES)["bulk"]
    script = [*opening(atoms, SPECIES, "bulk.data", "model.safetensors"), "run 0"]
    assert "correction to a baseline" in refused(folder, script, plugin_cache)


def build(environment, *options):
    done = subprocess.run(
        [sys.executable, "-m", "comitia.cli", "lammps", "build", *options],
        env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def test_build_says_what_is_missing(plugin_cache, tmp_path):
    environment = lammps_environment(tmp_path)
    code, text = build(environment | {"MPICXX": str(tmp_path / "mpicxx")})
    assert (code, "does not compile C++" in text) == (3, True), text
    (tmp_path / "mpicxx").write_text("#!/bin/sh\nexit 0\n")
    (tmp_path / "mpicxx").chmod(0o755)
    code, text = build(environment | {"MPICXX": str(tmp_path / "mpicxx")})
    assert (code, "is not that of MPICH" in text) == (3, True), text
    code, text = build(environment, "--include", str(tmp_path))
    assert (code, "holds no headers of LAMMPS" in text) == (3, True), text
    (tmp_path / "pair.h").write_text("")
    code, text = build(environment, "--include", str(tmp_path))
    assert (code, "says which LAMMPS this is" in text) == (3, True), text
    (tmp_path / "version.h").write_text('#define LAMMPS_VERSION "29 Aug 2024"\n')
    code, text = build(environment, "--include", str(tmp_path))
    assert (code, "cannot compile the plugin" in text) == (3, True), text
    code, text = build(environment, "--sizes", "bigbig")
    assert (code, "built with sizes smallbig" in text) == (3, True), text
    if os.getuid() != 0:
        (tmp_path / "closed").mkdir(mode=0o500)
        code, text = build(environment | {"XDG_CACHE_HOME": str(tmp_path / "closed")})
        assert (code, "XDG_CACHE_HOME" in text) == (3, True), text
