"""Radial functions R[n, l](r), tabulated once as quintic splines.

A basis is any function of distance that returns an array; a new one changes this file and no kernel.
"""

import numpy as np
from scipy.interpolate import make_interp_spline
from scipy.linalg import eigh
from scipy.special import spherical_in

N_INTERVALS = 256


def smooth_cutoff(r, cutoff, flatness, power):
    """(1 - (r / cutoff)^flatness)^power: 1 at r = 0, and `power` - 1 continuous derivatives at the cutoff."""
    return np.where(r < cutoff, 1 - (r / cutoff) ** flatness, 0.0) ** power


def bessel(r, n_max, cutoff):
    r"""Spherical Bessel functions of order zero that vanish at the cutoff, times the smooth cutoff.

    .. math:: R_n(r) = \sqrt{2/r_c}\, \frac{\sin((n + 1)\pi r/r_c)}{r}\, (1 - r^4/r_c^4)^3, \quad n = 0 \dots n_\max - 1

    Three derivatives are continuous at the cutoff, so that forces and their differences are smooth there.

    Parameters
    ----------
    r : (n_points,) array, Å

    Returns
    -------
    (n_points, n_max) array: the same for every l; smoother functions come first.

    Kocer, Mason, Erturk, J. Chem. Phys. 150, 154102 (2019).
    """
    wave = np.pi * np.arange(1, n_max + 1) / cutoff
    value = np.sqrt(2 / cutoff) * wave * np.sinc(wave * r[:, None] / np.pi)
    return value * smooth_cutoff(r, cutoff, 4, 3)[:, None]


def _smeared(r, n_max, l_max, cutoff, width):
    """Projections of a Gaussian at distance r on Gaussian-type orbitals: (n_points, l_max + 1, n_max)."""
    x = np.linspace(1e-3, cutoff + 5 * width, 400)
    spread = cutoff * np.maximum(np.sqrt(np.arange(n_max)), 1) / n_max
    orbital = x[:, None] ** np.arange(n_max) * np.exp(-(x[:, None] ** 2) / (2 * spread**2))
    weight = np.gradient(x) * x**2
    orbital /= np.sqrt(weight @ orbital**2)
    argument = r[:, None] * x / width**2
    distance = np.exp(-((r[:, None] - x) ** 2) / (2 * width**2))
    projected = np.empty((len(r), l_max + 1, n_max))
    for l in range(l_max + 1):
        # i_l(z) exp(-z) stays finite; the rest of the exponent is that of the distance
        near = spherical_in(l, np.minimum(argument, 500)) * np.exp(-np.minimum(argument, 500))
        far = (1 - l * (l + 1) / (2 * np.maximum(argument, 1))) / (2 * np.maximum(argument, 1))
        projected[:, l] = (distance * np.where(argument < 500, near, far)) @ (weight[:, None] * orbital)
    return projected * smooth_cutoff(r, cutoff, 4, 5)[:, None, None]


def gaussian_soap(r, n_max, l_max, cutoff, width):
    r"""Gaussian-smeared density of a neighbour, projected on Gaussian-type orbitals.

    The neighbour is a Gaussian of the given width; its expansion in spherical harmonics has the radial part
    :math:`e^{-(r^2 + x^2)/2\sigma^2} i_l(r x/\sigma^2)`, with the modified spherical Bessel function :math:`i_l`, and
    is integrated over :math:`x^2 dx` with functions :math:`x^n e^{-x^2/2 s_n^2}`. For each l these are combined so
    that :math:`\int R_n R_{n'} r^2 dr = \delta_{nn'}`, in the order of growing :math:`\int R_n'^2 r^2 dr`: smoother
    functions come first, as truncation and prior expect.

    Parameters
    ----------
    r : (n_points,) array, Å
    width : float, Å, of the atomic Gaussian

    Returns
    -------
    (n_points, l_max + 1, n_max) array.

    Bartók, Kondor, Csányi, Phys. Rev. B 87, 184115 (2013); Musil et al., J. Chem. Phys. 154, 114109 (2021).
    """
    grid = np.linspace(0, cutoff, 801)
    sample = _smeared(grid, n_max, l_max, cutoff, width)
    slope = np.gradient(sample, grid, axis=0)
    weight = grid**2 * (grid[1] - grid[0])
    value = _smeared(r, n_max, l_max, cutoff, width)
    for l in range(l_max + 1):
        overlap = np.einsum("r,rn,rm->nm", weight, sample[:, l], sample[:, l])
        stiffness = np.einsum("r,rn,rm->nm", weight, slope[:, l], slope[:, l])
        ridge = 1e-11 * np.trace(overlap) * np.eye(n_max)  # the orbitals nearly depend on each other
        value[:, l] = value[:, l] @ eigh(stiffness, overlap + ridge)[1]
    return value


def spline_table(functions, cutoff, n_intervals=N_INTERVALS):
    """Quintic pieces of radial functions: four continuous derivatives inside, two at the cutoff, where all is zero.

    Parameters
    ----------
    functions : callable, (n_points,) Å -> (n_points, n_functions)

    Returns
    -------
    (n_intervals, 6, n_functions) array: coefficients of powers 0 to 5 of the position inside the interval, 0 to 1.
    """
    knots = np.linspace(0, cutoff, n_intervals + 1)
    value = functions(knots)
    free = make_interp_spline(knots, value, k=5)
    start = [(order, free(0.0, nu=order)) for order in (1, 2)]
    end = [(order, np.zeros(value.shape[1])) for order in (1, 2)]  # no kink where a neighbour leaves
    spline = make_interp_spline(knots, value, k=5, bc_type=(start, end))
    step = cutoff / n_intervals
    pieces = np.empty((n_intervals, 6, spline.c.shape[-1]))
    scale = 1.0
    for power in range(6):
        pieces[:, power] = spline(knots[:-1], nu=power) * scale
        scale *= step / (power + 1)
    return pieces
