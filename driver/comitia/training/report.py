"""What a fit reports: in the model file, and in the JSON beside it."""

import platform
from typing import NamedTuple

import msgspec
import numpy as np

from comitia.training import dataset
from comitia.training.calibration import Calibration
from comitia.training.outliers import find_outliers
from comitia.training.sums import digest
from comitia.training.validation import Evaluation

UNITS = {"energy": "eV", "length": "Å", "forces": "eV/Å", "virial": "eV"}


class Calibrated(NamedTuple):
    """Where the factors of a committee come from: a name, the structures left out, and what they gave."""

    source: str
    held_out: Evaluation | None
    energy: Calibration
    forces: Calibration


def fit_report(work, validation, test, calibrated):
    """The report but for what differs from run to run.

    Parameters
    ----------
    work : the fit, as its stages left it
    validation, test : Evaluation or None
    calibrated : Calibrated
    """
    return {
        "data": _data_report(work.settings, work.split, work.earlier),
        "units": UNITS,
        "settings": msgspec.to_builtins(work.settings),
        "features": {"per_species": work.descriptor.n_features, "columns": len(work.columns)},
        "cost": None if work.cost is None else {"value": work.cost, "unit": "µs/atom"},
        "pseudo_species": work.descriptor.pseudo_species,
        "regularisation": _regularisation_report(work),
        "calibration": _calibration_report(work.settings, *calibrated),
        "errors": _error_report(work, validation, test, calibrated.energy, calibrated.forces),
        "outliers": _outliers(work, validation, test, calibrated.forces),
        "versions": _versions(),
    }


def _data_report(settings, split, earlier):
    """What the model was fitted to, that of earlier fits included."""
    training, atoms = len(split.training), sum(len(s.atoms) for s in split.training)
    types, sha256, added = {s.config_type for s in split.training}, dataset.fingerprint(split.training), {}
    if earlier is not None:
        old = earlier.index["data"]
        added = {
            "previous": {"model": str(earlier.path), "structures": old["structures"]["training"], "added": training}
        }
        training, atoms = training + old["structures"]["training"], atoms + old["atoms"]
        types, sha256 = types | set(old["config_types"]), digest(old["sha256"], sha256)
    return {
        "file": str(settings.data),
        "sha256": sha256,
        "structures": {"training": training, "validation": len(split.validation), "test": len(split.test)},
        "atoms": atoms,
        "config_types": sorted(types),
        **added,
    }


def _regularisation_report(work):
    chosen = work.committee.regularisation
    by = "evidence" if work.settings.regularisation is None else "settings"
    return {
        "chosen_by": "chemical systems left out" if chosen.left_out else by,
        "strength": chosen.strength,
        "log_evidence": chosen.log_evidence,
        "noise": chosen.noise,
        "kind_weights": chosen.kind_weights,
        "prior": chosen.parameters,
        "left_out": chosen.left_out,
        "refinement_steps": work.refinement,
        "groups": len(work.stratum),
    }


def _calibration_report(settings, source, held_out, energy, forces):
    report = {
        "source": source,
        "alpha_energy": energy.alpha,
        "alpha_forces": forces.alpha,
        "force_floor": forces.floor,
        "count_energy": energy.count,
        "count_forces": forces.count,
        "recentred": True,
        "warnings": sorted({c.warning for c in (energy, forces) if c.warning}),
    }
    if held_out is not None and settings.members > 1:
        report["quality"] = held_out.cross_calibration() or held_out.calibration(energy, forces)
    return report


def _error_report(work, validation, test, energy, forces):
    report = {"training": work.training.errors()}
    if work.held_out is not None:
        report["folds"] = work.held_out.errors()
    for name, evaluation in (("validation", validation), ("test", test)):
        if evaluation is not None:
            report[name] = evaluation.errors()
            report[name]["calibration"] = evaluation.calibration(energy, forces)
    return report


def _outliers(work, validation, test, of_forces):
    """Of the training set by what folds say that did not see them, where there are folds."""
    sets = {"training": work.held_out or work.training, "validation": validation, "test": test}
    return [one for name, found in sets.items() if found for one in find_outliers(found, of_forces, name)]


def _versions():
    import scipy

    from comitia import __version__

    return {
        "comitia": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
    }
