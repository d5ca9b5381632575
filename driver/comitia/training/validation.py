"""Errors of a model on labelled structures, and whether its uncertainties are as large as they."""

import dataclasses
from functools import cached_property

import numpy as np

from comitia.structures import VOIGT, check_species
from comitia.training.calibration import Calibration, calibrate, calibrate_forces, predictive_sigma, summarise

SYMMETRY_FLOOR = 0.05  # force components with a smaller spread, relative to the rms one, are zero by symmetry
UNITS = {"energy": "meV/atom", "forces": "eV/Å", "virial": "meV/atom"}


@dataclasses.dataclass
class Record:
    """Errors on one structure; None where it has no such label, or the model no members.

    Attributes
    ----------
    config_type : str
    n_atoms : int
    energy_error, energy_spread : float, eV; reference − mean, and raw standard deviation over members
    force_error, force_spread : (3 n_atoms,) arrays, eV/Å
    virial_error : (6,) array, eV
    fold : int, the fold in which the structure was held out; 0 where there are no folds
    origin : str, the file and the frame
    """

    config_type: str
    n_atoms: int
    energy_error: float | None = None
    energy_spread: float | None = None
    force_error: np.ndarray | None = None
    force_spread: np.ndarray | None = None
    virial_error: np.ndarray | None = None
    fold: int = 0
    origin: str = ""


def _summary(errors, unit):
    errors = np.concatenate([np.ravel(e) for e in errors])
    return {
        "rmse": float(np.sqrt(np.mean(errors**2))),
        "mae": float(np.mean(np.abs(errors))),
        "max": float(np.abs(errors).max()),
        "count": len(errors),
        "unit": unit,
    }


def error_table(records):
    """RMSE, MAE and largest error of energies per atom, force components and virials per atom.

    Returns
    -------
    dict: {kind: {rmse, mae, max, count, unit}}
    """
    errors = {
        "energy": [1e3 * r.energy_error / r.n_atoms for r in records if r.energy_error is not None],
        "forces": [r.force_error for r in records if r.force_error is not None],
        "virial": [1e3 * r.virial_error / r.n_atoms for r in records if r.virial_error is not None],
    }
    return {kind: _summary(values, UNITS[kind]) for kind, values in errors.items() if values}


class Evaluation:
    """Errors and raw spreads of a committee on some structures.

    Parameters
    ----------
    records : list of Record
    n_members : int
    recentred : bool, whether the mean of the members is the fit to all of the training data
    """

    def __init__(self, records, n_members, recentred):
        self.records, self.n_members, self.recentred = records, n_members, recentred

    def errors(self):
        """Error table of all structures and of every `config_type`."""
        table = error_table(self.records)
        types = list(dict.fromkeys(r.config_type for r in self.records))
        if len(types) > 1:
            table["config_types"] = {
                name: error_table([r for r in self.records if r.config_type == name]) for name in types
            }
        return table

    def energies(self, records=None):
        """Errors (n,) eV, raw spreads (n,) eV and numbers of atoms (n,) of structures with an energy and a spread."""
        chosen = [
            r for r in (self.records if records is None else records) if None not in (r.energy_error, r.energy_spread)
        ]
        columns = [[r.energy_error, r.energy_spread, r.n_atoms] for r in chosen]
        return np.array(columns, dtype=float).reshape(-1, 3).T

    def forces(self, records=None):
        """Errors and raw spreads of force components, (n,) each, eV/Å.

        Components that symmetry makes zero are left out: no member can be wrong about them, so that the rounding of the
        reference divided by a vanishing spread would decide the calibration of all others.
        """
        chosen = [r for r in (self.records if records is None else records) if r.force_error is not None]
        chosen = [r for r in chosen if r.force_spread is not None]
        if not chosen:
            return np.empty((2, 0))
        error = np.concatenate([r.force_error for r in chosen])
        spread = np.concatenate([r.force_spread for r in chosen])
        usable = spread > SYMMETRY_FLOOR * self._rms_force_spread
        return np.array([error[usable], spread[usable]])

    @cached_property
    def _rms_force_spread(self):
        spreads = [r.force_spread for r in self.records if r.force_spread is not None]
        return float(np.sqrt(np.mean(np.concatenate(spreads) ** 2)))

    def calibrate(self, records=None):
        """Calibrations of energies and of forces by these structures."""
        error, spread, _ = self.energies(records)
        return (
            calibrate(error, spread, self.n_members, self.recentred),
            calibrate_forces(*self.forces(records), self.n_members, self.recentred),
        )

    def scales(self, of_energies, of_forces, records=None):
        """(error, predictive scale, n_atoms) of energies and (error, predictive scale) of force components."""

        def scale(spread, found):
            return predictive_sigma(found.alpha * spread, self.n_members, found.alpha, self.recentred, found.floor)

        error, spread, n_atoms = self.energies(records)
        force_error, force_spread = self.forces(records)
        return (error, scale(spread, of_energies), n_atoms), (force_error, scale(force_spread, of_forces))

    def calibration(self, of_energies, of_forces):
        """Calibration in numbers with the given `Calibration`s, or None for a single member."""
        if self.n_members < 2:
            return None
        return self._summary(*self.scales(of_energies, of_forces))

    def cross_calibration(self):
        """Calibration in numbers where every fold is judged with the factors that the other folds give."""
        folds = sorted({r.fold for r in self.records})
        if self.n_members < 2 or len(folds) < 2:
            return None
        parts = []
        for fold in folds:
            others = [r for r in self.records if r.fold != fold]
            parts.append(self.scales(*self.calibrate(others), [r for r in self.records if r.fold == fold]))
        energy = np.concatenate([part[0] for part in parts], axis=1)
        forces = np.concatenate([part[1] for part in parts], axis=1)
        return self._summary(energy, forces)

    def _summary(self, energy, forces):
        error, scale, n_atoms = energy
        return {
            "energy": summarise(error, scale, self.n_members, size=n_atoms),
            "forces": summarise(*forces, self.n_members),
        }


