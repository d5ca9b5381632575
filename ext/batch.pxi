cdef class Batch:
    """Structures that are evaluated together, with the neighbour list of each kept between calls.

    Parameters
    ----------
    sizes : (n_structures,) int64, atoms of each structure
    species : (n_atoms,) int32, index into the species of the model, all structures one after the other
    pbc : (n_structures, 3) int32
    cutoff, skin : float, Å
    """

    cdef structure *structures
    cdef neighbour_list *lists
    cdef evaluator state
    cdef member_evaluator members
    cdef int busy
    cdef int kept_by  # number of threads that kept densities of these positions, 0 if none did
    cdef object evaluated_by  # sizes of the kernel that the scratch memory is made for
    cdef const int64_t[::1] sizes
    cdef const int32_t[::1] species
    cdef const int32_t[:, ::1] pbc
    cdef const double[:, ::1] positions
    cdef double[:, :, ::1] cells
    cdef readonly Py_ssize_t n_structures, n_atoms

    def __cinit__(self, const int64_t[::1] sizes, const int32_t[::1] species, const int32_t[:, ::1] pbc,
                  double cutoff, double skin=0.0):
        cdef Py_ssize_t s, first = 0
        self.n_structures, self.n_atoms = sizes.shape[0], species.shape[0]
        if pbc.shape[0] != self.n_structures or pbc.shape[1] != 3 or np.sum(sizes) != self.n_atoms:
            raise ValueError("sizes, species and pbc do not describe the same structures")
        self.sizes, self.species, self.pbc = sizes, species, pbc
        self.cells = np.zeros((max(self.n_structures, 1), 3, 3))
        self.structures = <structure *>calloc(self.n_structures + 1, sizeof(structure))
        self.lists = <neighbour_list *>calloc(self.n_structures + 1, sizeof(neighbour_list))
        if self.structures == NULL or self.lists == NULL:
            raise MemoryError()
        for s in range(self.n_structures):
            neighbour_list_init(&self.lists[s], cutoff, skin)
            self.structures[s].n_atoms = sizes[s]
            self.structures[s].species = &species[first] if sizes[s] else NULL
            self.structures[s].cell = &self.cells[s, 0, 0]
            self.structures[s].list = &self.lists[s]
            first += sizes[s]

    def __dealloc__(self):
        cdef Py_ssize_t s
        if self.lists != NULL:
            for s in range(self.n_structures):
                neighbour_list_free(&self.lists[s])
        free(self.lists)
        free(self.structures)
        evaluator_free(&self.state)
        member_evaluator_free(&self.members)

    def update(self, const double[:, ::1] positions, const double[:, :, ::1] cells, int n_threads=1,
               Py_ssize_t first_number=0):
        """Take new positions (n_atoms, 3) and cells (n_structures, 3, 3), Å; return how many lists were rebuilt.

        Errors count the structures from `first_number`.
        """
        cdef Py_ssize_t s, a, b, first = 0
        cdef int status, rebuilt = 0
        cdef int[:, ::1] periodic = np.ascontiguousarray(self.pbc, np.intc)
        if positions.shape[0] != self.n_atoms or positions.shape[1] != 3:
            raise ValueError(f"positions have shape {tuple(positions.shape)[:2]}; this batch has {self.n_atoms} atoms")
        if cells.shape[0] != self.n_structures or cells.shape[1] != 3 or cells.shape[2] != 3:
            raise ValueError(f"there are {cells.shape[0]} cells for {self.n_structures} structures")
        if n_threads < 1:
            raise ValueError(f"n_threads is {n_threads}; it must be at least 1")
        if self.busy:
            raise RuntimeError("this batch is being evaluated in another thread; use one batch per thread")
        self.positions = None  # until every list holds
        self.kept_by = 0
        for s in range(self.n_structures):
            for a in range(3):
                for b in range(3):
                    self.cells[s, a, b] = cells[s, a, b] if self.pbc[s, a] else 0.0
            self.structures[s].positions = &positions[first, 0] if self.sizes[s] else NULL
            first += self.sizes[s]
            self.lists[s].n_threads = n_threads if self.n_structures == 1 else 1
        cdef int n_outer = max(1, min(n_threads, self.n_structures))
        cdef int[::1] statuses = np.zeros(self.n_structures, np.intc)
        self.busy = 1
        for s in prange(self.n_structures, nogil=True, num_threads=n_outer, schedule="static"):
            statuses[s] = neighbour_list_update(&self.lists[s], self.structures[s].n_atoms,
                                                self.structures[s].positions, &self.cells[s, 0, 0], &periodic[s, 0])
        self.busy = 0
        for s in range(self.n_structures):
            status = statuses[s]
            if status < 0:
                alone = self.n_structures == 1 and first_number == 0
                _refuse(status, &self.lists[s], "" if alone else f"structure {first_number + s}: ")
            rebuilt += status
        self.positions = positions
        return rebuilt

    def summed(self, const double[::1] of_atoms):
        """(n_structures,) sums over the atoms of each structure."""
        cdef Py_ssize_t s, i, first = 0
        cdef double[::1] sums = np.zeros(self.n_structures)
        for s in range(self.n_structures):
            for i in range(first, first + self.sizes[s]):
                sums[s] += of_atoms[i]
            first += self.sizes[s]
        return np.asarray(sums)

    @property
    def n_allocations(self):
        """How often memory was taken since the start: it stays put when sizes do."""
        cdef Py_ssize_t s
        total = self.state.n_allocations + self.members.n_allocations
        for s in range(self.n_structures):
            total += self.lists[s].n_allocations
        return total
