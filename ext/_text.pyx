# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
# cython: freethreading_compatible=True
"""Numbers from text files of any length."""

from libc.math cimport isfinite

import numpy as np

from comitia.errors import SeriesError

include "powers.pxi"


cdef class Rows:
    """Rows of numbers of one text file, piece by piece.

    Parameters
    ----------
    path : of the file, for messages
    n_columns : int, numbers in every row
    stepped : bool
        whether a comment with `Step: N` stands before every row
    finite : container of int, or None
        columns, counted from 0, in which every number must be finite; None for all of them
    """

    cdef object path, finite, values, steps
    cdef bint stepped
    cdef text_rows rows

    def __init__(self, path, Py_ssize_t n_columns, bint stepped=False, finite=None):
        self.path, self.stepped, self.finite = path, stepped, finite
        self.rows.n_columns, self.rows.line, self.rows.step = n_columns, 1, ROWS_UNKNOWN_STEP

    def read(self, const unsigned char[::1] text not None):
        """Rows in the next whole lines of the file.

        Parameters
        ----------
        text : bytes, or a buffer of them, not empty

        Returns
        -------
        values : (n_rows, n_columns) array
        steps : (n_rows,) integer array, or None where they are not announced

        Raises
        ------
        SeriesError
            naming file and line, where a row is not numbers, has another length, holds one that is not finite, or has
            no step.
        """
        self.begin(text)
        self.make_room(bytes(text).count(b"\n"))
        self.go_on()
        return self.filled()

    def pieces(self, texts, Py_ssize_t n_rows):
        """The same from many texts.

        Parameters
        ----------
        texts : iterable of them
        n_rows : int, in each piece but the last, which may hold fewer

        Yields
        ------
        values, steps : as of `read`; the arrays are the caller's
        """
        self.make_room(n_rows)
        for text in texts:
            self.begin(text)
            while self.go_on() == ROWS_FULL:
                yield self.filled()
                self.make_room(n_rows)
        if self.rows.n_rows:
            yield self.filled()

    cdef begin(self, const unsigned char[::1] text):
        """Let the lines of a text be the next ones."""
        if text[len(text) - 1] != c"\n":
            line = self.rows.line + bytes(text).count(b"\n")
            raise SeriesError(f"{self.path}, line {line}: the line has no end; remove it")
        self.rows.at = <const char *>&text[0]
        self.rows.end = self.rows.at + len(text)

    cdef make_room(self, Py_ssize_t n_rows):
        """New arrays for rows."""
        cdef double[:, ::1] values = np.empty((n_rows, self.rows.n_columns))
        cdef int64_t[::1] steps = np.empty(n_rows if self.stepped else 0, dtype=np.int64)
        self.values, self.steps = values.base, steps.base
        self.rows.values = &values[0, 0]
        self.rows.steps = &steps[0] if self.stepped else NULL
        self.rows.n_room, self.rows.n_rows = n_rows, 0

    cdef filled(self):
        """The rows that were read."""
        return self.values[: self.rows.n_rows], self.steps[: self.rows.n_rows] if self.stepped else None

    cdef rows_status go_on(self) except *:
        """Read the rest of the text, or as many rows as there is room for: `ROWS_END` or `ROWS_FULL`."""
        cdef rows_status status
        while True:
            with nogil:
                status = rows_read(powers, &self.rows)
            if status != ROWS_WORD:
                break
            self.rows.values[self.rows.n_rows * self.rows.n_columns + self.rows.column] = self.word()
            self.rows.column += 1
        if status == ROWS_LONG:
            self.rows.column += len(self.rows.at[: self.rows.end - self.rows.at].split(b"\n", 1)[0].split())
        if status not in (ROWS_END, ROWS_FULL):
            self.refuse(status)
        return status

    cdef double word(self) except? -1:
        """A number that the fast reader leaves to Python, or the reason why it is none."""
        cdef bytes word = self.rows.word[: self.rows.word_end - self.rows.word]
        shown = word.decode(errors="replace")
        cdef double value
        try:
            value = float(word.replace(b"_", b"?"))
        except ValueError:
            raise SeriesError(
                f"{self.path}, line {self.rows.line}: could not read {shown[:40]!r}; a row must be numbers only"
            ) from None
        if not isfinite(value) and (self.finite is None or self.rows.column in self.finite):
            raise SeriesError(
                f"{self.path}, line {self.rows.line}, column {self.rows.column + 1}: {shown[:40]} is not a finite "
                "number; find out why the run diverged, or remove the frames from there on"
            )
        return value

    cdef refuse(self, rows_status status):
        where = f"{self.path}, line {self.rows.line}: "
        if status in (ROWS_SHORT, ROWS_LONG):
            raise SeriesError(f"{where}{self.rows.column} numbers, the rows before have {self.rows.n_columns}")
        if status == ROWS_NO_NUMBERS:
            raise SeriesError(f"{where}step {self.rows.step} has no numbers; remove that frame")
        if status == ROWS_DAMAGED_STEP:
            raise SeriesError(f"{where}not a step; the header is damaged")
        raise SeriesError(
            f"{where}expected a header `#EXTRAS(…)# Step: …`; give a file of extras with one row of numbers a frame"
        )