def compare(structure, energy, forces, virial, member_energies=None, member_forces=None, fold=0):
    """`Record` of a structure from what a model says about it.

    Parameters
    ----------
    structure : LabelledStructure
    energy : float, eV
    forces : (n_atoms, 3) array, eV/Å
    virial : (3, 3) array, eV
    member_energies : (M,) array of raw members or None, eV
    member_forces : (M, n_atoms, 3) array of raw members or None, eV/Å
    """
    record = Record(structure.config_type, len(structure.atoms), fold=fold, origin=structure.origin)
    if structure.energy is not None:
        record.energy_error = structure.energy - float(energy)
    if structure.forces is not None:
        record.force_error = (structure.forces - forces).ravel()
    if structure.virial is not None:
        left = structure.virial - np.asarray(virial)
        record.virial_error = np.array([left[i, j] for i, j in VOIGT])
    if member_energies is not None and len(member_energies) > 1:
        record.energy_spread = float(np.std(member_energies, ddof=1))
        if member_forces is not None:
            record.force_spread = np.std(member_forces, axis=0, ddof=1).ravel()
    return record


def evaluate(potential, structures, forces_spread=True, step=None):
    """`Evaluation` of a potential on labelled structures.

    Members are brought back to their raw spread, so that the potential's factors can be judged or replaced.
    """
    for structure in structures:
        check_species(structure.atoms, potential.species, structure.origin)
    records, several = [], potential.n_members > 1
    predictions = potential.stream((s.atoms for s in structures), members=several and forces_spread)
    for structure, prediction in zip(structures, predictions, strict=True):
        member_energies = prediction.member_energies / potential.alpha_energy if several else None
        member_forces = prediction.member_forces / potential.alpha_energy if several and forces_spread else None
        records.append(
            compare(structure, prediction.energy, prediction.forces, prediction.virial, member_energies, member_forces)
        )
        if step is not None:
            step()
    return Evaluation(records, potential.n_members, potential.recentred)


def evaluate_dataset(potential, structures, step=None):
    """Errors and calibration of a potential on labelled structures.

    Returns
    -------
    dict: `errors` (RMSE, MAE, largest; energy and virial in meV/atom, forces in eV/Å; also per `config_type`),
    `calibration` (standard scores, NLL in the units eV/atom and eV/Å, miscalibration area; of energies and of forces;
    None for a single member) and `structures` (per structure: config_type, n_atoms, error and σ of the energy in eV,
    root mean squares of error and σ of the force components in eV/Å; None where there is no such label).
    """
    evaluation = evaluate(potential, structures, step=step)
    of_energies = Calibration(potential.alpha_energy, 0)
    of_forces = Calibration(potential.alpha_forces, 0, floor=potential.force_floor)
    return {
        "errors": evaluation.errors(),
        "calibration": evaluation.calibration(of_energies, of_forces),
        "structures": [_of_structure(record, of_energies, of_forces) for record in evaluation.records],
    }


def _of_structure(record, of_energies, of_forces):
    """Errors and uncertainties of one structure."""

    def rms(values):
        return float(np.sqrt(np.mean(values**2)))

    energy_spread, force_spread = record.energy_spread, record.force_spread
    return {
        "config_type": record.config_type,
        "n_atoms": record.n_atoms,
        "energy_error": record.energy_error,
        "energy_uncertainty": None if energy_spread is None else of_energies.alpha * energy_spread,
        "force_error": None if record.force_error is None else rms(record.force_error),
        "force_uncertainty": None
        if force_spread is None
        else float(np.hypot(of_forces.floor, of_forces.alpha * rms(force_spread))),
    }
