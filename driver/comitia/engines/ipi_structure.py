"""Structure files as i-PI writes and reads them, for the species and the order of the atoms."""

import re
from pathlib import Path

from comitia.errors import StructureError
from comitia.structures import check_species, open_text, read_template

_IPI_COMMENT = re.compile(r"\bCELL[(\[{](abcABC|H|GENH)[)\]}]\s*:")
_ISOTOPES = {"D": "H", "T": "H"}  # the potential does not know masses


def _read_ipi_xyz(path, lines):
    """Atoms of the first frame of an xyz file with i-PI's comment line; periodic, as i-PI takes them."""
    from ase import Atoms
    from ase.data import atomic_numbers

    numbers, positions = [], []
    try:
        for _ in range(int(lines[0])):
            symbol, *coordinates = next(lines[1]).split()
            numbers.append(atomic_numbers[_ISOTOPES.get(symbol, symbol)])
            positions.append([float(x) for x in coordinates[:3]])
    except (StopIteration, ValueError) as error:
        raise StructureError(f"{path}, frame 0: no complete xyz frame; see atom {len(numbers)}") from error
    except KeyError as error:
        raise StructureError(f"{path}, frame 0: atom {len(numbers)} is {error}, which is no element") from error
    return Atoms(numbers=numbers, positions=positions, pbc=True)


def read_initial_structure(path, species=None):
    """The atoms of a simulation: species, order, and the directions that repeat.

    A file with i-PI's comment (`# CELL(abcABC): ...`) is periodic; any other is what ASE reads.

    Parameters
    ----------
    path : structure file
    species : atomic numbers that a model was trained on, or None for any

    Returns
    -------
    ase.Atoms; of a file of i-PI only numbers and pbc mean something

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
            atoms = _read_ipi_xyz(path, (first, file))
    except UnicodeDecodeError:
        return read_template(path, species)
    except OSError as error:
        raise StructureError(f"{path}: cannot be read ({error.strerror or error}); check the path") from error
    if species is not None:
        check_species(atoms, species, f"{path}, frame 0")
    return atoms
