"""What an i-PI input says of a simulation, and the frames that the simulation wrote."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from comitia.engines.ipi_files import bead_files, run_facts
from comitia.engines.ipi_input import IpiInput
from comitia.engines.ipi_output import common_steps, read_committee, read_properties
from comitia.engines.ipi_structure import read_initial_structure
from comitia.engines.ipi_trajectory import read_trajectory
from comitia.errors import SeriesError, SettingsError
from comitia.study.observables import SampledRun


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
    """

    path: Path
    files: list[Path]
    total_steps: int
    properties: str
    positions: str
    committee: str
    printed: list[str]

    @property
    def structure(self):
        """The file that holds the atoms."""
        return self.files[0]


def read_simulation(path):
    """What a study needs to know of the i-PI input `path`.

    Raises
    ------
    SettingsError
        if it is not XML, or does not print what a study reads.
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
        next(_names(e) for e in output.iter("properties") if "step" in _names(e)),
    )


def read_run(name, simulation, folder, first_step):
    """The frames of a sample from step `first_step` on, aligned by step number.

    Parameters
    ----------
    name : str, of the sample
    simulation : Simulation
    folder : Path, where i-PI ran
    first_step : int

    Returns
    -------
    SampledRun
    """
    from ase.geometry import cellpar_to_cell

    folder = Path(folder)
    properties = read_properties(folder / simulation.properties)
    committee = read_committee(bead_files(folder / simulation.committee))
    trajectory = read_trajectory(bead_files(folder / f"{simulation.positions}.xyz"))
    facts = run_facts(folder / simulation.properties)
    if facts.temperature is None:
        raise SeriesError(f"{folder}: RESTART does not say one temperature; a study averages over one ensemble")
    steps, rows = common_steps(
        {"properties": properties.steps, "committee_pot": committee.steps, "positions": trajectory.steps}
    )
    used = steps >= first_step
    if not used.any():
        raise SeriesError(f"{folder}: no frame after step {first_step} (the last is {steps[-1]}); sample longer")
    rows = {series: index[used] for series, index in rows.items()}
    atoms = read_initial_structure(simulation.structure)
    return SampledRun(
        name=name,
        temperature=facts.temperature,
        numbers=atoms.numbers,
        pbc=np.array(atoms.pbc),
        steps=steps[used],
        member_energies=committee.values[rows["committee_pot"]].mean(axis=1),
        properties={
            column.label.split("{")[0].strip(): (column.values[rows["properties"]], column.unit)
            for column in properties.columns
            if column.values.ndim == 1
        },
        positions=trajectory.positions[rows["positions"]],
        cells=np.array([cellpar_to_cell(cell) for cell in trajectory.cell_parameters[rows["positions"]]]),
    )
