# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
# cython: freethreading_compatible=True
"""The compiled core: neighbour lists, and the kernels over batches of structures."""

from cython.parallel cimport prange
from libc.stdlib cimport calloc, free
from libc.math cimport sqrt
from libc.stdint cimport int32_t, int64_t

import os

import numpy as np

from comitia.errors import NumericalError, SettingsError, StructureError

cdef _refuse(int status, neighbour_list *list, where):
    """Raise what a negative status of the neighbour list means."""
    reason = neighbour_error(status).decode()
    if status == NEIGHBOURS_ERROR_MEMORY:
        raise MemoryError(where + reason)
    if list.offending_atom < list.n_atoms:
        reason = f"atom {list.offending_atom}: {reason}"
    raise (NumericalError if status == NEIGHBOURS_ERROR_NONFINITE else StructureError)(where + reason)


def instruction_sets():
    """Names of the instruction sets with kernels of their own that this CPU has, the fastest first."""
    names, index = [], 0
    while kernels_available(index) != NULL:
        names.append(kernels_available(index).instructions.decode())
        index += 1
    return names


def instructions():
    """Name of the instruction set whose kernels run."""
    return kernels_in_use().instructions.decode()


def use_instructions(name):
    """Run the kernels of another instruction set from now on: for tests and comparisons of speed.

    Raises
    ------
    SettingsError
        where this CPU lacks them, or there are none of that name.
    """
    cdef bytes encoded = str(name).encode()
    cdef int status = kernels_use(encoded)
    if status:
        problem = "this CPU lacks them" if status == INSTRUCTIONS_MISSING else "there are no kernels of that name"
        raise SettingsError(f"instructions {name}: {problem}; it can run {', '.join(instruction_sets())}")


if os.environ.get("COMITIA_INSTRUCTIONS"):
    use_instructions(os.environ["COMITIA_INSTRUCTIONS"])

include "neighbours.pxi"


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

    def update(self, const double[:, ::1] positions, const double[:, :, ::1] cells, int n_threads=1):
        """Take new positions (n_atoms, 3) and cells (n_structures, 3, 3), Å; return how many lists were rebuilt."""
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
        cdef int[::1] statuses = np.zeros(self.n_structures, np.intc)
        self.busy = 1
        for s in prange(self.n_structures, nogil=True, num_threads=n_threads, schedule="static"):
            statuses[s] = neighbour_list_update(&self.lists[s], self.structures[s].n_atoms,
                                                self.structures[s].positions, &self.cells[s, 0, 0], &periodic[s, 0])
        self.busy = 0
        for s in range(self.n_structures):
            status = statuses[s]
            if status < 0:
                _refuse(status, &self.lists[s], f"structure {s}: " if self.n_structures > 1 else "")
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
                 bint forces=True, bint virials=True, bint sums=False, bint features=False, int n_threads=1):
        """Evaluate a batch with one weight per species and feature, or with any adjoint of the features.

        Parameters
        ----------
        weights : (n_species, n_features) array, eV; or
        adjoint : (n_atoms, n_features) array, dE/dB of every atom

        Returns
        -------
        dict with `atomic_energies` (n_atoms,), their sums `energies` (n_structures,) and, as asked for, `forces`
        (n_atoms, 3), `virials` (n_structures, 3, 3), `sums` (n_structures, n_species, n_features), `features`
        (n_atoms, n_features); `finite`: whether all energies and forces are.
        """
        cdef evaluation what
        cdef int status
        cdef double[::1] v_energies = np.empty(batch.n_atoms + 1)
        cdef double[:, ::1] v_forces
        cdef double[:, ::1] v_features
        cdef double[:, :, ::1] v_virials
        cdef double[:, :, ::1] v_sums
        if (weights is None) == (adjoint is None):
            raise ValueError("give either weights or an adjoint")
        if weights is not None and (weights.shape[0] != self.n_species or weights.shape[1] != self.n_features):
            raise ValueError(f"weights must have shape ({self.n_species}, {self.n_features})")
        if adjoint is not None and (adjoint.shape[0] != batch.n_atoms or adjoint.shape[1] != self.n_features):
            raise ValueError(f"the adjoint must have shape ({batch.n_atoms}, {self.n_features})")
        self.check(batch, n_threads)
        result = {}
        what.weights = &weights[0, 0] if weights is not None else NULL
        what.adjoint = &adjoint[0, 0] if adjoint is not None and batch.n_atoms else NULL
        what.atomic_energies = &v_energies[0]
        what.forces = what.virials = what.sums = what.features = NULL
        what.keep = 0
        result["atomic_energies"] = np.asarray(v_energies)[: batch.n_atoms]
        if forces or virials:
            v_forces = np.empty((batch.n_atoms + 1, 3))
            what.forces = &v_forces[0, 0]
            result["forces"] = np.asarray(v_forces)[: batch.n_atoms]
        if virials:
            v_virials = np.empty((batch.n_structures + 1, 3, 3))
            what.virials = &v_virials[0, 0, 0]
            result["virials"] = np.asarray(v_virials)[: batch.n_structures]
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


