"""Slow NumPy twins of the kernels, written from the formulas.

Derivatives are taken by complex steps: every function below is analytic in the pair vectors, so
f(r + i h d) = f(r) + i h df/dd with h = 1e-40 gives derivatives without truncation or cancellation.
Nothing here is shared with the package but the tables that both read.

Conventions: r_ij = r_j - r_i + image @ cell, eV and Å, virial = -dE/d(strain) with r -> (1 + strain) r.
"""

import functools
import itertools
import math
from fractions import Fraction
from typing import NamedTuple

import numpy as np

STEP = 1e-40
UNIT_STRAINS = np.eye(9).reshape(9, 3, 3)
VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))


# --- neighbours -----------------------------------------------------------------------------------------------


class Pairs(NamedTuple):
    """Ordered pairs closer than a cutoff: indices (n_pairs,), images (n_pairs, 3), vectors (n_pairs, 3) in Å."""

    centres: np.ndarray
    others: np.ndarray
    images: np.ndarray
    vectors: np.ndarray


def neighbours(atoms, cutoff):
    """All ordered pairs, images included, with 0 < r_ij < cutoff, by trying every image that could reach."""
    positions, cell = atoms.get_positions(), np.array(atoms.cell)
    periodic = np.flatnonzero(atoms.pbc)
    # n @ cell[periodic] + r_j - r_i = r  =>  |n + (r_j - r_i) @ inverse| <= cutoff |inverse| for each component
    inverse = np.linalg.pinv(cell[periodic]) if len(periodic) else np.zeros((3, 0))
    differences = positions[None, :] - positions[:, None]
    fractional = differences @ inverse
    reach = cutoff * np.linalg.norm(inverse, axis=0)
    ranges = [
        range(math.floor(-fractional[..., k].max() - reach[k]) - 1, math.ceil(-fractional[..., k].min() + reach[k]) + 2)
        for k in range(len(periodic))
    ]
    found = []
    for counts in itertools.product(*ranges):
        image = np.zeros(3, dtype=int)
        image[periodic] = counts
        vectors = differences + image @ cell
        near = (vectors**2).sum(axis=-1) < cutoff**2
        if not image.any():
            np.fill_diagonal(near, False)
        found += [(i, j, image, vectors[i, j]) for i, j in zip(*np.nonzero(near), strict=True)]
    found.sort(key=lambda pair: (pair[0], pair[1], tuple(pair[2])))
    centres, others, images, vectors = zip(*found, strict=True) if found else ((), (), (), ())
    return Pairs(
        np.array(centres, dtype=int),
        np.array(others, dtype=int),
        np.array(images, dtype=int).reshape(-1, 3),
        np.array(vectors, dtype=float).reshape(-1, 3),
    )


def stretched(pairs, displacements):
    """Complex pair vectors (n_directions, n_pairs, 3) along displacements (n_directions, n_atoms, 3)."""
    return pairs.vectors + 1j * STEP * (displacements[:, pairs.others] - displacements[:, pairs.centres])


def strained(pairs, strains):
    """Complex pair vectors (n_directions, n_pairs, 3) along strains (n_directions, 3, 3)."""
    return pairs.vectors + 1j * STEP * np.einsum("dab,pb->dpa", strains, pairs.vectors)


def all_displacements(n_atoms):
    """The 3 n_atoms unit displacements, (3 n_atoms, n_atoms, 3)."""
    return np.eye(3 * n_atoms).reshape(3 * n_atoms, n_atoms, 3)


# --- radial functions and harmonics -----------------------------------------------------------------------------


def radial(spline, cutoff, r):
    """Functions (..., n_functions) at distances r (...) from pieces (n_intervals, 6, n_functions) in powers of t."""
    n_intervals = len(spline)
    x = r * (n_intervals / cutoff)
    piece = np.clip(np.floor(x.real).astype(int), 0, n_intervals - 1)
    t = (x - piece)[..., None]
    coefficients = spline[piece]
    values = sum(coefficients[..., power, :] * t**power for power in range(6))
    return np.where((r.real < cutoff)[..., None], values, 0.0)


