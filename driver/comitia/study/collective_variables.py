"""Collective variables of positions, written as data: a small vocabulary, nothing is executed.

    {distance: [i, j]}                             |r_j - r_i|, Å
    {angle: [i, j, k]}                             at atom j, degrees
    {difference: [CV, CV]}                         the first minus the second
    {absolute: CV}                                 without its sign
    {proton_transfer: {proton: h, between: [i, j]}}
                                                   |r_h - r_i| - |r_h - r_j|, Å; zero where the proton is shared
    {short_range_order: {pair: [Cr, Ni], cutoff: 3.1}}
                                                   Warren-Cowley parameter of two elements (or of one, named twice) for
                                                   the neighbours within a cutoff, Å

Atoms are counted from 0.
"""

import difflib

import numpy as np

from comitia.errors import SettingsError
from comitia.study.short_range_order import warren_cowley

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

    def __init__(self, arguments, where, numbers):
        self.i, self.j = self.atoms = _indices(arguments, 2, where)

    def __call__(self, positions, cells=None):
        return np.linalg.norm(displacement(positions, self.i, self.j, cells), axis=-1)


class Angle:
    """The angle at the second of three atoms, degrees."""

    unit = "degree"

    def __init__(self, arguments, where, numbers):
        self.i, self.j, self.k = self.atoms = _indices(arguments, 3, where)

    def __call__(self, positions, cells=None):
        first = displacement(positions, self.j, self.i, cells)
        second = displacement(positions, self.j, self.k, cells)
        sine = np.linalg.norm(np.cross(first, second), axis=-1)
        return np.degrees(np.arctan2(sine, np.einsum("...a,...a->...", first, second)))


class Difference:
    """The first collective variable minus the second."""

    def __init__(self, arguments, where, numbers):
        if not isinstance(arguments, list) or len(arguments) != 2:
            raise SettingsError(f"{where}: expected two collective variables, not {arguments!r}")
        self.first, self.second = (parse(argument, where, numbers) for argument in arguments)
        if self.first.unit != self.second.unit:
            raise SettingsError(f"{where}: the difference of {self.first.unit} and {self.second.unit} means nothing")
        self.unit = self.first.unit
        self.atoms = self.first.atoms + self.second.atoms

    def __call__(self, positions, cells=None):
        return self.first(positions, cells) - self.second(positions, cells)


class Absolute:
    """A collective variable without its sign."""

    def __init__(self, arguments, where, numbers):
        self.inner = parse(arguments, where, numbers)
        self.unit, self.atoms = self.inner.unit, self.inner.atoms

    def __call__(self, positions, cells=None):
        return np.abs(self.inner(positions, cells))


class ProtonTransfer:
    """r(iH) - r(jH), Å: zero where proton h is in the middle of atoms i and j."""

    unit = "Å"

    def __init__(self, arguments, where, numbers):
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


class ShortRangeOrder:
    """Warren-Cowley parameter of two elements, see `comitia.study.short_range_order`; it has no unit."""

    unit = "1"

    def __init__(self, arguments, where, numbers):
        if not isinstance(arguments, dict) or set(arguments) != {"pair", "cutoff"}:
            raise SettingsError(f"{where}: expected {{pair: [ELEMENT, ELEMENT], cutoff: LENGTH}}, not {arguments!r}")
        pair, self.cutoff = arguments["pair"], arguments["cutoff"]
        if not isinstance(self.cutoff, int | float) or not 0 < self.cutoff < float("inf"):
            raise SettingsError(f"{where}: the cutoff must be a length in Å, not {self.cutoff!r}")
        if not isinstance(pair, list) or len(pair) != 2:
            raise SettingsError(f"{where}: expected the symbols of two elements, not {pair!r}")
        self.groups = [self._group(symbol, numbers, where) for symbol in pair]
        self.atoms = np.flatnonzero(self.groups[0] | self.groups[1]).tolist()

    @staticmethod
    def _group(symbol, numbers, where):
        from ase.data import atomic_numbers

        group = np.asarray(numbers) == atomic_numbers.get(symbol, -1)
        if not group.any():
            raise SettingsError(f"{where}: there is no atom of {symbol!r} in the sample; name elements that it holds")
        return group

    def __call__(self, positions, cells=None):
        frames = positions.reshape(-1, *positions.shape[-2:])
        boxes = [None] * len(frames) if cells is None else cells.reshape(-1, 3, 3)
        values = [
            warren_cowley(*self.groups, frame, cell, cell is not None, self.cutoff)
            for frame, cell in zip(frames, boxes, strict=True)
        ]
        return np.array(values).reshape(positions.shape[:-2])


VOCABULARY = {
    "distance": Distance,
    "angle": Angle,
    "difference": Difference,
    "absolute": Absolute,
    "proton_transfer": ProtonTransfer,
    "short_range_order": ShortRangeOrder,
}


def parse(description, where, numbers=()):
    """The collective variable that a mapping describes: a callable of positions, with `unit` and `atoms`.

    Parameters
    ----------
    description : mapping with one key, a word of the vocabulary
    where : str, the place in the input, for messages
    numbers : (n_atoms,) atomic numbers of the sample
    """
    if not isinstance(description, dict) or len(description) != 1:
        raise SettingsError(f"{where}: a collective variable is {{WORD: ...}}, not {description!r}")
    ((word, arguments),) = description.items()
    if word not in VOCABULARY:
        near = difflib.get_close_matches(str(word), VOCABULARY, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(VOCABULARY)}"
        raise SettingsError(f"{where}: unknown collective variable {word!r}; {hint}")
    return VOCABULARY[word](arguments, f"{where}.{word}", numbers)


def proton_transfers(variable):
    """Every `ProtonTransfer` inside a collective variable."""
    if isinstance(variable, ProtonTransfer):
        return [variable]
    inner = [getattr(variable, name, None) for name in ("inner", "first", "second")]
    return [found for part in inner if part is not None for found in proton_transfers(part)]
