r"""A committee as one potential: mean or member, and the weighted baseline, as linear combinations of the members.

Whatever drives, its force is :math:`\sum_k c_k f_k`; the coefficients follow from the energies. Two pseudo-members
stand for a committee where a server makes the weighted baseline from the forces of all members.
"""

from dataclasses import dataclass, replace

import msgspec
import numpy as np

from comitia._core import mixed

FINENESS = 100  # steps of ln d by which pseudo-members change places
FEWEST = 8  # such steps from which they are recognised


@dataclass(frozen=True)
class Combination:
    """What drives, as a combination of members.

    Attributes
    ----------
    energies : (n_structures,) array, eV
    members : (n_structures, n_members) array, eV, after rescaling
    coefficients : (n_structures, n_members) array, of the forces and virials of the members before rescaling
    uncertainties : (n_structures,) array, eV; None for a single member
    mixing : (n_structures,) array, weight of a committee of corrections to a baseline; None without one
    biases : (n_structures,) array, eV, of a limit of the uncertainty, part of `energies`; None without one
    """

    energies: np.ndarray
    members: np.ndarray
    coefficients: np.ndarray
    uncertainties: np.ndarray | None
    mixing: np.ndarray | None = None
    biases: np.ndarray | None = None

    def raised(self, energies):
        """The same with energies (n_structures,), eV, added to that of every member."""
        return replace(self, energies=self.energies + energies, members=self.members + energies[:, None])


