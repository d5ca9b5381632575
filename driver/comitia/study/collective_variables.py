"""Collective variables of positions, written as data: a small vocabulary, nothing is executed.

    {distance: [i, j]}                             |r_j - r_i|, Å
    {angle: [i, j, k]}                             at atom j, degrees
    {difference: [CV, CV]}                         the first minus the second
    {absolute: CV}                                 without its sign
    {proton_transfer: {proton: h, between: [i, j]}}
                                                   |r_h - r_i| - |r_h - r_j|, Å; zero where the proton is shared

Atoms are counted from 0.
"""

import difflib

import numpy as np

from comitia.errors import SettingsError

MOST_SHARED = 0.99
"""Fraction of the configurations in which the proton of `proton_transfer` must be the most shared one."""


def displacement(positions, i, j, cells=None):
    """r_j - r_i of every configuration, Å; the shortest of its periodic images where there is a cell.

    Parameters
    ----------
    positions : (..., n_atoms, 3) array, Å
    i, j : indices of atoms
    cells : (..., 3, 3) array, Å, lattice vectors in rows, or None for a molecule

    Returns
    -------
    (..., 3) array
    """
    vector = positions[..., j, :] - positions[..., i, :]
    if cells is None:
        return vector
    scaled = np.einsum("...a,...ab->...b", vector, np.linalg.inv(cells))
    vector = np.einsum("...a,...ab->...b", scaled - np.round(scaled), cells)
    shifts = np.stack(np.meshgrid(*[[-1, 0, 1]] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    images = vector[..., None, :] + np.einsum("sa,...ab->...sb", shifts, cells)
    nearest = np.argmin(np.einsum("...sa,...sa->...s", images, images), axis=-1)
    return np.take_along_axis(images, nearest[..., None, None], axis=-2)[..., 0, :]


def _indices(value, count, where):
    if (
        not isinstance(value, list)
        or len(value) != count
        or any(not isinstance(i, int) or isinstance(i, bool) or i < 0 for i in value)
        or len(set(value)) != count
    ):
        raise SettingsError(f"{where}: expected {count} different atoms, counted from 0, not {value!r}")
    return value


class Distance:
    """|r_j - r_i|, Å."""

    unit = "Å"

    def __init__(self, arguments, where):
        self.i, self.j = self.atoms = _indices(arguments, 2, where)

    def __call__(self, positions, cells=None):
        return np.linalg.norm(displacement(positions, self.i, self.j, cells), axis=-1)


class Angle:
    """The angle at the second of three atoms, degrees."""

    unit = "degree"

    def __init__(self, arguments, where):
        self.i, self.j, self.k = self.atoms = _indices(arguments, 3, where)

    def __call__(self, positions, cells=None):
        first = displacement(positions, self.j, self.i, cells)
        second = displacement(positions, self.j, self.k, cells)
        sine = np.linalg.norm(np.cross(first, second), axis=-1)
        return np.degrees(np.arctan2(sine, np.einsum("...a,...a->...", first, second)))


class Difference:
    """The first collective variable minus the second."""

    def __init__(self, arguments, where):
        if not isinstance(arguments, list) or len(arguments) != 2:
            raise SettingsError(f"{where}: expected two collective variables, not {arguments!r}")
        self.first, self.second = (parse(argument, where) for argument in arguments)
        if self.first.unit != self.second.unit:
            raise SettingsError(f"{where}: the difference of {self.first.unit} and {self.second.unit} means nothing")
        self.unit = self.first.unit
        self.atoms = self.first.atoms + self.second.atoms

    def __call__(self, positions, cells=None):
        return self.first(positions, cells) - self.second(positions, cells)


class Absolute:
    """A collective variable without its sign."""

    def __init__(self, arguments, where):
        self.inner = parse(arguments, where)
        self.unit, self.atoms = self.inner.unit, self.inner.atoms

    def __call__(self, positions, cells=None):
        return np.abs(self.inner(positions, cells))


class ProtonTransfer:
    """r(iH) - r(jH), Å: zero where proton h is in the middle of atoms i and j."""

    unit = "Å"

    def __init__(self, arguments, where):
        if not isinstance(arguments, dict) or set(arguments) != {"proton", "between"}:
            raise SettingsError(f"{where}: expected {{proton: ATOM, between: [ATOM, ATOM]}}, not {arguments!r}")
        between = arguments["between"] if isinstance(arguments["between"], list) else [arguments["between"]]
        *self.between, self.proton = self.atoms = _indices([*between, arguments["proton"]], 3, where)

    def __call__(self, positions, cells=None, proton=None):
        proton = self.proton if proton is None else proton
        first, second = (np.linalg.norm(displacement(positions, atom, proton, cells), axis=-1) for atom in self.between)
        return first - second

    def fraction_most_shared(self, positions, numbers, cells=None):
        """Fraction of the configurations in which no other hydrogen is nearer to the middle than this one.

        Parameters
        ----------
        positions : (..., n_atoms, 3) array, Å
        numbers : (n_atoms,) atomic numbers
        cells : (..., 3, 3) array, Å, or None

        Returns
        -------
        float
        """
        hydrogens = np.flatnonzero(np.asarray(numbers) == 1)
        others = [np.abs(self(positions, cells, proton=h)) for h in hydrogens if h != self.proton]
        if not others:
            return 1.0
        return float(np.mean(np.abs(self(positions, cells)) <= np.min(others, axis=0)))


VOCABULARY = {
    "distance": Distance,
    "angle": Angle,
    "difference": Difference,
    "absolute": Absolute,
    "proton_transfer": ProtonTransfer,
}


def parse(description, where):
    """The collective variable that a mapping describes: a callable of positions, with `unit` and `atoms`.

    Parameters
    ----------
    description : mapping with one key, a word of the vocabulary
    where : str, the place in the input, for messages
    """
    if not isinstance(description, dict) or len(description) != 1:
        raise SettingsError(f"{where}: a collective variable is {{WORD: ...}}, not {description!r}")
    ((word, arguments),) = description.items()
    if word not in VOCABULARY:
        near = difflib.get_close_matches(str(word), VOCABULARY, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(VOCABULARY)}"
        raise SettingsError(f"{where}: unknown collective variable {word!r}; {hint}")
    return VOCABULARY[word](arguments, f"{where}.{word}")


def proton_transfers(variable):
    """Every `ProtonTransfer` inside a collective variable."""
    if isinstance(variable, ProtonTransfer):
        return [variable]
    inner = [getattr(variable, name, None) for name in ("inner", "first", "second")]
    return [found for part in inner if part is not None for found in proton_transfers(part)]
