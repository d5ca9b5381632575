"""Rows of numbers in text files, whole or piece by piece: a file of any length takes little memory."""

from pathlib import Path

from comitia._text import Rows
from comitia.errors import SeriesError

PIECE = 1 << 18
"""Bytes that are read at a time: with the numbers in them they stay in the cache."""


class TextRows:
    """A text file of rows of numbers; `#` begins a comment.

    Parameters
    ----------
    path : str or Path
    stepped : bool
        whether a comment with `Step: N` stands before every row, as in i-PI's extras
    unended : bool
        whether a last line without an end counts; where a program that was killed may have left it, it does not

    Attributes
    ----------
    header : list of str, the comments before the first row
    n_columns : int, 0 for a file without rows

    Raises
    ------
    SeriesError
        for a file that cannot be read.
    """

    def __init__(self, path, stepped=False, unended=False):
        self.path, self.stepped, self.unended = Path(path), stepped, unended
        self.header, self.n_columns = [], 0
        with self._open() as file:
            for line in file:
                text = line.decode(errors="replace")
                row = text.split("#", 1)[0].split()
                if row:
                    self.n_columns = len(row) if line.endswith(b"\n") or unended else 0
                    break
                if text.strip():
                    self.header.append(text.strip())

    def _open(self):
        try:
            return open(self.path, "rb")
        except OSError as error:
            raise SeriesError(f"{self.path}: cannot be read ({error.strerror}); check the path") from error

    def pieces(self, size=PIECE, finite=None):
        """Rows in the order of the file.

        Parameters
        ----------
        size : int, bytes read at a time
        finite : container of int, or None
            columns, counted from 0, in which every number must be finite; None for all of them

        Yields
        ------
        values : (n_rows, n_columns) array
        steps : (n_rows,) integer array, or None for a file that is not `stepped`

        Raises
        ------
        SeriesError
            naming file and line, where a row is not numbers, has another length, holds one that is not finite, or has
            no step.
        """
        if self.n_columns == 0:
            return
        rows = Rows(self.path, self.n_columns, self.stepped, finite)
        with self._open() as file:
            while piece := file.read(size):
                piece += file.readline()
                if not piece.endswith(b"\n"):  # the last line of the file
                    piece = piece + b"\n" if self.unended else piece[: piece.rfind(b"\n") + 1]
                if piece:
                    yield rows.read(piece)
