r"""Regularisation by the errors on chemical systems that are left out.

The evidence asks how probable the training structures are; of mixtures that they do not show it knows nothing, and
there the prior alone decides. So where they are of several chemical systems, the prior of the evidence is made as much
stronger, and weights of what tells species apart as small, as lets fits without a part p of the systems predict this
part best. With w_p the weights of such a fit and S_kp = |y_kp − X_kp w_p|² over the N_kp rows of kind k (energy,
forces) in the part,

.. math:: L = \sum_{k,\,p} \frac{N_{kp}}{2 N_k} \ln\left(\sigma^2 + S_{kp} / N_{kp}\right)

where σ is the noise that the evidence finds: errors below it are all alike. Parts and kinds count by the ratio of their
errors; the scale of none decides. One factorisation for each part gives L. The errors of some ten parts are too few for
more than two parameters on a coarse grid: all others stay those of the evidence.

Folds that calibrate a committee are others: some structures of every system. In each of them the choice is made anew
from what is left, so that no factor α rests on structures that had a say in the regularisation of their fit.
"""

import dataclasses

import numpy as np

from comitia.training.dataset import TYPICAL_ERROR
from comitia.training.evidence import LOG_DIFFERENCE, Evidence, add_precision
from comitia.training.normal_equations import KINDS, Factor, Moments
from comitia.training.systems import leave_out

SCORED = ("energy", "forces")
STRONGER = tuple(10.0**power for power in range(11))  # factors on λ of the evidence
DIFFERENCES = (0.5, 2.0, 3.5, LOG_DIFFERENCE, 6.5)
RISES = 3  # after which the scan of strengths ends


class Transfer:
    """How badly fits without some chemical systems predict these, for candidates of the prior.

    Parameters
    ----------
    evidence : Evidence of all structures that are fitted to
    equations : NormalEquations
    parts : list of LeftOut
    found : Regularisation that the evidence chose
    weights : Weights of the settings
    """

    def __init__(self, evidence, equations, parts, found, weights):
        self.evidence, self.equations, self.parts, self.found = evidence, equations, parts, found
        self.kind_weights = {kind: found.kind_weights[kind] * getattr(weights, kind) for kind in KINDS}
        self.total, _ = equations.packed(parts[0].part | parts[0].rest, self.kind_weights)
        self.packed = [equations.packed(one.part, self.kind_weights)[0] for one in parts]
        scored = [kind for kind in SCORED if kind in evidence.kinds]
        self.counts = {kind: [equations.counts([kind])[one.part].sum() for one in parts] for kind in scored}
        self.tried = {}  # (index of STRONGER, index of DIFFERENCES): loss and errors

    def parameters(self, place):
        """Parameters of the evidence's prior, and ln λ of a factor that tells species apart, at a point of the grid."""
        parameters = self.found.found.copy()
        n_free = len(self.evidence.free_kinds)
        parameters[n_free : n_free + len(self.evidence.orders)] += np.log(STRONGER[place[0]])
        return parameters, DIFFERENCES[place[1]]

    def left_out_errors(self, penalty):
        """{kind: (n_parts,) mean square error of fits without each part on it}."""
        errors = {kind: np.zeros(len(self.parts)) for kind in self.counts}
        for index, (one, part) in enumerate(zip(self.parts, self.packed, strict=True)):
            rest = Moments.unpacked(self.total - part, self.equations.n_columns, 0)
            add_precision(rest.gram, penalty, self.evidence.shape.sharing)
            weights = Factor(rest.gram).solve(rest.rhs)
            for kind, found in errors.items():
                square = self.equations.residual_square(one.part, kind, weights)
                found[index] = square / max(self.counts[kind][index], 1)
        return errors

    def loss(self, place):
        """L at a point of the grid."""
        if place not in self.tried:
            _, log_penalty = self.evidence.unpack(*self.parameters(place))
            errors = self.left_out_errors(np.exp(log_penalty))
            logs = {kind: np.log(self.found.noise**2 + square) for kind, square in errors.items()}
            loss = 0.5 * sum(np.average(log, weights=self.counts[kind]) for kind, log in logs.items())
            self.tried[place] = float(loss), errors
        return self.tried[place][0]

    def minimise(self, start=None, step=lambda: None):
        """`Regularisation` at the minimum: stronger by tens, then to better neighbours on the grid.

        Parameters
        ----------
        start : point of the grid where the search for nearly the same structures ended, or None
        step : function called before every candidate, which may end the search by raising
        """

        def loss(place):
            step()
            return self.loss(place)

        if start is None:
            middle = DIFFERENCES.index(LOG_DIFFERENCE)
            for strength in range(len(STRONGER)):
                loss((strength, middle))
                start = min(self.tried, key=self.loss)
                if strength >= start[0] + RISES:
                    break
        while True:
            around = [(start[0] + i, start[1] + j) for i, j in ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1))]
            around = [(i, j) for i, j in around if 0 <= i < len(STRONGER) and 0 <= j < len(DIFFERENCES)]
            best = min(around, key=loss)
            if best == start:
                break
            start = best
        found = self.evidence.regularisation(*self.parameters(start), log_evidence=False)
        return dataclasses.replace(found, by_evidence=self.found, place=start, left_out=self.report(start))

    def report(self, place):
        """Which systems were left out together, their errors with what was chosen, and the loss of every candidate."""
        errors = {kind: TYPICAL_ERROR[kind] * np.sqrt(square) for kind, square in self.tried[place][1].items()}
        return {
            "stronger": STRONGER[place[0]],
            "parts": [
                {"systems": one.systems, **{f"{kind}_rmse": float(rmse[p]) for kind, rmse in errors.items()}}
                for p, one in enumerate(self.parts)
            ],
            "units": {"energy_rmse": "eV/atom", "forces_rmse": "eV/Å"},
            "candidates": [
                {"stronger": STRONGER[i], "difference": DIFFERENCES[j], "loss": loss}
                for (i, j), (loss, _) in sorted(self.tried.items())
            ],
        }


def regularise(equations, allowed, shape, settings, known=(), like=None, step=lambda: None):
    """`Regularisation` for some groups: given, or by the evidence, or by systems left out where there are enough.

    Systems are left out where species are contracted: where each is a channel of its own, the features of a mixture
    come and go with the structures that show it.

    Parameters
    ----------
    equations : NormalEquations
    allowed : (n_groups,) bool array
    shape : PriorShape
    settings : FitSettings
    known : (n_groups,) list of the chemical systems in each, or empty
    like : Regularisation of nearly the same groups, where the search begins, or None
    step : function called before every evaluation, which may end the search by raising
    """
    kinds = [kind for kind in KINDS if getattr(settings.weights, kind) > 0]
    evidence = Evidence(equations.moments(allowed), shape, kinds)
    if settings.regularisation is not None:
        return evidence.given(settings.regularisation)
    before = like and (like.by_evidence or like)
    found = evidence.maximise(first=before and before.found, step=step)
    parts = []
    if len(known) and shape.log_difference is not None:
        parts = leave_out(known, allowed, equations.counts(SCORED))
    if not parts:
        return found
    transfer = Transfer(evidence, equations, parts, found, settings.weights)
    return transfer.minimise(like and like.place, step)
