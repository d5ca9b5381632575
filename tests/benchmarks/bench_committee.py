"""What a committee costs over one member: `python tests/benchmarks/bench_committee.py`.

64 members (energy, mean forces, virial, all member energies) against the fastest path that gives energy, forces and
virial of one member: the better of `Evaluator.compute` with one member, and the bare kernel below it. Process CPU time
on one thread; all paths are timed in turns on the same positions, which move at every step within the skin; printed is
the median of the ratios of neighbouring timings.
"""

import argparse
import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import time

import numpy as np
from ase import Atoms
from ase.build import bulk

from comitia.density import Descriptor
from comitia.files import write_json
from comitia.potential import Potential

N_REBUILDS = 6  # the paths are made anew that often: where their arrays lie in memory is worth a few per cent


def silicon():
    """512 atoms of silicon, rattled by 0.1 Å."""
    atoms = bulk("Si", "diamond", a=5.43, cubic=True).repeat(4)
    atoms.positions += np.random.default_rng(1).normal(scale=0.1, size=atoms.positions.shape)
    return atoms


def zundel():
    """H5O2+, seven atoms."""
    half = np.array([[1.20, 0, 0], [1.72, 0.78, 0.25], [1.72, -0.78, 0.25]])
    return Atoms("OHHOHHH", [*half, *(half * [-1, 1, -1]), [0.02, 0.01, 0]])


CASES = {  # structure, cutoff in Å, calls in one timing
    "Si 512 atoms": (silicon, 5.0, 1),
    "H5O2+ 7 atoms": (zundel, 5.0, 30),
}


def committee(descriptor, n_members):
    """Random weights: what they are does not change the cost."""
    weights = np.random.default_rng(2).normal(scale=1e-3, size=(n_members, descriptor.width))
    return Potential(descriptor, weights, np.zeros(descriptor.n_species))


def compute_path(evaluator, cells):
    """A function: positions -> everything the committee has to say."""
    return lambda positions: evaluator.compute(positions[None], cells)


def kernel_path(evaluator, cells):
    """A function: positions -> energies, forces, virial of one member, straight from the compiled kernel."""
    kernel, weights = evaluator.potential.kernel, evaluator.potential.mean_weights

    def evaluate(positions):
        found = kernel.evaluate(evaluator.batch(positions[None], cells), weights, n_threads=1)
        return found["atomic_energies"].sum(), found["forces"], found["virials"]

    return evaluate


def measure(structure, cutoff, n_calls, n_members, n_rounds):
    """CPU time of each path in each round, and the number of features.

    Returns
    -------
    dict of (n_rounds,) arrays, s per call; int
    """
    atoms = structure()
    descriptor = Descriptor.build(atoms.numbers, cutoff)
    cells = atoms.cell.array[None].copy()
    rng = np.random.default_rng(3)
    times = {}
    for _ in range(N_REBUILDS):
        many, one = (committee(descriptor, n).evaluator(atoms.numbers, atoms.pbc, n_threads=1) for n in (n_members, 1))
        paths = {
            "committee": compute_path(many, cells),
            "one member": compute_path(one, cells),
            "one member, bare kernel": kernel_path(many, cells),  # on the arrays of the committee
        }
        for round_ in range(-3, -(-n_rounds // N_REBUILDS)):
            steps = atoms.positions + rng.uniform(-0.02, 0.02, (n_calls, *atoms.positions.shape))
            # the order changes from round to round, so that none always has the warmer cache
            for name in np.roll(list(paths), round_):
                start = time.process_time()
                for positions in steps:
                    paths[name](positions)
                if round_ >= 0:
                    times.setdefault(name, []).append((time.process_time() - start) / n_calls)
    return {name: np.array(values) for name, values in times.items()}, descriptor.n_features


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=60, help="interleaved timings of every path")
    parser.add_argument("--json", help="write the numbers here too")
    options = parser.parse_args()
    results = {}
    for case, (structure, cutoff, n_calls) in CASES.items():
        times, n_features = measure(structure, cutoff, n_calls, options.members, options.rounds)
        singles = [name for name in times if name != "committee"]
        fastest = min(singles, key=lambda name, times=times: np.median(times[name]))
        ratios = times["committee"] / times[fastest]
        low, median, high = np.percentile(ratios, [25, 50, 75])
        n_atoms = len(structure())
        microseconds = {name: float(np.median(values)) / n_atoms * 1e6 for name, values in times.items()}
        results[case] = {
            "n_atoms": n_atoms,
            "n_features": n_features,
            "n_members": options.members,
            "rounds": options.rounds,
            "ratio": float(median),
            "quartiles": [float(low), float(high)],
            "fastest_single": fastest,
            "microseconds_per_atom": microseconds,
        }
        print(f"{case}, {n_features} features of each centre, {options.members} members, {options.rounds} rounds")
        for name, value in microseconds.items():
            print(f"  {name:26s} {value:8.2f} µs/atom")
        print(f"  committee / {fastest}: {median:.4f} (quartiles {low:.4f} to {high:.4f})")
    if options.json:
        write_json(options.json, results)


if __name__ == "__main__":
    main()
