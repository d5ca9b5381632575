"""What an i-PI input says of a simulation, and the frames that the simulation wrote."""

import functools
import re
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from comitia.engines.ipi_files import bead_files, run_facts
from comitia.engines.ipi_input import IpiInput
from comitia.engines.ipi_output import common_steps, read_committee, read_properties
from comitia.engines.ipi_structure import read_initial_structure
from comitia.engines.ipi_trajectory import read_trajectory
from comitia.engines.plumed import grows
from comitia.engines.replica_exchange import find_exchange
from comitia.errors import SeriesError, SettingsError
from comitia.study.observables import SampledRun, unit_factor

BIAS = "ensemble_bias"
"""The property that holds the energy of the bias, averaged over beads."""


def _names(element):
    """Names in a <properties> element such as `[ step, potential{electronvolt}, kinetic_cv(6) ]`, without units."""
    listed = (element.text or "").strip().strip("[]")
    return [re.sub(r"\{.*", "", name).strip() for name in re.split(r",(?![^(]*\))", listed)]


@dataclass(frozen=True)
class Simulation:
    """Names in an i-PI input.

    Attributes
    ----------
    path : Path of the XML file
    files : paths of the files that it reads, the first structure first
    total_steps : int
    properties, positions, committee : names of the output that a study reads, with their prefix
    printed : names of the properties in that file, without units
    replicas : prefixes of the output of each replica of a replica exchange; empty for any other run
    temperatures : of its ensembles, K, in increasing order
    biased : whether a bias acts beside the potential
    """

    path: Path
    files: list[Path]
    total_steps: int
    properties: str
    positions: str
    committee: str
    printed: list[str]
    replicas: tuple[str, ...] = ()
    temperatures: tuple[float, ...] = ()
    biased: bool = False

    @property
    def structure(self):
        """The file that holds the atoms."""
        return self.files[0]

    def ensembles(self, name):
        """What the ensembles of a sample `name` are called: as itself, or in an exchange by their temperatures."""
        return [ensemble_name(name, temperature) for temperature in self.temperatures] if self.replicas else [name]


def read_simulation(path):
    """What a study needs to know of the i-PI input `path`.

    Raises
    ------
    SettingsError
        if it is not XML, does not print what a study reads, or has a bias that grows.
    """
    given = IpiInput(path)
    structure = given.structure_file()
    if structure is None:
        raise SettingsError(f"{path}: names no structure file; a study starts from one, not from a RESTART")
    output = given.root.find("output")
    if output is None:
        raise SettingsError(f"{path}: has no <output>; see the templates in inputs/")
    named = [
        given.find_file((element.text or "").strip())
        for tag in ("file", "plumed_dat")
        for element in given.root.iter(tag)
    ]
    files = [structure[0], *(found for found in named if found not in (None, structure[0]))]

    def printed(tag, what, fits):
        for element in output.iter(tag):
            if fits(element):
                return f"{given.prefix}.{element.get('filename', '').strip()}"
        raise SettingsError(f"{path}: <output> prints no {what}, which a study needs; see the templates in inputs/")

    def every_bead(element):
        return element.get("bead", "-1").strip() == "-1"

    properties = printed("properties", "properties with step", lambda e: "step" in _names(e))
    replicas = given.replicas() if given.exchanges_replicas else {}
    columns = next(_names(e) for e in output.iter("properties") if "step" in _names(e))
    biased = given.root.find(".//ensemble/bias/force") is not None
    if biased and BIAS not in columns:
        raise SettingsError(f"{path}: has a <bias>; print {BIAS}{{electronvolt}}, by which averages are freed of it")
    growing = [file for file in named if file is not None and biased and grows(file)]
    if growing:
        raise SettingsError(
            f"{growing[0]}: the bias grows, so that its energy is not the weight of a frame; a study takes one that "
            "stays (RESTRAINT, walls); for this one there is comitia reweight --bias"
        )
    return Simulation(
        given.path,
        files,
        given.total_steps,
        properties,
        printed(
            "trajectory",
            "positions of every bead",
            lambda e: (e.text or "").strip().startswith("positions") and every_bead(e),
        ),
        printed(
            "trajectory",
            "committee_pot of every bead",
            lambda e: e.get("extra_type", "").strip() == "committee_pot" and every_bead(e),
        ),
        columns,
        tuple(f"{prefix}_" for prefix in replicas),
        tuple(sorted(replicas.values())),
        biased,
    )


@dataclass(frozen=True)
class _Frames:
    """What one replica, or a run without any, wrote at the steps that all its files have."""

    steps: np.ndarray
    member_energies: np.ndarray
    properties: dict
    positions: np.ndarray
    cells: np.ndarray

    def take(self, rows):
        """These frames alone."""
        properties = {name: (values[rows], unit) for name, (values, unit) in self.properties.items()}
        return _Frames(self.steps[rows], self.member_energies[rows], properties, self.positions[rows], self.cells[rows])


