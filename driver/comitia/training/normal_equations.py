"""The sums of a least-squares problem, kept per group of structures and per kind of label.

Rows of the design matrix are streamed through once: forces, of which there are many, are condensed to the moments
X^T X, X^T y and y^T y of their group; energies and virials, of which there are few, are kept as rows and condensed by
QR when there are more than twice as many rows as columns. Memory does not grow with the number of structures. Every fit
to some of the groups (the whole, a fold, a member) is then a sum of moments and one Cholesky factorisation.
"""

import dataclasses

import numpy as np
import scipy.linalg

from comitia.errors import NumericalError

KINDS = ("energy", "forces", "virial")
CHUNK = 1024  # rows gathered before a product


@dataclasses.dataclass
class Moments:
    """Moments of weighted rows: `gram` (n, n) X^T X, `rhs` (n,) X^T y, `square` y^T y, `count` of rows."""

    gram: np.ndarray
    rhs: np.ndarray
    square: float
    count: int

    @classmethod
    def zeros(cls, n_columns):
        return cls(np.zeros((n_columns, n_columns)), np.zeros(n_columns), 0.0, 0)

    def add_rows(self, rows, target):
        self.gram += rows.T @ rows
        self.rhs += rows.T @ target
        self.square += float(target @ target)
        self.count += len(target)

    def residual_square(self, weights):
        """|y − X w|² of these rows."""
        return max(0.0, self.square - 2 * float(weights @ self.rhs) + float(weights @ (self.gram @ weights)))


class CondensedRows:
    """Rows [X | y] of a group; condensed to a triangular factor with the same moments when they become many."""

    def __init__(self, n_columns):
        self.n_columns = n_columns
        self.blocks, self.n_rows, self.count = [], 0, 0

    def add_rows(self, rows, target):
        self.blocks.append(np.column_stack([rows, target]))
        self.n_rows += len(target)
        self.count += len(target)
        if self.n_rows > 2 * self.n_columns + 2:
            self.blocks = [
                scipy.linalg.qr(np.vstack(self.blocks), mode="r", check_finite=False)[0][: self.n_columns + 1]
            ]
            self.n_rows = len(self.blocks[0])

    def flush(self):
        pass

    def rows(self):
        return np.vstack([np.empty((0, self.n_columns + 1)), *self.blocks])


class StreamedMoments:
    """Moments of a group's rows; rows are gathered into chunks, so that each product is worth its call."""

    def __init__(self, n_columns):
        self.moments = Moments.zeros(n_columns)
        self.waiting, self.n_waiting = [], 0

    def add_rows(self, rows, target):
        self.waiting.append((rows, target))
        self.n_waiting += len(target)
        if self.n_waiting >= CHUNK:
            self.flush()

    def flush(self):
        if self.waiting:
            self.moments.add_rows(np.vstack([r for r, _ in self.waiting]), np.concatenate([t for _, t in self.waiting]))
            self.waiting, self.n_waiting = [], 0


class NormalEquations:
    """Sums of all groups.

    Parameters
    ----------
    n_groups, n_columns : int
    """

    def __init__(self, n_groups, n_columns):
        self.n_groups, self.n_columns = n_groups, n_columns
        self.groups = [
            {kind: StreamedMoments(n_columns) if kind == "forces" else CondensedRows(n_columns) for kind in KINDS}
            for _ in range(n_groups)
        ]

    def add(self, group, kind, rows, target):
        """Add weighted rows (m, n_columns) and targets (m,) of one kind of label."""
        self.groups[group][kind].add_rows(rows, target)

    def flush(self, group):
        for sums in self.groups[group].values():
            sums.flush()

    def moments(self, selection):
        """Moments of each kind over the groups in `selection` (n_groups,) bool: {kind: Moments}."""
        chosen = np.flatnonzero(selection)
        total = {kind: Moments.zeros(self.n_columns) for kind in KINDS}
        for group in chosen:
            one = self.groups[group]["forces"].moments
            total["forces"].gram += one.gram
            total["forces"].rhs += one.rhs
            total["forces"].square += one.square
            total["forces"].count += one.count
        for kind in ("energy", "virial"):
            rows = np.vstack([self.groups[group][kind].rows() for group in chosen])
            total[kind].add_rows(rows[:, :-1], rows[:, -1])
            total[kind].count = sum(self.groups[group][kind].count for group in chosen)
        return total


class Factor:
    """Cholesky factor of a positive definite matrix, scaled to a unit diagonal first (Jacobi).

    Parameters
    ----------
    matrix : (n, n) array, overwritten
    """

    def __init__(self, matrix):
        diagonal = np.diag(matrix).copy()
        if not (np.isfinite(diagonal).all() and (diagonal > 0).all()):
            raise NumericalError("the normal equations are not positive definite; raise `regularisation`")
        self.scale = 1 / np.sqrt(diagonal)
        matrix *= self.scale[:, None]
        matrix *= self.scale[None, :]
        jitter = 0.0
        while True:
            try:
                self.lower = scipy.linalg.cholesky(matrix, lower=True, check_finite=False)
                break
            except np.linalg.LinAlgError:
                step = max(1e-14, 9 * jitter)
                jitter += step
                if jitter > 1e-6:
                    raise NumericalError(
                        "the normal equations stay singular; raise `regularisation` or use fewer features"
                    ) from None
                matrix[np.diag_indices_from(matrix)] += step
        self.log_determinant = 2 * np.log(np.diag(self.lower)).sum() - 2 * np.log(self.scale).sum()

    def solve(self, rhs):
        scale = self.scale if rhs.ndim == 1 else self.scale[:, None]
        return scale * scipy.linalg.cho_solve((self.lower, True), scale * rhs, check_finite=False)

    def inverse(self):
        lower, info = scipy.linalg.lapack.dpotri(self.lower, lower=1)
        if info:
            raise NumericalError("the normal equations are singular; raise `regularisation` or use fewer features")
        inverse = np.tril(lower) + np.tril(lower, -1).T
        return self.scale[:, None] * inverse * self.scale[None, :]
