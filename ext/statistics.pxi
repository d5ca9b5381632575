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


def spread_weights(const double[:, ::1] members, const double[:, ::1] mean, const double[:, ::1] deviations):
    """Weights of the mean, and of the combination of members that the gradient of their standard deviation is.

    Parameters
    ----------
    members : (n_structures, n_members) array, eV, all less the same energy of each structure
    mean : (n_species, n_features) array, eV
    deviations : (n_members, n_species * n_features) array, weights less their mean, eV

    Returns
    -------
    (n_structures, 2, n_species, n_features) array: eV, and pure numbers times eV; the latter 0 where the spread is.
    """
    cdef Py_ssize_t s, k, f, n_structures = members.shape[0], n_members = members.shape[1], width = deviations.shape[1]
    cdef double[4] along
    cdef const double *rows
    cdef double *combined
    if deviations.shape[0] != n_members or mean.shape[0] * mean.shape[1] != width:
        raise ValueError(f"{n_members} members of {mean.shape[0]} x {mean.shape[1]} weights need deviations alike")
    cdef double[:, :, ::1] weights = np.zeros((n_structures, 2, width))
    cdef const double[::1] centre, spread
    centre, spread = statistics_of(members)
    for s in range(n_structures):
        for f in range(width):
            weights[s, 0, f] = (&mean[0, 0])[f]
        combined, k = &weights[s, 1, 0], 0
        while spread[s] > 0 and k < n_members:
            for f in range(min(4, n_members - k)):
                along[f] = (members[s, k + f] - centre[s]) / ((n_members - 1) * spread[s])
            rows = &deviations[k, 0]
            if k + 4 <= n_members:  # so that the sums are read and written less often
                for f in range(width):
                    combined[f] += (along[0] * rows[f] + along[1] * rows[width + f] +
                                    along[2] * rows[2 * width + f] + along[3] * rows[3 * width + f])
                k += 4
            else:
                for f in range(width):
                    combined[f] += along[0] * rows[f]
                k += 1
    return np.asarray(weights).reshape(n_structures, 2, mean.shape[0], mean.shape[1])


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
