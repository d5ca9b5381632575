"""A table of features in a scratch file, read in chunks: memory does not grow with the number of its rows."""

import tempfile

import numpy as np

CHUNK_BYTES = 32 << 20


def square_distance(rows, point):
    """(n_rows,) squares of the distances of rows to a point."""
    difference = rows - point
    return np.einsum("ij,ij->i", difference, difference)


class FeatureTable:
    """Rows in a scratch file that has no name, so that nothing is left behind.

    Parameters
    ----------
    width : int, columns
    folder : where the scratch file lies; it takes 8 bytes for each number
    chunk_bytes : int, of the rows that are in memory at a time
    """

    def __init__(self, width, folder=None, chunk_bytes=CHUNK_BYTES):
        self.width, self.n_rows = width, 0
        self.rows_per_chunk = max(1, chunk_bytes // (8 * width))
        self.file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 closed by __exit__

    def append(self, rows):
        rows = np.ascontiguousarray(rows, float).reshape(-1, self.width)
        self.file.seek(8 * self.width * self.n_rows)
        self.file.write(rows.data)
        self.n_rows += len(rows)

    def read(self, first, count):
        self.file.seek(8 * self.width * first)
        return np.fromfile(self.file, float, count * self.width).reshape(-1, self.width)

    def row(self, index):
        return self.read(index, 1)[0]

    def chunks(self):
        """(slice, rows) of the table, from its beginning to its end."""
        self.file.flush()
        for first in range(0, self.n_rows, self.rows_per_chunk):
            rows = self.read(first, min(self.rows_per_chunk, self.n_rows - first))
            yield slice(first, first + len(rows)), rows

    def each_row(self, function):
        """(n_rows,) array: `function` of every chunk, one number for each row."""
        found = np.empty(self.n_rows)
        for where, rows in self.chunks():
            found[where] = function(rows)
        return found

    def gram(self, n_columns=None):
        """X^T X with rows cut into pieces of `n_columns`; the whole width by default."""
        n_columns = n_columns or self.width
        total = np.zeros((n_columns, n_columns))
        for _, rows in self.chunks():
            pieces = rows.reshape(-1, n_columns)
            total += pieces.T @ pieces
        return total

    def mean(self):
        return sum((rows.sum(axis=0) for _, rows in self.chunks()), np.zeros(self.width)) / self.n_rows

    def spread(self):
        """Root of the mean square distance of the rows from their mean."""
        mean = self.mean()
        return float(np.sqrt(self.each_row(lambda rows: square_distance(rows, mean)).mean()))

    def __len__(self):
        return self.n_rows

    def __iter__(self):
        for _, rows in self.chunks():
            yield from rows

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()
