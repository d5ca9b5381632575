cdef class MemberKernel:
    """Energy of the first member and forces of all members of a committee at once; immutable, so that any number of
    threads may share it.

    Parameters
    ----------
    kernel : Kernel
    program : dict of arrays, see `comitia.density.member_program.arrange_members`
    weights : (n_members, n_species, n_features) array, eV: of members, or of any linear combinations of them
    core : (n_members,) array, how many times the repulsive core is part of each
    """

    cdef Kernel kernel
    cdef member_program p
    cdef object kept
    cdef const double[::1] weights, core, first
    cdef readonly Py_ssize_t n_members, n_columns

    def __cinit__(self, Kernel kernel not None, program, weights, core):
        self.kernel, self.kept = kernel, []
        self.n_members = len(weights)
        if weights.shape[1:] != (kernel.n_species, kernel.n_features):
            raise ValueError(f"weights must have shape (n_members, {kernel.n_species}, {kernel.n_features})")
        self.n_columns = (self.n_members + PADDING - 1) // PADDING * PADDING
        rows = np.zeros((kernel.n_species, len(program["dot_other"]), self.n_columns))
        of_dots = weights[:, :, program["dot_feature"]] * program["dot_factor"]
        rows[:, :, : self.n_members] = np.moveaxis(of_dots, 0, 2)
        aligned = _aligned(rows.size)
        aligned[: rows.size] = rows.ravel()
        self.weights = aligned
        self.first = np.array(weights[0], float).ravel()
        aligned = _aligned(self.n_columns)
        aligned[: self.n_members] = core
        self.core = aligned
        self.p.n_channels, self.p.n_terms = program["n_channels"], program["n_terms"]
        self.p.n_products, self.p.most_slots = len(program["product_first"]), program["most_slots"]
        self.p.channel_base = self.integers(program["channel_base"])
        self.p.dot_start = self.integers(program["dot_start"])
        self.p.dot_other = self.integers(program["dot_other"])
        self.p.product_l = self.integers(program["product_l"])
        self.p.product_first = self.integers(program["product_first"])
        self.p.product_second = self.integers(program["product_second"])
        self.p.product_base = self.integers(program["product_base"])
        self.p.product_coupling = self.integers(program["product_coupling"])
        self.p.coupling = self.reals(program["coupling"])
        self.p.function_start = self.integers(program["function_start"])
        self.p.function = self.integers(program["function"])
        self.p.function_base = self.integers(program["function_base"])
        self.p.slot_start = self.integers(program["slot_start"])
        self.p.source_start = self.integers(program["source_start"])
        self.p.source_component = self.integers(program["source_component"])
        self.p.source_factor = self.reals(program["source_factor"])

    cdef const double *reals(self, array):
        cdef const double[::1] view = np.append(array, 0.0)  # one more, so that an empty array has an address
        self.kept.append(view)
        return &view[0]

    cdef const int32_t *integers(self, array):
        cdef const int32_t[::1] view = np.append(array, 0).astype(np.int32)
        self.kept.append(view)
        return &view[0]

    def evaluate(self, Batch batch not None, int n_threads=1):
        """Forces and virials of every member, energies of the first, and summed features.

        Returns
        -------
        dict of `atomic_energies` (n_atoms,), their sums `energies` (n_structures,), `sums` (n_structures, n_species,
        n_features), `forces` (n_atoms, 3, n_members), `virials` (n_structures, 3, 3, n_members), eV and Å; `finite`:
        whether all energies and forces are.
        """
        cdef member_evaluation what
        cdef int status
        cdef double[::1] energies = np.empty(batch.n_atoms + 1)
        cdef double[:, :, ::1] sums = np.empty((batch.n_structures + 1, self.kernel.n_species, self.kernel.n_features))
        cdef double[:, :, ::1] forces = np.empty((batch.n_atoms + 1, 3, self.n_columns))
        cdef double[:, :, :, ::1] virials = np.empty((batch.n_structures + 1, 3, 3, self.n_columns))
        self.kernel.check(batch, n_threads)
        what.n_columns, what.weights, what.core = self.n_columns, &self.weights[0], &self.core[0]
        what.first = &self.first[0]
        what.atomic_energies, what.sums = &energies[0], &sums[0, 0, 0]
        what.forces, what.virials = &forces[0, 0, 0], &virials[0, 0, 0, 0]
        batch.busy = 1
        with nogil:
            status = evaluate_members(&batch.members, &self.kernel.d, &self.p, batch.n_structures, batch.structures,
                                      n_threads, &what)
        batch.busy = 0
        if status:
            raise MemoryError(f"no memory left for the members' forces on {batch.n_atoms} atoms; use smaller batches")
        return {
            "atomic_energies": np.asarray(energies)[: batch.n_atoms],
            "energies": batch.summed(energies),
            "sums": np.asarray(sums)[: batch.n_structures],
            "forces": np.asarray(forces)[: batch.n_atoms, :, : self.n_members],
            "virials": np.asarray(virials)[: batch.n_structures, :, :, : self.n_members],
            "finite": bool(linear_finite(batch.n_atoms, what.atomic_energies) and
                           linear_finite(3 * batch.n_atoms * self.n_columns, what.forces)),
        }
