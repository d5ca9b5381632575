cdef class NeighbourList:
    """All pairs of atoms closer than a cutoff, for any cell; kept while the atoms stay within the skin.

    A pair of atom ``i`` has the vector ``r_ij = r_j - r_i + shift @ cell`` with the positions as given and cell
    vectors in rows. The list is full (both ``i -> j`` and ``j -> i``), counts every image, and is ordered by
    ``j``, then by shift.

    Parameters
    ----------
    cutoff : float, Å
    skin : float, Å; pairs up to ``cutoff + skin`` are listed, and the list is rebuilt only when an atom moved more
        than half of it (Verlet, Phys. Rev. 159, 98 (1967), doi:10.1103/PhysRev.159.98)
    """

    cdef neighbour_list list
    cdef bint built

    def __cinit__(self, double cutoff, double skin=0.0):
        if not (0 <= cutoff < float("inf") and 0 <= skin < float("inf")):
            raise ValueError(f"cutoff {cutoff} Å and skin {skin} Å must be finite and not negative")
        neighbour_list_init(&self.list, cutoff, skin)
        self.built = False

    def __dealloc__(self):
        neighbour_list_free(&self.list)

    def update(self, positions, cell=None, pbc=True):
        """Bring the list up to date.

        Parameters
        ----------
        positions : (n_atoms, 3) array, Å
        cell : (3, 3) array, Å, vectors in rows, or None; a row is ignored where `pbc` is false
        pbc : bool, or three

        Returns
        -------
        bool, whether the list was rebuilt
        """
        position_array = np.ascontiguousarray(positions, dtype=np.float64)
        if position_array.size == 0:
            position_array = position_array.reshape(0, 3)
        if position_array.ndim != 2 or position_array.shape[1] != 3:
            raise ValueError(f"positions have the shape {position_array.shape}; (n_atoms, 3) is needed")
        cell_array = np.zeros((3, 3)) if cell is None else np.ascontiguousarray(cell, dtype=np.float64)
        if cell_array.shape != (3, 3):
            raise ValueError(f"the cell has the shape {cell_array.shape}; (3, 3) is needed")
        pbc_array = np.ascontiguousarray(np.broadcast_to(np.asarray(pbc, dtype=bool), 3), dtype=np.int32)
        cdef const double[:, ::1] r = position_array
        cdef const double[:, ::1] h = cell_array
        cdef const int32_t[::1] periodic = pbc_array
        cdef size_t n_atoms = r.shape[0]
        cdef const double *first = &r[0, 0] if n_atoms > 0 else NULL
        # the GIL is kept: microseconds, and no other thread may read the list meanwhile
        cdef int status = neighbour_list_update(&self.list, n_atoms, first, &h[0, 0], <const int *>&periodic[0])
        self.built = status >= 0
        if status < 0:
            _refuse(status, &self.list, "neighbour list: ")
        return status == 1

    @property
    def n_atoms(self):
        """Number of atoms."""
        return self.list.n_atoms if self.built else 0

    @property
    def n_pairs(self):
        """Number of pairs, each counted from both of its atoms."""
        return self.list.n_pairs if self.built else 0

    @property
    def n_allocations(self):
        """How often memory was taken so far; it stays put while the number of atoms and pairs does."""
        return self.list.n_allocations

    @property
    def start(self):
        """(n_atoms + 1,) int64: the pairs of atom i are start[i] to start[i + 1] - 1."""
        if not self.built:
            return np.zeros(1, dtype=np.int64)
        return np.array(<int64_t[:self.list.n_atoms + 1]>self.list.start)

    @property
    def neighbour(self):
        """(n_pairs,) int32: j of each pair."""
        if self.n_pairs == 0:
            return np.zeros(0, dtype=np.int32)
        return np.array(<int32_t[:self.list.n_pairs]>self.list.neighbour)

    @property
    def shift(self):
        """(n_pairs, 3) int32: lattice vectors to add to the position of j."""
        if self.n_pairs == 0:
            return np.zeros((0, 3), dtype=np.int32)
        return np.array(<int32_t[:self.list.n_pairs, :3]>self.list.shift)
