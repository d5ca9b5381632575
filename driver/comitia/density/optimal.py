r"""Radial functions optimised on data: the Karhunen-Loève functions of a smooth prior on the densities of the data.

A weight of the linear model multiplies a product of factors :math:`\sum_j R(r_j) Y_{lm}(\hat r_j)`. A priori each R is
a random smooth function with few waves inside the cutoff, the smoother the likelier,

.. math:: R_l(r) = f_c(r)\, e^{-\gamma r / r_c} \sum_{k=0}^{K-1} a_{lk} \cos(\pi k \zeta), \quad
          \zeta = \frac{1 - e^{-\lambda r / r_c}}{1 - e^{-\lambda}}, \quad
          \langle a_{lk}^2 \rangle = P_{lk} = e^{-(k/\kappa)^2 - \tau l (l + 1)},

the spectrum of a diffusion along the stretched distance ζ and on the sphere, fading with distance. With C_l the
covariance over the environments of the data of the density coefficients of one species of neighbours in this primitive
basis, the eigenvectors of :math:`P^{1/2} C_l P^{1/2}` give, for every number of
functions, those that carry most of the variance expected of a factor: principal components of the density, as in
optimal radial bases, weighted by the prior. The eigenvalues are the variances. Their products order the features.

Goscinski, Musil, Pozdnyakov, Nigam, Ceriotti, J. Chem. Phys. 155, 104106 (2021), doi:10.1063/5.0057229; Bigi,
Huguenin-Dumittan, Ceriotti, Manolopoulos, J. Chem. Phys. 157, 234101 (2022), doi:10.1063/5.0124363.
"""

from dataclasses import dataclass
from typing import Annotated

import msgspec
import numpy as np

from comitia.density import radial

N_PRIMITIVE = 24
DIFFERENCE = np.exp(-2.0)  # of the variance of channels that are differences of species, to that of the total density
N_ATOMS = 4000  # environments that the covariance rests on, about


class FactorPrior(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is expected of a factor before the data are seen; by default what grouped folds of several sets ask for.

    Attributes
    ----------
    waves : κ, about how many half waves fit inside the cutoff
    angular_decay : τ; the variance of a factor falls as exp(−τ l (l + 1))
    stretch : λ; the larger, the more of the waves are at short distances
    fading : γ; a factor falls as exp(−γ r / cutoff) beside its cutoff function
    """

    waves: Annotated[float, msgspec.Meta(gt=0, le=N_PRIMITIVE / 2)] = 3.0
    angular_decay: Annotated[float, msgspec.Meta(ge=0)] = 0.15
    stretch: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    fading: Annotated[float, msgspec.Meta(ge=0)] = 2.0


USUAL = FactorPrior()


def primitive(r, cutoff, prior=USUAL):
    """Cosines times their envelope and the root of their prior variance at l = 0: (n_points, N_PRIMITIVE)."""
    wave = np.arange(N_PRIMITIVE)
    amplitude = np.exp(-((wave / prior.waves) ** 2) / 2)
    stretched = np.expm1(-prior.stretch * r / cutoff) / np.expm1(-prior.stretch)
    envelope = radial.smooth_cutoff(r, cutoff, 4, 3) * np.exp(-prior.fading * r / cutoff)
    return envelope[:, None] * np.cos(np.pi * stretched[:, None] * wave) * amplitude


def primitive_table(cutoff, prior=USUAL):
    """The primitive functions as a spline table."""
    return radial.spline_table(lambda r: primitive(r, cutoff, prior), cutoff)


@dataclass(frozen=True)
class OptimalRadial:
    """Radial functions for each species of neighbours, or for all of them, and each l, most important first.

    Attributes
    ----------
    spline : (n_intervals, 6, n_functions) array
    offset : (n_species, l_max + 1) int32 array; function of (s, l, n) is offset[s, l] + n
    variance : (n_channels, l_max + 1, n_max) array, expected variance of the factor (k, l, n); the largest is 1
    """

    spline: np.ndarray
    offset: np.ndarray
    variance: np.ndarray


def karhunen_loeve(covariance, n_max):
    """Combinations of primitive functions that carry most of the variance.

    Parameters
    ----------
    covariance : (..., K, K) array of the coefficients of the weighted primitive functions
    n_max : int

    Returns
    -------
    combination : (..., K, n_max) array with orthonormal columns; uncorrelated over the data
    variance : (..., n_max) array, falling with n
    """
    variance, vectors = np.linalg.eigh(covariance)
    combination, variance = vectors[..., ::-1][..., :n_max], variance[..., ::-1][..., :n_max]
    largest = np.take_along_axis(combination, np.abs(combination).argmax(axis=-2)[..., None, :], axis=-2)
    return combination * np.sign(largest), variance


def optimise(covariance, cutoff, n_max, n_sharing=None, prior=USUAL):
    """`OptimalRadial` from covariances of the primitive coefficients.

    Parameters
    ----------
    covariance : (n_channels, l_max + 1, N_PRIMITIVE, N_PRIMITIVE) array
    cutoff : float, Å
    n_max : int
    n_sharing : number of species that share functions, those of all channels; by default each channel is a species
    prior : FactorPrior, that of the covariance
    """
    functions_of = covariance if n_sharing is None else covariance.sum(axis=0, keepdims=True)
    combination, _ = karhunen_loeve(functions_of, n_max)
    degree = np.arange(covariance.shape[1])
    variance = np.sum(combination * (covariance @ combination), axis=-2)
    variance = np.maximum(variance, 1e-14 * max(variance.max(), 1e-300))
    variance *= np.exp(-prior.angular_decay * degree * (degree + 1))[:, None]
    if n_sharing is not None:
        variance[1:] *= DIFFERENCE
    spline = np.einsum("ipq,slqn->ipsln", primitive_table(cutoff, prior), combination)
    offset = n_max * np.arange(len(combination) * len(degree), dtype=np.int32).reshape(len(combination), -1)
    offset = np.repeat(offset, n_sharing or 1, axis=0)
    return OptimalRadial(spline.reshape(*spline.shape[:2], -1), offset, variance / variance.max())


def spread_over(atoms, n_atoms=N_ATOMS):
    """Structures at even intervals, with about `n_atoms` atoms in total."""
    total = sum(len(a) for a in atoms)
    stride = max(1, total // n_atoms)
    return atoms[stride // 2 :: stride] or atoms[:1]
