cdef class Kernel:
    """The density correlations of one model; immutable, so that any number of threads may share it.

    Parameters
    ----------
    contraction : (n_channels, n_species) array
    spline : (n_tables, n_intervals, 6, n_functions) array, one table for each species or for all of them; n_functions
        padded to a multiple of 8
    program : dict of arrays, see `comitia.density.program.arrange`
    single : bool, whether energies, forces and virials are made of single precision numbers; sums of them, what
        members and training need, and the vectors between atoms are not
    core : None, or (inner, outer, charge): (n_species, n_species) Å twice, and atomic numbers
    """

    cdef descriptor d
    cdef object kept
    cdef readonly int n_species, n_features

    def __cinit__(self, double cutoff, int l_max, contraction, spline, program, int n_features, core=None,
                  bint single=False):
        self.kept = []
        self.n_species, self.n_features = contraction.shape[1], n_features
        self.d.n_species, self.d.n_channels, self.d.l_max = contraction.shape[1], contraction.shape[0], l_max
        self.d.cutoff = cutoff
        self.d.n_intervals, self.d.n_functions = spline.shape[1], spline.shape[3]
        self.d.spline_start = self.integers(np.arange(self.n_species) % len(spline) * (spline.size // len(spline)))
        self.d.n_stride = program["n_stride"]
        self.d.n_features = n_features
        self.d.n_components = len(program["component_source"])
        self.d.n_order0 = program["n_order0"]
        self.d.n_order1 = len(program["order1_base"])
        self.d.n_order2 = len(program["order2_l"])
        self.d.n_runs = len(program["run_coupling"])
        self.d.n_products = len(program["product_first"])
        self.d.n_shared = program["n_shared"]
        self.d.n_terms = program["n_terms"]
        self.d.spline = self.reals(spline)
        self.d.spline_single = self.floats(spline) if single else NULL
        self.d.contraction = self.reals(contraction)
        self.d.coupling = self.reals(program["coupling"])
        self.d.radial_offset = self.integers(program["radial_offset"])
        self.d.n_used = self.integers(program["n_used"])
        self.d.channel_n = self.integers(program["channel_n"])
        self.d.channel_offset = self.integers(program["channel_offset"])
        present = np.asarray(contraction) != 0
        last = present.shape[1] - np.argmax(present[:, ::-1], axis=1)
        self.d.channel_species = self.integers(
            np.where(present.any(axis=1, keepdims=True), np.column_stack([np.argmax(present, axis=1), last]), 0))
        self.d.n_density = program["n_density"]
        self.d.order1_place = self.integers(program["order1_place"])
        self.d.n_dense = program["n_dense"]
        self.d.dense_n = self.integers(program["dense_n"])
        self.d.dense_place = self.integers(program["dense_place"])
        self.d.component_source = self.integers(program["component_source"])
        component_of = np.full(self.d.n_density, -1)
        component_of[program["component_source"]] = np.arange(self.d.n_components)
        rows = component_of.reshape(-1, PADDING)
        used = np.flatnonzero((rows >= 0).any(axis=1))
        self.d.n_rows = len(used)
        self.d.row_place = self.integers(PADDING * used)
        self.d.row_component = self.integers(rows[used])
        self.d.component_function = self.integers(program["component_function"])
        self.d.component_lm = self.integers(program["component_lm"])
        self.d.component_channel = self.integers(program["component_channel"])
        self.d.feature = self.integers(program["feature"])
        self.d.scale = self.reals(program["scale"])
        self.d.order1_base = self.integers(program["order1_base"])
        self.d.order2_l = self.integers(program["order2_l"])
        self.d.order2_first = self.integers(program["order2_first"])
        self.d.order2_start = self.integers(program["order2_start"])
        self.d.order2_second = self.integers(program["order2_second"])
        self.d.scaled_start = self.integers(program["scaled_start"])
        self.d.scaled_by = self.integers(program["scaled_by"])
        self.d.run_l = self.integers(program["run_l"])
        self.d.run_coupling = self.integers(program["run_coupling"])
        self.d.run_start = self.integers(program["run_start"])
        self.d.product_first = self.integers(program["product_first"])
        self.d.product_second = self.integers(program["product_second"])
        self.d.product_base = self.integers(program["product_base"])
        self.d.run_of = self.integers(program["run_of"])
        self.d.order3_start = self.integers(program["order3_start"])
        self.d.order3_third = self.integers(program["order3_third"])
        self.d.order4_start = self.integers(program["order4_start"])
        self.d.order4_other = self.integers(program["order4_other"])
        self.d.mirrored_start = self.integers(program["mirrored_start"])
        self.d.mirrored_other = self.integers(program["mirrored_other"])
        self.d.mirrored_place = self.integers(program["mirrored_place"])
        if core is not None:
            inner, outer, charge = core
            self.d.core_inner = self.reals(inner)
            self.d.core_outer = self.reals(outer)
            self.d.nuclear_charge = self.reals(charge)
        harmonics_prepare(&self.d.harmonics)

    cdef const double *reals(self, array):
        cdef const double[::1] view
        flat = np.array(array, float).ravel()
        aligned = _aligned(flat.size)
        aligned[: flat.size] = flat
        self.kept.append(aligned)
        view = aligned
        return &view[0]

    cdef const float *floats(self, array):
        cdef const float[::1] view
        flat = np.array(array, np.float32).ravel()
        aligned = _aligned(flat.size // 2 + 1).view(np.float32)
        aligned[: flat.size] = flat
        self.kept.append(aligned)
        view = aligned
        return &view[0]

    cdef const int32_t *integers(self, array):
        cdef const int32_t[::1] view
        flat = np.append(np.ravel(array), 0).astype(np.int32)  # one more, so that an empty array has an address
        self.kept.append(flat)
        view = flat
        return &view[0]

    def evaluate(self, Batch batch not None, const double[:, ::1] weights=None, const double[:, ::1] adjoint=None,
                 bint forces=True, bint virials=True, bint sums=False, bint features=False, bint atomic_virials=False,
                 const double[:, :, ::1] deviations=None, int n_threads=1):
        """Evaluate a batch with one weight per species and feature, or with any adjoint of the features.

        Parameters
        ----------
        weights : (n_species, n_features) array, eV; or
        adjoint : (n_atoms, n_features) array, dE/dB of every atom
        deviations : None, or (n_species, n_members, n_features) array, eV, weights of the members less their mean

        Returns
        -------
        dict with `atomic_energies` (n_atoms,), their sums `energies` (n_structures,) and, as asked for, `forces`
        (n_atoms, 3), `virials` (n_structures, 3, 3), `sums` (n_structures, n_species, n_features), `features`
        (n_atoms, n_features), `atomic_virials` (n_atoms, 3, 3): of the forces on each atom, `atomic_members` (n_atoms,
        n_members), eV: how far the energies of each atom are from the mean; `finite`: whether all energies and forces
        are.
        """
        cdef evaluation what
        cdef int status
        cdef double[::1] v_energies = np.empty(batch.n_atoms + 1)
        cdef double[:, ::1] v_forces
        cdef double[:, ::1] v_features
        cdef double[:, :, ::1] v_virials
        cdef double[:, :, ::1] v_sums, v_atomic_virials
        cdef double[:, ::1] v_members
        if (weights is None) == (adjoint is None):
            raise ValueError("give either weights or an adjoint")
        if weights is not None and (weights.shape[0] != self.n_species or weights.shape[1] != self.n_features):
            raise ValueError(f"weights must have shape ({self.n_species}, {self.n_features})")
        if adjoint is not None and (adjoint.shape[0] != batch.n_atoms or adjoint.shape[1] != self.n_features):
            raise ValueError(f"the adjoint must have shape ({batch.n_atoms}, {self.n_features})")
        if deviations is not None and (
                deviations.shape[0] != self.n_species or deviations.shape[2] != self.n_features):
            raise ValueError(f"deviations must have shape ({self.n_species}, n_members, {self.n_features})")
        self.check(batch, n_threads)
        result = {}
        what.weights = &weights[0, 0] if weights is not None else NULL
        what.adjoint = &adjoint[0, 0] if adjoint is not None and batch.n_atoms else NULL
        what.atomic_energies = &v_energies[0]
        what.forces = what.virials = what.atomic_virials = what.sums = what.features = what.atomic_members = NULL
        what.keep = 0
        result["atomic_energies"] = np.asarray(v_energies)[: batch.n_atoms]
        if forces or virials or atomic_virials:
            v_forces = np.empty((batch.n_atoms + 1, 3))
            what.forces = &v_forces[0, 0]
            result["forces"] = np.asarray(v_forces)[: batch.n_atoms]
        if virials:
            v_virials = np.empty((batch.n_structures + 1, 3, 3))
            what.virials = &v_virials[0, 0, 0]
            result["virials"] = np.asarray(v_virials)[: batch.n_structures]
        if atomic_virials:
            v_atomic_virials = np.empty((batch.n_atoms + 1, 3, 3))
            what.atomic_virials = &v_atomic_virials[0, 0, 0]
            result["atomic_virials"] = np.asarray(v_atomic_virials)[: batch.n_atoms]
        if deviations is not None:
            v_members = np.empty((batch.n_atoms + 1, deviations.shape[1]))
            what.n_members, what.deviations, what.atomic_members = (
                deviations.shape[1], &deviations[0, 0, 0], &v_members[0, 0])
            result["atomic_members"] = np.asarray(v_members)[: batch.n_atoms]
        if sums:
            v_sums = np.empty((batch.n_structures + 1, self.n_species, self.n_features))
            what.sums = &v_sums[0, 0, 0]
            result["sums"] = np.asarray(v_sums)[: batch.n_structures]
        if features:
            v_features = np.empty((batch.n_atoms + 1, self.n_features))
            what.features = &v_features[0, 0]
            result["features"] = np.asarray(v_features)[: batch.n_atoms]
        batch.busy = 1
        with nogil:
            status = evaluate(&batch.state, &self.d, batch.n_structures, batch.structures, n_threads, &what)
        batch.busy = 0
        if status:
            raise MemoryError(f"no memory left to evaluate {batch.n_atoms} atoms; use smaller batches")
        result["energies"] = batch.summed(v_energies)
        result["finite"] = bool(linear_finite(batch.n_atoms, &v_energies[0]) and
                                (what.forces == NULL or linear_finite(3 * batch.n_atoms, what.forces)))
        return result

    def tangent(self, Batch batch not None, const double[:, ::1] directions, int n_threads=1,
                const double[:, :, ::1] strains=None):
        """Derivative of the summed features along displacements of the atoms, and along strains where they are given.

        Parameters
        ----------
        directions : (n_atoms, 3) array
        strains : (n_structures, 3, 3) array e: vectors r go to (1 + e) r

        Returns
        -------
        (n_structures, n_species, n_features) array.
        """
        cdef int status
        cdef double[:, :, ::1] sums = np.zeros((batch.n_structures + 1, self.n_species, self.n_features))
        if directions.shape[0] != batch.n_atoms or directions.shape[1] != 3:
            raise ValueError(f"directions must have shape ({batch.n_atoms}, 3)")
        if strains is not None and (
                strains.shape[0] != batch.n_structures or strains.shape[1] != 3 or strains.shape[2] != 3):
            raise ValueError(f"strains must have shape ({batch.n_structures}, 3, 3)")
        cdef const double *p_strains = &strains[0, 0, 0] if strains is not None and batch.n_structures else NULL
        self.check(batch, n_threads)
        if batch.n_atoms == 0:
            return np.asarray(sums)[: batch.n_structures]
        with nogil:
            status = evaluate_tangent(&self.d, batch.n_structures, batch.structures, n_threads, &directions[0, 0],
                                      p_strains, &sums[0, 0, 0])
        if status:
            raise MemoryError(f"no memory left to differentiate {batch.n_atoms} atoms; use smaller batches")
        return np.asarray(sums)[: batch.n_structures]

    def design(self, Batch batch not None, bint forces=True, bint virial=True):
        """Rows of the design matrix of a batch of one structure.

        Returns
        -------
        features (n_species * n_features,), forces (3 n_atoms, ...) or None, virial (6, ...) or None, in the order
        xx, yy, zz, yz, xz, xy.
        """
        cdef int status
        cdef Py_ssize_t width = self.n_species * self.n_features
        cdef double[::1] v_features = np.empty(width)
        cdef double[:, ::1] v_forces
        cdef double[:, ::1] v_virial
        cdef double *p_forces = NULL
        cdef double *p_virial = NULL
        if batch.n_structures != 1:
            raise ValueError("the design matrix is made one structure at a time")
        self.check(batch)
        if forces:
            v_forces = np.empty((3 * batch.n_atoms + 1, width))
            p_forces = &v_forces[0, 0]
        if virial:
            v_virial = np.empty((6, width))
            p_virial = &v_virial[0, 0]
        with nogil:
            status = evaluate_design(&self.d, &batch.structures[0], &v_features[0], p_forces, p_virial)
        if status:
            raise MemoryError(f"no memory left for the design matrix of {batch.n_atoms} atoms")
        return (np.asarray(v_features), np.asarray(v_forces)[: 3 * batch.n_atoms] if forces else None,
                np.asarray(v_virial) if virial else None)

    cdef check(self, Batch batch, int n_threads=1):
        cdef Py_ssize_t i
        if n_threads < 1:
            raise ValueError(f"n_threads is {n_threads}; it must be at least 1")
        sizes = (self.n_species, self.n_features, self.d.n_components, self.d.n_terms, self.d.n_channels,
                 self.d.l_max, self.d.n_stride, self.d.n_functions, self.d.cutoff)
        if batch.evaluated_by is None:
            batch.evaluated_by = sizes
        if batch.evaluated_by != sizes:
            raise ValueError("this batch was evaluated by another kernel; make one batch for each")
        if batch.positions is None:
            raise ValueError("the batch has no positions yet: call update first")
        if batch.busy:
            raise RuntimeError("this batch is being evaluated in another thread; use one batch per thread")
        for i in range(batch.n_atoms):
            if not 0 <= batch.species[i] < self.n_species:
                raise ValueError(f"atom {i} has species index {batch.species[i]}; the model has {self.n_species}")
