"""The rows of the design matrix, streamed structure by structure, groups of structures side by side."""

import threading
from concurrent.futures import ThreadPoolExecutor, as_completed

import numpy as np

from comitia.threads import default_threads


def over_groups(work, group, sizes, n_threads, groups=None):
    """Run `work(group, indices)` for each of the groups, the largest first.

    A group is the work of one thread, so that its sums have one order. `indices` yields the structures of the group, in
    order. Yields (group, result) as the groups are done; a caller that goes away (a signal, an error) stops the others
    after the structure at hand.

    Parameters
    ----------
    group : (n_structures,) int array
    sizes : (n_structures,) numbers of atoms
    groups : which of them; all by default
    """
    size, stop = np.bincount(group, weights=sizes), threading.Event()
    groups = [g for g in np.argsort(-size, kind="stable").tolist() if size[g] and (groups is None or g in groups)]

    def indices(number):
        for index in np.flatnonzero(group == number).tolist():
            if stop.is_set():
                return
            yield index

    with ThreadPoolExecutor(n_threads) as pool:
        tasks = {pool.submit(work, number, indices(number)): number for number in groups}
        try:
            for task in as_completed(tasks):
                yield tasks[task], task.result()
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)


class DesignStream:
    """Designs of structures, computed by threads and never kept: memory does not grow with the number of structures.

    Parameters
    ----------
    descriptor : Descriptor
    structures : list of LabelledStructure
    group : (n_structures,) int array, the group of each structure
    n_threads : int
    columns : int array, of the design matrix that are kept; by default all
    """

    def __init__(self, descriptor, structures, group, n_threads=None, columns=None):
        self.descriptor, self.structures, self.group = descriptor, structures, np.asarray(group)
        self.n_threads = n_threads or default_threads()
        self.columns = None if columns is None or len(columns) == descriptor.width else columns

    def __call__(self, work, groups=None):
        """Run `work(group, designs)` as `over_groups` does; `designs` yields (index, Design)."""

        def with_designs(number, indices):
            return work(number, ((index, self._design(index)) for index in indices))

        sizes = [len(s.atoms) for s in self.structures]
        return over_groups(with_designs, self.group, sizes, self.n_threads, groups)

    def _design(self, index):
        s = self.structures[index]
        design = self.descriptor.design(s.atoms, s.forces is not None, s.virial is not None)
        if self.columns is None:
            return design
        return type(design)(*(None if rows is None else rows[..., self.columns] for rows in design))
