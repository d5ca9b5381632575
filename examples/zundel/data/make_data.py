#!/usr/bin/env python
r"""Reference data for the Zundel cation H5O2+: sampled with GFN2-xTB, labelled with PBE0/def2-SVP.

Needs ase, i-PI >= 3.3.1 (with its `xtb` driver), tblite, pyscf, numpy, scipy. Everything intermediate goes to
a work folder, and every step skips what is already there, so the script may be stopped and started again:

    python make_data.py all --work WORK --workers 2

or step by step

    python make_data.py sample --work WORK [NAME ...]     # dynamics with i-PI and GFN2-xTB
    python make_data.py select --work WORK holdout train  # random hold-out, farthest-point training set
    python make_data.py label  --work WORK --workers 2    # energies and forces with PySCF
    python make_data.py template --work WORK              # relaxed geometry, ../zundel.xyz
    python make_data.py write  --work WORK                # *.xyz.xz beside this script
    python make_data.py check  --work WORK                # tests of the files written

Atom order, in every frame: O1 O2 H H H H H*. Atoms 2, 3 start on O1 (atom 0), atoms 4, 5 on O2 (atom 1), and the
shared proton H* is the last atom (index 6).

Units: eV, Å, fs, K; constants of CODATA 2018 (`HARTREE`, `BOHR` below), used in both directions.
"""

import argparse
import io
import json
import lzma
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy and PySCF: one process is one core

import ase
import ase.io
import numpy as np
from ase.calculators.singlepoint import SinglePointCalculator

HARTREE = 27.2113862460  # eV
BOHR = 0.5291772109  # Å

HERE = Path(__file__).resolve().parent
SYMBOLS = ["O", "O", "H", "H", "H", "H", "H"]
SHARED_PROTON = 6
CHARGE = 1
DECIMALS = 8  # of positions (rounded before they are labelled), energies and forces


class Trajectory(NamedTuple):
    """One i-PI run: temperature in K, number of beads, length in ps, output stride in fs, random seed."""

    temperature: float
    n_beads: int
    length: float
    stride: float
    seed: int


# Run in this order.
TRAJECTORIES = {
    "holdout_classical300": Trajectory(300, 1, 30.0, 20.0, 9101),
    "holdout_pimd300": Trajectory(300, 32, 6.0, 20.0, 9102),
    "pimd300": Trajectory(300, 32, 8.0, 40.0, 1203),
    "classical1000": Trajectory(1000, 1, 30.0, 20.0, 1006),
    "classical600": Trajectory(600, 1, 30.0, 20.0, 1005),
    "pimd600": Trajectory(600, 32, 4.0, 40.0, 1204),
    "classical300": Trajectory(300, 1, 20.0, 20.0, 1007),
}
TIME_STEP = 0.5  # fs
EQUILIBRATION = 1.0  # ps, not used
THERMOSTAT_TAU = 100.0  # fs; Langevin, and the centroid of PILE-L

HOLDOUT_COUNTS = {"holdout_classical300": 60, "holdout_pimd300": 60}
HOLDOUT_SEED = 31
TRAINING_SHARES = {"pimd300": 0.40, "pimd600": 0.20, "classical600": 0.15, "classical1000": 0.15, "classical300": 0.10}
N_TRAINING = 704
MAX_OO = 3.3  # Å; beyond it, or with a proton farther than MAX_OH from both oxygens, the frame has dissociated
MAX_OH = 1.7  # Å

XC, BASIS, AUXILIARY_BASIS = "pbe0", "def2-svp", "def2-svp-jkfit"
GRID_LEVEL = 3  # of PySCF: (50, 302) for H, (75, 302) for O, pruned
CONV_TOL, CONV_TOL_GRAD = 1e-10, 1e-6  # hartree; norm of the orbital gradient


