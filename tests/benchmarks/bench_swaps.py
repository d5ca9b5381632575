"""What a Monte Carlo trial costs: `python tests/benchmarks/bench_swaps.py`.

Swaps of two atoms of unlike species in an fcc alloy of 500, 1372 and 4000 atoms, half of them accepted, of which the
evaluator is not told. Against a full evaluation that keeps its neighbour list, as in dynamics, for the same share of
the atoms, that is times touched over all; and against a full evaluation of the same trials, whose neighbour list is
made anew. What touched centres give is kept by then: `first trials` are those after a full evaluation, of which it is
not. `message` is the whole trial: positions read from a socket, evaluation, and the answer written to it.
16 members with all their energies. Process CPU time on one thread, in turns; printed is the median of the ratios.
"""

import itertools
import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import socket
import time

import numpy as np
from ase.build import bulk
from samples import rattled
from timing import ratio, run_alone, stay_on_one_core, summary

from comitia.density import Descriptor
from comitia.potential import Potential
from comitia.protocol.boundary import WireResults
from comitia.protocol.client import Session
from comitia.protocol.messages import PositionData, encode_position_data, header
from comitia.protocol.transports import Connection
from comitia.units import BOHR

SPECIES = (29, 79)
CUTOFF = 5.0  # Å
N_MEMBERS = 16
EDGES = {500: 5, 1372: 7, 4000: 10}  # atoms: cubic cells along each edge


def alloy(edge):
    """An fcc solid solution of two species."""
    atoms = rattled(bulk("Cu", "fcc", a=3.9, cubic=True).repeat(edge))
    atoms.numbers = np.random.default_rng(2).permutation(np.resize(SPECIES, len(atoms)))
    return atoms


class Walk:
    """Trials that are accepted half the time."""

    def __init__(self, atoms, rng):
        self.positions, self.rng = atoms.positions.copy(), rng
        self._of_species = [np.flatnonzero(atoms.numbers == z) for z in SPECIES]

    def trial(self):
        """Positions (1, n_atoms, 3), Å."""
        pair = [self.rng.choice(of_one) for of_one in self._of_species]
        positions = self.positions.copy()
        positions[pair] = positions[pair[::-1]]
        if self.rng.random() < 0.5:
            self.positions = positions
        return positions[None]


class Server:
    """The other end of the socket of a session, whose client computes with the given function."""

    def __init__(self, compute, atoms):
        self.end, client = socket.socketpair()
        for one in (self.end, client):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)  # whole messages
        self.session = Session(Connection(client, "unix:pair"), compute, WireResults(), len(atoms), atoms.pbc)
        self.cell = atoms.cell.array.T / BOHR

    def send(self, positions):
        """A message with these positions, Å, and the wish for their forces."""
        self.end.setblocking(False)
        while True:
            try:
                self.end.recv(1 << 20)
            except BlockingIOError:
                break
        message = PositionData(self.cell[None], np.linalg.inv(self.cell)[None], positions / BOHR)
        self.end.setblocking(True)
        self.end.sendall(encode_position_data(message) + header("GETFORCE"))

    def answer(self):
        """What the client does with it: read, evaluate, write."""
        self.session.advance()


def seconds(call, *arguments):
    """CPU time of one call."""
    begin = time.process_time()
    call(*arguments)
    return time.process_time() - begin


def time_paths(n_atoms):
    """Without end, one round after the other: CPU times of each path in every round so far, s, what share of the atoms
    each trial touched, and the number of features."""
    atoms, rng = alloy(EDGES[n_atoms]), np.random.default_rng(3)
    descriptor = Descriptor.build(SPECIES, CUTOFF)
    weights = rng.normal(scale=1e-3, size=(N_MEMBERS, descriptor.width))
    potential = Potential(descriptor, weights, np.zeros(2))
    cells = atoms.cell.array[None].copy()
    trials, through_message = (potential.evaluator(atoms.numbers, atoms.pbc, 1) for _ in range(2))
    dynamics, in_full = (potential.evaluator(atoms.numbers, atoms.pbc, 1, incremental=False) for _ in range(2))
    server = Server(through_message.compute, atoms)
    walk = Walk(atoms, rng)
    for evaluator in (trials, through_message, dynamics, in_full):
        evaluator.compute(walk.positions[None], cells)
    times, touched = {name: [] for name in ("trial", "first trials", "message", "dynamics", "full")}, []
    for number in range(n_atoms // 15):  # until most atoms were touched
        positions = walk.trial()
        first = seconds(trials.compute, positions, cells)
        if number in range(1, 6):
            times["first trials"].append(first)
        server.send(positions)
        server.answer()
    for round_ in itertools.count():
        positions = walk.trial()
        moved = atoms.positions[None] + rng.uniform(-0.02, 0.02, positions.shape)
        server.send(positions)
        paths = {
            "trial": lambda positions=positions: trials.compute(positions, cells),
            "message": server.answer,
            "dynamics": lambda moved=moved: dynamics.compute(moved, cells),
            "full": lambda positions=positions: in_full.compute(positions, cells),
        }
        for name in np.roll(list(paths), round_):
            times[name].append(seconds(paths[name]))
        touched.append(trials.n_touched / n_atoms)
        yield {name: np.array(values) for name, values in times.items()}, np.array(touched), descriptor.n_features


def measure(n_rounds):
    """Times, µs, and ratios for each number of atoms."""
    stay_on_one_core()
    results, trials = {}, {}
    cases = {n_atoms: time_paths(n_atoms) for n_atoms in EDGES}
    for _ in range(n_rounds):  # all numbers of atoms in turns
        found = {n_atoms: next(rounds) for n_atoms, rounds in cases.items()}
    for n_atoms, (times, touched, n_features) in found.items():
        times["share of dynamics"], times["share of full"] = times["dynamics"] * touched, times["full"] * touched
        trials[n_atoms] = times
        results[f"{n_atoms} atoms"] = {
            "n_features": n_features,
            "touched": float(np.median(touched)) * n_atoms,
            "microseconds": summary(times),
            "ratios": {
                "trial / share of dynamics": ratio(times, "trial", "share of dynamics"),
                "trial / share of full": ratio(times, "trial", "share of full"),
                "message / trial": ratio(times, "message", "trial"),
            },
        }
    fewest, most = min(trials), max(trials)
    for name in ("trial", "message"):
        times = {n: trials[n][name] for n in (fewest, most)}
        results[f"{name}, {most} / {fewest} atoms"] = float(np.median(times[most] / times[fewest]))
    return results


def report(results):
    """Print the table."""
    for case, one in results.items():
        if isinstance(one, float):
            print(f"{case}: {one:.3f}")
            continue
        print(f"{case}, {one['n_features']} features of each centre, {one['touched']:.0f} touched by a trial")
        for name, value in one["microseconds"].items():
            print(f"  {name:30s} {value['median']:10.1f} µs")
        for name, value in one["ratios"].items():
            low, high = value["quartiles"]
            print(f"  {name}: {value['median']:.3f} (quartiles {low:.3f} to {high:.3f})")


if __name__ == "__main__":
    run_alone(__doc__, measure, report)
