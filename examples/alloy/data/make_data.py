#!/usr/bin/env python
"""Data of the alloy, labelled by LAMMPS: random solid solutions, then frames of exchanges with fits to what was there.

    python make_data.py --work WORK      # minutes; goes on where it was stopped

Writes alloy.data (LAMMPS) and ../alloy.xyz (i-PI), the random alloy that every simulation starts from, and
alloy_train.xyz.xz, alloy_validation.xyz.xz and alloy_test.xyz.xz.
"""

import argparse
import io
import lzma
import subprocess
import sys
from pathlib import Path

import ase.io
import numpy as np
import yaml
from ase import Atoms
from ase.geometry import cellpar_to_cell

from comitia.engines.ipi_files import bead_files
from comitia.engines.ipi_trajectory import read_trajectory
from comitia.files import write_atomic
from comitia.settings import read_yaml

HERE = Path(__file__).resolve().parent
ELEMENTS, OF_EACH, REPEATED = ("Co", "Ni", "Fe", "V", "Al"), 16, (5, 4, 2)
LATTICE = 3.71  # Å, near zero pressure at 1200 K
N_RANDOM = 100
# exchanges one after the other, each with a fit to all that was labelled before: steps, first step and stride of frames
ROUNDS = {"first": (1500, 300, 60), "second": (4000, 400, 30)}
PARTS = {"train": 2800, "validation": 3400, "test": 4000}  # steps of the last round at which each part ends
FIT_MEMBERS = 4
DIGITS = {"positions": 4, "forces": 4, "virial": 4, "energy": 5}


def random_alloy(rng, lattice):
    """Five elements at random on the sites of a face-centred cubic crystal, in the order that all files keep."""
    sites = [[0, 0, 0], [0.5, 0.5, 0.5]]
    edges = lattice * np.array([np.sqrt(0.5), np.sqrt(0.5), 1.0])
    atoms = Atoms("X2", scaled_positions=sites, cell=edges, pbc=True).repeat(REPEATED)
    atoms.positions = atoms.positions[rng.permutation(len(atoms))]
    atoms.symbols = np.repeat(ELEMENTS, OF_EACH)
    return atoms


def distorted(atoms, rng):
    """A cell strained by up to 1 % and atoms moved by up to 0.14 Å (standard deviation)."""
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + rng.uniform(-0.01, 0.01, (3, 3))), scale_atoms=True)
    atoms.positions += rng.normal(scale=rng.uniform(0.05, 0.14), size=atoms.positions.shape)
    atoms.set_cell(atoms.cell.standard_form()[0], scale_atoms=True)  # as i-PI sends cells
    atoms.info["config_type"] = "random"
    return atoms


def comitia(work, *arguments):
    subprocess.run([sys.executable, "-m", "comitia.cli", *map(str, arguments)], cwd=work, check=True)


def label(work, frames, name):
    """The labelled structures, from the file NAME_labelled.xyz where it is there; as rounded as they are stored."""
    labelled = work / f"{name}_labelled.xyz"
    if not labelled.is_file():
        for atoms in frames:
            atoms.positions = np.round(atoms.positions, DIGITS["positions"])
        ase.io.write(work / f"{name}.xyz", frames)
        comitia(work, "label", f"{name}.xyz", "--with", f"lammps:{HERE / 'label.in'}", "-o", labelled.name)
    return ase.io.read(labelled, ":")


def fit(work, structures, name):
    """A model as the study has it, of the structures."""
    ase.io.write(work / f"{name}.xyz", structures)
    settings = read_yaml(HERE.parent / "study.yaml")["fit"] | {"data": f"{name}.xyz", "members": FIT_MEMBERS}
    del settings["validation"], settings["test"]
    (work / f"{name}.yaml").write_text(yaml.safe_dump(settings))
    comitia(work, "fit", f"{name}.yaml", "-o", f"{name}.safetensors")


def sampled_frames(work, structures, start, name):
    """Frames of every replica of an exchange with a fit to the structures, in the order of their steps."""
    if not (work / f"{name}_fit.safetensors").is_file():
        fit(work, structures, f"{name}_fit")
    steps, first, stride = ROUNDS[name]
    given = [HERE.parent / "exchange.xml", "-m", f"{name}_fit.safetensors", "--steps", steps]
    comitia(work, "sample", *given, "--directory", name, "--threads", 1)
    frames = []
    for path in sorted((work / name).glob("*_alloy.pos_0.xyz")):
        trajectory = read_trajectory(bead_files(path))
        for row in np.flatnonzero((trajectory.steps % stride == 0) & (trajectory.steps > first)):
            cell = cellpar_to_cell(trajectory.cell_parameters[row])
            atoms = Atoms(start.numbers, trajectory.positions[row, 0], cell=cell, pbc=True)
            atoms.info |= {"config_type": name, "step": int(trajectory.steps[row])}
            frames.append(atoms)
    return sorted(frames, key=lambda atoms: atoms.info["step"])


def write_compressed(path, frames):
    """Extended XYZ with the digits that matter: a script may write it again byte by byte."""
    text = io.StringIO()
    for atoms in frames:
        atoms.arrays["forces"] = np.round(atoms.get_forces(), DIGITS["forces"])
        atoms.info |= {
            "energy": round(atoms.get_potential_energy(), DIGITS["energy"]),
            "virial": np.round(virial(atoms), DIGITS["virial"]),
        }
        atoms.calc = None
        ase.io.write(text, atoms, format="extxyz")
    digits = text.getvalue().replace("0000 ", " ").replace("0000\n", "\n")  # ASE writes eight, of which these are zero
    write_atomic(path, lzma.compress(digits.encode(), preset=9))


def virial(atoms):
    return -atoms.get_stress(voigt=False) * atoms.get_volume()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of everything intermediate")
    work = parser.parse_args().work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(11)
    alloys = [distorted(random_alloy(rng, rng.uniform(3.66, 3.78)), rng) for _ in range(N_RANDOM)]
    start = random_alloy(np.random.default_rng(12), LATTICE)
    ase.io.write(HERE / "alloy.data", start, format="lammps-data", specorder=list(ELEMENTS), masses=True)
    ase.io.write(HERE.parent / "alloy.xyz", start)
    known = label(work, alloys, "random")
    for name in ROUNDS:
        found = [] if (work / f"{name}_labelled.xyz").is_file() else sampled_frames(work, known, start, name)
        known += label(work, found, name)
    begin = 0
    for part, end in PARTS.items():
        of_part = [a for a in known if begin < (a.info["step"] if a.info["config_type"] == name else 1) <= end]
        write_compressed(HERE / f"alloy_{part}.xyz.xz", of_part)
        begin = end


if __name__ == "__main__":
    main()
