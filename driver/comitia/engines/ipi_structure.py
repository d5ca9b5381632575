"""Structure files as i-PI writes and reads them: species and order of the atoms, positions and cell."""

import re
from pathlib import Path

import numpy as np

from comitia.engines.ipi_units import conversion
from comitia.errors import StructureError
from comitia.structures import check_species, open_text, read_template

_IPI_COMMENT = re.compile(r"\bCELL[(\[{](abcABC|H|GENH)[)\]}]\s*:\s*([-+.0-9eE\s]*)")
_UNITS = re.compile(r"\b(positions|cell)\{([^}]*)\}")
ISOTOPES = {"D": "H", "T": "H"}  # the potential does not know masses


def _cell(kind, numbers):
    """(3, 3) array, lattice vectors in rows, from the numbers of a comment of i-PI, whose matrices have columns."""
    from ase.geometry import cellpar_to_cell

    values = [float(word) for word in numbers.split()]
    return cellpar_to_cell(values[:6]) if kind == "abcABC" else np.reshape(values[:9], (3, 3)).T


def _read_ipi_xyz(path, lines, comment, given):
    """Atoms of the first frame of an xyz file with i-PI's comment line; periodic, as i-PI takes them.

    `given` are the units of positions and cell where the comment names none.
    """
    from ase import Atoms
    from ase.data import atomic_numbers

    numbers, positions = [], []
    try:
        for _ in range(int(lines[0])):
            symbol, *coordinates = next(lines[1]).split()
            numbers.append(atomic_numbers[ISOTOPES.get(symbol, symbol)])
            positions.append([float(x) for x in coordinates[:3]])
        found, units = _IPI_COMMENT.search(comment), (given or {}) | dict(_UNITS.findall(comment))
        cell = _cell(*found.groups())
    except (StopIteration, ValueError) as error:
        raise StructureError(f"{path}, frame 0: no complete xyz frame; see atom {len(numbers)}") from error
    except KeyError as error:
        raise StructureError(f"{path}, frame 0: atom {len(numbers)} is {error}, which is no element") from error
    length, _ = conversion("positions", units.get("positions", ""))
    cell_length, _ = conversion("cell_h", units.get("cell", ""))
    return Atoms(numbers=numbers, positions=length * np.array(positions), cell=cell_length * cell, pbc=True)


def ipi_comment(path):
    """Units of positions and cell that the comment of an xyz file of i-PI names; None for any other second line."""
    with open_text(path) as file:
        file.readline()
        comment = file.readline()
    return dict(_UNITS.findall(comment)) if _IPI_COMMENT.search(comment) else None


def read_initial_structure(path, species=None, units=None):
    """The atoms of a simulation: species, order, and the directions that repeat.

    A file with i-PI's comment (`# CELL(abcABC): ...`) is periodic; any other is what ASE reads.

    Parameters
    ----------
    path : structure file
    species : atomic numbers that a model was trained on, or None for any
    units : dict, i-PI's names of the units of `positions` and `cell` where a comment of its own names none

    Returns
    -------
    ase.Atoms

    Raises
    ------
    StructureError
        if the file cannot be read, or holds species that the model does not know.
    """
    path = Path(path)
    try:
        with open_text(path) as file:
            first, comment = file.readline(), file.readline()
            if not (first.strip().isdigit() and _IPI_COMMENT.search(comment)):
                return read_template(path, species)
            atoms = _read_ipi_xyz(path, (first, file), comment, units)
    except UnicodeDecodeError:
        return read_template(path, species)
    except OSError as error:
        raise StructureError(f"{path}: cannot be read ({error.strerror or error}); check the path") from error
    if species is not None:
        check_species(atoms, species, f"{path}, frame 0")
    return atoms