class UncertaintyLimit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A wall that keeps sampling where the members agree.

    Attributes
    ----------
    sigma : float σ₀, eV, uncertainty of the energy of the whole structure from which on there is a bias
    stiffness : float κ, 1/eV
    """

    sigma: float
    stiffness: float


def combine_members(raw, weights=None, alpha=1.0, drive="mean", baseline_uncertainty=None):
    r"""Energy and coefficients of what drives.

    .. math::
        \bar V = \sum_k p_k U_k, \quad V_k = \bar V + \alpha (U_k - \bar V),

        \sigma^2 = \frac{M}{M - 1} \sum_k p_k (V_k - \bar V)^2, \quad
        w = \frac{s_b^2}{s_b^2 + \sigma^2},

        V = w \bar V, \quad
        c_k = p_k \left[w - \frac{2 M}{M - 1} \frac{s_b^2 \bar V}{(s_b^2 + \sigma^2)^2} (V_k - \bar V)\right]

    These are of the rescaled members V_k; of the U_k they are :math:`\alpha c_k + (1 - \alpha) p_k \sum_j c_j`. Without
    a baseline w = 1 and c_k = p_k.

    Parameters
    ----------
    raw : (n_structures, n_members) array U_k, eV
    weights : (n_members,) array p_k that adds up to 1, or None for equal ones
    alpha : float
    drive : "mean" or the index of a member
    baseline_uncertainty : float s_b, eV, error of the total energy of the baseline that the members correct; or None

    Returns
    -------
    Combination

    Imbalzano et al., J. Chem. Phys. 154, 074102 (2021).
    """
    n_members = raw.shape[1]
    p = np.full(n_members, 1 / n_members) if weights is None else np.ascontiguousarray(weights, float)
    raw = np.ascontiguousarray(raw, float)
    driving = -1 if drive == "mean" else int(drive)
    error = -1.0 if baseline_uncertainty is None or driving >= 0 else baseline_uncertainty
    energies, coefficients, variances, w = mixed(raw, p, alpha, driving, error)
    members = raw
    if alpha != 1.0:
        mean = (raw @ p)[:, None]
        members = mean + alpha * (raw - mean)
    sigma = np.sqrt(variances) if n_members > 1 else None
    return Combination(energies, members, coefficients, sigma, w if error >= 0 else None)


def uncertainty_coefficients(members, uncertainties, weights=None, alpha=1.0):
    r"""Coefficients of the gradient of σ as a combination of the gradients of the members before rescaling.

    .. math:: \nabla \sigma = \sum_k a_k \nabla U_k, \qquad
        a_k = \alpha \frac{M}{M - 1} \frac{p_k (V_k - \bar V)}{\sigma}

    Parameters
    ----------
    members : (n_structures, n_members) array V_k, eV, after rescaling
    uncertainties : (n_structures,) array σ, eV
    weights, alpha : as in `combine_members`

    Returns
    -------
    (n_structures, n_members) array; 0 where σ is
    """
    n_members = members.shape[1]
    p = np.full(n_members, 1 / n_members) if weights is None else weights
    deviations = members - (members @ p)[:, None]
    divided = deviations / np.where(uncertainties > 0, uncertainties, np.inf)[:, None]
    return alpha * n_members / (n_members - 1) * p * divided


def limit_uncertainty(combination, limit, weights=None, alpha=1.0):
    r"""What drives, with a bias that grows where the members differ more than a limit allows.

    .. math:: B = \frac{\kappa}{2} (\sigma - \sigma_0)^2, \quad \nabla B = \kappa (\sigma - \sigma_0) \nabla \sigma
        \quad \text{where } \sigma > \sigma_0; \quad B = 0 \text{ elsewhere}

    The coefficients of ∇σ, :math:`(V_k - \bar V) / (\sigma (M - 1))` for equal weights, are added to those of what
    drives, so that its reverse pass makes both forces. As :math:`0 \le 1 - \sigma_0 / \sigma \le 1`, there is nothing
    to be regularised as σ vanishes, for σ₀ = 0 neither.

    Parameters
    ----------
    combination : Combination, of a committee
    limit : UncertaintyLimit
    weights, alpha : as in `combine_members`

    Returns
    -------
    Combination, whose energies contain the bias
    """
    excess = np.maximum(combination.uncertainties - limit.sigma, 0.0)
    along = uncertainty_coefficients(combination.members, combination.uncertainties, weights, alpha)
    biases = 0.5 * limit.stiffness * excess**2
    return replace(
        combination,
        energies=combination.energies + biases,
        coefficients=combination.coefficients + limit.stiffness * excess[:, None] * along,
        biases=biases,
    )


@dataclass(frozen=True)
class PseudoMembers:
    """A committee that looks as if it had two members; as `comitia.potential.evaluator.Predictions`.

    Attributes
    ----------
    all_member_energies : (n_structures, n_members) array, eV, of the members themselves
    """

    energies: np.ndarray
    forces: np.ndarray
    virials: np.ndarray
    member_energies: np.ndarray
    energy_uncertainties: np.ndarray
    member_forces: np.ndarray
    member_virials: np.ndarray
    all_member_energies: np.ndarray


def pseudo_members(predictions):
    r"""Two members in place of all, with their mean, their variance and the gradients of both.

    .. math:: V_\pm = \bar V \pm d, \quad f_\pm = \bar f \pm \frac{u}{2 d}, \quad d = \frac{\sigma}{\sqrt 2}, \quad
        u = \frac{1}{M - 1} \sum_k (V_k - \bar V)(f_k - \bar f) = -\sigma \nabla \sigma

    i-PI's weighted baseline takes no more than these from a committee. Where σ is 0 both are the mean. Which of the two
    comes first follows from d, so that `are_pseudo_members` knows them again.

    Parameters
    ----------
    predictions : with energies, forces, virials, uncertainties, and `uncertainty_gradients`, `uncertainty_virials`

    Returns
    -------
    PseudoMembers

    Imbalzano et al., J. Chem. Phys. 154, 074102 (2021).
    """
    half = predictions.energy_uncertainties / np.sqrt(2)
    signs = _order(half)[:, None] * np.array([1.0, -1.0]) / np.sqrt(2)
    return PseudoMembers(
        predictions.energies,
        predictions.forces,
        predictions.virials,
        predictions.energies[:, None] + signs * predictions.energy_uncertainties[:, None],
        predictions.energy_uncertainties,
        predictions.forces[:, None] - signs[:, :, None, None] * predictions.uncertainty_gradients[:, None],
        predictions.virials[:, None] + signs[:, :, None, None] * predictions.uncertainty_virials[:, None],
        predictions.member_energies,
    )


def are_pseudo_members(energies):
    """Whether energies of two members in many frames, (n_frames, 2), eV, are those of `pseudo_members`.

    Two real members are in their order about half of the time.
    """
    half = 0.5 * (energies[:, 0] - energies[:, 1])
    half = half[half != 0]
    new = np.diff(np.floor(FINENESS * np.log(np.abs(half))), prepend=np.inf) != 0
    return bool(np.count_nonzero(new) >= FEWEST and np.mean(_order(half[new]) == np.sign(half[new])) > 0.9)


def _order(half):
    """1 or -1 by the size of half a difference, eV: it changes with every per cent."""
    size = np.log(np.where(half == 0, 1.0, np.abs(half)))
    return 1.0 - 2.0 * (np.floor(FINENESS * size) % 2)
