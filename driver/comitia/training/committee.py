"""Fits to all of the groups and to halves of them: the weights of a committee, from sums of moments alone."""

import dataclasses

import numpy as np

from comitia.training.evidence import combine
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
    """

    members: np.ndarray
    full: np.ndarray
    regularisation: object
    kind_weights: dict


def total_weights(regularisation, weights):
    """ρ of each kind: that of the evidence times that of the user."""
    return {kind: regularisation.kind_weights[kind] * getattr(weights, kind) for kind in KINDS}


def solve(moments, kind_weights, penalty):
    """Weights that minimise Σ_k ρ_k |y_k − X_k w|² + w^T Λ w."""
    matrix, rhs = combine(moments, kind_weights, penalty)
    return Factor(matrix).solve(rhs)


def recentre(members, full):
    """Shift all members by one vector, so that their mean is the fit to all of the data."""
    return members + (full - members.mean(axis=0))


def fit_committee(equations, group_stratum, allowed, n_members, regularisation, weights, rng, step=None):
    """Fit all allowed groups, and every member on half of them.

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

    Returns
    -------
    CommitteeFit
    """
    step = step or (lambda: None)
    kind_weights = total_weights(regularisation, weights)
    full = solve(equations.moments(allowed), kind_weights, regularisation.penalty)
    step()
    if n_members == 1:
        return CommitteeFit(full[None, :], full, regularisation, kind_weights)
    members = np.empty((n_members, len(full)))
    for member, drawn in enumerate(draw_members(group_stratum, n_members, rng, allowed)):
        members[member] = solve(equations.moments(drawn), kind_weights, regularisation.penalty)
        step()
    return CommitteeFit(recentre(members, full), full, regularisation, kind_weights)


def refine(equations, allowed, committee, gradient):
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
    penalty = committee.regularisation.penalty
    matrix, _ = combine(equations.moments(allowed), committee.kind_weights, penalty)
    change = Factor(matrix).solve(gradient - penalty * committee.full)
    size = float(np.linalg.norm(change) / max(np.linalg.norm(committee.full), 1e-300))
    shifted = dataclasses.replace(committee, members=committee.members + change, full=committee.full + change)
    return shifted, size
