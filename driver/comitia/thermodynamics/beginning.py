"""Where the approach to equilibrium ends, of many long series that are seen piece by piece."""

import numpy as np

from comitia.thermodynamics.time_series import statistical_inefficiency

N_BLOCKS = 256
N_CANDIDATES = 20


class Beginning:
    """Means of blocks of every series, kept until all frames were seen.

    Parameters
    ----------
    n_frames : int, of every series
    """

    def __init__(self, n_frames):
        self.length = -(-n_frames // N_BLOCKS)
        self._seen, self._sums = 0, None

    def add(self, values):
        """Add the next frames, (n_frames, n_series)."""
        if self._sums is None:
            self._sums = np.zeros((N_BLOCKS, values.shape[1]))
        first = -self._seen % self.length
        starts = np.arange(first, len(values), self.length)
        starts = starts if first == 0 else np.concatenate([[0], starts])
        block = self._seen // self.length
        self._sums[block : block + len(starts)] += np.add.reduceat(values, starts, axis=0)
        self._seen += len(values)

    def starts(self):
        """First frame of the equilibrated part of each series where much is gained by it, else 0.

        It is the one that leaves the most independent frames, if these are half as many again as in the whole.

        Returns
        -------
        (n_series,) integer array

        J. D. Chodera, J. Chem. Theory Comput. 12, 1799 (2016), doi:10.1021/acs.jctc.5b00784.
        """
        means = self._sums[: self._seen // self.length] / self.length
        if len(means) < 20:
            return np.zeros(means.shape[1], dtype=int)
        last = min(0.9 * len(means), len(means) - 10)
        candidates = np.array(sorted({int(start) for start in np.linspace(0, last, N_CANDIDATES)}))
        independent = np.array([(len(means) - t) / statistical_inefficiency(means[t:]) for t in candidates])
        best = candidates[independent.argmax(axis=0)] * self.length
        return np.where(independent.max(axis=0) >= 1.5 * independent[0], best, 0)