# ---------------------------------------------------------------------------------------------- sampling
IPI_INPUT = """<simulation verbosity='low' floatformat='%16.9e'>
 <output prefix='zundel'>
  <properties stride='{stride}' filename='out'>
   [step, time{{picosecond}}, conserved{{electronvolt}}, temperature{{kelvin}},
    kinetic_cv{{electronvolt}}, potential{{electronvolt}}]
  </properties>
  <trajectory stride='{stride}' filename='pos' format='xyz' cell_units='angstrom'> positions{{angstrom}} </trajectory>
 </output>
 <total_steps> {n_steps} </total_steps>
 <prng><seed> {seed} </seed></prng>
 <ffdirect name='gfn2' pbc='false'>
  <pes> xtb </pes>
  <parameters> {{template: start.xyz, method: GFN2-xTB, charge: {charge}}} </parameters>
 </ffdirect>
 <system>
  <initialize nbeads='{n_beads}'>
   <file mode='xyz'> start.xyz </file>
   <velocities mode='thermal' units='kelvin'> {temperature} </velocities>
  </initialize>
  <forces><force forcefield='gfn2'/></forces>
  <ensemble><temperature units='kelvin'> {temperature} </temperature></ensemble>
  <motion mode='dynamics'><fixcom> True </fixcom>
   <dynamics mode='nvt'>
    <timestep units='femtosecond'> {time_step} </timestep>
    <thermostat mode='{thermostat}'><tau units='femtosecond'> {tau} </tau></thermostat>
   </dynamics>
  </motion>
 </system>
</simulation>
"""


def starting_geometry():
    """Zundel cation in the atom order of this data set, relaxed with GFN2-xTB; (7, 3) positions, Å."""
    from ase.optimize import BFGS
    from tblite.ase import TBLite

    guess = [
        [-1.2, 0.0, 0.0], [1.2, 0.0, 0.0], [-1.6, 0.75, 0.45], [-1.6, -0.75, 0.45],
        [1.6, 0.45, 0.75], [1.6, 0.45, -0.75], [0.0, 0.0, 0.0],
    ]  # fmt: skip
    atoms = ase.Atoms(SYMBOLS, guess)
    atoms.calc = TBLite(method="GFN2-xTB", charge=CHARGE, verbosity=0)
    BFGS(atoms, logfile=None).run(fmax=1e-3)
    return atoms.positions