def _read_frames(simulation, folder, replica, first_step):
    from ase.geometry import cellpar_to_cell

    properties = read_properties(folder / f"{replica}{simulation.properties}")
    committee = read_committee(bead_files(folder / f"{replica}{simulation.committee}"))
    trajectory = read_trajectory(bead_files(folder / f"{replica}{simulation.positions}.xyz"))
    steps, rows = common_steps(
        {"properties": properties.steps, "committee_pot": committee.steps, "positions": trajectory.steps}
    )
    used = steps >= first_step
    if not used.any():
        raise SeriesError(f"{folder}: no frame after step {first_step} (the last is {steps[-1]}); sample longer")
    rows = {series: index[used] for series, index in rows.items()}
    return _Frames(
        steps[used],
        committee.values[rows["committee_pot"]].mean(axis=1),
        {
            column.label.split("{")[0].strip(): (column.values[rows["properties"]], column.unit)
            for column in properties.columns
            if column.values.ndim == 1
        },
        trajectory.positions[rows["positions"]],
        np.array([cellpar_to_cell(cell) for cell in trajectory.cell_parameters[rows["positions"]]]),
    )


def _of_ensemble(replicas, exchange, number):
    """Frames of one ensemble, which the replicas were in by turns, in the order of their steps."""
    steps = functools.reduce(np.intersect1d, [frames.steps for frames in replicas])
    inside = exchange.replica_of(number, steps)
    own = [frames.take(np.searchsorted(frames.steps, steps[inside == r])) for r, frames in enumerate(replicas)]
    order = np.argsort(np.concatenate([frames.steps for frames in own]))

    def joined(of):
        return np.concatenate([of(frames) for frames in own])[order]

    return _Frames(
        joined(lambda f: f.steps),
        joined(lambda f: f.member_energies),
        {
            name: (joined(lambda f, name=name: f.properties[name][0]), unit)
            for name, (_, unit) in replicas[0].properties.items()
        },
        joined(lambda f: f.positions),
        joined(lambda f: f.cells),
    )


def ensemble_name(name, temperature):
    """What the part of a replica exchange at one temperature, K, is called in the results."""
    return f"{name}_{temperature:g}K"


def of_ensembles(observables, simulations):
    """The observables of single ensembles: those of a replica exchange are one for each of its temperatures.

    Parameters
    ----------
    observables : dict of comitia.study.settings.Observable by name
    simulations : dict of Simulation by name

    Returns
    -------
    observables : dict by name, to which the temperature is added where there are several
    against_temperature : dict, the names there of each that is a function of temperature, with the temperatures, K
    """
    single, curves = {}, {}
    for name, observable in observables.items():
        source, other = observable.source, observable.relative_to
        if other is not None and (simulations[source].replicas or simulations[other].replicas):
            raise SettingsError(f"observables.{name}: a free energy needs samples of one temperature, not an exchange")
        if not simulations[source].replicas:
            single[name] = observable
            continue
        names = simulations[source].ensembles(name)
        curves[name] = {"temperatures": list(simulations[source].temperatures), "names": names}
        for own, ensemble in zip(names, simulations[source].ensembles(source), strict=True):
            single[own] = msgspec.structs.replace(observable, source=ensemble)
    return single, curves


def _bias(simulation, properties):
    """Energy of the bias, eV, or None."""
    if not simulation.biased:
        return None
    values, unit = properties[BIAS]
    return values * unit_factor(unit, "eV", f"{simulation.path}: {BIAS}")


def read_runs(name, simulation, folder, first_step):
    """The frames of a sample from step `first_step` on, aligned by step number.

    Parameters
    ----------
    name : str, of the sample
    simulation : Simulation
    folder : Path, where i-PI ran
    first_step : int

    Returns
    -------
    dict of SampledRun by name: one of the sample's own, or one for each temperature of a replica exchange
    """
    folder, atoms = Path(folder), read_initial_structure(simulation.structure)
    frames = [_read_frames(simulation, folder, replica, first_step) for replica in simulation.replicas or ("",)]
    if simulation.replicas:
        exchange = find_exchange(folder / f"{simulation.replicas[0]}{simulation.properties}")
        if exchange is None:
            raise SeriesError(f"{folder}: RESTART is not there, which says what the ensembles were; sample again")
        ensembles = [exchange.ensemble(temperature) for temperature in simulation.temperatures]
        found = {
            ensemble_name(name, temperature): (temperature, _of_ensemble(frames, exchange, ensemble.number))
            for temperature, ensemble in zip(simulation.temperatures, ensembles, strict=True)
        }
    else:
        facts = run_facts(folder / simulation.properties)
        if facts.temperature is None:
            raise SeriesError(f"{folder}: RESTART does not say one temperature; a study averages over one ensemble")
        found = {name: (facts.temperature, frames[0])}
    return {
        key: SampledRun(
            name=key,
            temperature=temperature,
            numbers=atoms.numbers,
            pbc=np.array(atoms.pbc),
            steps=own.steps,
            member_energies=own.member_energies,
            properties=own.properties,
            positions=own.positions,
            cells=own.cells,
            bias=_bias(simulation, own.properties),
        )
        for key, (temperature, own) in found.items()
    }
