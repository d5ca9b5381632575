"""The reading of the design matrix: weighted rows are added up, group by group."""

import numpy as np

from comitia.training.normal_equations import KINDS


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
