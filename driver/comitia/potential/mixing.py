r"""A committee as one potential: mean or member, and the weighted baseline, as linear combinations of the members.

Whatever drives, its force is :math:`\sum_k c_k f_k`; the coefficients follow from the energies.
"""

from dataclasses import dataclass

import numpy as np


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
    """

    energies: np.ndarray
    members: np.ndarray
    coefficients: np.ndarray
    uncertainties: np.ndarray | None
    mixing: np.ndarray | None = None


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
    p = np.full(n_members, 1 / n_members) if weights is None else np.asarray(weights, float)
    mean = raw @ p
    deviations = alpha * (raw - mean[:, None])
    members = mean[:, None] + deviations if alpha != 1.0 else raw
    variance = n_members / (n_members - 1) * (deviations**2 @ p) if n_members > 1 else None
    sigma = None if variance is None else np.sqrt(variance)
    energies, coefficients, w = mean, np.broadcast_to(p, raw.shape), None
    if drive != "mean":
        energies, coefficients = members[:, int(drive)], np.broadcast_to(np.eye(n_members)[int(drive)], raw.shape)
    elif baseline_uncertainty is not None:
        square = baseline_uncertainty**2
        w = square / (square + variance)
        slope = 2 * n_members / (n_members - 1) * square * mean / (square + variance) ** 2
        energies, coefficients = w * mean, p * (w[:, None] - slope[:, None] * deviations)
    coefficients = alpha * coefficients + (1 - alpha) * coefficients.sum(axis=1, keepdims=True) * p
    return Combination(energies, members, coefficients, sigma, w)