include "members.pxi"
include "combinations.pxi"


def members_of(const double[:, ::1] sums, const double[:, ::1] deviations, const double[::1] mean):
    """Energies of all members: mean[s] + deviations[k] . sums[s].

    Parameters
    ----------
    sums : (n_structures, width) summed features
    deviations : (n_members, width) weights less their mean, eV
    mean : (n_structures,) eV

    Returns
    -------
    (n_structures, n_members) array, eV
    """
    cdef Py_ssize_t n_structures = sums.shape[0], n_members = deviations.shape[0], width = deviations.shape[1]
    if sums.shape[1] != width or mean.shape[0] != n_structures:
        raise ValueError(f"{n_structures} structures with {sums.shape[1]} sums need {width} sums and one mean each")
    cdef double[:, ::1] members = np.empty((n_structures, n_members))
    if n_structures and n_members and width:
        with nogil:
            linear_members(n_structures, n_members, width, &sums[0, 0], &deviations[0, 0], &mean[0], &members[0, 0])
    return np.asarray(members)


def statistics_of(const double[:, ::1] members):
    """Mean and standard deviation (ddof = 1) over members (n_structures, n_members), each (n_structures,); eV.

    The mean has the bits of `numpy.mean`: it adds in the same order.
    """
    cdef Py_ssize_t s, k, n_structures = members.shape[0], n_members = members.shape[1]
    cdef double total
    if n_members < 2:
        raise ValueError("one member has no spread")
    cdef double[::1] mean = np.empty(n_structures), spread = np.empty(n_structures)
    for s in range(n_structures):
        mean[s] = _pairwise_sum(&members[s, 0], n_members) / n_members
        total = 0
        for k in range(n_members):
            total += (members[s, k] - mean[s]) ** 2
        spread[s] = sqrt(total / (n_members - 1))
    return np.asarray(mean), np.asarray(spread)


cdef double _pairwise_sum(const double *values, Py_ssize_t n) noexcept:
    """Sum in the order of numpy: halves down to 128 numbers, which go into eight sums side by side."""
    cdef Py_ssize_t i, j, half
    cdef double total = 0
    cdef double[8] part
    if n > 128:
        half = n // 2 - n // 2 % 8
        return _pairwise_sum(values, half) + _pairwise_sum(values + half, n - half)
    i = n - n % 8 if n >= 8 else 0
    if i:
        for j in range(8):
            part[j] = values[j]
        for j in range(8, i):
            part[j % 8] += values[j]
        total = ((part[0] + part[1]) + (part[2] + part[3])) + ((part[4] + part[5]) + (part[6] + part[7]))
    for j in range(i, n):
        total += values[j]
    return total


def _aligned(Py_ssize_t n):
    """Zeroed array of n doubles that begins on a cache line, with a line to spare."""
    raw = np.zeros(n + 24)
    offset = (-raw.ctypes.data // 8) % 8
    return raw[offset : offset + n + 8]
