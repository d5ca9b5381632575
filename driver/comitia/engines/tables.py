"""Plain tables of numbers, one row a frame; `#` begins a comment, `#! FIELDS` names the columns as PLUMED does."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from comitia.engines.text_rows import TextRows
from comitia.errors import SeriesError


@dataclass(frozen=True)
class Table:
    """A plain table: `values` (n_rows, n_columns), `names` of the columns or an empty list."""

    path: Path
    names: list[str]
    values: np.ndarray

    def column(self, which):
        """Values of one column, by number (counted from 1) or by name; `None` where there is only one."""
        n_columns = self.values.shape[1]
        described = ", ".join(self.names) if self.names else f"columns 1 to {n_columns}"
        if which is None:
            if n_columns == 1:
                return self.values[:, 0]
            raise SeriesError(
                f"{self.path}: has {n_columns} columns; say which one as {self.path}:COLUMN ({described})"
            )
        if which in self.names:
            return self.values[:, self.names.index(which)]
        if str(which).isdigit() and 1 <= int(which) <= n_columns:
            return self.values[:, int(which) - 1]
        raise SeriesError(f"{self.path}: there is no column {which} (columns count from 1); it has {described}")


def read_table(path):
    """Read a plain table of numbers.

    Returns
    -------
    Table

    Raises
    ------
    SeriesError
        naming file and line, where a row is not numbers, has another length, or holds one that is not finite.
    """
    file = TextRows(path, unended=True)
    values, _ = file.read()
    if not len(values):
        raise SeriesError(f"{path}: holds no row of numbers; check the file")
    fields = next((line for line in file.header if line.startswith("#! FIELDS")), "")
    names = fields.split()[2:]
    if names and len(names) != values.shape[1]:
        raise SeriesError(f"{path}: FIELDS names {len(names)} columns, rows have {values.shape[1]}; check the file")
    return Table(file.path, names, values)


def printed_resolution(path):
    """Spacing of the printed numbers in the first row of a file, in their own unit; 0 where it cannot be told."""
    with open(path, encoding="utf-8") as file:
        row = next((line for line in file if line.strip() and not line.lstrip().startswith("#")), "")
    spacing = 0.0
    for word in row.split():
        match = re.fullmatch(r"[-+]?\d*\.?(\d*)(?:[eE]([-+]?\d+))?", word)
        if match:
            spacing = max(spacing, 10.0 ** (int(match[2] or 0) - len(match[1])))
    return spacing
