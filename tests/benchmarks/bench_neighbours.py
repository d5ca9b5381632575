"""Building the neighbour list against vesin: `python tests/benchmarks/bench_neighbours.py`.

One thread each. Both are timed in turns, as many times as asked, and the median of the ratios is printed, since a
single pair of timings on a shared machine is off by a factor of two. Both return a full list with shifts;
vesin also returns the vectors and distances only when asked, so it is not asked.
"""

import os
import statistics

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from ase.build import bulk, molecule
from timing import run_alone, wall_clock
from vesin import NeighborList

from comitia._core import NeighbourList


def rattled(atoms, seed=3):
    """Atoms moved by 0.1 Å at random."""
    atoms.positions += np.random.default_rng(seed).normal(scale=0.1, size=atoms.positions.shape)
    return atoms


SYSTEMS = {
    "Si 8": (rattled(bulk("Si", cubic=True)), 5.0),
    "Si 512": (rattled(bulk("Si", cubic=True) * (4, 4, 4)), 5.0),
    "Si 8000": (rattled(bulk("Si", cubic=True) * (10, 10, 10)), 5.0),
    "Cu 500": (rattled(bulk("Cu", cubic=True) * (5, 5, 5)), 4.9),
    "Cu primitive": (bulk("Cu"), 6.0),
    "C2H6": (molecule("C2H6"), 5.0),
}


def measure_pairs(atoms, cutoff, n_pairs):
    """Times of both in turns.

    Returns
    -------
    (ours, theirs), each (n_pairs,) seconds
    """
    positions = [atoms.positions.copy(), atoms.positions + 1e-9]
    cell, pbc = np.asarray(atoms.cell), atoms.pbc
    ours, theirs = NeighbourList(cutoff), NeighborList(cutoff=cutoff, full_list=True)
    times = []
    for repeat in range(n_pairs + 3):
        moved = positions[repeat % 2]  # without a skin any change means a new list
        times.append(
            (
                wall_clock(lambda moved=moved: ours.update(moved, cell, pbc)),
                wall_clock(lambda moved=moved: theirs.compute(moved, cell, pbc, "ijS", copy=False)),
            )
        )
    return np.array(times[3:]).T


def measure(n_pairs):
    """Median times, µs/atom, and the median of the ratios."""
    results = {}
    for name, (atoms, cutoff) in SYSTEMS.items():
        ours, theirs = measure_pairs(atoms, cutoff, n_pairs)
        full = NeighbourList(cutoff)
        full.update(atoms.positions, np.asarray(atoms.cell), atoms.pbc)
        scale = 1e6 / len(atoms)
        results[name] = {
            "n_atoms": len(atoms),
            "neighbours": full.n_pairs / len(atoms),
            "ours": statistics.median(ours) * scale,
            "vesin": statistics.median(theirs) * scale,
            "ratio": statistics.median(ours / theirs),
        }
    return results


def report(results):
    """Print the table."""
    print(f"{'system':14s} {'atoms':>6s} {'neighbours':>10s} {'µs/atom':>8s} {'vesin':>8s} {'ours/vesin':>10s}")
    for name, one in results.items():
        print(
            f"{name:14s} {one['n_atoms']:6d} {one['neighbours']:10.1f} {one['ours']:8.2f} {one['vesin']:8.2f} "
            f"{one['ratio']:10.2f}"
        )


if __name__ == "__main__":
    run_alone(__doc__, measure, report, rounds=60)
