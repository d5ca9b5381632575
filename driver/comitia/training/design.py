"""The rows of the design matrix, streamed structure by structure, groups of structures side by side."""

import threading
from concurrent.futures import ThreadPoolExecutor, as_completed

import numpy as np

from comitia.threads import default_threads

CACHE_BYTES = 1 << 30


class DesignStream:
    """Designs of structures, computed by threads; each thread takes a whole group, so that sums have one order.

    Designs are kept for a second reading as long as they fit in `cache_bytes`; the rest are computed again, so that
    memory does not grow with the number of structures.

    Parameters
    ----------
    descriptor : Descriptor
    structures : list of LabelledStructure
    group : (n_structures,) int array, the group of each structure
    n_threads : int
    cache_bytes : int
    """

    def __init__(self, descriptor, structures, group, n_threads=None, cache_bytes=CACHE_BYTES):
        self.descriptor, self.structures, self.group = descriptor, structures, np.asarray(group)
        self.n_threads = n_threads or default_threads()
        self.cache, self.room, self.lock = {}, cache_bytes, threading.Lock()

    def __call__(self, work, groups=None):
        """Run `work(group, designs)` for each of the groups, the one with the most atoms first.

        `designs` yields (index, Design) of the structures of the group, in order. Yields (group, result) as the groups
        are done; a caller that goes away (a signal, an error) stops the others after the structure at hand.
        """
        size, stop = np.bincount(self.group, weights=[len(s.atoms) for s in self.structures]), threading.Event()
        groups = [g for g in np.argsort(-size, kind="stable").tolist() if size[g] and (groups is None or g in groups)]
        with ThreadPoolExecutor(self.n_threads) as pool:
            tasks = {pool.submit(work, group, self._designs(group, stop)): group for group in groups}
            try:
                for task in as_completed(tasks):
                    yield tasks[task], task.result()
            finally:
                stop.set()
                pool.shutdown(cancel_futures=True)

    def _designs(self, group, stop):
        for index in np.flatnonzero(self.group == group).tolist():
            if stop.is_set():
                return
            yield index, self._design(index)

    def _design(self, index):
        if index in self.cache:
            return self.cache[index]
        s = self.structures[index]
        design = self.descriptor.design(s.atoms, s.forces is not None, s.virial is not None)
        size = sum(rows.nbytes for rows in design if rows is not None)
        with self.lock:
            if size <= self.room:
                self.cache[index] = design
                self.room -= size
        return design
