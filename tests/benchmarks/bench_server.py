"""What serving forces costs besides the potential: `python tests/benchmarks/bench_server.py`.

- Client: CPU time of the process per step of 64 atoms whose potential costs nothing, ours, one that does nothing but
  answer (wire.py), and i-PI's `i-pi-py_driver -m dummy`, all driven by the same server in turns, on one core.
- Batch: 32 structures of 7 atoms in one call on two threads; the share of what a perfectly parallel loop gains in the
  same rounds (wall clock: on a machine that does nothing else).
- Weighted baseline: 64 members and a baseline that costs nothing, against the mean forces of the same members.
- Extras: `committee_force` of 512 atoms and 8 members as text, against `json.dumps` of the same lists.
- Workers: CPU time of our server per structure, with one worker on another core.

CPU times are those of the process; what is compared takes turns, and the median of the ratios is printed.
"""

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import json
import subprocess
import tempfile
import time

import numpy as np
import peak
from bench_committee import N_REBUILDS, committee, compute_path, zundel
from bench_threads import measure_threads
from samples import silicon
from timing import interleave, ratio, run_alone, stay_on_one_core
from wire import I_PI_CLIENT, Server, command, dummy_command

N_ATOMS, N_STEPS = 64, 200  # of the client's steps; steps in one timing
BATCH = 32
WEIGHTED = {"Si 512 atoms": 4, "Si 64 atoms": 2}  # edge of the cell
N_FRAMES = {3: 400, 300: 400, 30_000: 8}  # atoms: structures in one timing of the server


def measure_client(n_rounds):
    """CPU time per step of each client, s, and the ratios of ours."""
    cores = os.sched_getaffinity(0)
    stay_on_one_core()
    commands = {
        "minimal": command("minimal", N_ATOMS),
        "ours": command("ours", N_ATOMS),
        "ours, 8 members": command("ours", N_ATOMS, 8),
    }
    if I_PI_CLIENT.exists():
        commands["i-pi-py_driver"] = dummy_command
    server = Server(N_ATOMS, commands)
    try:
        times = interleave({name: lambda name=name: server.steps(name, N_STEPS) for name in commands}, n_rounds)
    finally:
        server.close()
        os.sched_setaffinity(0, cores)
    return {
        "microseconds": {name: float(np.median(values)) * 1e6 for name, values in times.items()},
        "ratios": {name: ratio(times, "ours", name) for name in times if not name.startswith("ours")},
    }


def measure_batch(n_rounds):
    """As `bench_threads.measure_threads`; None without a parallel loop to compare with."""
    library = peak.library()
    return library and measure_threads(zundel(), n_rounds, library.parallel_loop, BATCH)


class Nothing:
    """A baseline that costs nothing."""

    def evaluator(self, numbers, pbc, n_threads):
        return self

    def compute(self, positions, cells):
        self.energies, self.forces = np.zeros(len(positions)), np.zeros_like(positions)
        self.virials = np.zeros((len(positions), 3, 3))
        return self


