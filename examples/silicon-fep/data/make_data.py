#!/usr/bin/env python
"""Silicon by LDA with pw.x, driven over the i-PI protocol by `comitia label`: training data, frames, a direct answer.

Needs comitia with i-PI, and Quantum ESPRESSO (Debian: quantum-espresso, quantum-espresso-data). Everything intermediate
goes to a work folder, and every step skips what is there, so the script may be stopped and started again:

    python make_data.py all --work WORK

or step by step

    python make_data.py train  --work WORK   # rattled and strained cells, and cells from dynamics of a first fit
    python make_data.py frames --work WORK   # the model, dynamics of both states with it, LDA energies of some frames
    python make_data.py direct --work WORK   # Markov chains in the ensemble of LDA itself, for the direct answer
    python make_data.py write  --work WORK   # *.xyz.xz and direct.json beside this script

One pw.x works for everything of a step, started with the same cell always: it keeps the plane waves of that cell while
the volume is within 10 % of it, so that one and the same function of positions and cell is learnt, corrected to and
sampled directly. (`vc-relax` only makes it keep room for cells that shrink; nothing is relaxed.)
"""

import argparse
import contextlib
import io
import json
import lzma
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import ase.io
import numpy as np
from ase import Atoms
from ase.build import bulk

from comitia.files import file_hash, write_atomic
from comitia.units import KB

HERE = Path(__file__).resolve().parent
STUDY = HERE.parent
TEMPERATURE = 600.0  # K
LATTICE = {"equilibrium": 5.40, "expanded": 5.48}  # Å, of the two states
START_CELL = 5.44  # Å, of pw.x
N_RATTLED, N_SAMPLED, N_TEST = 80, 40, 20
N_FRAMES = 60  # of each state, for the perturbation
N_CHAIN, TRAJECTORY, TIME_STEP = 100, 40, 4.0  # of each state, steps between two of them, fs
N_BURN = 8  # states at the start of a chain that are not used
DECIMALS = 6  # of positions, Å, rounded before they are labelled

ESPRESSO = """&control
 calculation='vc-relax' prefix='si' outdir='./tmp' pseudo_dir='{pseudopotentials}' tprnfor=.true. tstress=.true.
 disk_io='none'
/
&system
 ibrav=0 nat=2 ntyp=1 ecutwfc=12 nosym=.true. nbnd=8 occupations='smearing' smearing='gaussian' degauss=0.02
/
&electrons
 conv_thr=1d-9
/
&ions
/
&cell
 cell_factor=1.6
/
ATOMIC_SPECIES
Si 28.0855 Si.pz-vbc.UPF
K_POINTS automatic
2 2 2 0 0 0
CELL_PARAMETERS angstrom
{cell}
ATOMIC_POSITIONS angstrom
{positions}
"""


def diamond(lattice):
    """The primitive cell of two atoms, its first vector along x; lattice constant in Å."""
    atoms = bulk("Si", "diamond", a=lattice)
    atoms.set_cell(np.round(atoms.cell.standard_form()[0], DECIMALS), scale_atoms=True)
    return atoms


def rounded(atoms):
    """The atoms as they are given to pw.x and kept in files, the first vector of the cell along x."""
    atoms = Atoms(atoms.numbers, scaled_positions=atoms.get_scaled_positions(wrap=False), cell=atoms.cell, pbc=True)
    atoms.set_cell(np.round(atoms.cell.standard_form()[0], DECIMALS), scale_atoms=True)
    atoms.positions = np.round(atoms.positions, DECIMALS)
    return atoms


# ---------------------------------------------------------------------------------------------------- pw.x
def espresso_input():
    """The input of pw.x: the method, and the cell that fixes its plane waves."""
    atoms = diamond(START_CELL)

    def rows(values, start=""):
        return "\n".join(start + " ".join(f"{x:.10f}" for x in row) for row in values)

    pseudopotentials = os.environ.get("ESPRESSO_PSEUDO", "/usr/share/espresso/pseudo")
    given = {"cell": rows(atoms.cell.array), "positions": rows(atoms.positions, "Si ")}
    return ESPRESSO.format(pseudopotentials=pseudopotentials, **given)


@contextlib.contextmanager
def espresso(name, work):
    """pw.x as a worker of the socket `name`, which must be there."""
    folder = work / f"pw-{name}"
    folder.mkdir(exist_ok=True)
    (folder / "pw.in").write_text(espresso_input())
    with open(folder / "pw.out", "w") as out:
        command = ["pw.x", "-in", "pw.in", "--ipi", f"{name}:UNIX"]
        process = subprocess.Popen(command, cwd=folder, stdout=out, stderr=out)
        try:
            yield process
        finally:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
            process.kill()


def label(pool, labelled, work):
    """Energies, forces and virials of the structures in the file `pool`, with `comitia label` and pw.x."""
    if labelled.exists():
        return
    name, ready = "comitia-silicon-data", work / "ready"
    command = [sys.executable, "-m", "comitia.cli", "label", str(pool), "--with", f"unix:{name}", "-o", str(labelled)]
    ready.unlink(missing_ok=True)
    with subprocess.Popen([*command, "--ready-file", str(ready), "--quiet"]) as process:
        while not ready.exists() and process.poll() is None:
            time.sleep(0.1)
        with espresso(name, work):
            if process.wait() != 0:
                raise SystemExit(f"comitia label {pool} ended with {process.returncode}")


