"""What a committee costs over one member: `python tests/benchmarks/bench_committee.py`.

64 members (energy, mean forces, virial, all member energies), the same with the gradient of their uncertainty and its
virial, and 16 members with all their forces and virials, against the fastest path that gives energy, forces and virial
of one member: the better of `Evaluator.compute` with one member, and the bare kernel below it. Process CPU time on one
thread; all paths are timed in turns on the same positions, which move at every step within the skin; printed is the
median of the ratios of neighbouring timings.
"""

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import time

import numpy as np
from ase import Atoms
from samples import silicon
from timing import ratio, run_alone, summary

from comitia.density import Descriptor
from comitia.potential import Potential

N_REBUILDS = 6  # the paths are made anew that often: where their arrays lie in memory is worth a few per cent


def zundel():
    """H5O2+, seven atoms."""
    half = np.array([[1.20, 0, 0], [1.72, 0.78, 0.25], [1.72, -0.78, 0.25]])
    return Atoms("OHHOHHH", [*half, *(half * [-1, 1, -1]), [0.02, 0.01, 0]])


SHORTER = {"n_max": [10, 8, 8], "l_max": [0, 7, 6], "max_features": 420}  # fewer functions at larger l
CASES = {  # structure, cutoff in Å, calls in one timing, basis
    "Si 512 atoms": (silicon, 5.0, 1, {}),
    "Si 512 atoms, shorter basis": (silicon, 5.0, 1, SHORTER),
    "H5O2+ 7 atoms": (zundel, 5.0, 30, {}),
}


def committee(descriptor, n_members):
    """Random weights: what they are does not change the cost."""
    weights = np.random.default_rng(2).normal(scale=1e-3, size=(n_members, descriptor.width))
    return Potential(descriptor, weights, np.zeros(descriptor.n_species))


def compute_path(evaluator, cells, **asked):
    """A function: positions -> everything the committee has to say."""
    return lambda positions: evaluator.compute(positions[None], cells, **asked)


def kernel_path(evaluator, cells):
    """A function: positions -> energies, forces, virial of one member, straight from the compiled kernel."""
    kernel, weights = evaluator.potential.kernel, evaluator.potential.mean_weights

    def evaluate(positions):
        found = kernel.evaluate(evaluator.batch(positions[None], cells), weights, n_threads=1)
        return found["atomic_energies"].sum(), found["forces"], found["virials"]

    return evaluate


def time_paths(structure, cutoff, n_calls, basis, n_rounds):
    """CPU time of each path in each round, and the number of features.

    Returns
    -------
    {name: (n_rounds,) array, s per call and atom}; int
    """
    atoms = structure()
    descriptor = Descriptor.build(atoms.numbers, cutoff, **basis)
    cells = atoms.cell.array[None].copy()
    rng = np.random.default_rng(3)
    times = {}
    for _ in range(N_REBUILDS):
        evaluators = {n: committee(descriptor, n).evaluator(atoms.numbers, atoms.pbc, n_threads=1) for n in (64, 16, 1)}
        paths = {
            "64 members": compute_path(evaluators[64], cells),
            "64 members with sigma gradient": compute_path(evaluators[64], cells, uncertainty_gradient=True),
            "16 members with forces": compute_path(evaluators[16], cells, members=True),
            "one member": compute_path(evaluators[1], cells),
            "one member, bare kernel": kernel_path(evaluators[64], cells),  # on the arrays of the committee
        }
        for round_ in range(-3, -(-n_rounds // N_REBUILDS)):
            steps = atoms.positions + rng.uniform(-0.02, 0.02, (n_calls, *atoms.positions.shape))
            # the order changes from round to round, so that none always has the warmer cache
            for name in np.roll(list(paths), round_):
                start = time.process_time()
                for positions in steps:
                    paths[name](positions)
                if round_ >= 0:
                    times.setdefault(name, []).append((time.process_time() - start) / (n_calls * len(atoms)))
    return {name: np.array(values) for name, values in times.items()}, descriptor.n_features


def measure(n_rounds):
    """Times and ratios of every case."""
    results = {}
    for case, (structure, cutoff, n_calls, basis) in CASES.items():
        times, n_features = time_paths(structure, cutoff, n_calls, basis, n_rounds)
        singles = [name for name in times if name.startswith("one member")]
        fastest = min(singles, key=lambda name, times=times: np.median(times[name]))
        results[case] = {
            "n_features": n_features,
            "rounds": len(times[fastest]),
            "fastest_single": fastest,
            "microseconds_per_atom": summary(times),
            "ratios": {name: ratio(times, name, fastest) for name in times if name not in singles},
        }
    return results


def report(results):
    """Print the table."""
    for case, one in results.items():
        print(f"{case}, {one['n_features']} features of each centre, {one['rounds']} rounds")
        for name, value in one["microseconds_per_atom"].items():
            print(f"  {name:30s} {value['median']:8.2f} µs/atom")
        for name, value in one["ratios"].items():
            low, high = value["quartiles"]
            print(f"  {name} / {one['fastest_single']}: {value['median']:.4f} (quartiles {low:.4f} to {high:.4f})")


if __name__ == "__main__":
    run_alone(__doc__, measure, report, rounds=60)
