"""Averages and free-energy profiles of a sampled trajectory, under every member of the committee."""

import re
from dataclasses import dataclass

import numpy as np

from comitia.engines.ipi_units import CONTAINS_POTENTIAL
from comitia.errors import SeriesError, SettingsError
from comitia.study.collective_variables import MOST_SHARED, parse, proton_transfers
from comitia.study.strain import strain_free_energy
from comitia.thermodynamics import profile, reweight
from comitia.units import BOHR, KB

UNITS = {
    "eV": ("energy", 1.0),
    "meV": ("energy", 1e-3),
    "kJ/mol": ("energy", 1.0364269656262174e-2),
    "kcal/mol": ("energy", 4.3364104241800934e-2),
    "Å": ("length", 1.0),
    "nm": ("length", 10.0),
    "bohr": ("length", BOHR),
    "degree": ("angle", 1.0),
    "K": ("temperature", 1.0),
    "fs": ("time", 1.0),
    "ps": ("time", 1e3),
}
ALIASES = {
    "angstrom": "Å",
    "electronvolt": "eV",
    "millielectronvolt": "meV",
    "kelvin": "K",
    "femtosecond": "fs",
    "picosecond": "ps",
}

_CENTROID_VIRIAL = re.compile(r"kinetic_cv\((\d+)\)$")
_ESTIMATOR_TOLERANCE = 1e-3
"""eV; i-PI's trajectories keep six digits of a position, its kinetic_cv has all of them."""

_FRAMES_AT_ONCE = 64


@dataclass(frozen=True)
class SampledRun:
    """Frames of one simulation, without its equilibration; all arrays have the same frames.

    Attributes
    ----------
    name : of the sample, for messages
    temperature : float, K
    numbers : (n_atoms,) atomic numbers
    pbc : (3,) booleans
    steps : (n_frames,) integers
    member_energies : (n_frames, n_members) array, eV, averaged over beads
    properties : name -> (values (n_frames,), unit), as in the property file
    positions : (n_frames, n_beads, n_atoms, 3) array, Å
    cells : (n_frames, 3, 3) array, Å, lattice vectors in rows
    bias : (n_frames,) array, eV, averaged over beads, of which averages are to be freed; None without one
    """

    name: str
    temperature: float
    numbers: np.ndarray
    pbc: np.ndarray
    steps: np.ndarray
    member_energies: np.ndarray
    properties: dict
    positions: np.ndarray
    cells: np.ndarray
    bias: np.ndarray | None = None

    @property
    def n_beads(self):
        return self.positions.shape[1]


def unit_factor(unit, wanted, where):
    """By how much a number in `unit` is multiplied to be in `wanted`."""
    unit, wanted = ALIASES.get(unit, unit), ALIASES.get(wanted, wanted)
    if unit == wanted:
        return 1.0
    if unit not in UNITS or wanted not in UNITS or UNITS[unit][0] != UNITS[wanted][0]:
        fitting = [name for name in UNITS if unit in UNITS and UNITS[name][0] == UNITS[unit][0]]
        raise SettingsError(f"{where}: the unit {wanted!r} does not fit {unit}; use {' or '.join(fitting) or unit}")
    return UNITS[unit][1] / UNITS[wanted][1]


def centroid_virial(run, potential, atom):
    r"""Centroid-virial kinetic energy of one atom under every member, eV.

    .. math:: K_k = \tfrac32 kT - \frac{1}{2P} \sum_b (q_b - \bar q) \cdot f_{k,b}

    with beads :math:`b` of that atom, their centroid :math:`\bar q` and the forces of member k on them; one
    directional derivative gives all members. With one bead it is exactly :math:`3kT/2`.

    Parameters
    ----------
    run : SampledRun
    potential : comitia.Potential
    atom : int

    Returns
    -------
    (n_frames, n_members) array

    Herman, Bruskin and Berne, J. Chem. Phys. 76, 5150 (1982), doi:10.1063/1.442815.
    """
    n_frames, n_members = run.member_energies.shape
    classical = 1.5 * KB * run.temperature
    if run.n_beads == 1:
        return np.full((n_frames, n_members), classical)
    estimator = np.empty((n_frames, n_members))
    for first in range(0, n_frames, _FRAMES_AT_ONCE):
        chunk = slice(first, first + _FRAMES_AT_ONCE)
        positions = run.positions[chunk]
        directions = np.zeros_like(positions)
        directions[:, :, atom] = positions[:, :, atom] - positions[:, :, atom].mean(axis=1, keepdims=True)
        cells = np.repeat(run.cells[chunk], run.n_beads, axis=0)
        shape = (-1, *positions.shape[2:])
        work = potential.member_directional(
            run.numbers, run.pbc, positions.reshape(shape), cells, directions.reshape(shape)
        )
        estimator[chunk] = classical - 0.5 * work.reshape(len(positions), run.n_beads, n_members).mean(axis=1)
    return estimator


def _check_estimator(estimator, column, where):
    """The mean of the member estimators must be what i-PI computed from the same forces."""
    difference = np.abs(estimator.mean(axis=1) - column).max()
    if difference > _ESTIMATOR_TOLERANCE:
        raise SeriesError(
            f"{where}: the estimator from stored positions and i-PI's own differ by up to {difference:.2g} eV; "
            "were these frames sampled with this model, and is the property for the same atom?"
        )
    return float(difference)


def _checked_variable(description, numbers, where):
    """The collective variable of a description, its atoms among those of the sample."""
    variable = parse(description, where, numbers)
    if max(variable.atoms) >= len(numbers):
        raise SettingsError(f"{where}: there is no atom {max(variable.atoms)}; the last one is {len(numbers) - 1}")
    return variable


