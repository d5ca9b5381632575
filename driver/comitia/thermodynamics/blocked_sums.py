"""Sums over blocks of a series that is seen piece by piece."""

import numpy as np

from comitia.thermodynamics.time_series import MOST_BLOCKS, block_length


class BlockedSums:
    """Sums over consecutive blocks of a series that comes in chunks and whose length is not known beforehand.

    Blocks hold a power of two of frames; where they become more than `MOST_BLOCKS`, neighbours are added up.
    How the series was cut into chunks makes no difference.

    Parameters
    ----------
    n_expected : int, frames that will come, so that blocks have their final length at once; 0 where it is not known

    Attributes
    ----------
    n_frames : int, seen so far
    length : int, frames in a block
    """

    def __init__(self, n_expected=0):
        self.n_frames = 0
        self.length = block_length(n_expected)
        self._sums = {}

    def segments(self, n_frames, at_once):
        """Slices of the next `n_frames` frames that hold whole blocks, or the part of one, and their first block.

        Several blocks come together as long as they hold at most `at_once` frames.
        """
        while -(-(self.n_frames + n_frames) // self.length) > MOST_BLOCKS:
            self.length *= 2
            for sums in self._sums.values():
                sums[: MOST_BLOCKS // 2] = sums[0::2] + sums[1::2]
                sums[MOST_BLOCKS // 2 :] = 0
        first, seen = 0, self.n_frames
        self.n_frames += n_frames
        while first < n_frames:
            block, inside = divmod(seen + first, self.length)
            n_whole = 0 if inside else min(n_frames - first, at_once) // self.length
            last = first + n_whole * self.length if n_whole else min(first + self.length - inside, n_frames)
            yield slice(first, last), block, max(n_whole, 1)
            first = last

    def add(self, block, sums):
        """Add (n_blocks, ...) arrays, by name, from that block on; the first call fixes names and shapes."""
        for name, values in sums.items():
            if name not in self._sums:
                self._sums[name] = np.zeros((MOST_BLOCKS, *values.shape[1:]))
            self._sums[name][block : block + len(values)] += values

    def rescale(self, prefix, factor):
        """Multiply all sums whose names begin so, along their last axis."""
        for name, sums in self._sums.items():
            if name.startswith(prefix):
                sums *= factor

    def blocks(self):
        """All sums by name, (n_blocks, ...) arrays."""
        n_blocks = -(-self.n_frames // self.length)
        return {name: sums[:n_blocks] for name, sums in self._sums.items()}
