"""`comitia label` drives real electronic structure programs; what they say equals what they say by themselves."""

import os
import re
import shutil
import subprocess
import threading
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.io import read, write
from models import crystal
from numpy.testing import assert_allclose

from comitia.engines.force_engines import EngineOptions
from comitia.engines.labels import label_file
from comitia.units import BOHR, HARTREE

PSEUDOPOTENTIALS = Path("/usr/share/espresso/pseudo")
ESPRESSO = """&control
 prefix='si' outdir='./tmp' pseudo_dir='{pseudopotentials}' tprnfor=.true. tstress=.true.
/
&system
 ibrav=0 nat=2 ntyp=1 ecutwfc=12 nosym=.true.
/
&electrons
 conv_thr=1d-14
/
ATOMIC_SPECIES
Si 28.0855 Si.pz-vbc.UPF
K_POINTS automatic
2 2 2 0 0 0
CELL_PARAMETERS bohr
{cell}
ATOMIC_POSITIONS bohr
{positions}
"""
CP2K = """&GLOBAL
 RUN_TYPE {run}
 PRINT_LEVEL LOW
&END
&MOTION
 &DRIVER
  HOST {name}
  PORT 1
  UNIX
 &END
&END
&FORCE_EVAL
 METHOD FIST
 STRESS_TENSOR ANALYTICAL
 &MM
  &FORCEFIELD
   &NONBONDED
    &LENNARD-JONES
     ATOMS Ar Ar
     EPSILON [hartree] 4e-4
     SIGMA [bohr] 6.4
     RCUT [bohr] 10.0
    &END
   &END
   &CHARGE
    ATOM Ar
    CHARGE 0.0
   &END
  &END
  &POISSON
   &EWALD
    EWALD_TYPE NONE
   &END
  &END
 &END
 &PRINT
  &FORCES
   NDIGITS 12
  &END
  &STRESS_TENSOR
  &END
 &END
 &SUBSYS
  &CELL
   A [bohr] {a}
   B [bohr] {b}
   C [bohr] {c}
  &END
  &COORD
   UNIT bohr
{positions}
  &END
  &TOPOLOGY
   CONNECTIVITY OFF
  &END
 &END
&END
"""
GIGAPASCAL = HARTREE / BOHR**3 / 29421.02648438959  # eV/Å³, of the hartree and the bohr that CP2K converts with


def rows(values, start=""):
    return "\n".join(start + " ".join(f"{x:.17g}" for x in row) for row in values)


def silicon(n=3):
    """Two atoms in a sheared cell of any orientation, moved a little."""
    rng = np.random.default_rng(3)
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    cell = np.array([[0, 2.7, 2.75], [2.72, 0, 2.7], [2.7, 2.65, 0]]) @ rotation
    frames = []
    for _ in range(n):
        atoms = Atoms("Si2", scaled_positions=[[0, 0, 0], [0.26, 0.25, 0.24]], cell=cell, pbc=True)
        atoms.positions += 0.05 * rng.normal(size=(2, 3))
        frames.append(atoms)
    return frames


def argon(n=3):
    """A crystal, in a cell of another shape and orientation each."""
    rng, frames = np.random.default_rng(5), []
    for seed in range(n):
        atoms = crystal((18,), (2, 2, 2), rattle=0.15, seed=seed)
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.04 * rng.normal(size=(3, 3))), scale_atoms=True)
        frames.append(atoms)
    return frames


def in_standard_orientation(atoms):
    """What workers are started with: all cells are sent to them so, and pw.x is silently wrong by eV for others."""
    atoms = atoms.copy()
    atoms.set_cell(atoms.cell.standard_form()[0], scale_atoms=True)
    return atoms


def pool(folder, frames):
    """The frames as the file of them has them."""
    write(folder / "pool.xyz", frames, format="extxyz")
    return read(folder / "pool.xyz", ":")


def label(folder, name, command):
    """Labels of the pool by a program that is started when our socket is there."""
    running = []

    def start():
        while not Path(f"/tmp/ipi_{name}").exists():
            time.sleep(0.02)
        log = subprocess.DEVNULL
        running.append(subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, env=environment()))

    thread = threading.Thread(target=start)
    thread.start()
    try:
        options = EngineOptions(wait=60.0)
        report = label_file(folder / "pool.xyz", f"unix:{name}", folder / "out.xyz", options, progress=False)
    finally:
        thread.join()
        running[0].wait(30)
    assert report["failed"] == []
    return read(folder / "out.xyz", ":")