def _checked_property(name, n_atoms, printed, where):
    """The atom of a kinetic_cv(ATOM), else None; refuses what has no member estimator, or was not printed."""
    found = _CENTROID_VIRIAL.match(name)
    if found:
        if int(found.group(1)) >= n_atoms:
            raise SettingsError(f"{where}: there is no atom {found.group(1)}; the last one is {n_atoms - 1}")
        return int(found.group(1))
    if name != "potential" and re.split(r"[({]", name)[0] in CONTAINS_POTENTIAL:
        raise SettingsError(
            f"{where}: {name} contains the potential, so that each member has its own estimator, which is known for "
            "potential and kinetic_cv(ATOM) only"
        )
    if name != "potential" and name not in printed:
        raise SettingsError(f"{where}: the sample prints no property {name!r}; it has {', '.join(printed)}")
    return None


def check_observables(study, numbers, printed):
    """Refuse, before anything is sampled, an observable that could not be had afterwards.

    Parameters
    ----------
    study : StudySettings
    numbers : atomic numbers by name of the sample
    printed : names of the properties that i-PI prints, by name of the sample
    """
    for name, observable in study.observables.items():
        where, found = f"observables.{name}", numbers[observable.source]
        if observable.cv is not None:
            unit = _checked_variable(observable.cv, found, where).unit
        elif observable.relative_to is not None:
            unit = "eV"
        else:
            _checked_property(observable.property, len(found), printed[observable.source], where)
            unit = "eV" if observable.property.startswith(("potential", "kinetic_cv")) else None
        if unit is not None and observable.unit is not None:
            unit_factor(unit, observable.unit, where)


def _property_series(run, name, potential, where):
    """Values of a property and their unit; member estimators (n_frames, n_members) where it has them."""
    atom = _checked_property(name, len(run.numbers), run.properties, where)
    if name == "potential":
        return run.member_energies, "eV", None
    if atom is None:
        return *run.properties[name], None
    estimator = centroid_virial(run, potential, atom)
    if name not in run.properties:
        return estimator, "eV", None
    column, unit = run.properties[name]
    return estimator, "eV", _check_estimator(estimator, column * unit_factor(unit, "eV", where), where)


def cv_series(run, description, where):
    """The collective variable of every bead, (n_frames, n_beads); its unit; how well its protons are shared."""
    variable = _checked_variable(description, run.numbers, where)
    cells = np.repeat(run.cells[:, None], run.n_beads, axis=1) if run.pbc.all() else None
    if run.pbc.any() and not run.pbc.all():
        raise SettingsError(f"{where}: collective variables are for molecules or three periodic directions")
    checks = {}
    for transfer in proton_transfers(variable):
        fraction = transfer.fraction_most_shared(run.positions, run.numbers, cells)
        if fraction < MOST_SHARED:
            raise SeriesError(
                f"{where}: atom {transfer.proton} is the most shared proton in only {100 * fraction:.1f} % of the "
                f"configurations of sample {run.name} ({100 * MOST_SHARED:.0f} % needed); protons have exchanged"
            )
        checks["fraction_most_shared"] = fraction
    return variable(run.positions, cells), variable.unit, checks


def plain_unit(unit):
    return ALIASES.get(unit, unit)


def _free_energy(value, statistical_error, committee_error, found, unit, where):
    """A free-energy difference in the form of an average."""
    factor = unit_factor("eV", unit, where)
    return {
        "value": factor * value,
        "unit": unit,
        "statistical_error": factor * statistical_error,
        "committee_error": None if committee_error is None else factor * committee_error,
        "total_error": factor * float(np.hypot(statistical_error, committee_error or 0.0)),
        "effective_sample_size": found.effective_sample_size,
        "verdict": found.verdict,
    }


def averages(study, runs, potential):
    """Every observable of a study, under the members alone: a bias that helped to sample is taken out.

    Parameters
    ----------
    study : StudySettings
    runs : dict of SampledRun by name of the sample
    potential : comitia.Potential

    Returns
    -------
    dict with `observables`, `profiles` and `references` as in results.json, the `checks` that were made, and the
    `reasons` of the verdicts
    """
    results = {"observables": {}, "profiles": {}, "references": {}, "checks": {}, "reasons": {}}
    for name, observable in study.observables.items():
        where, run, method = f"observables.{name}", runs[observable.source], study.reweight.method
        if observable.relative_to is not None:
            found = strain_free_energy(run, runs[observable.relative_to], potential, where)
            results["observables"][name] = _free_energy(*found, plain_unit(observable.unit or "eV"), where)
            results["reasons"][name] = found[-1].reason
            continue
        if observable.cv is not None:
            values, unit, checks = cv_series(run, observable.cv, where)
            results["checks"].update({f"{name}.{key}": value for key, value in checks.items()})
        else:
            values, unit, difference = _property_series(run, observable.property, potential, where)
            if difference is not None:
                results["checks"][f"{name}.largest_difference_to_ipi"] = difference
        wanted = plain_unit(observable.unit or unit)
        values = values * unit_factor(unit, wanted, where)
        if observable.profile is not None:
            bins = observable.profile
            edges = np.linspace(*bins.range, bins.bins + 1)
            curve = profile(
                values,
                edges,
                run.member_energies,
                run.temperature,
                method=method,
                bias=run.bias,
                symmetric=bins.symmetric,
            )
            results["profiles"][name] = {**curve.as_dict(), "x_unit": wanted}
            continue
        if observable.cv is not None:
            values = values.mean(axis=1)
        average = reweight(values, run.member_energies, run.temperature, method=method, bias=run.bias)
        if average.verdict == "exact":
            results["references"][name] = {"value": average.mean, "unit": wanted}
        else:
            results["observables"][name] = average.as_dict(wanted)
            results["reasons"][name] = average.reason
    return results
