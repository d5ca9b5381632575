#!/usr/bin/env python
"""Frames of the Zundel cation for free-energy perturbation, sampled with the potential, with their reference energies.

Needs comitia with i-PI and PySCF. Everything intermediate goes to a work folder, and every step goes on where it was
stopped:

    python make_perturbation.py all --work WORK --workers 2

or step by step

    python make_perturbation.py sample --work WORK              # the fit of study.yaml, and dynamics of both samples
    python make_perturbation.py label  --work WORK --workers 2  # energies of all beads, by every reference
    python make_perturbation.py write  --work WORK              # perturbation.xyz.xz and perturbation.safetensors

Energies are in eV, positions in Å, rounded to five decimals (what i-PI writes) before anything is evaluated on them.
"""

import argparse
import io
import lzma
import os
import shutil
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy and PySCF: one process is one core

import ase
import ase.io
import numpy as np

from comitia.engines.force_engines import EngineOptions
from comitia.engines.ipi_files import bead_files
from comitia.engines.ipi_trajectory import read_trajectory
from comitia.engines.references import reference_energies
from comitia.files import file_hash, write_atomic
from comitia.settings import read_yaml
from comitia.structures import read_template

HERE = Path(__file__).resolve().parent
STUDY = HERE.parent
DECIMALS = 5
TEMPERATURE = 300.0  # K

# input of i-PI, steps, first frame that is used, steps between two of them
SAMPLES = {
    "classical": ("classical.xml", 160_000, 10_000, 1000),
    "quantum": ("pimd.xml", 30_000, 4_000, 500),
}


def references():
    """The reference methods of the study: name -> what computes it."""
    return {name: given["with"] for name, given in read_yaml(STUDY / "study.yaml")["perturb"]["references"].items()}


def sample(work):
    """`WORK/model.safetensors` from the fit of the study, and dynamics with it in `WORK/run_NAME`."""
    model = work / "model.safetensors"
    comitia = [sys.executable, "-m", "comitia.cli"]
    if not model.exists():
        (work / "fit.yaml").write_text("data: zundel_train.xyz.xz\ntest: {file: zundel_holdout.xyz.xz}\ncutoff: 5.0\n")
        for name in ("zundel_train.xyz.xz", "zundel_holdout.xyz.xz"):
            shutil.copy(HERE / name, work)
        subprocess.run([*comitia, "fit", str(work / "fit.yaml"), "-o", str(model)], check=True)
    for name, (path, steps, _, _) in SAMPLES.items():
        command = [
            *comitia,
            "sample",
            str(STUDY / path),
            "--model",
            str(model),
            "--steps",
            str(steps),
            "--threads",
            "1",
        ]
        subprocess.run([*command, "--directory", str(work / f"run_{name}")], check=True)


def frames(work):
    """Every bead of every frame, in order: ase.Atoms that say their `sample`, `step` and `bead`."""
    numbers, found = read_template(STUDY / "zundel.xyz").numbers, []
    for name, (path, _, first, every) in SAMPLES.items():
        trajectory = read_trajectory(bead_files(work / f"run_{name}" / f"{Path(path).stem}.pos.xyz"))
        for step, beads in zip(trajectory.steps, np.round(trajectory.positions, DECIMALS), strict=True):
            if step >= first and (step - first) % every == 0:
                for bead, positions in enumerate(beads):
                    info = {"sample": name, "step": int(step), "bead": bead, "temperature": TEMPERATURE}
                    found.append(ase.Atoms(numbers, positions, info=info))
    return found


def energies(work, n_workers):
    """Energies of all frames by every reference, eV; kept in `WORK/NAME.references` as they come."""
    options = EngineOptions(n_workers=n_workers)
    return {
        name: reference_energies(frames(work), engine, work / f"{name}.references", options=options).energies
        for name, engine in references().items()
    }


def write(work, n_workers):
    """The files beside this script."""
    import comitia

    model = work / "model.safetensors"
    potential, sha256 = comitia.load(model), file_hash(model)
    images = frames(work)
    predictions = potential.compute(images)
    found = {f"{name}_energy": values for name, values in energies(work, n_workers).items()}
    found["model_energy"] = [prediction.energy for prediction in predictions]
    for number, atoms in enumerate(images):
        atoms.info |= {key: f"{values[number]:.7f}" for key, values in found.items() if np.isfinite(values[number])}
        atoms.info["model_sha256"] = sha256
    text = io.StringIO()
    for atoms in images:
        comment = " ".join(f"{key}={value}" for key, value in atoms.info.items())
        text.write(f'{len(atoms)}\nProperties=species:S:1:pos:R:3 pbc="F F F" {comment}\n')
        for symbol, (x, y, z) in zip(atoms.symbols, atoms.positions, strict=True):
            text.write(f"{symbol} {x:.{DECIMALS}f} {y:.{DECIMALS}f} {z:.{DECIMALS}f}\n")
    write_atomic(HERE / "perturbation.xyz.xz", lzma.compress(text.getvalue().encode(), preset=9))
    shutil.copy(model, HERE / "perturbation.safetensors")
    print(f"perturbation.xyz.xz: {len(images)} structures, {(HERE / 'perturbation.xyz.xz').stat().st_size} bytes")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=["all", "sample", "label", "write"])
    parser.add_argument("--work", type=Path, required=True, help="folder for everything intermediate")
    parser.add_argument("--workers", type=int, default=1, help="processes that compute reference energies")
    arguments = parser.parse_args()
    work = arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    if arguments.task in ("all", "sample"):
        sample(work)
    if arguments.task in ("all", "label"):
        energies(work, arguments.workers)
    if arguments.task in ("all", "write"):
        write(work, arguments.workers)


if __name__ == "__main__":
    main()
