"""Reading labelled structures: every key, form and compression gives the same labels; what is wrong is a sentence."""

import bz2
import gzip
import lzma
import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose

from comitia.errors import StructureError
from comitia.structures import Keys, check_species, read_structures, read_template, stem

CELL = "5.0 0.1 0.0 0.0 6.0 0.2 0.3 0.0 7.0"
VOLUME = abs(np.linalg.det(np.array(CELL.split(), float).reshape(3, 3)))
VIRIAL = np.array([[1.0, 0.2, 0.3], [0.2, 2.0, 0.4], [0.3, 0.4, 3.0]])


def text(matrix):
    return " ".join(f"{x:.15g}" for x in np.ravel(matrix))


def frame(header="energy=-3.5", symbol="Si", force="0.1 0.2 0.3", position="0.1 0.2 0.3", forces="forces"):
    return (
        f'2\nLattice="{CELL}" Properties=species:S:1:pos:R:3:{forces}:R:3 {header} pbc="T T T"\n'
        f"{symbol} {position} {force}\n{symbol} 2.0 2.0 2.0 0.0 0.0 0.0\n"
    )


@pytest.fixture
def write(tmp_path):
    def write(*frames, name="labels.xyz"):
        (tmp_path / name).write_text("".join(frames))
        return tmp_path / name

    return write


def test_default_keys_are_read_wherever_ase_puts_them(write):
    path = write(frame("energy=-3.5 config_type=bulk"), frame("energy=-3"))
    first, second = read_structures(path)
    assert first.energy == -3.5
    assert second.energy == -3.0
    assert_allclose(first.forces, [[0.1, 0.2, 0.3], [0, 0, 0]])
    assert first.virial is None
    assert (first.config_type, second.config_type) == ("bulk", "default")
    assert first.atoms.calc is None


@pytest.mark.parametrize(
    "header",
    [
        f'virial="{text(VIRIAL)}"',
        f'stress="{text(-VIRIAL / VOLUME)}"',
        f'stress="{text(-VIRIAL / VOLUME)}" virial="{text(VIRIAL)}"',
    ],
)
def test_virial_from_any_form(write, header):
    (structure,) = read_structures(write(frame(f"energy=1.0 {header}")))
    assert_allclose(structure.virial, VIRIAL, rtol=1e-12)


@pytest.mark.parametrize("form", [VIRIAL, np.array([1.0, 2.0, 3.0, 0.4, 0.3, 0.2])])
def test_other_keys(write, form):
    path = write(frame(f'REF_energy=2.5 REF_stress="{text(-form / VOLUME)}"', forces="REF_forces"))
    keys = Keys(energy="REF_energy", forces="REF_forces", stress="REF_stress")
    (structure,) = read_structures(path, keys)
    assert structure.energy == 2.5
    assert_allclose(structure.virial, VIRIAL, rtol=1e-12)


@pytest.mark.parametrize(("ending", "compress"), [(".xz", lzma), (".gz", gzip), (".bz2", bz2)])
def test_compressed_files(write, ending, compress):
    path = write(frame(), frame("energy=7"))
    packed = path.with_name(path.name + ending)
    packed.write_bytes(compress.compress(path.read_bytes()))
    assert [s.energy for s in read_structures(packed)] == [-3.5, 7.0]
    assert stem(packed) == "labels"
    broken = path.with_name("broken.xyz" + ending)
    broken.write_bytes(packed.read_bytes()[:-20])
    with pytest.raises(StructureError, match="cannot be read"):
        read_structures(broken)


def test_opposite_signs_of_virial_and_stress_are_named(write):
    path = write(frame(f'energy=1.0 stress="{text(VIRIAL / VOLUME)}" virial="{text(VIRIAL)}"'))
    with pytest.raises(StructureError, match="signs are opposite"):
        read_structures(path)
    assert_allclose(read_structures(path, Keys(stress=None))[0].virial, VIRIAL)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (frame("energy=nan"), "energy 'energy' holds a number that is not finite"),
        (frame(force="inf 0 0"), "forces 'forces' holds a number that is not finite"),
        (frame(position="nan 0 0"), "positions holds a number that is not finite"),
        (frame(f'energy=1 virial="nan {text(np.ones(8))}"'), "virial 'virial' holds a number that is not finite"),
        (frame('energy=1 virial="1 2 3"'), "9-long"),
        (frame('energy=1 virial="1 2 3 4 5 6 7 8 9"'), "not symmetric"),
        (frame("energy=high"), "is not a number"),
        (frame(symbol="Qq"), "not extended XYZ"),
        (frame(force="0.1 0.2"), "not extended XYZ|columns"),
        (frame()[:-40], "cut short"),
        ("two\n", "expected a number of atoms"),
    ],
)
def test_bad_frames_are_named(write, bad, message):
    path = write(frame(), bad)
    with pytest.raises(StructureError, match=message) as caught:
        read_structures(path)
    assert "labels.xyz, frame 1" in str(caught.value)
    assert caught.value.exit_code == 3
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["energy", "forces"])
def test_a_key_that_no_frame_has(write, kind):
    with pytest.raises(StructureError, match=f"no frame has {kind} under the key 'other'") as caught:
        read_structures(write(frame()), Keys(**{kind: "other"}))
    assert "keys: {" in str(caught.value)
    assert getattr(read_structures(write(frame()), Keys(**{kind: None}))[0], kind) is None


def test_a_virial_key_that_no_frame_has_is_one_warning(write):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        structures = read_structures(write(frame(), frame()), Keys(virial="REF_virial"))
    assert len(caught) == 1
    assert "REF_virial" in str(caught[0].message)
    assert all(s.virial is None for s in structures)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_structures(write(frame()))  # nobody asked for one


def test_empty_and_missing_files(write, tmp_path):
    with pytest.raises(StructureError, match="no structure"):
        read_structures(write(""))
    with pytest.raises(StructureError, match="cannot be read"):
        read_structures(tmp_path / "missing.xyz")


def test_template(write):
    path = write(frame(), frame())
    assert read_template(path, species=[14]).get_chemical_formula() == "Si2"
    with pytest.raises(StructureError, match=r"species Si is not in the model \(trained on H, O\)"):
        read_template(path, species=[1, 8])
    with pytest.raises(StructureError, match="cannot be read"):
        read_template(path.with_name("missing.cif"))


def test_unknown_species_are_named(write):
    atoms = read_structures(write(frame(symbol="Ge")))[0].atoms
    with pytest.raises(StructureError, match="Ge is not in the model"):
        check_species(atoms, [14], "here")
