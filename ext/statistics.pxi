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
    cdef Py_ssize_t s, k, n_structures = members.shape[0], n_members = members.shape[1], width = deviations.shape[1]
    _check_rows(n_members, mean, deviations)
    cdef double[:, :, ::1] weights = np.zeros((n_structures, 2, width))
    cdef double[::1] along = np.empty(n_members)
    cdef const double[::1] centre, spread
    centre, spread = statistics_of(members)
    for s in range(n_structures):
        memcpy(&weights[s, 0, 0], &mean[0, 0], width * sizeof(double))
        if spread[s] > 0:
            for k in range(n_members):
                along[k] = (members[s, k] - centre[s]) / ((n_members - 1) * spread[s])
            _add_rows(&along[0], deviations, &weights[s, 1, 0])
    return np.asarray(weights).reshape(n_structures, 2, mean.shape[0], mean.shape[1])


def combined_weights(const double[:, ::1] coefficients, const double[:, ::1] mean, const double[:, ::1] deviations):
    """Weights of linear combinations of members: coefficients[s, k] times those of member k, added up.

    Parameters
    ----------
    coefficients : (n_structures, n_members) array
    mean, deviations : as `spread_weights`

    Returns
    -------
    (n_structures, 1, n_species, n_features) array, eV
    """
    cdef Py_ssize_t s, k, f, n_structures = coefficients.shape[0], width = deviations.shape[1]
    cdef double total
    _check_rows(coefficients.shape[1], mean, deviations)
    cdef double[:, ::1] weights = np.empty((n_structures, width))
    for s in range(n_structures):
        total = 0
        for k in range(coefficients.shape[1]):
            total += coefficients[s, k]
        for f in range(width):
            weights[s, f] = total * (&mean[0, 0])[f]
        _add_rows(&coefficients[s, 0], deviations, &weights[s, 0])
    return np.asarray(weights).reshape(n_structures, 1, mean.shape[0], mean.shape[1])


def mixed(const double[:, ::1] raw, const double[::1] weights, double alpha, Py_ssize_t driving, double error):
    """What drives, as a combination of members; the equations are those of `comitia.potential.mixing.combine_members`.

    Parameters
    ----------
    raw : (n_structures, n_members) array, eV
    weights : (n_members,) array that adds up to 1
    driving : index of a member; negative: the mean
    error : eV, of the baseline that the members correct; negative: there is none

    Returns
    -------
    energies (n_structures,), coefficients (n_structures, n_members), variances (n_structures,) eV^2 without the factor
    M / (M - 1) where there is one member, w (n_structures,)
    """
    cdef Py_ssize_t s, k, n_structures = raw.shape[0], n_members = raw.shape[1]
    cdef double mean, square, slope, total, bias = n_members / (n_members - 1.0) if n_members > 1 else 1
    if weights.shape[0] != n_members or driving >= n_members:
        raise ValueError(f"{n_members} members need as many weights, and one of them drives")
    cdef double[:, ::1] coefficients = np.empty((n_structures, n_members))
    cdef double[::1] energies = np.empty(n_structures), variance = np.zeros(n_structures), w = np.ones(n_structures)
    for s in range(n_structures):
        mean = slope = total = 0
        for k in range(n_members):
            mean += weights[k] * raw[s, k]
        for k in range(n_members):
            variance[s] += bias * weights[k] * (alpha * (raw[s, k] - mean)) ** 2
        if error >= 0:
            square = error * error
            w[s] = square / (square + variance[s])
            slope = 2 * bias * square * mean / (square + variance[s]) ** 2
        if driving < 0:
            energies[s] = w[s] * mean
        else:  # the same bits as those of the member
            energies[s] = raw[s, driving] if alpha == 1 else mean + alpha * (raw[s, driving] - mean)
        for k in range(n_members):
            if driving < 0:
                coefficients[s, k] = weights[k] * (w[s] - slope * alpha * (raw[s, k] - mean))
            else:
                coefficients[s, k] = k == driving
            total += coefficients[s, k]
        for k in range(n_members):
            coefficients[s, k] = alpha * coefficients[s, k] + (1 - alpha) * total * weights[k]
    return np.asarray(energies), np.asarray(coefficients), np.asarray(variance), np.asarray(w)


cdef _check_rows(Py_ssize_t n_members, const double[:, ::1] mean, const double[:, ::1] deviations):
    if deviations.shape[0] != n_members or mean.shape[0] * mean.shape[1] != deviations.shape[1]:
        raise ValueError(f"{n_members} members of {mean.shape[0]} x {mean.shape[1]} weights need deviations alike")


cdef void _add_rows(const double *factors, const double[:, ::1] rows, double *total) noexcept:
    """Adds the rows times their factors: some at a time, so that the sums are read and written less often."""
    cdef Py_ssize_t k = 0, f, n = rows.shape[0], width = rows.shape[1]
    cdef const double *row
    while k + 4 <= n:
        row = &rows[k, 0]
        for f in range(width):
            total[f] += (factors[k] * row[f] + factors[k + 1] * row[width + f] +
                         factors[k + 2] * row[2 * width + f] + factors[k + 3] * row[3 * width + f])
        k += 4
    while k < n:
        for f in range(width):
            total[f] += factors[k] * rows[k, f]
        k += 1


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
