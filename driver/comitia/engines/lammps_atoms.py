"""What an input of LAMMPS says of atoms, and the input with the atoms of structures in it."""

import re
from pathlib import Path

import numpy as np

from comitia.errors import SettingsError, StructureError
from comitia.protocol.worker_boundary import standard_orientation

_MAKE_ATOMS = ("read_data", "read_restart", "create_atoms", "create_box")
_COLUMNS = {"atomic": "{id} {type} {x} {y} {z}", "charge": "{id} {type} 0 {x} {y} {z}"}


class LammpsInput:
    """A LAMMPS input with a potential and, perhaps, atoms.

    An input without atoms says with `labelmap atom 1 Si 2 O` which element each type is; the atoms come before that
    line. What would move them, `run` and `minimize`, is left out, and so is a `fix ipi`, which comes at the end.

    Parameters
    ----------
    path : Path

    Attributes
    ----------
    makes_atoms : bool
    types : dict of str -> int, the type of each element; empty where the input makes the atoms

    Raises
    ------
    SettingsError
        if there is no such file, or it says neither.
    """

    def __init__(self, path):
        self.path = Path(path).resolve()
        try:
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise SettingsError(f"lammps:{path}: there is no such file; give an input of LAMMPS") from None
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"lammps:{path}: cannot be read ({error}); give an input of LAMMPS") from error
        text = re.sub(r"&[ \t]*\n", " ", text)
        self._lines = [line for line in text.splitlines() if not _moves(_words(line))]
        commands = [_words(line) for line in self._lines]
        labels = [number for number, words in enumerate(commands) if words[:2] == ["labelmap", "atom"]]
        self.makes_atoms = any(words[:1] == [name] for words in commands for name in _MAKE_ATOMS) or not labels
        self.types, self._style = {}, "atomic"
        if not self.makes_atoms:
            self._place = labels[0]
            self._read_types(commands[labels[0]][2:])
            self._read_head(commands[: labels[0]])

    def _read_types(self, words):
        from ase.data import atomic_numbers

        numbers, elements = words[0::2], words[1::2]
        types = {element: int(number) for number, element in zip(numbers, elements, strict=False) if number.isdigit()}
        odd = [element for element in elements if element not in atomic_numbers]
        if odd or len(types) != len(numbers) or sorted(types.values()) != list(range(1, len(types) + 1)):
            raise SettingsError(
                f"lammps:{self.path}: `labelmap atom {' '.join(words)}` does not name one element for each type; say "
                "for instance `labelmap atom 1 Si 2 O`"
            )
        self.types = types

    def _read_head(self, commands):
        for words in commands:
            if words[:1] == ["atom_style"] and len(words) > 1:
                self._style = words[1]
            if words[:1] == ["boundary"] and words[1:] != ["p", "p", "p"]:
                raise SettingsError(f"lammps:{self.path}: fix ipi of LAMMPS needs `boundary p p p`; change it")
        if self._style not in _COLUMNS:
            raise SettingsError(
                f"lammps:{self.path}: atoms of atom_style {self._style} need more than an element and a place; use one "
                f"of {', '.join(_COLUMNS)}, or make the atoms in the input"
            )

    def check(self, atoms):
        """Refuse a structure of which LAMMPS cannot be told.

        Raises
        ------
        StructureError
            naming what is wrong.
        """
        unknown = sorted(set(atoms.symbols) - set(self.types))
        if unknown:
            raise StructureError(
                f"holds {unknown[0]}, which is no type of {self.path.name}; add it to `labelmap atom` and `pair_coeff`"
            )
        if atoms.cell.rank < 3 or not atoms.pbc.all():
            raise StructureError(
                "is not periodic along three directions, as all is to fix ipi of LAMMPS; put it into a cell with vacuum"
            )

    def text(self, atoms, data_path):
        """The input, and the file with the atoms that it reads (None where it makes them itself).

        Parameters
        ----------
        atoms : ase.Atoms, in any orientation
        data_path : Path of that file

        Returns
        -------
        input : str
        atoms : str or None
        """
        lines = list(self._lines)
        if self.makes_atoms:
            return "\n".join([*lines, ""]), None
        lines[self._place : self._place] = ["box tilt large", f'read_data "{data_path}"']
        return "\n".join([*lines, ""]), self._data(atoms)

    def _data(self, atoms):
        from ase.data import atomic_masses, atomic_numbers

        rotation = standard_orientation(atoms.cell.array)
        cell = atoms.cell.array if rotation is None else atoms.cell.array @ rotation
        positions = atoms.get_scaled_positions(wrap=True) @ np.tril(cell)
        edges = [f"0 {float(cell[i, i])!r} {axis}lo {axis}hi" for i, axis in enumerate("xyz")]
        tilts = " ".join(repr(float(cell[i, j])) for i, j in ((1, 0), (2, 0), (2, 1)))
        masses = [f"{number} {float(atomic_masses[atomic_numbers[name]])!r}" for name, number in self.types.items()]
        rows = [
            _COLUMNS[self._style].format(id=number, type=self.types[symbol], x=x, y=y, z=z)
            for number, (symbol, (x, y, z)) in enumerate(zip(atoms.symbols, positions.tolist(), strict=True), 1)
        ]
        head = ["atoms", "", f"{len(atoms)} atoms", f"{len(self.types)} atom types", *edges, f"{tilts} xy xz yz"]
        return "\n".join([*head, "", "Masses", "", *masses, "", f"Atoms # {self._style}", "", *rows, ""])


def _words(line):
    return line.split("#", 1)[0].split()


def _moves(words):
    return words[:1] in (["run"], ["minimize"]) or (words[:1] == ["fix"] and words[3:4] == ["ipi"])