def environment():
    return os.environ | {"OMP_NUM_THREADS": "1", "OMPI_MCA_rmaps_base_oversubscribe": "1"}


def check(found, expected):
    for atoms, (energy, forces, stress) in zip(found, expected, strict=True):
        assert_allclose(atoms.get_potential_energy(), energy, rtol=1e-9)
        assert_allclose(atoms.get_forces(), forces, atol=2e-6)
        assert_allclose(atoms.get_stress(voigt=False), stress, atol=1e-7)
        print(
            f"energy within {abs(atoms.get_potential_energy() - energy):.1e} eV, forces "
            f"{np.abs(atoms.get_forces() - forces).max():.1e} eV/Å, stress "
            f"{np.abs(atoms.get_stress(voigt=False) - stress).max():.1e} eV/Å³"
        )


@pytest.mark.skipif(
    shutil.which("pw.x") is None or not (PSEUDOPOTENTIALS / "Si.pz-vbc.UPF").exists(),
    reason="no pw.x; Debian: apt-get install quantum-espresso quantum-espresso-data",
)
def test_quantum_espresso(tmp_path):
    """Energy, forces and stress of pw.x --ipi are those of pw.x on each structure alone, in its own orientation."""
    frames = pool(tmp_path, silicon())

    def espresso(atoms, folder):
        (folder / "pw.in").write_text(
            ESPRESSO.format(
                pseudopotentials=PSEUDOPOTENTIALS,
                cell=rows(atoms.cell.array / BOHR),
                positions=rows(atoms.positions / BOHR, "Si "),
            )
        )
        return ["pw.x", "-in", "pw.in"]

    expected = []
    for number, atoms in enumerate(frames):
        folder = tmp_path / str(number)
        folder.mkdir()
        command = espresso(atoms, folder)
        subprocess.run(command, cwd=folder, check=True, timeout=60, stdout=subprocess.DEVNULL, env=environment())
        output = ElementTree.parse(folder / "tmp" / "si.save" / "data-file-schema.xml").getroot().find("output")
        energy, forces, stress = (
            np.array(output.find(name).text.split(), float) for name in ("total_energy/etot", "forces", "stress")
        )
        # its stress has the other sign
        expected.append(
            (
                energy[0] * HARTREE,
                forces.reshape(2, 3) * HARTREE / BOHR,
                -stress.reshape(3, 3) * HARTREE / BOHR**3,
            )
        )
    name = f"comitia-test-{os.getpid()}"
    command = espresso(in_standard_orientation(frames[0]), tmp_path)
    check(label(tmp_path, name, [*command, "--ipi", f"{name}:UNIX"]), expected)


@pytest.mark.skipif(shutil.which("cp2k.psmp") is None, reason="no cp2k.psmp; Debian: apt-get install cp2k cp2k-data")
def test_cp2k(tmp_path):
    """Its pair potentials: as its driver of i-PI, they are those of CP2K on each structure alone."""
    frames, name = pool(tmp_path, argon()), f"comitia-test-{os.getpid()}"

    def cp2k(atoms, run, folder):
        vectors = rows(atoms.cell.array / BOHR).splitlines()
        positions = rows(atoms.positions / BOHR, "   Ar ")
        (folder / "cp2k.inp").write_text(
            CP2K.format(run=run, name=name, a=vectors[0], b=vectors[1], c=vectors[2], positions=positions)
        )
        return ["cp2k.psmp", "-i", "cp2k.inp", "-o", "cp2k.out"]

    expected = []
    for number, atoms in enumerate(frames):
        folder = tmp_path / str(number)
        folder.mkdir()
        command = cp2k(atoms, "ENERGY_FORCE", folder)
        subprocess.run(command, cwd=folder, check=True, timeout=60, env=environment())
        said = (folder / "cp2k.out").read_text()
        (energy,) = re.findall(r"energy \[a\.u\.\]: +(\S+)", said)
        forces = re.findall(r"^ +\d+ +1 +Ar +(\S+) +(\S+) +(\S+)$", said, re.MULTILINE)
        stress = re.findall(r"^ STRESS\| +[xyz] +(\S+E\S+) +(\S+E\S+) +(\S+E\S+)$", said, re.MULTILINE)
        assert (len(forces), len(stress)) == (32, 3)
        # its stress has the other sign
        expected.append(
            (
                float(energy) * HARTREE,
                np.array(forces, float) * HARTREE / BOHR,
                -np.array(stress, float) * GIGAPASCAL,
            )
        )
    command = cp2k(in_standard_orientation(frames[0]), "DRIVER", tmp_path)
    check(label(tmp_path, name, command), expected)
