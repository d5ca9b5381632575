"""Labelled structures from extended XYZ files, plain or compressed, checked before anything else sees them."""

import bz2
import dataclasses
import gzip
import io
import lzma
import re
import warnings
from pathlib import Path

import msgspec
import numpy as np

from comitia.errors import StructureError

VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))  # xx yy zz yz xz xy, as ASE
_OPENERS = {".xz": lzma.open, ".gz": gzip.open, ".bz2": bz2.open}
_PROPERTIES = re.compile(r"\bProperties=\"?([^\s\"]+)", re.IGNORECASE)
_READ_ERRORS = (OSError, EOFError, lzma.LZMAError, UnicodeDecodeError)


class Keys(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Names under which a file keeps its labels; `null` for energy or forces says that there are none."""

    energy: str | None = "energy"
    forces: str | None = "forces"
    virial: str | msgspec.UnsetType | None = msgspec.UNSET
    stress: str | msgspec.UnsetType | None = msgspec.UNSET
    config_type: str = "config_type"

    @property
    def virial_name(self):
        return "virial" if self.virial is msgspec.UNSET else self.virial

    @property
    def stress_name(self):
        return "stress" if self.stress is msgspec.UNSET else self.stress


@dataclasses.dataclass
class LabelledStructure:
    """One frame and what the reference method says about it.

    Attributes
    ----------
    atoms : ase.Atoms without a calculator
    energy : float or None, eV
    forces : (n_atoms, 3) array or None, eV/Å
    virial : (3, 3) array or None, eV; −∂E/∂ε
    config_type : str
    origin : str, the file and the frame, for messages
    reference : LabelledStructure or None, this structure before the labels of a baseline were taken off its own
    """

    atoms: object
    energy: float | None
    forces: np.ndarray | None
    virial: np.ndarray | None
    config_type: str
    origin: str
    reference: "LabelledStructure | None" = None


def open_text(path):
    """The file `path` opened for reading text; .xz, .gz and .bz2 are decompressed as they are read."""
    path = Path(path)
    return _OPENERS.get(path.suffix, open)(path, "rt", encoding="utf-8")


def stem(path):
    """File name without `.xyz`, `.extxyz` and the ending of a compressed file."""
    name = Path(path).name
    for ending in (*_OPENERS, ".xyz", ".extxyz"):
        name = name.removesuffix(ending)
    return name


def _frame_texts(path):
    """Text of every frame in turn, so that a file of any size is never held as a whole."""
    try:
        with open_text(path) as file:
            frame = 0
            while line := file.readline():
                if not line.strip():
                    continue
                try:
                    n_atoms = int(line)
                except ValueError:
                    n_atoms = 0
                if n_atoms < 1:
                    raise StructureError(
                        f"{path}, frame {frame}: expected a number of atoms, found {line.strip()[:40]!r}; "
                        "the file must be extended XYZ"
                    )
                lines = [line, file.readline()]
                lines += [file.readline() for _ in range(n_atoms)]
                if not lines[-1].strip():
                    raise StructureError(
                        f"{path}, frame {frame}: ends before its {n_atoms} atoms; the file is cut short"
                    )
                yield frame, "".join(lines)
                frame += 1
            if frame == 0:
                raise StructureError(f"{path}: holds no structure; it must be extended XYZ")
    except _READ_ERRORS as error:
        raise StructureError(f"{path}: cannot be read ({error}); check the path and that the file is whole") from error


def _check_columns(text, where):
    """Refuse rows with more columns than Properties names: ASE would read the wrong ones without a word."""
    header, *rows = text.split("\n")[1:]
    named = _PROPERTIES.search(header)
    if named is None:
        return
    counts = named.group(1).split(":")[2::3]
    if not all(count.isdigit() for count in counts):
        raise StructureError(f"{where}: is not extended XYZ (Properties={named.group(1)}); correct this frame")
    expected = sum(map(int, counts))
    for number, row in enumerate(rows):
        if row and len(row.split()) != expected:
            raise StructureError(
                f"{where}: is not extended XYZ (atom {number} has {len(row.split())} columns, Properties names "
                f"{expected}); correct this frame"
            )


def _read_frame(text, where):
    from ase.io.extxyz import XYZError, read_xyz

    _check_columns(text, where)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return next(read_xyz(io.StringIO(text), 0))
    except (XYZError, ValueError, KeyError, IndexError, TypeError, AttributeError, StopIteration) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise StructureError(f"{where}: is not extended XYZ ({reason}); correct this frame") from error


def _label(atoms, key, per_atom=False):
    """What the frame calls `key`, whether ASE left it in place or moved it into a calculator."""
    if key is None:
        return None
    place = atoms.arrays if per_atom else atoms.info
    if key in place:
        return place[key]
    return atoms.calc.results.get(key) if atoms.calc is not None else None


def _numbers(value, shapes, what, where):
    """`value` as an array of one of `shapes`, every number in it finite."""
    try:
        array = np.asarray(value, dtype=float)
    except (TypeError, ValueError) as error:
        raise StructureError(f"{where}: {what} is not a number ({value!r:.60}); correct the file") from error
    if array.shape not in shapes:
        expected = " or ".join(str(shape) for shape in shapes)
        raise StructureError(f"{where}: {what} has shape {array.shape}, expected {expected}; correct the file")
    if not np.isfinite(array).all():
        raise StructureError(f"{where}: {what} holds a number that is not finite; remove the frame or correct it")
    return array


def _matrix(value, what, where):
    """Symmetric (3, 3) matrix from nine numbers, a matrix, or six in the order xx yy zz yz xz xy."""
    array = _numbers(value, ((3, 3), (9,), (6,)), what, where)
    if array.shape == (6,):
        matrix = np.empty((3, 3))
        for number, (i, j) in zip(array, VOIGT, strict=True):
            matrix[i, j] = matrix[j, i] = number
        return matrix
    matrix = array.reshape(3, 3)
    if np.abs(matrix - matrix.T).max() > 1e-2 * np.abs(matrix).max() + 1e-3:
        raise StructureError(f"{where}: {what} is not symmetric; give xx xy xz yx yy yz zx zy zz, or six numbers")
    return 0.5 * (matrix + matrix.T)


def _virial(atoms, keys, where):
    """Virial (eV) of a frame; a stress (ASE's sign) is multiplied by −volume, and both must agree."""
    virial, stress = _label(atoms, keys.virial_name), _label(atoms, keys.stress_name)
    virial = None if virial is None else _matrix(virial, f"virial {keys.virial_name!r}", where)
    if stress is None:
        return virial
    stress = _matrix(stress, f"stress {keys.stress_name!r}", where)
    volume = abs(np.linalg.det(atoms.cell.array))
    if volume == 0.0:
        return virial
    from_stress = -volume * stress
    if virial is None:
        return from_stress
    scale = np.abs(virial).max()
    if np.abs(virial - from_stress).max() > 1e-3 * scale + 1e-4:
        sign = "; their signs are opposite" if np.abs(virial + from_stress).max() <= 1e-3 * scale + 1e-4 else ""
        raise StructureError(
            f"{where}: virial {keys.virial_name!r} and stress {keys.stress_name!r} disagree (virial = -volume x stress "
            f"in ASE's sign){sign}; correct one, or switch one off with `keys: {{stress: null}}`"
        )
    return virial


def _check_geometry(atoms, where):
    _numbers(atoms.positions, ((len(atoms), 3),), "positions", where)
    _numbers(atoms.cell.array, ((3, 3),), "cell", where)
    if (atoms.numbers < 1).any():
        raise StructureError(f"{where}: an atom has no known chemical symbol; correct its species")


def label_structure(atoms, keys, origin):
    """`LabelledStructure` from an `ase.Atoms` as ASE reads it; every number is checked to be finite."""
    _check_geometry(atoms, origin)
    energy = _label(atoms, keys.energy)
    forces = _label(atoms, keys.forces, per_atom=True)
    energy = None if energy is None else float(_numbers(energy, ((),), f"energy {keys.energy!r}", origin))
    if forces is not None:
        forces = _numbers(forces, ((len(atoms), 3),), f"forces {keys.forces!r}", origin)
    virial = _virial(atoms, keys, origin)
    config_type = str(atoms.info.get(keys.config_type, "default"))
    atoms.calc = None
    return LabelledStructure(atoms, energy, forces, virial, config_type, origin)


def _check_keys_found(structures, keys, path):
    present = {
        "energy": (keys.energy, any(s.energy is not None for s in structures)),
        "forces": (keys.forces, any(s.forces is not None for s in structures)),
    }
    for what, (key, found) in present.items():
        if key is not None and not found:
            labels = set(structures[0].atoms.info) | set(structures[0].atoms.arrays) - {"numbers", "positions"}
            names = ", ".join(sorted(labels)) or "no labels"
            raise StructureError(
                f"{path}: no frame has {what} under the key {key!r} (frame 0 has {names}); set `keys: {{{what}: NAME}}`"
            )
    asked = [key for key in (keys.virial, keys.stress) if key not in (None, msgspec.UNSET)]
    if asked and not any(s.virial is not None for s in structures):
        warnings.warn(
            f"{path}: no frame has a virial or stress under the key {' or '.join(map(repr, asked))}; fitted without",
            stacklevel=3,
        )


def read_structures(path, keys=None):
    """Every frame of an extended XYZ file with its labels.

    Parameters
    ----------
    path : path of an extended XYZ file, plain or ending in .xz, .gz or .bz2
    keys : Keys, the names of the labels; by default `energy`, `forces`, `virial` and `stress`

    Returns
    -------
    list of LabelledStructure; a label that one frame lacks is None there.

    Raises
    ------
    StructureError
        if the file cannot be read, a number is not finite, or no frame has the energy or force key. A virial or stress
        key that was asked for and that no frame has is one warning.
    """
    keys = keys or Keys()
    structures = [
        label_structure(_read_frame(text, f"{path}, frame {frame}"), keys, f"{path}, frame {frame}")
        for frame, text in _frame_texts(path)
    ]
    _check_keys_found(structures, keys, path)
    return structures


def read_frames(path):
    """Frames of an extended XYZ file one by one: (`ase.Atoms`, its text in the file).

    Raises
    ------
    StructureError
        if the file cannot be read, or a position or cell is not finite.
    """
    for frame, text in _frame_texts(path):
        where = f"{path}, frame {frame}"
        atoms = _read_frame(text, where)
        _check_geometry(atoms, where)
        yield atoms, text


def read_template(path, species=None):
    """First frame of a structure file: which atoms a simulation has, in which order, and its first cell.

    Parameters
    ----------
    path : extended XYZ, plain or compressed, or any other format that ASE knows
    species : atomic numbers that a model was trained on, or None for any

    Returns
    -------
    ase.Atoms without a calculator
    """
    path = Path(path)
    if stem(path) != path.name or path.suffix in _OPENERS:
        frame, text = next(_frame_texts(path))
        atoms = _read_frame(text, f"{path}, frame {frame}")
    else:
        import ase.io

        try:
            atoms = ase.io.read(path, index=0)
        except Exception as error:  # the readers of ASE raise whatever their format makes them raise
            reason = " ".join(str(error).split())
            raise StructureError(f"{path}: cannot be read as a structure ({reason}); give extended XYZ") from error
    _numbers(atoms.positions, ((len(atoms), 3),), "positions", f"{path}, frame 0")
    _numbers(atoms.cell.array, ((3, 3),), "cell", f"{path}, frame 0")
    if species is not None:
        check_species(atoms, species, f"{path}, frame 0")
    atoms.calc = None
    return atoms


def check_species(atoms, species, where):
    """Refuse atoms of a species that is not among the atomic numbers `species`."""
    from ase.data import chemical_symbols

    unknown = sorted(set(atoms.numbers.tolist()) - set(np.asarray(species).tolist()))
    if unknown:
        raise StructureError(
            f"{where}: species {', '.join(chemical_symbols[z] for z in unknown)} is not in the model (trained on "
            f"{', '.join(chemical_symbols[z] for z in sorted(species))}); retrain, or remove these atoms"
        )
