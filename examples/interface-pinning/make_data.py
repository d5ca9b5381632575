"""Structures of Stillinger-Weber silicon, crystal, melt and both beside each other, with energy, forces and stress.

    python make_data.py

writes data/; always the same structures, in a minute.
"""

import io
import lzma
from pathlib import Path

import ase
import ase.io
import numpy as np
from ase.calculators.singlepoint import SinglePointCalculator
from ase.units import bar

from comitia.engines.lammps import import_lammps
from comitia.files import write_atomic

HERE = Path(__file__).parent
# cells along each direction, what is melted and from which height on (cells), temperatures in K
RUNS = [
    ((2, 2, 2), "crystal", 100, (300, 900, 1500, 1800)),
    ((2, 2, 2), "melt", -100, (1500, 1700, 1900, 2500, 4000)),
    ((2, 2, 4), "both", 1.99, (1500, 1700, 1900)),
]
FRAMES = 12  # of each run; the last two are for the test
INTERVAL = 400  # steps between them

SETUP = """
units metal
atom_modify map yes
lattice diamond 5.46
region cell block 0 {x} 0 {y} 0 {z}
create_box 1 cell
create_atoms 1 box
mass 1 28.0855
pair_style sw
pair_coeff * * {potential} Si
compute virial all pressure NULL virial
timestep 0.002
region hot block INF INF INF INF {height} INF
group hot region hot
velocity all create {hot} {seed} mom yes
"""
MELT = """
fix move hot nve
fix heat hot langevin 4500 4500 0.1 {seed}
run 2000
unfix heat
fix heat hot langevin 4500 {temperature} 0.1 {seed}
run 2000
unfix heat
unfix move
velocity all create {temperature} {seed} mom yes
"""
MOVE = """
fix move all nph {directions} 0.0 0.0 1.0
fix heat all langevin {temperature} {temperature} 0.5 {seed}
run {n_steps}
unfix move
unfix heat
run 0
"""


def labelled(lmp):
    """The structure as it is, with the energy, the forces and the stress of the potential."""
    n_atoms = lmp.get_natoms()
    order = np.argsort(lmp.numpy.extract_atom("id")[:n_atoms])
    low, high, *_ = lmp.extract_box()
    positions = lmp.numpy.extract_atom("x")[:n_atoms][order] - low
    atoms = ase.Atoms(f"Si{n_atoms}", positions.round(5), cell=np.subtract(high, low), pbc=True)
    pressure = lmp.numpy.extract_compute("virial", 0, 1)[[0, 1, 2, 5, 4, 3]]  # xx yy zz yz xz xy, bar
    forces = lmp.numpy.extract_atom("f")[:n_atoms][order].round(5)
    labels = {"energy": lmp.get_thermo("pe"), "forces": forces, "stress": -pressure * bar}
    atoms.calc = SinglePointCalculator(atoms, **labels)
    return atoms


def sample(cells, name, height, temperature, seed):
    """Structures of one run."""
    lmp = import_lammps().lammps(cmdargs=["-log", "none", "-screen", "none"])
    facts = dict(zip("xyz", cells, strict=True)) | {
        "height": height,
        "potential": HERE / "silicon.sw",
        "hot": 2 * temperature,  # half of it goes into the potential energy
        "temperature": temperature,
        "directions": "z" if name == "both" else "iso",
        "n_steps": INTERVAL,
    }
    lmp.commands_string(SETUP.format(seed=seed, **facts))
    if name != "crystal":
        lmp.commands_string(MELT.format(seed=seed, **facts))
    structures = []
    for frame in range(FRAMES):
        lmp.commands_string(MOVE.format(seed=seed + 1000 * frame, **facts))
        structures.append(labelled(lmp))
        structures[-1].info["config_type"] = f"{name}_{temperature}"
    lmp.close()
    return structures


def main():
    """Write data/train.xyz.xz and data/test.xyz.xz."""
    runs = [(*run, temperature) for *run, temperatures in RUNS for temperature in temperatures]
    sampled = [sample(*run, seed) for seed, run in enumerate(runs, start=1)]
    for name, part in (("train", slice(-2)), ("test", slice(-2, None))):
        text = io.StringIO()
        ase.io.write(text, [atoms for structures in sampled for atoms in structures[part]], format="extxyz")
        write_atomic(HERE / "data" / f"{name}.xyz.xz", lzma.compress(text.getvalue().encode()))


if __name__ == "__main__":
    main()
