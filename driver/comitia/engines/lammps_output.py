"""Reader of LAMMPS logs: what `thermo` printed, step by step, through all runs and restarts of the file."""

import re
from pathlib import Path

from comitia._text import Rows
from comitia.engines.text_rows import PIECE
from comitia.errors import SeriesError

_KCAL = 4184.0 / 96485.33212331  # kcal/mol in eV
_ATMOSPHERE, _BAR = 101325 / 1.602176634e11, 1e5 / 1.602176634e11  # eV/Å^3

# unit style -> kind of quantity -> (our unit, its factor)
_UNITS = {
    "metal": {"energy": ("eV", 1.0), "pressure": ("eV/Å^3", _BAR), "time": ("fs", 1e3)},
    "real": {"energy": ("eV", _KCAL), "pressure": ("eV/Å^3", _ATMOSPHERE), "time": ("fs", 1.0)},
}
_ALWAYS = {"temperature": ("K", 1.0), "length": ("Å", 1.0), "volume": ("Å^3", 1.0)}
_KINDS = {
    "energy": r"PotEng|KinEng|TotEng|Enthalpy|E_\w+",
    "pressure": r"Press|P[xyz][xyz]",
    "temperature": "Temp",
    "time": "Time",
    "length": r"L[xyz]|[XYZ](lo|hi)|X[yz]|Yz|Cella|Cellb|Cellc",
    "volume": "Volume",
}

_WITH_POTENTIAL = {"energy": "interaction_energy", "pressure": "pressure_md"}


def is_lammps_log(path):
    """Whether a text file begins as a log of LAMMPS."""
    try:
        with open(path, "rb") as file:
            return file.read(7) == b"LAMMPS "
    except OSError:
        return False


class LammpsLog:
    """The tables of a log as one, with `path`, `n_columns` and `pieces()` as of `text_rows.TextRows`.

    Attributes
    ----------
    names, units : lists of str, of the columns
    factors : list of float, from the unit of the log to ours
    step_column : int
    properties : list of str, i-PI's names of those that contain the potential, else empty
    timestep : float, fs, with which the run began, or None where it is not known

    Raises
    ------
    SeriesError
        for a log without a table, or with tables of different columns.
    """

    def __init__(self, path):
        self.path, self.names, style, timestep = Path(path), [], "lj", None
        for line in self._lines():
            words = line.split()
            if words[:1] == ["units"] and len(words) == 2:
                style = words[1]
            elif words[:1] == ["timestep"] and len(words) == 2 and re.fullmatch(r"[-+.0-9eE]+", words[1]):
                timestep = float(words[1])
            elif words[:1] == ["Step"]:
                self.names = words
                break
        if not self.names:
            raise SeriesError(
                f"{path}: no table of thermo is in it; sample longer, or print `thermo_style custom step …`"
            )
        self.n_columns, self.step_column = len(self.names), 0
        known = _ALWAYS | _UNITS.get(style, {}) if style in _UNITS else {}
        kinds = [next((kind for kind, words in _KINDS.items() if re.fullmatch(words, name)), "") for name in self.names]
        named = list(zip(self.names, kinds, strict=True))
        found = [known.get(kind, ("", 1.0)) for kind in kinds]
        self.units, self.factors = [unit for unit, _ in found], [factor for _, factor in found]
        self.properties = ["potential" if name == "PotEng" else _WITH_POTENTIAL.get(kind, "") for name, kind in named]
        self.timestep = (timestep * known["time"][1] if timestep else 1.0) if known else None

    def _lines(self):
        try:
            with open(self.path, encoding="utf-8", errors="replace") as file:
                yield from file
        except OSError as error:
            raise SeriesError(f"{self.path}: cannot be read ({error.strerror}); check the path") from error

    def pieces(self, size=PIECE, finite=None):
        """Rows in the order of the file, (n_rows, n_columns) each, with None for the steps."""
        rows, kept, length, inside = Rows(self.path, self.n_columns, finite=finite), [], 0, False
        for place, line in enumerate(self._lines(), 1):
            words = line.split(maxsplit=1)
            if words[:1] == ["Step"]:
                inside = True
                if line.split() != self.names:
                    raise SeriesError(f"{self.path}, line {place}: a table of other columns; give a log of one run")
            elif line.startswith("Loop time"):
                inside = False
            row = inside and line.endswith("\n") and re.match(r"\s*[-+.\d]|\s*nan|\s*inf", line) is not None
            kept.append(line if row else "#\n")
            length += len(kept[-1])
            if length > size:
                yield rows.read("".join(kept).encode())
                kept, length = [], 0
        if kept:
            yield rows.read("".join(kept).encode())
