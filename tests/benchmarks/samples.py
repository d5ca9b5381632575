"""The structures of the benchmarks, and the order 2 models that are timed on them; seeds are fixed."""

import lzma
import os
from io import StringIO
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk, molecule

SHARED = Path(os.environ.get("COMITIA_SHARED_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")
D_BLOCK = [*range(21, 31), *range(39, 43), *range(44, 48), *range(71, 75), *range(77, 80)]  # 25 elements, as HEA25


def rattled(atoms, amplitude=0.05):
    """Atoms moved by a normal deviate of `amplitude` Å in each direction."""
    atoms.positions += np.random.default_rng(1).normal(scale=amplitude, size=atoms.positions.shape)
    return atoms


def silicon(edge=4):
    """Diamond, 8 edge³ atoms (512)."""
    return rattled(bulk("Si", "diamond", a=5.43, cubic=True).repeat(edge))


def copper():
    """500 atoms, fcc."""
    return rattled(bulk("Cu", "fcc", a=3.615, cubic=True).repeat(5))


def alloy(n_elements=25):
    """500 atoms on one fcc lattice whatever the number of elements, which are dealt at random."""
    atoms = rattled(bulk("Cu", "fcc", a=4.0, cubic=True).repeat(5))
    atoms.numbers = np.random.default_rng(2).permutation(np.resize(D_BLOCK[:n_elements], len(atoms)))
    return atoms


def read(path):
    """All frames of a compressed extended XYZ file."""
    import ase.io

    with lzma.open(path, "rt") as file:
        return ase.io.read(StringIO(file.read()), ":", format="extxyz")


def water():
    """64 molecules of the liquid: the first frame of the reference set where it is there, else one made here."""
    path = SHARED / "water_deepmd_pbe0ts" / "water64_pbe0ts.xyz.xz"
    return read(path)[0] if path.exists() else water_lattice()


def water_lattice():
    """64 molecules on a cubic lattice at the density of the liquid, turned at random."""
    rng, edge, atoms = np.random.default_rng(4), 12.44, Atoms(cell=[12.44] * 3, pbc=True)
    for place in np.ndindex(4, 4, 4):
        one = molecule("H2O")
        one.rotate(rng.uniform(0, 360), rng.normal(size=3), center="COM")
        one.positions += (np.array(place) + 0.5) * edge / 4 - one.get_center_of_mass()
        atoms += one
    return rattled(atoms, 0.02)


SYSTEMS = {"si512": silicon, "water192": water, "cu500": copper, "alloy25": alloy}
CUTOFF = {"si512": 5.0, "water192": 6.0, "cu500": 5.0, "alloy25": 5.0}  # Å
