"""A model file gives back the same potential, or one sentence that says what is wrong with it."""

import subprocess
import sys
import zlib

import numpy as np
import pytest
import systems

import comitia
from comitia.errors import ModelError

FIELDS = ("species", "cutoff", "contraction", "spline", "n_radial", "l_max", "radial_offset", "features")


@pytest.fixture(scope="module")
def potential():
    return systems.potential([6, 14], n_members=4, n_max=[3, 2, 2, 1], l_max=[0, 3, 2, 2])


@pytest.fixture(scope="module")
def content(potential, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    potential.save(path)
    return path.read_bytes()


@pytest.fixture
def refused(tmp_path):
    """A function: bytes -> the sentence with which they are refused."""

    def refuse(content):
        path = tmp_path / "model.safetensors"
        path.write_bytes(content)
        with pytest.raises(ModelError) as caught:
            comitia.load(path)
        sentence = str(caught.value)
        assert caught.value.exit_code == 3
        assert sentence.startswith(str(path))
        assert "\n" not in sentence
        assert len(sentence) < 400
        return sentence

    return refuse


@pytest.mark.parametrize(
    "options", [{}, {"with_core": False}, {"n_members": 1}, {"radial": "gaussian"}, {"n_max": [3, 2, 2, 2]}], ids=str
)
def test_round_trip_keeps_every_bit(tmp_path, options):
    saved = systems.potential([6, 14], **({"n_members": 3, "n_max": [3, 2, 2], "l_max": [0, 3, 2]} | options))
    path = tmp_path / "model.safetensors"
    saved.save(path)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    loaded = comitia.load(path)
    for name in FIELDS:
        assert np.array_equal(getattr(loaded.descriptor, name), getattr(saved.descriptor, name)), name
    assert np.array_equal(loaded.weights, saved.weights)
    assert np.array_equal(loaded.reference_energies, saved.reference_energies)
    assert (loaded.alpha_energy, loaded.alpha_forces) == (saved.alpha_energy, saved.alpha_forces)
    assert loaded.recentred is saved.recentred
    assert loaded.metadata == saved.metadata
    for atoms in systems.structures([6, 14]).values():
        a, b = saved.compute(atoms, members=True, n_threads=1), loaded.compute(atoms, members=True, n_threads=1)
        for name in ("energy", "forces", "virial", "member_energies", "member_forces", "force_uncertainty"):
            assert np.array_equal(getattr(a, name), getattr(b, name)), name
    again = tmp_path / "again.safetensors"
    loaded.save(again)
    assert again.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("per_species", [False, True])
def test_contraction_and_radial_functions_of_each_l_survive(tmp_path, per_species):
    arrays = systems.random_arrays(
        [1, 6, 14], 51, n_channels=2, n_radial=2, l_max=3, per_l=True, per_species=per_species
    )
    saved = systems.potential([1, 6, 14], arrays=arrays)
    saved.save(tmp_path / "model.safetensors")
    atoms = systems.structures([1, 6, 14])["triclinic"]
    expected = saved.compute(atoms, n_threads=1).energy
    assert comitia.load(tmp_path / "model.safetensors").compute(atoms, n_threads=1).energy == expected


def test_any_reader_of_the_format_sees_plain_tensors_and_json(content):
    import json

    from safetensors.numpy import load

    tensors = load(content)
    assert tensors["species"].tolist() == [6, 14]
    assert tensors["weights"].shape == (4, 2 * len(tensors["features"]))
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert list(header["__metadata__"]) == ["comitia"]
    json.loads(header["__metadata__"]["comitia"])
    assert int.from_bytes(content[-4:], "little") == zlib.crc32(content[:-4])


def test_cut_short_anywhere_it_is_refused(content, refused):
    offsets = np.unique(np.linspace(0, len(content) - 1, 100).astype(int))
    assert len(offsets) == 100
    for offset in [*offsets, 7, 8, 9, 15, 16]:
        refused(content[:offset])


def test_flipped_bytes_are_refused(content, refused):
    rng = np.random.default_rng(1)
    places = [*range(10), len(content) - 1, *rng.integers(len(content), size=100).tolist()]
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= int(rng.integers(1, 256))
        refused(bytes(damaged))


@pytest.mark.parametrize("other", [b"", b"\0" * 64, b"hello", b"{}" * 40, b"\xff" * 4096])
def test_another_file_is_refused(other, refused):
    refused(other)


def test_trailing_bytes_are_refused(content, refused):
    refused(content + b"\0")


def resealed(content, **replaced):
    """The file with tensors replaced and its checksum made right again."""
    from safetensors.numpy import load, save

    tensors = {name: np.array(value) for name, value in (load(content) | replaced).items() if value is not None}
    tensors["checksum"] = np.zeros(4, np.uint8)
    result = bytearray(save(tensors, {"comitia": "{}"}))
    result[-4:] = zlib.crc32(result[:-4]).to_bytes(4, "little")
    return bytes(result)


def test_another_version_is_refused_with_both_numbers(content, refused):
    sentence = refused(resealed(content, format_version=np.array(77)))
    assert "77" in sentence
    assert "version" in sentence


@pytest.mark.parametrize(
    "name", ["species", "cutoff", "spline", "features", "weights", "reference_energies", "alpha", "radial_offset"]
)
def test_a_missing_tensor_is_refused(content, refused, name):
    refused(resealed(content, **{name: None}))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("weights", lambda t: np.full_like(t, np.nan)),
        ("weights", lambda t: t[:, :-1]),
        ("weights", lambda t: t[:0]),
        ("features", lambda t: t + 1000),
        ("features", lambda t: t - 1000),
        ("features", lambda t: t[:, :9]),
        ("features", lambda t: np.where(np.arange(10) == 2, 7, t).astype(t.dtype)),
        ("features", lambda t: np.where((np.arange(10) == 9) & (t[:, :1] == 4), 5, t).astype(t.dtype)),
        ("features", lambda t: np.where((np.arange(10) == 6) & (t[:, :1] == 3), 0, t).astype(t.dtype)),
        ("radial_offset", lambda t: t + 100000),
        ("radial_offset", lambda t: t - 1),
        ("spline", lambda t: t[:, :5]),
        ("spline", lambda t: t[:0]),
        ("spline", lambda t: np.full_like(t, np.inf)),
        ("cutoff", lambda t: -t),
        ("cutoff", lambda t: t * np.nan),
        ("l_max", lambda t: t + 50),
        ("n_radial", lambda t: t * 0),
        ("species", lambda t: t[::-1].copy()),
        ("species", lambda t: t[:1]),
        ("species", lambda t: t * 0 + 14),
        ("contraction", lambda t: t[:, :1]),
        ("contraction", lambda t: t[:0]),
        ("reference_energies", lambda t: t[:1]),
        ("force_floor", lambda t: t - 1),
        ("force_floor", lambda t: t + np.nan),
        ("force_floor", lambda t: np.full(2, 0.1)),
        ("core_inner", lambda t: t[:1]),
        ("core_outer", lambda t: t * np.nan),
    ],
)
def test_tensors_that_do_not_fit_together_are_refused(content, refused, name, change):
    from safetensors.numpy import load

    refused(resealed(content, **{name: change(load(content)[name])}))


def test_the_floor_of_force_uncertainties_is_kept_and_was_zero_before_there_was_one(potential, content, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(resealed(content, force_floor=np.array(0.3)))
    atoms = systems.structures([6, 14])["triclinic"]
    spread = potential.compute(atoms, members=True).force_uncertainty
    found = comitia.load(path).compute(atoms, members=True).force_uncertainty
    np.testing.assert_allclose(found, np.hypot(0.3, spread), rtol=1e-12)
    path.write_bytes(resealed(content, force_floor=None))
    assert comitia.load(path).force_floor == 0


def test_the_command_line_ends_with_3_and_one_sentence(content, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content[: len(content) // 2])
    found = subprocess.run(
        [sys.executable, "-m", "comitia.cli", "inspect", str(path)], capture_output=True, text=True, timeout=60
    )
    assert found.returncode == 3
    assert len(found.stderr.strip().splitlines()) == 1
    assert str(path) in found.stderr
    assert "Traceback" not in found.stderr
