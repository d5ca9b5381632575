r"""Structures whose labels do not fit the rest: errors far beyond what the noise of the fit explains.

For each kind of label a structure has one score u: the root mean square, over its components, of error / σ, σ being the
predictive scale of the committee (for energies and virials of a single model the number of atoms, for forces 1). The
scores of good labels are taken for the moduli of Student's t; its scale and its degrees of freedom follow from the
median and the upper decile of u, which no tenth of bad labels can move far. A structure is named where fewer than
`EXPECTED` structures of good data of this size would be as far out,

.. math:: n\, P(|t_\nu| > u / s) < \epsilon .

Structures of one `config_type` are compared with each other where there are enough of them, with a scale that is not
much smaller than that of all structures: where symmetry makes nearly all forces zero, the others would be far out.
"""

import collections

import numpy as np
import scipy.optimize
from scipy import special

from comitia.training.normal_equations import KINDS

EXPECTED = 0.01  # structures of good data that are named, for each kind of label and set compared
FEWEST = 30  # structures that are compared with each other
FEWEST_DEGREES, MOST_DEGREES = 3.0, 5.0  # the decile of few scores is not to be believed when it promises short tails
EASIEST = 0.2  # of the scale of all scores: that of a `config_type` is not smaller
UNITS = {"energy": ("meV/atom", 1e3), "forces": ("eV/Å", 1.0), "virial": ("meV/atom", 1e3)}


def students_t(scores):
    """Scale and degrees of freedom of |t| from the median and the upper decile.

    Parameters
    ----------
    scores : (n,) array, not negative
    """
    median, decile = np.quantile(scores, [0.5, 0.9])

    def excess(degrees):
        return decile * special.stdtrit(degrees, 0.75) - median * special.stdtrit(degrees, 0.95)

    if excess(FEWEST_DEGREES) >= 0:
        degrees = FEWEST_DEGREES
    elif excess(MOST_DEGREES) <= 0:
        degrees = MOST_DEGREES
    else:
        degrees = float(scipy.optimize.brentq(excess, FEWEST_DEGREES, MOST_DEGREES, xtol=1e-3))
    return median / special.stdtrit(degrees, 0.75), degrees


def expected_beyond(scores, smallest=0.0):
    """How far out each score is in units of the scale, and how many of as many good structures would be as far out.

    Parameters
    ----------
    scores : (n,) array
    smallest : float, bound on the scale

    Returns
    -------
    scaled, expected : (n,) arrays
    """
    scale, degrees = students_t(scores)
    scaled = scores / max(scale, smallest, np.finfo(float).tiny)
    return scaled, 2 * len(scores) * special.stdtr(degrees, -scaled)


def _scaled(record, kind, of_forces):
    """Errors of one kind of label over their scale, and their root mean square in eV or eV/Å; None without a label."""
    if kind == "energy":
        error = None if record.energy_error is None else np.array([record.energy_error])
        scale, size = record.energy_spread or record.n_atoms, record.n_atoms
    elif kind == "forces":
        error, scale, size = record.force_error, 1.0, 1
        if record.force_spread is not None:
            scale = np.hypot(of_forces.floor, of_forces.alpha * record.force_spread)
    else:
        error, scale, size = record.virial_error, record.n_atoms, record.n_atoms
    if error is None:
        return None
    ratio = np.divide(error, scale, out=np.zeros(len(error)), where=np.broadcast_to(scale, error.shape) > 0)
    return np.sqrt(np.mean(ratio**2)), np.sqrt(np.mean(error**2)) / size


def _compared(records):
    """Records that are compared with each other: those of a `config_type` that has enough, and the rest."""
    by_type, rest = collections.defaultdict(list), []
    for record in records:
        by_type[record.config_type].append(record)
    for members in by_type.values():
        if len(members) >= FEWEST:
            yield members
        else:
            rest += members
    if len(rest) >= FEWEST:
        yield rest


def find_outliers(evaluation, of_forces, name):
    """Structures of one set that are too far out, the farthest first.

    Parameters
    ----------
    evaluation : Evaluation
    of_forces : Calibration of the forces
    name : str, of the set, for the report

    Returns
    -------
    list of dict: `set`, `file`, `frame`, `config_type`, `kind` of label, its `error` (root mean square), the `typical`
    one (median of the structures that it is compared with) and their `unit`, `scaled`: the score u / s, and `expected`:
    how many structures of good data would be as far out
    """
    found = []
    for kind in KINDS:
        unit, factor = UNITS[kind]
        scored = [record for record in evaluation.records if _scaled(record, kind, of_forces) is not None]
        if len(scored) < FEWEST:
            continue
        everywhere, _ = students_t(np.array([_scaled(record, kind, of_forces)[0] for record in scored]))
        for compared in _compared(scored):
            score, size = np.array([_scaled(record, kind, of_forces) for record in compared]).T
            scaled, expected = expected_beyond(score, EASIEST * everywhere)
            for index in np.flatnonzero(expected < EXPECTED).tolist():
                record = compared[index]
                file, _, frame = record.origin.rpartition(", frame ")
                found.append(
                    {
                        "set": name,
                        "file": file,
                        "frame": int(frame) if frame.isdigit() else None,
                        "config_type": record.config_type,
                        "kind": kind,
                        "error": factor * float(size[index]),
                        "typical": factor * float(np.median(size)),
                        "unit": unit,
                        "scaled": float(scaled[index]),
                        "expected": float(expected[index]),
                    }
                )
    return sorted(found, key=lambda one: (one["expected"], -one["scaled"]))
