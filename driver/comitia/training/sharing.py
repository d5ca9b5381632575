r"""Weights of one feature around different species are alike a priori.

With pseudo-species a feature means the same whatever the species of the centre. Of the weights of one feature a part is
common to all S species, and each adds a deviation of its own,

.. math:: \Lambda = D^{1/2} \left(1 - \frac{s}{S} J\right) D^{1/2}, \quad D = \mathrm{diag}(\lambda),

with J = 1 between columns of the same feature. The common part has 1/(1 − s) times the prior variance of a deviation:
where an element has few structures its weights stay at those of the others.
"""

import numpy as np

SHARED = 0.85  # s, about what the evidence finds for an alloy of four elements


class Sharing:
    """Which columns are the same feature.

    Parameters
    ----------
    feature : (n,) int array, of each column
    n_species : int, S
    """

    def __init__(self, feature, n_species):
        self.feature, self.share = np.asarray(feature), SHARED / n_species
        place = np.argsort(self.feature, kind="stable")
        self.size = np.bincount(self.feature)
        pairs = []
        for apart in range(1, self.size.max()):
            same = self.feature[place[apart:]] == self.feature[place[:-apart]]
            pairs.append(np.column_stack([place[apart:][same], place[:-apart][same]]))
        self.row, self.column = np.concatenate(pairs).T if pairs else np.empty((2, 0), int)  # row > column
        self.log_determinant = np.log1p(-self.share * self.size).sum()  # of Λ, less Σ ln λ

    def pooled(self, values):
        """(n,) array of each column's mean over all columns of its feature."""
        return (np.bincount(self.feature, values) / np.maximum(self.size, 1))[self.feature]

    def _coupling(self, penalty):
        return -self.share * np.sqrt(penalty[self.row] * penalty[self.column])

    def add_to(self, matrix, penalty):
        """Add Λ to the lower triangle of a matrix."""
        matrix[np.diag_indices_from(matrix)] += (1 - self.share) * penalty
        matrix[self.row, self.column] += self._coupling(penalty)

    def times(self, penalty, weights):
        """Λ w."""
        coupling, product = self._coupling(penalty), (1 - self.share) * penalty * weights
        np.add.at(product, self.row, coupling * weights[self.column])
        np.add.at(product, self.column, coupling * weights[self.row])
        return product

    def traces(self, penalty, inverse):
        """(n,) diagonal of A⁻¹ Λ, from the lower triangle of A⁻¹."""
        coupling = self._coupling(penalty) * inverse[self.row, self.column]
        traces = (1 - self.share) * penalty * np.diag(inverse)
        np.add.at(traces, self.row, coupling)
        np.add.at(traces, self.column, coupling)
        return traces
