"""Couplings of real spherical harmonics, normalised like 3j symbols."""

from functools import cache
from itertools import permutations
from math import factorial, sqrt

import numpy as np


def wigner_3j(l1, l2, l3, m1, m2, m3):
    """Wigner 3j symbol by Racah's formula, in exact integers up to the last square root."""
    if m1 + m2 + m3 != 0 or not abs(l1 - l2) <= l3 <= l1 + l2 or abs(m1) > l1 or abs(m2) > l2 or abs(m3) > l3:
        return 0.0
    first = max(0, l2 - l3 - m1, l1 - l3 + m2)
    last = min(l1 + l2 - l3, l1 - m1, l2 + m2)
    terms = [
        (t, factorial(t) * factorial(l1 + l2 - l3 - t) * factorial(l1 - m1 - t) * factorial(l2 + m2 - t)
         * factorial(l3 - l2 + m1 + t) * factorial(l3 - l1 - m2 + t))
        for t in range(first, last + 1)
    ]  # fmt: skip
    common = 1
    for _, term in terms:
        common *= term
    total = sum((-1) ** t * (common // term) for t, term in terms)
    triangle = factorial(l1 + l2 - l3) * factorial(l1 - l2 + l3) * factorial(-l1 + l2 + l3)
    product = triangle
    for l, m in ((l1, m1), (l2, m2), (l3, m3)):
        product *= factorial(l + m) * factorial(l - m)
    square = total * total * product / (factorial(l1 + l2 + l3 + 1) * common * common)
    return (-1) ** (l1 - l2 - m3) * (1 if total >= 0 else -1) * sqrt(square)


def _complex_from_real(l):
    """U with Y_complex[m] = sum_m' U[m, m'] Y_real[m'], the complex ones with the Condon-Shortley phase."""
    u = np.zeros((2 * l + 1, 2 * l + 1), complex)
    u[l, l] = 1
    for m in range(1, l + 1):
        sign = (-1) ** m
        u[l + m, l + m] = sign / sqrt(2)
        u[l + m, l - m] = 1j * sign / sqrt(2)
        u[l - m, l + m] = 1 / sqrt(2)
        u[l - m, l - m] = -1j / sqrt(2)
    return u


@cache
def real_coupling(l1, l2, l3):
    r"""Coupling of two real spherical harmonics l1, l2 to a third, l3, or of the three to a scalar.

    .. math:: C_{m_1 m_2 m_3} = \sum_{\mu} U^{l_1}_{\mu_1 m_1} U^{l_2}_{\mu_2 m_2} U^{l_3}_{\mu_3 m_3}
              \begin{pmatrix} l_1 & l_2 & l_3 \\ \mu_1 & \mu_2 & \mu_3 \end{pmatrix}

    The sum of its squares is 1. For l1 + l2 + l3 even it is real, and unchanged when factors trade places together
    with their m. For an odd sum it is imaginary: the factor i is taken out, and it changes sign when two factors trade
    places, as the cross product does (l = 1, 1, 1).

    Returns
    -------
    (2 l1 + 1, 2 l2 + 1, 2 l3 + 1) array, m from -l to l.

    Drautz, Phys. Rev. B 99, 014104 (2019), eq. 28; Willatt et al., J. Chem. Phys. 150, 154110 (2019).
    """
    symbol = np.zeros((2 * l1 + 1, 2 * l2 + 1, 2 * l3 + 1))
    for m1 in range(-l1, l1 + 1):
        for m2 in range(-l2, l2 + 1):
            if abs(m1 + m2) <= l3:
                symbol[l1 + m1, l2 + m2, l3 - m1 - m2] = wigner_3j(l1, l2, l3, m1, m2, -m1 - m2)
    coupling = np.einsum("abc,ai,bj,ck->ijk", symbol, *(_complex_from_real(l) for l in (l1, l2, l3)), optimize=True)
    part = coupling.imag if (l1 + l2 + l3) % 2 else coupling.real
    part = np.where(np.abs(part) > 1e-14, part, 0.0)
    part.setflags(write=False)
    return part


def intermediates(l1, l2, l3, l4):
    """All L that couple l1, l2 on one side and l3, l4 on the other; none where the sum of the four l is odd."""
    if (l1 + l2 + l3 + l4) % 2:
        return range(0)
    return range(max(abs(l1 - l2), abs(l3 - l4)), min(l1 + l2, l3 + l4) + 1)


@cache
def independent_intermediates(ls, labels):
    r"""Intermediate L of the linearly independent couplings of four channels, of which some may be the same.

    The couplings of different channels, one for each L, are orthonormal (as tensors in m1 ... m4):

    .. math:: C^L_{m_1 m_2 m_3 m_4} = \sqrt{2L+1} \sum_M C_{m_1 m_2 M} C_{m_3 m_4 M}

    Channels that are the same are the same numbers, so that only the part of the tensor counts that is symmetric under
    their permutations; every L is kept whose part adds something to those below it.

    Parameters
    ----------
    ls : tuple of four int
    labels : tuple of four, the same for the same channel

    Returns
    -------
    tuple of int

    Nigam, Pozdnyakov, Ceriotti, J. Chem. Phys. 153, 121101 (2020); Dusson et al., J. Comput. Phys. 454, 110946 (2022).
    """
    candidates = intermediates(*ls)
    if len(set(labels)) == 4:
        return tuple(candidates)
    exchanges = [p for p in permutations(range(4)) if all(labels[p[i]] == labels[i] for i in range(4))]
    chosen, basis = [], []
    for intermediate in candidates:
        pair, other = real_coupling(*ls[:2], intermediate), real_coupling(*ls[2:], intermediate)
        tensor = sqrt(2 * intermediate + 1) * np.einsum("abm,cdm->abcd", pair, other, optimize=True)
        part = sum(tensor.transpose(p) for p in exchanges).ravel() / len(exchanges)
        norm = np.linalg.norm(part)
        for vector in basis * 2:  # twice is enough (Kahan)
            part = part - (vector @ part) * vector
        if np.linalg.norm(part) > 1e-6 * max(norm, 1e-6):
            chosen.append(intermediate)
            basis.append(part / np.linalg.norm(part))
    return tuple(chosen)
