"""The sums of a least-squares problem, kept per group of structures and per kind of label.

Rows of the design matrix are streamed through once. Those of a kind and a group wait until there are enough of them for
a product, and are then condensed to the moments of [X | y], X^T X, X^T y and y^T y, as one packed triangle. Memory does
not grow with the number of structures. Every fit to some of the groups (the whole, a fold, a member) is then a sum of
moments and one Cholesky factorisation.
"""

import dataclasses

import numpy as np
from scipy.linalg import blas, lapack

from comitia.errors import NumericalError

KINDS = ("energy", "forces", "virial")
CHUNK = 2048  # rows, at least, of a product
PANEL = 2048  # columns of a product at a time


@dataclasses.dataclass
class Moments:
    """Moments of weighted rows.

    Attributes
    ----------
    gram : (n, n) array, the lower triangle of X^T X, zero above
    rhs : (n,) array, X^T y
    square : float, y^T y
    count : int, number of rows
    """

    gram: np.ndarray
    rhs: np.ndarray
    square: float
    count: int

    @classmethod
    def unpacked(cls, triangle, n_columns, count):
        """From the lower triangle of [X | y]^T [X | y], row by row."""
        gram, start = np.zeros((n_columns, n_columns)), 0
        for row in range(n_columns):
            gram[row, : row + 1] = triangle[start : start + row + 1]
            start += row + 1
        return cls(gram, triangle[start:-1].copy(), float(triangle[-1]), count)

    def residual_square(self, weights):
        """|y − X w|² of these rows."""
        quadratic = 2 * float(weights @ (self.gram @ weights)) - float(np.diag(self.gram) @ weights**2)
        return max(0.0, self.square - 2 * float(weights @ self.rhs) + quadratic)


def triangle_size(n_columns):
    """Numbers in the packed triangle of [X | y]^T [X | y]."""
    return (n_columns + 1) * (n_columns + 2) // 2


def _add_product(triangle, blocks):
    """Add [X | y]^T [X | y] of stacked blocks to a packed lower triangle."""
    rows = np.vstack(blocks) if len(blocks) > 1 else blocks[0]
    for first in range(0, rows.shape[1], PANEL):
        last = min(rows.shape[1], first + PANEL)
        gram = rows[:, first:last].T @ rows[:, :last]  # NumPy computes one triangle of the first, and frees the threads
        for row in range(first, last):
            start = row * (row + 1) // 2
            triangle[start : start + row + 1] += gram[row - first, : row + 1]


def _add_scaled(total, part, factor):
    """Add `factor` times a packed triangle to another."""
    if factor == 1.0:
        total += part
        return
    for start in range(0, len(part), 1 << 15):
        total[start : start + (1 << 15)] += factor * part[start : start + (1 << 15)]


