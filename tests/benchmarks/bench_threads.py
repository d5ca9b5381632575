"""Two threads against one, and the memory of an atom: `python tests/benchmarks/bench_threads.py`.

Wall clock, as it is about parallel speed: to be run on a machine that does nothing else. Beside ours a loop of
multiply-adds, perfectly parallel, is timed on as many threads in the same round and for about as long; what it
gains is what the machine has to give, and the efficiency is our gain divided by its. Memory is the growth of the
resident set from 10⁴ to 10⁵ atoms, each in a process of its own.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import peak
from samples import silicon
from timing import run_alone, wall_clock

N_THREADS = 2
EDGES = {4000: (5, 10, 10), 64: 2}  # cells of 8 atoms
CUTOFF = 5.0  # Å


def evaluator_of(atoms, n_threads):
    """A model of order 3, with the settings that a fit has where none are given."""
    from comitia.density import Descriptor
    from comitia.potential import Potential

    descriptor = Descriptor.build(atoms.numbers, CUTOFF)
    weights = np.random.default_rng(2).normal(scale=1e-3, size=(1, descriptor.width))
    potential = Potential(descriptor, weights, np.zeros(descriptor.n_species))
    return potential.evaluator(atoms.numbers, atoms.pbc, n_threads=n_threads, incremental=False)


def measure_threads(atoms, n_rounds, loop, n_structures=1):
    """Gains of ours and of the loop in every round.

    Parameters
    ----------
    atoms : ase.Atoms
    n_rounds : int
    loop : function of an amount of work and the number of threads, perfectly parallel
    n_structures : int, evaluated in one call, each with atoms a little elsewhere

    Returns
    -------
    dict with the medians of both gains and of their ratio, with quartiles
    """
    shape = (n_structures, *atoms.positions.shape)
    positions = atoms.positions + np.random.default_rng(3).normal(scale=0.02, size=shape)
    cells = np.repeat(atoms.cell.array[None], n_structures, axis=0)
    paths = {}
    for n_threads in (1, N_THREADS):
        evaluator = evaluator_of(atoms, n_threads)
        paths["ours", n_threads] = lambda evaluator=evaluator: evaluator.compute(positions, cells)
    alone = min(wall_clock(paths["ours", 1]) for _ in range(5))
    n_loop = 10_000
    n_loop = int(n_loop * alone / min(wall_clock(lambda: loop(n_loop, 1)) for _ in range(5)))
    for n_threads in (1, N_THREADS):
        paths["loop", n_threads] = lambda n_threads=n_threads: loop(n_loop, n_threads)
    times = {name: [] for name in paths}
    order = list(paths)
    for round_ in range(-3, n_rounds):
        for place in np.roll(np.arange(len(order)), round_):
            took = wall_clock(paths[order[place]])
            if round_ >= 0:
                times[order[place]].append(took)
    gain = {which: np.array(times[which, 1]) / np.array(times[which, N_THREADS]) for which in ("ours", "loop")}
    low, efficiency, high = np.percentile(gain["ours"] / gain["loop"], [25, 50, 75])
    return {
        "rounds": n_rounds,
        "microseconds_per_atom": [
            float(np.median(times["ours", n])) / positions[..., 0].size * 1e6 for n in (1, N_THREADS)
        ],
        "gain": float(np.median(gain["ours"])),
        "gain_of_the_loop": float(np.median(gain["loop"])),
        "efficiency": float(efficiency),
        "quartiles": [float(low), float(high)],
    }


def resident(kind="VmHWM"):
    """Largest resident set of this process so far, or now (`VmRSS`), bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(kind + ":"))


def serve_memory(n_atoms):
    """Print the resident set after some evaluations, and by how much it grew in fifty more."""
    atoms = silicon((5, 10, n_atoms // 400))
    evaluator = evaluator_of(atoms, N_THREADS)
    positions, cells = atoms.positions[None].copy(), atoms.cell.array[None].copy()
    evaluator.compute(positions, cells)
    evaluator.compute(positions, cells)
    first, most = resident(), resident("VmRSS")
    for _ in range(400_000 // n_atoms + 4):
        evaluator.compute(positions, cells)
    print(json.dumps({"resident": first, "growth": resident() - first, "now": most}))


def measure_memory():
    """Bytes of an atom, and growth of the resident set when evaluations are repeated."""
    found = {}
    for n_atoms in (10_000, 100_000):
        command = [sys.executable, __file__, "--memory", str(n_atoms)]
        found[n_atoms] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    per_atom = (found[100_000]["resident"] - found[10_000]["resident"]) / 90_000
    return {"bytes_per_atom": per_atom, "growth_when_repeated": found[100_000]["growth"]}


def measure(n_rounds):
    """Both tables as one dictionary; threads are None where the loop cannot be compiled."""
    library = peak.library()
    threads = None
    if library is not None:
        loop = library.parallel_loop
        threads = {n_atoms: measure_threads(silicon(edge), n_rounds, loop) for n_atoms, edge in EDGES.items()}
    return {"threads": threads, "memory": measure_memory()}


def report(results):
    """Print the tables."""
    for n_atoms, one in (results["threads"] or {}).items():
        low, high = one["quartiles"]
        print(
            f"Si {n_atoms:5d} atoms, {N_THREADS} threads: gain {one['gain']:.3f}, of a perfectly parallel loop "
            f"{one['gain_of_the_loop']:.3f}; efficiency {one['efficiency']:.3f} (quartiles {low:.3f} to {high:.3f}, "
            f"{one['rounds']} rounds)"
        )
    if results["threads"] is None:
        print("threads: missing, as no C compiler made the parallel loop")
    memory = results["memory"]
    print(
        f"memory {memory['bytes_per_atom'] / 1024:.2f} KiB per atom; repeating 10⁵ atoms adds "
        f"{memory['growth_when_repeated'] / 1024:.0f} KiB in all"
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--memory"]:
        serve_memory(int(sys.argv[2]))
    else:
        run_alone(__doc__, measure, report, rounds=60)
