r"""The weights of a committee, from sums of moments alone: fits to halves of the groups, or draws from a posterior.

The Laplace posterior of a regularised fit with noise σ is N(w, σ² A⁻¹), A = Σ_k ρ_k X_k^T X_k + Λ; draws from it have
the variance of the last-layer prediction rigidity, σ² φ^T A⁻¹ φ (Bigi et al., Mach. Learn.: Sci. Technol. 5, 045018
(2024), doi:10.1088/2632-2153/ad805f). It knows of the inputs alone. Here every kind of label has in every group g the
noise that its residuals show, with σ_gk² the mean of their squares after the fit: draws from N(w, A⁻¹ B A⁻¹),

.. math:: B = \sum_{gk} \rho_k^2 \sigma_{gk}^2 X_{gk}^T X_{gk} + \sigma^2 \Lambda

(White, Econometrica 48, 817 (1980), doi:10.2307/1912934), which is the former where the noise is the same everywhere.
Halves of the data know of their labels too.
"""

import dataclasses

import numpy as np

from comitia.training.groups import draw_members
from comitia.training.normal_equations import KINDS, Factor


@dataclasses.dataclass
class CommitteeFit:
    """Weights of a committee and of the fit that it is centred on.

    Attributes
    ----------
    members : (n_members, n_columns) array; their mean is `full` to rounding
    full : (n_columns,) array, the fit to all groups of the training part
    regularisation : Regularisation
    kind_weights : {kind: ρ}, user weights included
    factor : Factor of the normal equations of `full`
    """

    members: np.ndarray
    full: np.ndarray
    regularisation: object
    kind_weights: dict
    factor: Factor


def total_weights(regularisation, weights):
    """ρ of each kind: that of the evidence times that of the user."""
    return {kind: regularisation.kind_weights[kind] * getattr(weights, kind) for kind in KINDS}


def factorise(equations, selection, kind_weights, regularisation):
    """Factor of A, and the weights that minimise Σ_k ρ_k |y_k − X_k w|² + w^T Λ w over some groups."""
    moments = equations.combined(selection, kind_weights)
    regularisation.add_to(moments.gram)
    factor = Factor(moments.gram)
    return factor, factor.solve(moments.rhs)


def recentre(members, full):
    """Shift all members by one vector, so that their mean is the fit to all of the data."""
    return members + (full - members.mean(axis=0))


def subsampled(equations, group_stratum, allowed, n_members, kind_weights, regularisation, rng, step):
    """Members (n_members, n_columns), each fitted to half of the allowed groups."""
    members = np.empty((n_members, equations.n_columns))
    for member, drawn in enumerate(draw_members(group_stratum, n_members, rng, allowed)):
        _, members[member] = factorise(equations, drawn, kind_weights, regularisation)
        step()
    return members


def drawn_from_posterior(equations, allowed, n_members, fitted, rng):
    """Members (n_members, n_columns), drawn around the `CommitteeFit` of the full fit."""
    unit = max(fitted.regularisation.noise, 1e-150) ** 2
    noise = equations.noise(fitted.full)
    scatter = equations.combined(
        allowed, {kind: rho**2 * noise[kind] / unit for kind, rho in fitted.kind_weights.items()}
    )
    fitted.regularisation.add_to(scatter.gram)
    numbers = rng.normal(size=(len(fitted.full), n_members))
    return fitted.full + np.sqrt(unit) * fitted.factor.solve(Factor(scatter.gram).root_times(numbers)).T


def fit_committee(
    equations, group_stratum, allowed, n_members, regularisation, weights, rng, step=None, kind="subsampling"
):
    """Fit all allowed groups, and make the members from halves of them or from the posterior of that fit.

    Parameters
    ----------
    equations : NormalEquations
    group_stratum : (n_groups,) int array
    allowed : (n_groups,) bool array, the training part
    n_members : int; 1 is the full fit alone
    regularisation : Regularisation
    weights : Weights of the settings
    rng : numpy.random.Generator
    step : function called after every solution, for a progress bar
    kind : "subsampling" or "llpr"

    Returns
    -------
    CommitteeFit
    """
    step = step or (lambda: None)
    kind_weights = total_weights(regularisation, weights)
    factor, full = factorise(equations, allowed, kind_weights, regularisation)
    step()
    fitted = CommitteeFit(full[None, :], full, regularisation, kind_weights, factor)
    if n_members == 1:
        return fitted
    if kind == "llpr":
        members = drawn_from_posterior(equations, allowed, n_members, fitted, rng)
    else:
        members = subsampled(equations, group_stratum, allowed, n_members, kind_weights, regularisation, rng, step)
    return dataclasses.replace(fitted, members=recentre(members, full))


def refine(committee, gradient):
    """One step of iterative refinement of a committee from the exact gradient of its full fit.

    The solution of normal equations loses digits with the square of the condition number; with the residuals
    computed from the rows themselves the corrected weights are as good as those of an orthogonal factorisation
    (Björck, Linear Algebra Appl. 88–89, 31 (1987), corrected semi-normal equations).

    Parameters
    ----------
    gradient : (n_columns,) array, Σ_k ρ_k X_k^T (y_k − X_k w) at w = committee.full, summed over rows

    Returns
    -------
    CommitteeFit, shifted as a whole; float, relative size of the step
    """
    change = committee.factor.solve(gradient - committee.regularisation.times(committee.full))
    size = float(np.linalg.norm(change) / max(np.linalg.norm(committee.full), 1e-300))
    shifted = dataclasses.replace(committee, members=committee.members + change, full=committee.full + change)
    return shifted, size