class RowSums:
    """Sums of the rows [X | y] of one kind in one group: a packed triangle, and rows that wait for the next product.

    Parameters
    ----------
    n_columns : int
    """

    def __init__(self, n_columns):
        self.n_columns, self.count = n_columns, 0
        self.triangle, self.waiting, self.n_waiting = None, [], 0

    def add_rows(self, rows, target, scale=1.0):
        """Add `scale` times rows (m, n_columns) and targets (m,)."""
        block = np.empty((len(rows), self.n_columns + 1))
        np.multiply(rows, scale, out=block[:, :-1])
        np.multiply(target, scale, out=block[:, -1])
        self.waiting.append(block)
        self.n_waiting += len(block)
        self.count += len(block)
        if self.n_waiting >= max(CHUNK, self.n_columns // 2):
            self.condense()

    def condense(self):
        """Turn the waiting rows into moments, unless they take less memory than these."""
        if self.triangle is None:
            if self.n_waiting <= self.n_columns // 2:
                return
            self.triangle = np.zeros(triangle_size(self.n_columns))
        if self.waiting:
            _add_product(self.triangle, self.waiting)
            self.waiting, self.n_waiting = [], 0

    def residual_square(self, weights):
        """|y − X w|² of these rows."""
        both = np.append(weights, -1.0)
        square = sum(float(np.sum((block @ both) ** 2)) for block in self.waiting)
        if self.triangle is not None:
            square += float(both @ blas.dspmv(len(both), 1.0, self.triangle, both))
        return max(0.0, square)

    def arrays(self):
        """What a file must hold: `triangle` (empty where there is none), `rows` (m, n_columns + 1) and `count`."""
        triangle = np.empty(0) if self.triangle is None else self.triangle
        rows = np.vstack([np.empty((0, self.n_columns + 1)), *self.waiting])
        return {"triangle": triangle, "rows": rows, "count": np.array(self.count)}

    @classmethod
    def from_arrays(cls, n_columns, triangle, rows, count):
        sums = cls(n_columns)
        sums.triangle = np.array(triangle) if len(triangle) else None
        sums.waiting, sums.n_waiting, sums.count = [np.array(rows)] if len(rows) else [], len(rows), int(count)
        return sums


class NormalEquations:
    """Sums of all groups.

    Parameters
    ----------
    n_groups, n_columns : int
    """

    def __init__(self, n_groups, n_columns):
        self.n_groups, self.n_columns = n_groups, n_columns
        self.groups = [{kind: RowSums(n_columns) for kind in KINDS} for _ in range(n_groups)]

    def add(self, group, kind, rows, target, scale=1.0):
        """Add `scale` times rows (m, n_columns) and targets (m,) of one kind of label."""
        self.groups[group][kind].add_rows(rows, target, scale)

    def condense(self, group):
        """Bring the sums of a group that is complete into as little memory as they can have."""
        for sums in self.groups[group].values():
            sums.condense()

    def counts(self, kinds):
        """(n_groups,) array, rows of these kinds in each group."""
        return np.array([sum(sums[kind].count for kind in kinds) for sums in self.groups])

    def moments(self, selection):
        """Moments of each kind that has rows in the groups of `selection` (n_groups,) bool: {kind: Moments}."""
        present = {kind for groups in self.groups for kind, sums in groups.items() if sums.count}
        return {kind: self.combined(selection, {kind: 1.0}) for kind in KINDS if kind in present}

    def combined(self, selection, kind_weights):
        """Moments of the rows of all kinds in these groups, times the root of the weight of their kind.

        Parameters
        ----------
        selection : (n_groups,) bool array
        kind_weights : {kind: float, or (n_groups,) array where the groups differ}
        """
        triangle, count = self.packed(selection, kind_weights)
        return Moments.unpacked(triangle, self.n_columns, count)

    def residual_square(self, selection, kind, weights):
        """|y − X w|² of the rows of one kind in these groups."""
        return sum(self.groups[group][kind].residual_square(weights) for group in np.flatnonzero(selection))

    def packed(self, selection, kind_weights):
        """As `combined`: the lower triangle of [X | y]^T [X | y], row by row, and the number of rows."""
        triangle, waiting, count = np.zeros(triangle_size(self.n_columns)), [], 0
        for group in np.flatnonzero(selection):
            for kind, weights in kind_weights.items():
                part, weight = self.groups[group][kind], weights[group] if np.ndim(weights) else weights
                if weight == 0 or part.count == 0:
                    continue
                count += part.count
                if part.triangle is not None:
                    _add_scaled(triangle, part.triangle, weight)
                waiting += [block if weight == 1.0 else np.sqrt(weight) * block for block in part.waiting]
        if waiting:
            _add_product(triangle, waiting)
        return triangle, count

    def noise(self, weights):
        """Mean square residual |y − X w|²/n of the rows of each kind in each group: {kind: (n_groups,) array}."""
        return {
            kind: np.array(
                [groups[kind].residual_square(weights) / max(groups[kind].count, 1) for groups in self.groups]
            )
            for kind in KINDS
        }


class Factor:
    """Cholesky factor of a positive definite matrix, scaled to a unit diagonal first (Jacobi).

    Parameters
    ----------
    matrix : (n, n) array, of which the lower triangle is read; overwritten
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
            self.upper, info = lapack.dpotrf(matrix.T, lower=0)  # the transpose has the order of Fortran
            if info == 0:
                break
            step = max(1e-14, 9 * jitter)
            jitter += step
            if jitter > 1e-6:
                raise NumericalError("the normal equations stay singular; raise `regularisation` or use fewer features")
            matrix[np.diag_indices_from(matrix)] += step
        self.log_determinant = 2 * np.log(np.diag(self.upper)).sum() - 2 * np.log(self.scale).sum()

    def solve(self, rhs):
        scale = self.scale if rhs.ndim == 1 else self.scale[:, None]
        return scale * lapack.dpotrs(self.upper, scale * rhs, lower=0)[0]

    def root_times(self, noise):
        """Columns x with covariance A from columns of independent normal numbers."""
        return (self.upper.T @ noise) / self.scale[:, None]

    def inverse_diagonal(self):
        """(n,) diagonal of A⁻¹."""
        root = lapack.dtrtri(self.upper, lower=0)[0].T
        return self.scale**2 * np.einsum("ij,ij->j", root, root)

    def inverse(self):
        """(n, n) lower triangle of A⁻¹, zero above."""
        inverse = lapack.dpotri(self.upper, lower=0)[0].T
        inverse *= self.scale[:, None]
        inverse *= self.scale[None, :]
        return inverse
