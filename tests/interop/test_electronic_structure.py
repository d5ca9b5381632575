"""`comitia label` drives real electronic structure programs; what they say equals what they say by themselves."""

import os
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


def label(folder, name, frames, command):
    """Labels of the frames by a program that is started when our socket is there."""
    write(folder / "pool.xyz", frames, format="extxyz")
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
    frames = silicon()

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
    standard = frames[0].copy()  # workers are sent cells in the standard orientation: they must be started with it
    standard.set_cell(standard.cell.standard_form()[0], scale_atoms=True)
    name = f"comitia-test-{os.getpid()}"
    check(label(tmp_path, name, frames, [*espresso(standard, tmp_path), "--ipi", f"{name}:UNIX"]), expected)
