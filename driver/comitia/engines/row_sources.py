"""Rows of one file by their numbers, in increasing order, without the file ever being in memory whole."""

import numpy as np

from comitia.errors import SeriesError, SettingsError

KEPT = 1 << 26
"""Bytes of numbers that may stay in memory after a file was read the first time."""

ROWS_AT_ONCE = 1 << 12


class TextSource:
    """Some columns of a text file.

    The file is read once for the steps of its rows. If what is wanted of it is small, it stays in memory, else the
    file is read again for the numbers.

    Parameters
    ----------
    file : with `path`, `n_columns` and `pieces()`, as `text_rows.TextRows`
    columns : sequence of int, counted from 0, or slice
    factors : (n_columns,) array, or float, from the unit of the file to ours
    step_column : int or None, where steps are a column and not announced by comments
    watched : sequence of int, columns that are kept whole while reading for the steps
    kept : int, bytes that may stay in memory

    Attributes
    ----------
    n_rows : int
    steps : (n_rows,) integer array, in the order of the file, or None
    watched : (n_rows, n_watched) array
    """

    def __init__(self, file, columns=slice(None), factors=1.0, step_column=None, watched=(), kept=KEPT):
        self.file, self.path, self.factors = file, file.path, np.asarray(factors)
        self.columns = np.arange(file.n_columns)[columns]
        self._all = np.array_equal(self.columns, np.arange(file.n_columns))
        self._step_column = step_column
        self._finite = {*self.columns.tolist(), *watched, step_column}
        steps, seen, pieces, self.n_rows = [], [], [], 0
        for values, announced in file.pieces(finite=self._finite):
            if step_column is not None:
                announced = self._steps(values)
            if announced is not None:
                steps.append(announced)
            if watched:
                seen.append(values[:, list(watched)])
            self.n_rows += len(values)
            if 8 * self.n_rows * len(self.columns) <= kept:
                pieces.append(self._wanted(values))
            else:
                pieces.clear()
        self.steps = np.concatenate(steps) if steps else None
        self.watched = np.concatenate(seen) if seen else np.empty((self.n_rows, len(watched)))
        self._kept = pieces if pieces or not self.n_rows else None
        self._rewind()

    def _steps(self, values):
        steps = values[:, self._step_column]
        if np.abs(steps).max(initial=0) > 1e15:
            raise SeriesError(f"{self.path}: column {self._step_column + 1} does not hold steps; the file is damaged")
        return np.rint(steps).astype(np.int64)

    def _wanted(self, values):
        """The columns that are wanted, in our units; where they are all, in place."""
        wanted = values if self._all else values[:, self.columns]
        if np.any(self.factors != 1):
            wanted *= self.factors
        return wanted

    def _rewind(self):
        again = (
            self._kept
            if self._kept is not None
            else (self._wanted(values) for values, _ in self.file.pieces(finite=self._finite))
        )
        self._pieces, self._piece, self._first = iter(again), np.empty((0, len(self.columns))), 0

    def take(self, rows):
        """Numbers of rows (increasing), (n_rows, n_columns), not to be written to; calls should go in order."""
        found, done = [], 0
        if len(rows) and rows[0] < self._first:
            self._rewind()
        while done < len(rows):
            if rows[done] >= self._first + len(self._piece):
                self._first += len(self._piece)
                self._piece = next(self._pieces)
                continue
            end = done + np.searchsorted(rows[done:], self._first + len(self._piece))
            first, last = rows[done] - self._first, rows[end - 1] - self._first
            here = slice(first, last + 1) if last - first == end - 1 - done else rows[done:end] - self._first
            found.append(self._piece[here])
            done = end
        return found[0] if len(found) == 1 else np.concatenate(found) if found else self._piece[:0]


class ArraySource:
    """Numbers that are in memory already: `values` (n_rows, n_columns), `steps` (n_rows,) or None."""

    def __init__(self, path, values, steps=None):
        self.path, self.values, self.steps, self.n_rows = path, values, steps, len(values)

    def take(self, rows):
        """Numbers of rows, (n_rows, n_columns)."""
        return self.values[rows]


class DatasetSource:
    """A data set of an HDF5 file.

    Parameters
    ----------
    path : Path
    dataset : h5py.Dataset, (n_rows,), (n_rows, n_columns), or (n_rows, n_beads, n_columns), which is averaged
    columns : sequence of int, counted from 0, or slice
    factors : float, from the unit of the file to ours
    steps : (n_rows,) integer array or None
    """

    def __init__(self, path, dataset, columns=slice(None), factors=1.0, steps=None):
        self.path, self.dataset, self.columns, self.factors, self.steps = path, dataset, columns, factors, steps
        self.n_rows = len(dataset)

    def take(self, rows):
        """Numbers of rows (increasing), (n_rows, n_columns)."""
        first = int(rows[0]) if len(rows) else 0
        values = self.dataset[first : int(rows[-1]) + 1 if len(rows) else 0].astype(float, copy=False)
        if len(rows) < len(values):
            values = values[rows - first]
        if not np.isfinite(values).all():
            place = np.argwhere(~np.isfinite(values))[0]
            raise SeriesError(
                f"{self.path}, data set {self.dataset.name}, row {rows[place[0]]} (counted from 0): "
                f"{values[tuple(place)]} is not a finite number; find out why the run diverged"
            )
        if values.ndim == 3:
            values = values.mean(axis=1)
        values = values.reshape(len(values), -1)[:, self.columns]
        return values if self.factors == 1 else values * self.factors


def open_hdf5(path):
    """The file, open for reading."""
    try:
        import h5py
    except ImportError as error:
        raise SettingsError(f"{path}: h5py is needed to read HDF5; pip install 'comitia[run]'") from error
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise SeriesError(f"{path}: cannot be read ({error}); check the path") from error
