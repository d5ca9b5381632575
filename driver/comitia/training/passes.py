"""The two readings of the design matrix: sums first, residuals afterwards."""

import numpy as np

from comitia.training.normal_equations import KINDS
from comitia.training.validation import Record


def _rows(design, kind):
    return design.features[None, :] if kind == "energy" else getattr(design, kind)


def _target(target, kind):
    value = getattr(target, kind)
    return np.atleast_1d(value) if value is not None else None


def accumulate(stream, targets, equations, step, kept=None):
    """First reading: add the weighted rows of every group to its sums.

    Parameters
    ----------
    stream : DesignStream
    targets : list of Target
    equations : NormalEquations
    step : function called after every structure
    kept : PartialSums or None, where the groups that are done are put from time to time, and found again
    """
    done = kept.restore(equations) if kept else []
    for _ in np.flatnonzero(np.isin(stream.group, done)):
        step()

    def add(group, designs):
        for index, design in designs:
            for kind in KINDS:
                value = _target(targets[index], kind)
                if value is not None:
                    equations.add(group, kind, _rows(design, kind), value, targets[index].scale[kind])
            step()
        equations.condense(group)

    for group, _ in stream(add, set(stream.group.tolist()) - set(done)):
        if kept:
            kept.add(group, equations)


def residuals(stream, structures, targets, folds, committee, fold_committees, step):
    """Second reading: training residuals, predictions of each fold's committee on its fold, and the gradient.

    Parameters
    ----------
    stream : DesignStream
    structures : list of LabelledStructure
    targets : list of Target
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

    def compare(group, designs):
        fold, gradient, records = int(folds[group]), np.zeros(len(committee.full)), []
        held = fold_committees.get(fold)
        columns = [committee.full] if held is None else [committee.full, held.full, *held.members]
        weights = np.array(columns).T
        for index, design in designs:
            structure, target = structures[index], targets[index]
            one, other = (
                Record(structure.config_type, len(structure.atoms), fold=number, origin=structure.origin)
                for number in (0, fold)
            )
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
            records.append((one, None if held is None else other))
            step()
        return records, gradient

    found = dict(stream(compare))
    pairs = [pair for group in sorted(found) for pair in found[group][0]]
    gradient = sum(found[group][1] for group in sorted(found))
    return [one for one, _ in pairs], [other for _, other in pairs if other is not None], gradient


def gradient_of(stream, targets, committee):
    """Σ_k ρ_k X_k^T (y_k − X_k w) at w = committee.full, (n_columns,), from the rows themselves."""

    def add(_, designs):
        gradient = np.zeros(len(committee.full))
        for index, design in designs:
            for kind in KINDS:
                value = _target(targets[index], kind)
                if value is not None:
                    rows = _rows(design, kind)
                    weight = committee.kind_weights[kind] * targets[index].scale[kind] ** 2
                    gradient += weight * (rows.T @ (value - rows @ committee.full))
        return gradient

    found = dict(stream(add))
    return sum(found[group] for group in sorted(found))


def _store(record, kind, error):
    if kind == "energy":
        record.energy_error = float(error[0])
    elif kind == "forces":
        record.force_error = error
    else:
        record.virial_error = error