def measure_weighted(edge, n_rounds):
    """CPU time per atom of mean forces and of the weighted baseline, s, in every round."""
    from comitia.density import Descriptor
    from comitia.engines.composed import ComposedPotential, PotentialSettings

    atoms = silicon(edge)
    potential = committee(Descriptor.build(atoms.numbers, 5.0), 64)
    potential.metadata["baseline"] = "nothing"
    settings = PotentialSettings(committee="model", baseline_uncertainty=1.0)
    composed = ComposedPotential([potential], settings, Nothing())
    cells, rng, times = atoms.cell.array[None].copy(), np.random.default_rng(3), {}
    for _ in range(N_REBUILDS):
        paths = {
            name: compute_path(one.evaluator(atoms.numbers, atoms.pbc, n_threads=1), cells)
            for name, one in (("mean", potential), ("weighted", composed))
        }
        for round_ in range(-2, -(-n_rounds // N_REBUILDS)):
            steps = atoms.positions + rng.uniform(-0.02, 0.02, (512 // len(atoms), *atoms.positions.shape))
            for name in map(str, np.roll(list(paths), round_)):
                begin = time.process_time()
                for positions in steps:
                    paths[name](positions)
                if round_ >= 0:
                    times.setdefault(name, []).append((time.process_time() - begin) / steps[..., 0].size)
    times = {name: np.array(values) for name, values in times.items()}
    return {
        "microseconds_per_atom": {name: float(np.median(values)) * 1e6 for name, values in times.items()},
        "ratio": ratio(times, "weighted", "mean"),
    }


def measure_extras(n_rounds):
    """CPU time of the text of all forces of a committee, s, by us and by json."""
    from comitia._wire import JsonText

    forces = np.random.default_rng(1).normal(scale=0.02, size=(8, 512, 3))
    lists, text = forces.reshape(8, -1).tolist(), JsonText()

    def ours():
        begin = time.process_time()
        text.clear()
        text.members("committee_force", forces)
        return time.process_time() - begin

    def theirs():
        begin = time.process_time()
        json.dumps({"committee_force": lists})
        return time.process_time() - begin

    times = interleave({"ours": ours, "json": theirs}, n_rounds)
    if str(text) != json.dumps({"committee_force": lists}):
        raise RuntimeError("the extras are not what json makes of them")
    milliseconds = {name: float(np.median(values)) * 1e3 for name, values in times.items()}
    return {"milliseconds": milliseconds, "ratio": ratio(times, "json", "ours")}


def measure_workers(n_atoms, n_frames, n_rounds):
    """CPU time of our server for one structure, s, the median of some rounds; one of our clients is the worker."""
    from comitia.protocol.listeners import listen_unix
    from comitia.protocol.requests import Request
    from comitia.protocol.worker_pool import WorkerPool

    cell, rng = 30.0 * np.eye(3), np.random.default_rng(0)
    positions = rng.normal(scale=5.0, size=(n_frames, n_atoms, 3))
    times = []
    with tempfile.TemporaryDirectory() as folder, WorkerPool([listen_unix(f"{folder}/s")], n_atoms) as pool:
        worker = subprocess.Popen(command("ours", n_atoms)(f"{folder}/s"), stdout=subprocess.DEVNULL)
        for round_ in range(-1, n_rounds):
            begin = time.process_time()
            n_answers = sum(1 for _ in pool.evaluate(Request(one, cell) for one in positions))
            if round_ >= 0:
                times.append((time.process_time() - begin) / n_answers)
    worker.wait(60)
    return float(np.median(times))


def measure(n_rounds):
    """All tables as one dictionary."""
    return {
        "rounds": n_rounds,
        "client": measure_client(n_rounds),
        "batch": measure_batch(n_rounds),
        "weighted": {name: measure_weighted(edge, n_rounds) for name, edge in WEIGHTED.items()},
        "extras": measure_extras(n_rounds),
        "workers": {n_atoms: measure_workers(n_atoms, n, max(3, n_rounds // 8)) for n_atoms, n in N_FRAMES.items()},
    }


def spread(one):
    """A ratio with its quartiles."""
    low, high = one["quartiles"]
    return f"{one['median']:.3f} (quartiles {low:.3f} to {high:.3f})"


def report(results):
    """Print the tables."""
    client, batch, extras = results["client"], results["batch"], results["extras"]
    print(f"{results['rounds']} rounds; client, {N_ATOMS} atoms, CPU time of one step:")
    for name, value in client["microseconds"].items():
        print(f"  {name:20s} {value:8.1f} µs")
    for name, value in client["ratios"].items():
        print(f"  ours / {name}: {spread(value)}")
    if batch is not None:
        low, high = batch["quartiles"]
        print(
            f"batch of {BATCH} times 7 atoms, two threads: gain {batch['gain']:.3f}, of a perfectly parallel loop "
            f"{batch['gain_of_the_loop']:.3f}; share {batch['efficiency']:.3f} (quartiles {low:.3f} to {high:.3f})"
        )
    for name, one in results["weighted"].items():
        mean, weighted = (one["microseconds_per_atom"][path] for path in ("mean", "weighted"))
        print(f"weighted baseline, 64 members, {name}: {weighted:.2f} µs/atom, mean forces {mean:.2f}")
        print(f"  ratio: {spread(one['ratio'])}")
    ours, theirs = (extras["milliseconds"][path] for path in ("ours", "json"))
    print(f"committee_force, 512 atoms, 8 members: {ours:.3f} ms, json {theirs:.2f} ms")
    print(f"  json / ours: {spread(extras['ratio'])}")
    for n_atoms, value in results["workers"].items():
        print(f"server of workers, {n_atoms:5d} atoms: {value * 1e3:.3f} ms of CPU time for each structure")


if __name__ == "__main__":
    run_alone(__doc__, measure, report)
