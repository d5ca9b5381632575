"""Couplings of real spherical harmonics to a scalar, normalised like 3j symbols."""

from functools import cache
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
    r"""Coupling of three real spherical harmonics to a scalar.

    .. math:: C_{m_1 m_2 m_3} = \sum_{\mu} U^{l_1}_{\mu_1 m_1} U^{l_2}_{\mu_2 m_2} U^{l_3}_{\mu_3 m_3}
              \begin{pmatrix} l_1 & l_2 & l_3 \\ \mu_1 & \mu_2 & \mu_3 \end{pmatrix}

    Real for l1 + l2 + l3 even, and then unchanged when factors trade places together with their m; the sum of
    its squares is 1. For an odd sum it is imaginary and couples to a pseudoscalar: refused.

    Returns
    -------
    (2 l1 + 1, 2 l2 + 1, 2 l3 + 1) array, m from -l to l.

    Drautz, Phys. Rev. B 99, 014104 (2019), eq. 28; Willatt et al., J. Chem. Phys. 150, 154110 (2019).
    """
    if (l1 + l2 + l3) % 2:
        raise ValueError(f"l1 + l2 + l3 = {l1 + l2 + l3} is odd: no scalar")
    symbol = np.zeros((2 * l1 + 1, 2 * l2 + 1, 2 * l3 + 1))
    for m1 in range(-l1, l1 + 1):
        for m2 in range(-l2, l2 + 1):
            if abs(m1 + m2) <= l3:
                symbol[l1 + m1, l2 + m2, l3 - m1 - m2] = wigner_3j(l1, l2, l3, m1, m2, -m1 - m2)
    coupling = np.einsum("abc,ai,bj,ck->ijk", symbol, *(_complex_from_real(l) for l in (l1, l2, l3)), optimize=True)
    coupling = np.where(np.abs(coupling.real) > 1e-14, coupling.real, 0.0)
    coupling.setflags(write=False)
    return coupling
