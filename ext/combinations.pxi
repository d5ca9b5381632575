def keep(Kernel kernel not None, Batch batch not None, int n_threads=1, size_t most=512 * 1024 * 1024):
    """Summed features of a batch, whose densities are kept for `combine` until it gets new positions.

    Parameters
    ----------
    most : int, bytes that each thread may keep; what does not fit is computed again by `combine`

    Returns
    -------
    (n_structures, n_species, n_features) array.
    """
    cdef evaluation what
    cdef int status
    cdef double[:, :, ::1] sums = np.empty((batch.n_structures + 1, kernel.n_species, kernel.n_features))
    kernel.check(batch, n_threads)
    what.weights = what.adjoint = NULL
    what.atomic_energies = what.forces = what.virials = what.atomic_virials = what.features = NULL
    what.atomic_members = NULL
    what.sums = &sums[0, 0, 0]
    what.keep = most if most > 0 else 1
    batch.busy = 1
    with nogil:
        status = evaluate(&batch.state, &kernel.d, batch.n_structures, batch.structures, n_threads, &what)
    batch.busy = 0
    if status:
        raise MemoryError(f"no memory left to evaluate {batch.n_atoms} atoms; use smaller batches")
    batch.kept_by = n_threads
    return np.asarray(sums)[: batch.n_structures]


def combine(Kernel kernel not None, Batch batch not None, const double[:, :, :, ::1] weights, const double[::1] core):
    """Energies and forces for sets of weights that depend on the summed features; after `keep`.

    Parameters
    ----------
    weights : (n_structures, n_sets, n_species, n_features) array, eV, of each structure its own
    core : (n_sets,) array, how many times the repulsive core is part of each

    Returns
    -------
    dict of `atomic_energies` (n_sets, n_atoms) eV, `forces` (n_sets, n_atoms, 3) eV/Å, `virials`
    (n_sets, n_structures, 3, 3) eV; `finite`: whether all energies and forces of the first set are.
    """
    cdef combination what
    cdef int status, n_threads = batch.kept_by
    cdef Py_ssize_t n_sets = core.shape[0]
    shape = (batch.n_structures, n_sets, kernel.n_species, kernel.n_features)
    if tuple(weights.shape)[:4] != shape or n_sets == 0:
        raise ValueError(f"weights must have shape {shape}")
    if n_threads == 0:
        raise ValueError("the densities of these positions were not kept: call keep first")
    kernel.check(batch, n_threads)
    cdef double[:, ::1] energies = np.empty((n_sets, batch.n_atoms))
    cdef double[:, :, ::1] forces = np.empty((n_sets, batch.n_atoms, 3))
    cdef double[:, :, :, ::1] virials = np.empty((n_sets, batch.n_structures, 3, 3))
    result = {"atomic_energies": np.asarray(energies), "forces": np.asarray(forces), "virials": np.asarray(virials),
              "finite": True}
    if batch.n_atoms == 0:
        virials[:] = 0
        return result
    what.n_sets = n_sets
    what.weights, what.core = &weights[0, 0, 0, 0], &core[0]
    what.atomic_energies, what.forces, what.virials = &energies[0, 0], &forces[0, 0, 0], &virials[0, 0, 0, 0]
    batch.busy = 1
    with nogil:
        status = evaluate_combinations(&batch.state, &kernel.d, batch.n_structures, batch.structures, n_threads, &what)
    batch.busy = 0
    if status:
        raise MemoryError(f"no memory left to evaluate {batch.n_atoms} atoms; use smaller batches")
    result["finite"] = bool(linear_finite(batch.n_atoms, &energies[0, 0]) and
                            linear_finite(3 * batch.n_atoms, &forces[0, 0, 0]))
    return result