# ------------------------------------------------------------------------------------------- training data
def rattled(seed, count):
    """Cells of both states and around them, strained by about 1 %, atoms moved by 0.02 to 0.15 Å."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(count):
        atoms = diamond(rng.uniform(5.34, 5.54))
        strain = 0.01 * rng.normal(size=(3, 3)) * rng.uniform()
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + (strain + strain.T) / 2), scale_atoms=True)
        atoms.positions += rng.uniform(0.02, 0.15) * rng.normal(size=(2, 3))
        atoms.info["config_type"] = "rattled"
        found.append(atoms)
    return found


def write_pool(path, images):
    """Rounded structures with their config_type."""
    if not path.exists():
        kept = []
        for atoms in images:
            kept.append(rounded(atoms))
            kept[-1].info = {key: atoms.info[key] for key in atoms.info if key in ("config_type", "sample", "step")}
        text = io.StringIO()
        ase.io.write(text, kept, format="extxyz")
        write_atomic(path, text.getvalue())


def fit(data, model, members):
    """A committee on the file `data`."""
    if not model.exists():
        settings = model.with_suffix(".yaml")
        settings.write_text(f"data: {data}\ncutoff: 5.0\naccuracy: fast\nmembers: {members}\n")
        subprocess.run([sys.executable, "-m", "comitia.cli", "fit", str(settings), "-o", str(model)], check=True)


def sample(model, state, steps, folder):
    """Dynamics of one state; frames as ase.Atoms with their step."""
    from comitia.engines.ipi_trajectory import read_trajectory

    command = [sys.executable, "-m", "comitia.cli", "sample", str(STUDY / f"{state}.xml"), "--model", str(model)]
    command += ["--directory", str(folder), "--steps", str(steps), "--threads", "1", "--quiet"]
    subprocess.run(command, check=True)
    trajectory = read_trajectory([folder / f"{state}.pos_0.xyz"])
    cell = diamond(LATTICE[state]).cell
    return [
        Atoms("Si2", positions, cell=cell, pbc=True, info={"sample": state, "step": int(step)})
        for step, (positions,) in zip(trajectory.steps, trajectory.positions, strict=True)
    ]


def train(work):
    """`WORK/train.xyz` and `WORK/test.xyz`, labelled."""
    write_pool(work / "pool0.xyz", rattled(1, N_RATTLED))
    label(work / "pool0.xyz", work / "labelled0.xyz", work)
    fit(work / "labelled0.xyz", work / "first.safetensors", 4)
    chosen = {}
    for state in LATTICE:
        frames = sample(work / "first.safetensors", state, 3000, work / f"first-{state}")
        frames = frames[len(frames) // 5 :]
        for n, atoms in enumerate(frames):
            atoms.info["config_type"] = state
            chosen.setdefault("test" if n % 2 else "train", []).append((n, atoms))
    for which, count in (("train", N_SAMPLED), ("test", N_TEST)):
        places = np.linspace(0, len(chosen[which]) - 1, count).astype(int)
        write_pool(work / f"pool-{which}.xyz", [chosen[which][i][1] for i in places])
        label(work / f"pool-{which}.xyz", work / f"labelled-{which}.xyz", work)
    images = ase.io.read(work / "labelled0.xyz", ":") + ase.io.read(work / "labelled-train.xyz", ":")
    ase.io.write(work / "train.xyz", images, format="extxyz")
    shutil.copy(work / "labelled-test.xyz", work / "test.xyz")


# -------------------------------------------------------------------------------- frames for perturbation
def frames(work):
    """Dynamics of both states with the model, and LDA energies of `N_FRAMES` frames of each."""
    fit(work / "train.xyz", work / "model.safetensors", 16)
    images = []
    for state in LATTICE:
        sampled = sample(work / "model.safetensors", state, 10000, work / f"run-{state}")
        sampled = sampled[len(sampled) // 10 :]
        images += [sampled[i] for i in np.linspace(0, len(sampled) - 1, N_FRAMES).astype(int)]
    write_pool(work / "pool-frames.xyz", images)
    label(work / "pool-frames.xyz", work / "labelled-frames.xyz", work)


# --------------------------------------------------------------------------------------- the direct answer
def scaled_to(positions, state, other):
    """The positions of one state in the cell of the other, moved with it."""
    return positions @ np.linalg.inv(diamond(LATTICE[state]).cell.array) @ diamond(LATTICE[other]).cell.array


def chain(work, state, evaluate, potential):
    r"""A Markov chain whose stationary distribution is that of LDA: trajectories of the model, judged by LDA.

    Each begins with momenta of the temperature and is reversible and keeps volume in phase space (velocity Verlet), so
    that accepting its end with probability :math:`\min(1, e^{-\beta \Delta H})`, H with the energy of LDA, samples LDA
    exactly, whatever the model (Duane et al., Phys. Lett. B 195, 216 (1987)).
    """
    from ase.data import atomic_masses
    from ase.units import fs

    journal = work / f"chain-{state}.jsonl"
    known = [json.loads(line) for line in journal.read_text().splitlines()] if journal.exists() else []
    other = next(name for name in LATTICE if name != state)
    cell = diamond(LATTICE[state]).cell.array
    mass, kt, step = atomic_masses[14], KB * TEMPERATURE, TIME_STEP * fs
    forces_of = potential.evaluator(np.full(2, 14), True, n_threads=1)

    def model(positions):
        found = forces_of.compute(positions[None], cell[None])
        return found.forces[0]

    positions = np.array(known[-1]["positions"]) if known else diamond(LATTICE[state]).positions
    energy = known[-1]["energy"] if known else evaluate(positions, state)
    with open(journal, "a") as file:
        for n in range(len(known), N_CHAIN + N_BURN):
            rng = np.random.default_rng([n, list(LATTICE).index(state)])
            momenta = rng.normal(size=(2, 3)) * np.sqrt(mass * kt)
            momenta -= momenta.mean(axis=0)
            kinetic, moved, forces = np.sum(momenta**2) / (2 * mass), positions.copy(), model(positions)
            for _ in range(TRAJECTORY):
                momenta += 0.5 * step * forces
                moved += step * momenta / mass
                forces = model(moved)
                momenta += 0.5 * step * forces
            moved = np.round(moved, DECIMALS)
            trial = evaluate(moved, state)
            change = trial - energy + np.sum(momenta**2) / (2 * mass) - kinetic
            accepted = bool(rng.random() < np.exp(min(0.0, -change / kt)))
            if accepted:
                positions, energy = moved, trial
            entry = {"positions": positions.tolist(), "energy": energy, "accepted": accepted}
            entry["mapped"] = (
                evaluate(scaled_to(positions, state, other), other) if accepted or not n else known[-1]["mapped"]
            )
            known.append(entry)
            file.write(json.dumps(entry) + "\n")
            file.flush()


def direct(work):
    """Chains of both states, `WORK/chain-STATE.jsonl`."""
    import comitia
    from comitia.engines.force_engines import EngineOptions
    from comitia.engines.sources import WorkerSource

    potential = comitia.load(work / "model.safetensors")
    name = "comitia-silicon-data"
    source = WorkerSource(f"unix:{name}", EngineOptions())
    source.evaluator(np.full(2, 14), True)
    with espresso(name, work):
        for state in LATTICE:
            chain(
                work,
                state,
                lambda positions, of: float(source.compute([positions], [diamond(LATTICE[of]).cell.array]).energies[0]),
                potential,
            )
        source.close()


# --------------------------------------------------------------------------------------------------- files
def write(work):
    """The files beside this script."""
    import comitia

    def compressed(name, images):
        text = io.StringIO()
        ase.io.write(text, images, format="extxyz")
        write_atomic(HERE / name, lzma.compress(text.getvalue().encode(), preset=9))
        print(f"{name}: {len(images)} structures, {(HERE / name).stat().st_size} bytes")

    write_atomic(HERE / "pw.in", espresso_input())
    for which in ("train", "test"):
        compressed(f"silicon_{which}.xyz.xz", ase.io.read(work / f"{which}.xyz", ":"))
    shutil.copy(work / "model.safetensors", HERE / "perturbation.safetensors")
    potential, sha256 = comitia.load(work / "model.safetensors"), file_hash(work / "model.safetensors")
    images = []
    for atoms in ase.io.read(work / "labelled-frames.xyz", ":"):
        energy = atoms.get_potential_energy()
        kept = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True)
        kept.info = {"sample": atoms.info["sample"], "step": atoms.info["step"], "bead": 0, "temperature": TEMPERATURE}
        kept.info |= {"model_energy": round(potential.compute(atoms).energy, 8), "lda_energy": round(energy, 8)}
        kept.info["model_sha256"] = sha256
        images.append(kept)
    compressed("perturbation.xyz.xz", images)
    if not all((work / f"chain-{state}.jsonl").exists() for state in LATTICE):
        return
    chains = {}
    for state in LATTICE:
        entries = [json.loads(line) for line in (work / f"chain-{state}.jsonl").read_text().splitlines()][N_BURN:]
        chains[state] = {
            "acceptance": float(np.mean([entry["accepted"] for entry in entries])),
            "energy": [round(entry["energy"], 8) for entry in entries],
            "mapped": [round(entry["mapped"], 8) for entry in entries],
        }
    write_atomic(HERE / "direct.json", json.dumps({"temperature": TEMPERATURE, "lattice": LATTICE, "chains": chains}))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tasks = {"train": train, "frames": frames, "direct": direct, "write": write}
    parser.add_argument("task", choices=["all", *tasks])
    parser.add_argument("--work", type=Path, required=True, help="folder for everything intermediate")
    arguments = parser.parse_args()
    work = arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    for name, task in tasks.items():
        if arguments.task in ("all", name):
            task(work)


if __name__ == "__main__":
    main()
