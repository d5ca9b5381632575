"""Rows of numbers in text files, whole or piece by piece: a file of any length takes little memory."""

from pathlib import Path

from comitia._text import Rows
from comitia.errors import SeriesError

PIECE = 1 << 18
"""Bytes of text that are read at a time: they stay in the cache."""

ROOM = 1 << 24
"""Bytes of the numbers that are handed out together: the system gives memory for so many in larger pages."""


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

    def _open(self, buffering=-1):
        try:
            return open(self.path, "rb", buffering)
        except OSError as error:
            raise SeriesError(f"{self.path}: cannot be read ({error.strerror}); check the path") from error

    def pieces(self, size=PIECE, finite=None):
        """Rows in the order of the file.

        Parameters
        ----------
        size : int, bytes of text read at a time
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
        n_rows = 1 << (max(1, ROOM // (8 * self.n_columns)).bit_length() - 1)
        yield from Rows(self.path, self.n_columns, self.stepped, finite).pieces(self._texts(size), n_rows)

    def _texts(self, size):
        """The file as texts of whole lines; each is there until the next one is asked for."""
        text, length = bytearray(size), 0
        with self._open(buffering=0) as file:
            while n_read := file.readinto(memoryview(text)[length:]):
                length += n_read
                end = text.rfind(b"\n", 0, length) + 1
                if end:
                    yield memoryview(text)[:end]
                    text[: length - end] = text[end:length]
                    length -= end
                if length == len(text):  # a line longer than that
                    text = text + bytes(len(text))
        if length and self.unended:
            yield text[:length] + b"\n"
