"""The rows of the design matrix, streamed structure by structure."""

import collections
from concurrent.futures import ThreadPoolExecutor

from comitia.threads import default_threads

CACHE_BYTES = 1 << 30
AHEAD = 2  # structures in flight per thread


class DesignStream:
    """Designs of structures, computed by threads and handed out in the order asked for.

    Designs are kept for a second reading as long as they fit in `cache_bytes`; the rest are computed again, so that
    memory does not grow with the number of structures.

    Parameters
    ----------
    descriptor : Descriptor
    structures : list of LabelledStructure
    n_threads : int
    cache_bytes : int
    """

    def __init__(self, descriptor, structures, n_threads=None, cache_bytes=CACHE_BYTES):
        self.descriptor, self.structures = descriptor, structures
        self.n_threads = n_threads or default_threads()
        self.cache, self.room = {}, cache_bytes

    def __call__(self, order):
        """Yield (index, Design) for every index in `order`; the next ones are computed meanwhile."""
        with ThreadPoolExecutor(self.n_threads) as pool:
            waiting = collections.deque()
            try:
                for index in order:
                    waiting.append((index, self._submit(pool, index)))
                    if len(waiting) > AHEAD * self.n_threads:
                        yield self._take(*waiting.popleft())
                while waiting:
                    yield self._take(*waiting.popleft())
            finally:
                for _, task in waiting:
                    task.cancel()

    def _submit(self, pool, index):
        if index in self.cache:
            return None
        return pool.submit(self.descriptor.design, self.structures[index].atoms)

    def _take(self, index, task):
        if task is None:
            return index, self.cache[index]
        design = task.result()
        size = design.features.nbytes + design.forces.nbytes + design.virial.nbytes
        if size <= self.room:
            self.cache[index] = design
            self.room -= size
        return index, design