def sample(work, name):
    """Run one trajectory of `TRAJECTORIES` with i-PI, GFN2-xTB evaluated in i-PI's own process by tblite."""
    settings = TRAJECTORIES[name]
    folder = work / name
    if (folder / "finished").exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    n_steps, stride = round(settings.length * 1000 / TIME_STEP), round(settings.stride / TIME_STEP)
    rows = [f"{s:2s} {x:.8f} {y:.8f} {z:.8f}" for s, (x, y, z) in zip(SYMBOLS, starting_geometry(), strict=True)]
    # i-PI wants a cell in its input; the molecule does not see it.
    comment = "# CELL(abcABC): 50 50 50 90 90 90 cell{angstrom} positions{angstrom}"
    (folder / "start.xyz").write_text("\n".join([str(len(SYMBOLS)), comment, *rows]) + "\n")
    (folder / "input.xml").write_text(
        IPI_INPUT.format(
            **settings._asdict() | {"stride": stride},
            n_steps=n_steps,
            charge=CHARGE,
            time_step=TIME_STEP,
            thermostat="pile_l" if settings.n_beads > 1 else "langevin",
            tau=THERMOSTAT_TAU,
        )
    )
    program = shutil.which("i-pi", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if program is None:
        raise SystemExit("i-pi is not installed beside this Python; pip install 'ipi>=3.3.1'")
    start = time.time()
    with open(folder / "i-pi.log", "w") as log:
        subprocess.run([program, "input.xml"], cwd=folder, stdout=log, stderr=log, check=True)
    last_step = float(np.loadtxt(folder / "zundel.out")[-1, 0])
    if last_step < n_steps - stride:
        raise SystemExit(f"{folder}: i-PI ended at step {last_step:.0f} of {n_steps}; see i-pi.log")
    (folder / "finished").write_text(f"{time.time() - start:.0f} s\n")
    print(f"{name}: {n_steps} steps x {settings.n_beads} beads in {time.time() - start:.0f} s", flush=True)


def read_trajectory(work, name):
    """All frames of a trajectory after equilibration, every bead a frame.

    Returns
    -------
    positions : (n_frames, 7, 3) array, Å, geometric centre at the origin, rounded to `DECIMALS`; time-ordered
    steps, beads : (n_frames,) arrays of int
    """
    n_lines = len(SYMBOLS) + 2
    positions, steps, beads = [], [], []
    for bead, path in enumerate(sorted((work / name).glob("zundel.pos_*.xyz"))):
        lines = path.read_text().splitlines()
        for first in range(0, len(lines), n_lines):
            words = lines[first + 1].split()
            steps.append(int(words[words.index("Step:") + 1]))
            beads.append(bead)
            positions.append([line.split()[1:4] for line in lines[first + 2 : first + n_lines]])
    positions, steps, beads = np.array(positions, float), np.array(steps), np.array(beads)
    keep = steps * TIME_STEP > EQUILIBRATION * 1000
    positions, steps, beads = positions[keep], steps[keep], beads[keep]
    order = np.lexsort((beads, steps))
    positions = positions - positions.mean(axis=1, keepdims=True)
    return np.round(positions[order], DECIMALS), steps[order], beads[order]


# ------------------------------------------------------------------------------------ geometry, selection
def distances(positions):
    """O-O (n,), O-H (n, 2, 5) and H-H (n, 10) distances of (n, 7, 3) positions, in the unit of the positions."""
    r = np.linalg.norm(positions[:, :, None] - positions[:, None, :], axis=-1)
    i, j = np.triu_indices(5, k=1)
    return r[:, 0, 1], r[:, :2, 2:], r[:, 2:, 2:][:, i, j]


def is_bound(positions):
    """True where the frame is still one complex: r(OO) < `MAX_OO` and every proton within `MAX_OH` of an oxygen."""
    r_oo, r_oh, _ = distances(positions)
    return (r_oo < MAX_OO) & (r_oh.min(axis=1).max(axis=1) < MAX_OH)


def descriptor(positions):
    """(n, 21) sorted inverse distances, 1/Å, species pair by species pair: invariant to rotation and permutation."""
    r_oo, r_oh, r_hh = distances(positions)
    blocks = [r_oo[:, None], r_oh.reshape(len(positions), -1), r_hh]
    return np.hstack([np.sort(1 / block, axis=1) for block in blocks])


def most_shared_proton(positions):
    """Index of the proton with the smallest |r(O1 H) - r(O2 H)| in every frame; (n,) array of atom indices."""
    r_oh = distances(positions)[1]
    return 2 + np.argmin(np.abs(r_oh[:, 0] - r_oh[:, 1]), axis=1)


def farthest_points(features, pools, shares, n):
    """Farthest-point selection with a fixed share of the points from each pool; every prefix is a valid selection.

    The next point comes from the pool that lags most behind its share; within it, it is the frame whose distance
    to the nearest frame chosen so far (from any pool) is largest.

    Parameters
    ----------
    features : (n_frames, n_features) array
    pools : (n_frames,) array of str, the pool of every frame
    shares : dict, pool -> share of the selection
    n : int

    Returns
    -------
    list of n frame numbers, in the order of selection
    """
    members = {pool: np.flatnonzero(pools == pool) for pool in shares}
    nearest = np.full(len(features), np.inf)
    chosen, count = [], dict.fromkeys(shares, 0)
    for step in range(n):
        pool = max(shares, key=lambda p: shares[p] * (step + 1) - count[p])
        # The first point is the frame nearest to the mean of its pool.
        score = nearest if chosen else -np.linalg.norm(features - features[members[pool]].mean(axis=0), axis=1)
        frame = members[pool][np.argmax(score[members[pool]])]
        nearest = np.minimum(nearest, np.linalg.norm(features - features[frame], axis=1))
        chosen.append(frame)
        count[pool] += 1
    return chosen


def select(work, which):
    """Write `WORK/selected_{holdout,train}.json`: list of frames (config_type, step, bead, rank, positions)."""
    target = work / f"selected_{which}.json"
    if target.exists():
        return
    names = HOLDOUT_COUNTS if which == "holdout" else TRAINING_SHARES
    positions, steps, beads, pools = [], [], [], []
    for name in names:
        p, s, b = read_trajectory(work, name)
        bound = is_bound(p)
        shared = np.mean(most_shared_proton(p) == SHARED_PROTON)
        r_oo = distances(p)[0]
        print(
            f"{name}: {len(p)} frames, {np.sum(~bound)} dissociated dropped, r_OO {r_oo.min():.3f} to {r_oo.max():.3f} "
            f"mean {r_oo.mean():.3f} A, H* most shared in {100 * shared:.2f} %"
        )
        positions.append(p[bound])
        steps.append(s[bound])
        beads.append(b[bound])
        pools.append(np.full(bound.sum(), name))
    positions, steps, beads, pools = map(np.concatenate, (positions, steps, beads, pools))
    if which == "holdout":
        rng = np.random.default_rng(HOLDOUT_SEED)
        chosen = np.concatenate(
            [rng.choice(np.flatnonzero(pools == name), n, replace=False) for name, n in HOLDOUT_COUNTS.items()]
        )
    else:
        chosen = farthest_points(descriptor(positions), pools, TRAINING_SHARES, N_TRAINING)
    frames = [
        {
            "config_type": str(pools[f]),
            "step": int(steps[f]),
            "bead": int(beads[f]),
            "rank": rank,
            "positions": positions[f].tolist(),
        }
        for rank, f in enumerate(chosen)
    ]
    partial = target.with_suffix(".partial")
    partial.write_text(json.dumps(frames))
    os.replace(partial, target)


# ----------------------------------------------------------------------------------------------- labelling
def reference(positions):
    r"""Energy and forces at density-fitted RKS PBE0/def2-SVP (settings at the top), charge +1.

    The gradient includes the response of the integration grid and of the auxiliary basis, so the forces are the
    derivative of the energy that is printed, :math:`F = -\partial E / \partial r`. Plain DIIS is tried first, then
    DIIS with a level shift, then second-order SCF.

    Parameters
    ----------
    positions : (7, 3) array, Å

    Returns
    -------
    energy : float, eV, total
    forces : (7, 3) array, eV/Å
    solver : str, the SCF solver that converged; None where none did (energy and forces are then None)
    """
    from pyscf import dft, gto

    mol = gto.M(
        atom=list(zip(SYMBOLS, np.asarray(positions) / BOHR, strict=True)), unit="Bohr", basis=BASIS,
        charge=CHARGE, verbose=0,
    )  # fmt: skip
    density = None
    for solver in ("diis", "level shift", "newton"):
        mf = dft.RKS(mol, xc=XC).density_fit(auxbasis=AUXILIARY_BASIS)
        mf.grids.level = GRID_LEVEL
        mf.conv_tol, mf.conv_tol_grad = CONV_TOL, CONV_TOL_GRAD
        mf.max_cycle = 60
        if solver == "level shift":
            mf.level_shift, mf.max_cycle = 0.3, 200
        if solver == "newton":
            mf = mf.newton()
        mf.kernel(dm0=density)
        if mf.converged:
            break
        density = mf.make_rdm1()
    else:
        return None, None, None
    gradient = mf.nuc_grad_method()
    gradient.grid_response = True
    forces = -gradient.kernel() * HARTREE / BOHR
    return float(mf.e_tot * HARTREE), forces, solver


def key(frame):
    """Name of a frame, unique over all trajectories."""
    return f"{frame['config_type']}:{frame['step']}:{frame['bead']}"


def label_one(frame):
    """Label one frame (a dict of `select`); the dict that goes to `labels.jsonl`."""
    start = time.time()
    energy, forces, solver = reference(np.array(frame["positions"]))
    if solver is not None:
        energy, forces = round(energy, DECIMALS), np.round(forces, DECIMALS).tolist()
    return {
        "key": key(frame),
        "positions": frame["positions"],
        "energy": energy,
        "forces": forces,
        "solver": solver,
        "seconds": time.time() - start,
    }


def selected(work):
    """Frames selected so far, hold-out first, each in the order of its selection."""
    paths = [work / f"selected_{which}.json" for which in ("holdout", "train")]
    return [frame for path in paths if path.exists() for frame in json.loads(path.read_text())]


def read_labels(work):
    """Labels done so far: dict key -> dict of `label_one`. A line cut by a kill is ignored."""
    labels = {}
    path = work / "labels.jsonl"
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        labels[entry["key"]] = entry
    return labels


def label(work, n_workers):
    """Label every selected frame that has no label yet; appends to `WORK/labels.jsonl`."""
    done = read_labels(work)
    todo = [frame for frame in selected(work) if key(frame) not in done]
    start = time.time()
    # spawn: a forked child of a process that has used OpenMP may hang
    with open(work / "labels.jsonl", "a") as file, multiprocessing.get_context("spawn").Pool(n_workers) as pool:
        file.write("\n" if done else "")
        for n, entry in enumerate(pool.imap(label_one, todo), start=1):
            file.write(json.dumps(entry) + "\n")
            file.flush()
            if entry["solver"] != "diis":
                print(f"{entry['key']}: solver {entry['solver'] or 'none: not converged, dropped'}", flush=True)
            if n % 20 == 0 or n == len(todo):
                rate = (time.time() - start) / n
                print(f"{n}/{len(todo)}  {rate:.2f} s/frame  {rate * (len(todo) - n) / 60:.1f} min left", flush=True)


def template():
    """Write ../zundel.xyz: the geometry relaxed at the labelling level, forces below about 1e-3 eV/Å."""
    from scipy.optimize import minimize

    def objective(flat):
        energy, forces, _ = reference(flat.reshape(-1, 3))
        return energy, -forces.ravel()

    result = minimize(objective, starting_geometry().ravel(), jac=True, method="BFGS", options={"gtol": 1e-3})
    positions = result.x.reshape(-1, 3)
    positions = np.round(positions - positions.mean(axis=0), DECIMALS)
    energy, forces, _ = reference(positions)
    r_oo, r_oh, _ = distances(positions[None])
    print(f"relaxed: E {energy:.8f} eV, max |F| {np.abs(forces).max():.1e} eV/A")
    print(f"  r_OO {r_oo[0]:.4f} A, O-H* {r_oh[0, 0, 4]:.4f} {r_oh[0, 1, 4]:.4f} A")
    (HERE.parent / "zundel.xyz").write_text(as_text([atoms_from(positions, energy, forces, config_type="minimum")]))


# ------------------------------------------------------------------------------------------ files, checks
def atoms_from(positions, energy, forces, **info):
    """ase.Atoms with `energy` and `forces` as results and the rest in `info`; no cell."""
    atoms = ase.Atoms(SYMBOLS, positions, info=info)
    atoms.calc = SinglePointCalculator(atoms, energy=round(energy, DECIMALS), forces=np.round(forces, DECIMALS))
    return atoms


def as_text(images):
    """Extended XYZ, 8 decimals, as a string."""
    file = io.StringIO()
    ase.io.write(file, images, format="extxyz")
    return file.getvalue()


def write(work):
    """Write zundel_train.xyz.xz and zundel_holdout.xyz.xz, in time order within each config_type."""
    labels = read_labels(work)
    for which, names in (("train", TRAINING_SHARES), ("holdout", HOLDOUT_COUNTS)):
        frames = json.loads((work / f"selected_{which}.json").read_text())
        images = []
        for name in names:
            mine = [f for f in frames if f["config_type"] == name and labels.get(key(f), {}).get("energy") is not None]
            for frame in sorted(mine, key=lambda f: (f["step"], f["bead"])):
                entry = labels[key(frame)]
                if entry["positions"] != frame["positions"]:
                    raise SystemExit(f"{key(frame)}: labelled with other positions; remove labels.jsonl")
                images.append(
                    atoms_from(
                        *(entry[what] for what in ("positions", "energy", "forces")),
                        config_type=name,
                        step=frame["step"],
                        time_fs=frame["step"] * TIME_STEP,
                        bead=frame["bead"],
                        rank=frame["rank"],
                    )
                )
        target = HERE / f"zundel_{which}.xyz.xz"
        partial = target.with_name(target.name + ".partial")
        with lzma.open(partial, "wt", preset=9) as file:
            file.write(as_text(images))
        os.replace(partial, target)
        print(f"{target.name}: {len(images)} frames, {target.stat().st_size} bytes")


def read(which):
    """Frames of one of the files written."""
    with lzma.open(HERE / f"zundel_{which}.xyz.xz", "rt") as file:
        return ase.io.read(io.StringIO(file.read()), ":", format="extxyz")


def check():
    """Statistics of the files, duplicates, shared proton, and forces against differences of energies."""
    seen = {}
    for which in ("train", "holdout"):
        images = read(which)
        groups = np.array([atoms.info["config_type"] for atoms in images])
        positions = np.array([atoms.positions for atoms in images])
        energies = np.array([atoms.get_potential_energy() for atoms in images])
        forces = np.array([atoms.get_forces() for atoms in images])
        seen[which] = descriptor(positions)
        shared = most_shared_proton(positions) == SHARED_PROTON
        r_oo = distances(positions)[0]
        net = np.abs(forces.sum(axis=1)).max()
        print(f"{which}: {len(images)} frames, net force at most {net:.1e} eV/A")
        print("  config_type               n  E mean (eV)    E std  F rms   r_OO min  mean   max  H* shared")
        for name in [*dict.fromkeys(groups), "all"]:
            g = (groups == name) | (name == "all")
            f_rms = np.sqrt(np.mean(forces[g] ** 2))
            print(
                f"  {name:22s} {g.sum():4d} {energies[g].mean():12.4f} {energies[g].std():8.4f} {f_rms:6.3f} "
                f"{r_oo[g].min():9.3f} {r_oo[g].mean():6.3f} {r_oo[g].max():5.3f} {100 * shared[g].mean():6.2f} %"
            )
    everything = np.vstack(list(seen.values()))
    gap = np.linalg.norm(everything[:, None] - everything[None], axis=-1)
    np.fill_diagonal(gap, np.inf)
    cross = gap[: len(seen["train"]), len(seen["train"]) :]
    print(f"closest two frames {gap.min():.2e}, training to hold-out {cross.min():.2e} 1/A (descriptor distance)")

    # Along random unit vectors of all 21 coordinates, fourth-order central differences.
    atoms, step, rng = read("train")[0], 1e-3, np.random.default_rng(1)
    for _ in range(3):
        direction = rng.normal(size=(len(SYMBOLS), 3))
        direction /= np.linalg.norm(direction)
        energies = [reference(atoms.positions + shift * step * direction)[0] for shift in (-2, -1, 1, 2)]
        difference = -(energies[0] - 8 * energies[1] + 8 * energies[2] - energies[3]) / (12 * step)
        force = np.sum(atoms.get_forces() * direction)
        print(f"training frame 0: force {force:.6f}, from energies {difference:.6f}, gap {force - difference:.1e} eV/A")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=["all", "sample", "select", "label", "template", "write", "check"])
    parser.add_argument("names", nargs="*", help="trajectories for sample; holdout, train for select (default: all)")
    parser.add_argument("--work", type=Path, required=True, help="folder for trajectories and labels")
    parser.add_argument("--workers", type=int, default=1, help="processes for labelling")
    arguments = parser.parse_intermixed_args()
    work = arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    if arguments.task in ("all", "sample"):
        for name in arguments.names or TRAJECTORIES:
            sample(work, name)
    if arguments.task in ("all", "select"):
        for which in arguments.names or ("holdout", "train"):
            select(work, which)
    if arguments.task in ("all", "label"):
        label(work, arguments.workers)
    if arguments.task in ("all", "template"):
        template()
    if arguments.task in ("all", "write"):
        write(work)
    if arguments.task in ("all", "check"):
        check()


if __name__ == "__main__":
    main()