@functools.cache
def _legendre_derivative(l, m):
    """Pairs (power of z, coefficient) of d^m P_l / dz^m."""
    return [
        (
            l - 2 * k - m,
            (-1) ** k * math.comb(l, k) * math.comb(2 * l - 2 * k, l) * math.perm(l - 2 * k, m) / 2**l,
        )
        for k in range((l - m) // 2 + 1)
    ]


def real_harmonics(l_max, vectors):
    r"""Orthonormal real spherical harmonics (..., (l_max + 1)^2), index l^2 + l + m, of vectors (..., 3).

    .. math:: Y_{lm} = \sqrt{\tfrac{2l+1}{4\pi} \tfrac{(l-|m|)!}{(l+|m|)!}} \frac{d^{|m|} P_l(z)}{dz^{|m|}}
        \times \{1, \sqrt2\,\mathrm{Re}(x+iy)^m, \sqrt2\,\mathrm{Im}(x+iy)^{|m|}\}  \quad (m = 0, > 0, < 0)

    for a unit vector (x, y, z), without Condon-Shortley phase: l = 1 is proportional to (y, z, x).
    """
    r = np.sqrt((vectors**2).sum(axis=-1, keepdims=True))
    x, y, z = np.moveaxis(vectors / r, -1, 0)
    result = np.empty((*vectors.shape[:-1], (l_max + 1) ** 2), dtype=vectors.dtype)
    for l in range(l_max + 1):
        for m in range(l + 1):
            legendre = sum(c * z**power for power, c in _legendre_derivative(l, m))
            norm = math.sqrt((2 * l + 1) / (4 * math.pi) * math.factorial(l - m) / math.factorial(l + m))
            terms = [math.comb(m, k) * x ** (m - k) * y**k for k in range(m + 1)]
            cosine = sum((-1) ** (k // 2) * terms[k] for k in range(0, m + 1, 2))
            sine = sum((-1) ** (k // 2) * terms[k] for k in range(1, m + 1, 2))
            scale = norm * (math.sqrt(2) if m else 1.0)
            result[..., l * l + l + m] = scale * legendre * cosine
            if m:
                result[..., l * l + l - m] = scale * legendre * sine
    return result


# --- couplings --------------------------------------------------------------------------------------------------


def wigner_3j(l1, l2, l3, m1, m2, m3):
    """The Wigner 3j symbol by Racah's formula, in exact arithmetic up to the last square root."""
    if m1 + m2 + m3 or not abs(l1 - l2) <= l3 <= l1 + l2 or abs(m1) > l1 or abs(m2) > l2 or abs(m3) > l3:
        return 0.0
    f = math.factorial
    total = Fraction(0)
    for t in range(max(0, l2 - l3 - m1, l1 - l3 + m2), min(l1 + l2 - l3, l1 - m1, l2 + m2) + 1):
        total += Fraction(
            (-1) ** t,
            f(t) * f(l3 - l2 + m1 + t) * f(l3 - l1 - m2 + t) * f(l1 + l2 - l3 - t) * f(l1 - m1 - t) * f(l2 + m2 - t),
        )
    triangle = Fraction(f(l1 + l2 - l3) * f(l1 - l2 + l3) * f(-l1 + l2 + l3), f(l1 + l2 + l3 + 1))
    square = triangle * f(l1 + m1) * f(l1 - m1) * f(l2 + m2) * f(l2 - m2) * f(l3 + m3) * f(l3 - m3) * total**2
    sign = (-1) ** ((l1 - l2 - m3) % 2) * (1 if total > 0 else -1)
    return sign * math.sqrt(square)


def complex_from_real(l):
    """Matrix U with Y_complex[m] = sum_m' U[m, m'] Y_real[m']; rows and columns run over -l ... l.

    Complex harmonics carry the Condon-Shortley phase; real ones are those of `real_harmonics`.
    """
    u = np.zeros((2 * l + 1, 2 * l + 1), dtype=complex)
    u[l, l] = 1.0
    for m in range(1, l + 1):
        # Y^m = (-1)^m (cos + i sin) / sqrt 2, Y^-m = (cos - i sin) / sqrt 2
        u[l + m, l + m], u[l + m, l - m] = (-1) ** m / math.sqrt(2), 1j * (-1) ** m / math.sqrt(2)
        u[l - m, l + m], u[l - m, l - m] = 1 / math.sqrt(2), -1j / math.sqrt(2)
    return u


@functools.cache
def coupling(l1, l2, l3):
    r"""Real-basis coupling coefficients (2 l1 + 1, 2 l2 + 1, 2 l3 + 1), sum of squares 1.

    .. math:: C_{m_1 m_2 m_3} = \sum_{\mu} U_{\mu_1 m_1} U_{\mu_2 m_2} U_{\mu_3 m_3}
        \begin{pmatrix} l_1 & l_2 & l_3 \\ \mu_1 & \mu_2 & \mu_3 \end{pmatrix}

    For l1 + l2 + l3 odd this is imaginary, and divided by i.
    """
    symbols = np.array(
        [
            [[wigner_3j(l1, l2, l3, a, b, c) for c in range(-l3, l3 + 1)] for b in range(-l2, l2 + 1)]
            for a in range(-l1, l1 + 1)
        ]
    )
    transformed = np.einsum("abc,ax,by,cz->xyz", symbols, *map(complex_from_real, (l1, l2, l3)), optimize=True)
    odd = (l1 + l2 + l3) % 2
    assert np.abs(transformed.real if odd else transformed.imag).max() < 1e-14
    return (transformed.imag if odd else transformed.real).copy()


# --- density and correlations -------------------------------------------------------------------------------------


def density(descriptor, atoms, pairs, vectors):
    r"""Coefficients A (..., n_atoms, n_channels, (l_max + 1)^2) for pair vectors (..., n_pairs, 3).

    .. math:: A_i[(k, n), l, m] = \sum_j u[k, s_j] R_{nl}^{s_j}(r_{ij}) Y_{lm}(\hat r_{ij})
    """
    n_radial, l_max = descriptor.n_radial, descriptor.l_max
    contraction = np.asarray(descriptor.contraction)
    species = np.searchsorted(descriptor.species, atoms.numbers)
    functions = radial(np.asarray(descriptor.spline), descriptor.cutoff, np.sqrt((vectors**2).sum(axis=-1)))
    harmonics = real_harmonics(l_max, vectors)
    lead = vectors.shape[:-2]
    a = np.zeros((*lead, len(atoms), len(contraction), n_radial, (l_max + 1) ** 2), dtype=vectors.dtype)
    offsets = np.broadcast_to(descriptor.radial_offset, (len(descriptor.species), l_max + 1))
    for l in range(l_max + 1):
        block = slice(l * l, (l + 1) ** 2)
        for i, s in np.ndindex(len(atoms), len(descriptor.species)):
            mine = np.flatnonzero((pairs.centres == i) & (species[pairs.others] == s))
            a[..., i, :, :, block] += np.einsum(
                "k,...pn,...pm->...knm",
                contraction[:, s],
                functions[..., mine, offsets[s, l] : offsets[s, l] + n_radial],
                harmonics[..., mine, block],
                optimize=True,
            )
    return a.reshape(*lead, len(atoms), len(contraction) * n_radial, (l_max + 1) ** 2)


def correlations(rows, a):
    """Features (..., n_features) of coefficients A (..., n_channels, (l_max + 1)^2); rows as in the feature list."""

    def part(q, l):
        return a[..., q, l * l : (l + 1) ** 2]

    def product(q1, l1, q2, l2, l):
        pair = np.einsum("abc,...a->...bc", coupling(l1, l2, l), part(q1, l1))
        return np.einsum("...bc,...b->...c", pair, part(q2, l2))

    result = np.empty((*a.shape[:-2], len(rows)), dtype=a.dtype)
    for f, (nu, q1, l1, q2, l2, q3, l3, q4, l4, intermediate) in enumerate(np.asarray(rows).tolist()):
        if nu == 0:
            result[..., f] = 1.0
        elif nu == 1:
            result[..., f] = a[..., q1, 0]
        elif nu == 2:
            result[..., f] = (part(q1, l1) * part(q2, l1)).sum(axis=-1) / math.sqrt(2 * l1 + 1)
        elif nu == 3:
            result[..., f] = (product(q1, l1, q2, l2, l3) * part(q3, l3)).sum(axis=-1)
        elif nu == 4:
            pair, other = product(q1, l1, q2, l2, intermediate), product(q3, l3, q4, l4, intermediate)
            result[..., f] = (pair * other).sum(axis=-1) * math.sqrt(2 * intermediate + 1)
        else:
            raise ValueError(f"feature {f} has order {nu}")
    return result


def features(descriptor, atoms, pairs=None, vectors=None):
    """Features of every atom (..., n_atoms, n_features)."""
    pairs = neighbours(atoms, descriptor.cutoff) if pairs is None else pairs
    vectors = pairs.vectors if vectors is None else vectors
    return correlations(descriptor.features, density(descriptor, atoms, pairs, vectors))


def summed(descriptor, atoms, per_atom):
    """Features (..., n_atoms, n_features) summed per centre species, (..., n_species n_features)."""
    blocks = [per_atom[..., atoms.numbers == number, :].sum(axis=-2) for number in descriptor.species]
    return np.concatenate(blocks, axis=-1)


def sums(descriptor, atoms):
    """Summed features (n_species n_features,)."""
    return summed(descriptor, atoms, features(descriptor, atoms))


def _derivatives(function, vectors):
    """Derivatives of `function` along complex pair vectors (n_directions, n_pairs, 3), a few directions at a time."""
    return np.concatenate([function(vectors[k : k + 6]).imag / STEP for k in range(0, len(vectors), 6)])


def jvp(descriptor, atoms, directions):
    """Derivative of every atom's features along displacements (n_atoms, 3): (n_atoms, n_features)."""
    pairs = neighbours(atoms, descriptor.cutoff)
    return features(descriptor, atoms, pairs, stretched(pairs, np.asarray(directions)[None]))[0].imag / STEP


def vjp(descriptor, atoms, adjoint):
    """Forces (n_atoms, 3) and virial (3, 3) of the energy sum_i adjoint[i] . B_i, adjoint (n_atoms, n_features)."""
    pairs = neighbours(atoms, descriptor.cutoff)

    def energy(vectors):
        return np.einsum("dif,if->d", features(descriptor, atoms, pairs, vectors), adjoint)

    forces = -_derivatives(energy, stretched(pairs, all_displacements(len(atoms))))
    return forces.reshape(-1, 3), -_derivatives(energy, strained(pairs, UNIT_STRAINS)).reshape(3, 3)


def design(descriptor, atoms):
    """Rows of the least-squares problem: features (W,), forces (3 n_atoms, W) and virial (6, W), W = S F columns.

    forces @ w are the forces and virial @ w the virial, xx yy zz yz xz xy, of the energy features @ w.
    """
    pairs = neighbours(atoms, descriptor.cutoff)

    def total(vectors):
        return summed(descriptor, atoms, features(descriptor, atoms, pairs, vectors))

    forces = -_derivatives(total, stretched(pairs, all_displacements(len(atoms))))
    virial = -_derivatives(total, strained(pairs, UNIT_STRAINS))
    return sums(descriptor, atoms), forces, virial[[3 * a + b for a, b in VOIGT]]


# --- potential ------------------------------------------------------------------------------------------------


def zbl(core, atoms, pairs, vectors):
    r"""Screened nuclear repulsion (...) in eV, switched off between `inner` and `outer`.

    .. math:: E = \tfrac12 \sum_{ij} \frac{e^2}{4\pi\epsilon_0} \frac{Z_i Z_j}{r} \phi(r/a) s(r),
        \quad a = \frac{0.46850}{Z_i^{0.23} + Z_j^{0.23}}

    Ziegler, Biersack, Littmark, The Stopping and Range of Ions in Matter (1985).
    """
    species = np.searchsorted(core.species, atoms.numbers)
    i, j = species[pairs.centres], species[pairs.others]
    zi, zj = atoms.numbers[pairs.centres].astype(float), atoms.numbers[pairs.others].astype(float)
    r = np.sqrt((vectors**2).sum(axis=-1))
    x = r * (zi**0.23 + zj**0.23) / 0.46850
    screening = sum(
        c * np.exp(-d * x) for c, d in ((0.18175, 3.19980), (0.50986, 0.94229), (0.28022, 0.40290), (0.02817, 0.20162))
    )
    inner, outer = np.asarray(core.inner)[i, j], np.asarray(core.outer)[i, j]
    with np.errstate(divide="ignore", invalid="ignore"):
        t = (r - inner) / (outer - inner)
        step = 1 - t**4 * (35 - 84 * t + 70 * t**2 - 20 * t**3)
    switch = np.where(r.real < inner, 1.0, np.where(r.real < outer, step, 0.0))
    return 0.5 * (14.399645 * zi * zj / r * screening * switch).sum(axis=-1)


def calibrated(weights, alpha):
    """Members (n_members, n_columns) spread by alpha about their mean."""
    mean = weights.mean(axis=0)
    return mean + alpha * (weights - mean)


class Model:
    """Energies (n_members,) of linear members, with reference energies and core, and their derivatives."""

    def __init__(self, descriptor, weights, reference_energies=None, core=None):
        self.descriptor = descriptor
        self.weights = np.atleast_2d(weights)
        self.core = core
        self.reference_energies = (
            np.zeros(len(descriptor.species)) if reference_energies is None else np.asarray(reference_energies)
        )

    def _linear_and_core(self, atoms, pairs, vectors):
        total = summed(self.descriptor, atoms, features(self.descriptor, atoms, pairs, vectors)) @ self.weights.T
        if self.core is not None:
            total = total + zbl(self.core, atoms, pairs, vectors)[..., None]
        return total

    def energies(self, atoms):
        """Energies (n_members,) in eV."""
        pairs = neighbours(atoms, self.descriptor.cutoff)
        reference = self.reference_energies[np.searchsorted(self.descriptor.species, atoms.numbers)].sum()
        return self._linear_and_core(atoms, pairs, pairs.vectors) + reference

    def atomic_energies(self, atoms):
        """Energies of the atoms (n_members, n_atoms) in eV less e0; the core is shared equally by the two of a pair."""
        pairs = neighbours(atoms, self.descriptor.cutoff)
        species = np.searchsorted(self.descriptor.species, atoms.numbers)
        blocks = self.weights.reshape(len(self.weights), len(self.descriptor.species), -1)[:, species]
        result = np.einsum("kif,if->ki", blocks, features(self.descriptor, atoms, pairs))
        if self.core is not None:
            for i in range(len(atoms)):
                mine = pairs.centres == i
                own = Pairs(*(field[mine] for field in pairs))
                result[:, i] += zbl(self.core, atoms, own, own.vectors)
        return result

    def forces(self, atoms):
        """Forces (n_members, n_atoms, 3) in eV/Å."""
        pairs = neighbours(atoms, self.descriptor.cutoff)
        vectors = stretched(pairs, all_displacements(len(atoms)))
        return -_derivatives(lambda v: self._linear_and_core(atoms, pairs, v), vectors).T.reshape(-1, len(atoms), 3)

    def virials(self, atoms):
        """Virials (n_members, 3, 3) in eV."""
        pairs = neighbours(atoms, self.descriptor.cutoff)
        vectors = strained(pairs, UNIT_STRAINS)
        return -_derivatives(lambda v: self._linear_and_core(atoms, pairs, v), vectors).T.reshape(-1, 3, 3)
