"""The two readings of the design matrix: sums first, residuals afterwards."""

import numpy as np

from comitia.training.normal_equations import KINDS, NormalEquations
from comitia.training.validation import Record


def _rows(design, kind):
    return design.features[None, :] if kind == "energy" else getattr(design, kind)


def _target(target, kind):
    value = getattr(target, kind)
    return np.atleast_1d(value) if value is not None else None


def accumulate(stream, targets, group, n_groups, step):
    """First reading: sums of the weighted rows of every group.

    Parameters
    ----------
    stream : DesignStream
    targets : list of Target
    group : (n_structures,) int array
    step : function called after every structure

    Returns
    -------
    NormalEquations
    """
    order = np.argsort(group, kind="stable")
    equations, last = None, None
    for index, design in stream(order):
        if equations is None:
            equations = NormalEquations(n_groups, len(design.features))
        if last is not None and group[index] != last:
            equations.flush(last)
        last = group[index]
        for kind in KINDS:
            value = _target(targets[index], kind)
            if value is not None:
                scale = targets[index].scale[kind]
                equations.add(last, kind, scale * _rows(design, kind), scale * value)
        step()
    equations.flush(last)
    return equations


def residuals(stream, structures, targets, group, folds, committee, fold_committees, step):
    """Second reading: training residuals, predictions of each fold's committee on its fold, and the gradient.

    Parameters
    ----------
    stream : DesignStream
    structures : list of LabelledStructure
    targets : list of Target
    group : (n_structures,) int array
    folds : (n_groups,) int array, −1 for groups that are never held out
    committee : CommitteeFit to all of the training set
    fold_committees : {fold: CommitteeFit}, may be empty
    step : function called after every structure

    Returns
    -------
    training : list of Record
    held_out : list of Record, structures that are held out in some fold
    gradient : (n_columns,) array, Σ_k ρ_k X_k^T (y_k − X_k w)
    """
    training, held_out = [], []
    gradient = np.zeros(len(committee.full))
    for index, design in stream(np.argsort(group, kind="stable")):
        structure, target = structures[index], targets[index]
        fold = int(folds[group[index]])
        held = fold_committees.get(fold)
        one = Record(structure.config_type, len(structure.atoms))
        other = Record(structure.config_type, len(structure.atoms), fold=fold)
        columns = [committee.full] if held is None else [committee.full, held.full, *held.members]
        weights = np.array(columns).T
        for kind in KINDS:
            value = _target(target, kind)
            if value is None:
                continue
            rows = _rows(design, kind)
            predicted = rows @ weights
            error = value - predicted[:, 0]
            gradient += (committee.kind_weights[kind] * target.scale[kind] ** 2) * (rows.T @ error)
            _store(one, kind, error)
            if held is not None:
                _store(other, kind, value - predicted[:, 1])
                if len(held.members) > 1 and kind != "virial":
                    spread = predicted[:, 2:].std(axis=1, ddof=1)
                    if kind == "energy":
                        other.energy_spread = float(spread[0])
                    else:
                        other.force_spread = spread
        training.append(one)
        if held is not None:
            held_out.append(other)
        step()
    return training, held_out, gradient


def gradient_of(stream, targets, committee, step=lambda: None):
    """Σ_k ρ_k X_k^T (y_k − X_k w) at w = committee.full, (n_columns,), from the rows themselves."""
    gradient = np.zeros(len(committee.full))
    for index, design in stream(range(len(targets))):
        for kind in KINDS:
            value = _target(targets[index], kind)
            if value is not None:
                rows = _rows(design, kind)
                weight = committee.kind_weights[kind] * targets[index].scale[kind] ** 2
                gradient += weight * (rows.T @ (value - rows @ committee.full))
        step()
    return gradient


def _store(record, kind, error):
    if kind == "energy":
        record.energy_error = float(error[0])
    elif kind == "forces":
        record.force_error = error
    else:
        record.virial_error = error
