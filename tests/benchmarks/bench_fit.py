"""A large fit from data file to model: `python tests/benchmarks/bench_fit.py`.

1000 silicon cells of 96 atoms, strained and rattled, with energies and forces of a pair potential and noise: 96 000
environments, 288 000 forces, 1835 columns, a committee of 16 and five folds, through `comitia fit` in a process of its
own on two threads. Wall clock of the stages, CPU time of the whole, and the peak of the memory beside what the fit says
that it will be. It takes some minutes.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.extxyz import write_xyz

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import models

N_STRUCTURES, N_THREADS, CUTOFF = 1000, 2, 5.0  # Å
NOISE = 0.001, 0.05  # eV/atom, eV/Å
SETTINGS = f"""
data: data.xyz
cutoff: {CUTOFF}
basis: {{radial: bessel, n_max: [12, 10, 6], l_max: [0, 8, 6], max_features: 2000}}
threads: {N_THREADS}
"""


def labelled(n_structures, seed=0):
    """Silicon of 96 atoms each, in four kinds of structures."""
    rng = np.random.default_rng(seed)
    for number in range(n_structures):
        atoms = bulk("Si", "diamond", a=5.43 * rng.uniform(0.96, 1.06), cubic=True).repeat((2, 2, 3))
        atoms.positions += rng.normal(scale=rng.uniform(0.02, 0.25), size=atoms.positions.shape)
        energy, forces = models.pair_energy_and_forces(atoms, CUTOFF)
        energy += NOISE[0] * len(atoms) * rng.normal()
        forces += NOISE[1] * rng.normal(size=forces.shape)
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
        atoms.info["config_type"] = f"kind {number % 4}"
        yield atoms


def measure(n_rounds=1, n_structures=N_STRUCTURES):
    """Times, memory and errors of one fit, whatever the number of rounds."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_xyz(folder / "data.xyz", list(labelled(n_structures)))
        (folder / "FIT.yaml").write_text(SETTINGS)
        before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        command = [sys.executable, "-m", "comitia.cli", "fit", "FIT.yaml", "-o", "m.safetensors", "-q"]
        subprocess.run(command, cwd=folder, check=True)
        wall, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
        report = json.loads((folder / "m.json").read_text())
    return {
        "environments": report["data"]["atoms"],
        "columns": report["features"]["columns"],
        "seconds": wall,
        "cpu_seconds": sum(getattr(after, name) - getattr(before, name) for name in ("ru_utime", "ru_stime")),
        "stages": report["seconds"],
        "memory": report["memory"],
        "refinement_steps": report["regularisation"]["refinement_steps"],
        "errors": report["errors"]["folds"],
    }


def report(results):
    """Print what `measure` found."""
    stages = ", ".join(f"{name} {value:.0f}" for name, value in results["stages"].items() if name != "total")
    memory, errors = results["memory"], results["errors"]
    print(f"{results['environments']} environments, {results['columns']} columns, {N_THREADS} threads")
    print(f"  {results['seconds']:.0f} s ({stages}), {results['cpu_seconds']:.0f} s of CPU time")
    print(f"  memory {memory['peak'] / 2**30:.2f} GiB, said before it began: {memory['estimate'] / 2**30:.2f} GiB")
    print(f"  errors of the folds: {errors['energy']['rmse']:.3f} meV/atom, {errors['forces']['rmse']:.4f} eV/Å")
    print(f"  noise of the labels: {1e3 * NOISE[0]:.3f} meV/atom, {NOISE[1]:.4f} eV/Å")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--structures", type=int, default=N_STRUCTURES, help="of 96 atoms each")
    report(measure(n_structures=parser.parse_args().structures))
