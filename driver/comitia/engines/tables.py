"""Plain tables of numbers, one row a frame; `#` begins a comment, `#! FIELDS` names the columns as PLUMED does."""

import re

import numpy as np

from comitia.errors import SeriesError


def column_names(file):
    """Names of the columns of a table (`TextRows`), an empty list where it has none."""
    names = next((line for line in file.header if line.startswith("#! FIELDS")), "").split()[2:]
    if names and len(names) != file.n_columns:
        raise SeriesError(f"{file.path}: FIELDS names {len(names)} columns, rows have {file.n_columns}; check the file")
    return names


def steps_of_times(times, time_step=1.0):
    """Steps of PLUMED's times, of which i-PI takes one a step, where they are multiples of a time step; else None."""
    steps = np.rint(times / time_step)
    printed = 1e-6  # the last decimal
    if time_step < 4 * printed or np.abs(times - steps * time_step).max(initial=0) > printed:
        return None
    if np.abs(steps).max(initial=0) > 1e15:
        return None
    return steps.astype(np.int64)


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
