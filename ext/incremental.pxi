cdef double SMALL_STEP = 0.05  # Å


cdef class KnownConfigurations:
    """Configurations of one set of atoms whose results are known, and trials that differ from them in few atoms.

    Parameters
    ----------
    kernel : Kernel
    weights : (n_species, n_features) array, eV
    species : (n_atoms,) int32, index into the species of the model
    pbc : (3,) array of bool
    sums : bool, whether summed features are wanted
    n_most : int, configurations that are kept: a new one replaces that from which it is a small step, else the one that
        was used least recently
    """

    cdef Kernel kernel
    cdef const double[:, ::1] weights
    cdef const int32_t[::1] species
    cdef int[3] pbc
    cdef incremental_base *bases
    cdef int64_t[::1] used  # when each was used last
    cdef int busy
    cdef int64_t n_used, n_used_before  # before the structures of the last request were kept
    cdef incremental_scratch scratch
    cdef Py_ssize_t n_most, n_sums, same
    cdef readonly Py_ssize_t n_atoms
    cdef readonly int n_touched  # centres that the last trial evaluated

    def __cinit__(self, Kernel kernel not None, const double[:, ::1] weights, const int32_t[::1] species, pbc,
                  bint sums=False, Py_ssize_t n_most=64):
        cdef Py_ssize_t b
        if weights.shape[0] != kernel.n_species or weights.shape[1] != kernel.n_features:
            raise ValueError(f"weights must have shape ({kernel.n_species}, {kernel.n_features})")
        if not np.all((0 <= np.asarray(species)) & (np.asarray(species) < kernel.n_species)):
            raise ValueError(f"species must be indices of the {kernel.n_species} of the model")
        if kernel.d.spline_single != NULL:
            raise ValueError("sums of differences need a kernel of double precision numbers")
        self.kernel, self.weights, self.species = kernel, weights, species
        self.n_atoms, self.n_most, self.same = species.shape[0], n_most, -1
        self.n_sums = kernel.n_species * kernel.n_features if sums else 0
        for b in range(3):
            self.pbc[b] = bool(pbc[b])
        self.used = np.zeros(n_most, np.int64)
        self.bases = <incremental_base *>calloc(n_most + 1, sizeof(incremental_base))
        if self.bases == NULL:
            raise MemoryError()

    def __dealloc__(self):
        cdef Py_ssize_t b
        if self.bases != NULL:
            for b in range(self.n_most):
                incremental_base_free(&self.bases[b])
        free(self.bases)
        incremental_scratch_free(&self.scratch)

    cdef take_cell(self, const double[:, ::1] positions, const double[:, ::1] cell, double *rows):
        """The cell, its rows zero where the structure is not periodic."""
        cdef Py_ssize_t a, b
        if self.busy:
            raise RuntimeError("a trial is being evaluated in another thread; use one evaluator per thread")
        if positions.shape[0] != self.n_atoms or positions.shape[1] != 3 or cell.shape[0] != 3 or cell.shape[1] != 3:
            raise ValueError(f"positions must have shape ({self.n_atoms}, 3), and the cell (3, 3)")
        for a in range(3):
            for b in range(3):
                rows[3 * a + b] = cell[a, b] if self.pbc[a] else 0.0

    cdef use(self, Py_ssize_t b):
        self.n_used += 1
        self.used[b] = self.n_used

    cdef Py_ssize_t replaced_by(self, const double *positions):
        """The configuration that gives way: dynamics goes on in the same memory, whatever the number of replicas."""
        cdef Py_ssize_t b, k, place, least = 0
        cdef double largest, nearest = SMALL_STEP
        for b in range(self.n_most):
            if self.used[b] < self.used[least]:
                least = b
            if self.used[b] == 0:  # so are those behind it
                break
        for b in range(self.n_most):
            if self.used[b] == 0:
                break
            if self.used[b] > self.n_used_before:  # another one of the same request
                continue
            largest = 0
            for k in range(12):  # coordinates of a few atoms
                place = 3 * (k // 3 * (self.n_atoms - 1) // 3) + k % 3
                largest = fmax(largest, fabs(positions[place] - self.bases[b].positions[place]))
            if largest < nearest:
                least, nearest = b, largest
        return least

    def keep(self, const double[:, :, ::1] positions, const double[:, :, ::1] cells, const double[::1] energies,
             const double[:, ::1] forces, const double[:, :, ::1] virials, const double[:, :, ::1] sums=None):
        """Take the results of a full evaluation, arrays as those of `Kernel.evaluate`."""
        cdef Py_ssize_t s, b, n = positions.shape[0]
        cdef double[9] rows
        if energies.shape[0] != n * self.n_atoms or forces.shape[0] != n * self.n_atoms or forces.shape[1] != 3:
            raise ValueError(f"energies and forces must be those of {n} structures of {self.n_atoms} atoms")
        if self.n_sums and (sums is None or sums.shape[1] * sums.shape[2] != self.n_sums):
            raise ValueError(f"there must be {self.n_sums} sums of features")
        if self.n_atoms == 0:
            return
        self.n_used_before = self.n_used
        for s in range(n):
            self.take_cell(positions[s], cells[s], rows)
            b = self.same if self.same >= 0 else self.replaced_by(&positions[s, 0, 0])
            if self.used[b] == 0 and incremental_base_prepare(&self.bases[b], self.n_atoms, self.pbc, self.n_sums):
                incremental_base_free(&self.bases[b])
                raise MemoryError(f"no memory left to keep the results of {self.n_atoms} atoms")
            incremental_keep(&self.bases[b], &self.scratch, &positions[s, 0, 0], rows, &energies[s * self.n_atoms],
                             &forces[s * self.n_atoms, 0], &virials[s, 0, 0], &sums[s, 0, 0] if self.n_sums else NULL)
            self.use(b)
            self.same = -1

    def evaluate(self, const double[:, ::1] positions, const double[:, ::1] cell, int n_threads=1):
        """The results for positions that differ in few atoms from a known configuration or from the last trial of one.

        Returns
        -------
        dict as of `Kernel.evaluate` for one structure, or None where nothing is known that is close enough, and where
        a result is not finite.
        """
        cdef Py_ssize_t b, closest = -1
        cdef int status
        cdef incremental_difference difference, least
        cdef double[9] rows
        self.take_cell(positions, cell, rows)
        least.n = MOST_MOVED + 1
        self.same = -1
        if self.n_atoms == 0:
            return None
        for b in range(self.n_most):
            if self.used[b] and incremental_compare(&self.bases[b], &self.scratch, &positions[0, 0], rows,
                                                    &difference) < least.n:
                closest, least = b, difference
        if closest < 0:
            return None
        if least.n == 0 and not self.bases[closest].filled:  # the same again: not what trials look like
            self.same = closest
            return None
        self.busy = 1
        with nogil:
            status = incremental_evaluate(&self.bases[closest], &self.scratch, &self.kernel.d, &self.species[0],
                                          &self.weights[0, 0], &positions[0, 0], &least, n_threads)
        self.busy = 0
        if status:
            return None  # a full evaluation says what is wrong
        self.n_touched = self.bases[closest].trial.n_centres if self.bases[closest].n_moved else 0
        self.use(closest)
        result = self.read(&self.bases[closest])
        if result is None:
            incremental_reject(&self.bases[closest])
        return result

    @property
    def n_allocations(self):
        """How often the trials took memory since the start: it stays put when sizes do."""
        return (self.scratch.n_allocations + self.scratch.memory.n_allocations + self.scratch.store.n_allocations +
                self.scratch.memory.evaluator.n_allocations)

    cdef read(self, incremental_base *base):
        """The results of a trial, or None where one is not finite."""
        cdef double[::1] energies = np.empty(self.n_atoms)
        cdef double[:, ::1] forces = np.empty((self.n_atoms, 3))
        cdef double[:, :, ::1] virials = np.empty((1, 3, 3))
        cdef double[:, :, ::1] sums = np.empty((1, self.kernel.n_species, self.kernel.n_features if self.n_sums else 0))
        cdef double total = 0
        cdef Py_ssize_t i
        incremental_read(base, &self.scratch, &energies[0], &forces[0, 0], &virials[0, 0, 0],
                         &sums[0, 0, 0] if self.n_sums else NULL)
        if not (linear_finite(self.n_atoms, &energies[0]) and linear_finite(3 * self.n_atoms, &forces[0, 0])):
            return None
        for i in range(self.n_atoms):
            total += energies[i]
        result = {"atomic_energies": np.asarray(energies), "energies": np.array([total]), "forces": np.asarray(forces),
                  "virials": np.asarray(virials)}
        if self.n_sums:
            result["sums"] = np.asarray(sums)
        return result
