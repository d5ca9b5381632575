"""`python tests/soak.py --frames N`: structures of 64 atoms from our server to our client in a process of its own.

The potential costs nothing, so that frames are many; memory, descriptors and threads of both processes are looked at
all along. With `--client ADDRESS` this is the client.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from comitia.protocol.boundary import WireResults
from comitia.protocol.client import Session, serve
from comitia.protocol.listeners import listen_unix
from comitia.protocol.requests import Answer, Request
from comitia.protocol.transports import connect_unix
from comitia.protocol.worker_pool import WorkerPool

N_ATOMS, N_MEMBERS = 64, 4
WARM = 0.2  # share of the frames after which memory is looked at
LOOKS = 100  # at memory, in all


def compute(positions, cells):
    """The energy is a sum of coordinates, so that an answer can be told from another."""
    members = positions.sum(axis=(1, 2))[:, None] + np.zeros(N_MEMBERS)
    return SimpleNamespace(
        energies=members.mean(axis=1), forces=positions, virials=cells,
        member_energies=members, energy_uncertainties=np.zeros(len(members)),
    )  # fmt: skip


def client(path):
    """Answer the server at `path` until it ends."""
    with connect_unix(path, 60.0) as connection:
        serve([Session(connection, compute, WireResults(), N_ATOMS, 3 * (True,))])


def state_of(pid):
    """Memory that a process does not share with others (kB), its descriptors and its threads."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(status["RssAnon"].split()[0]), len(os.listdir(f"/proc/{pid}/fd")), int(status["Threads"])


def soak(n_frames):
    """Of server and client: slopes of memory (kB per 10 000 frames) and growth (kB); and frames/s.

    Raises
    ------
    AssertionError
        if an answer is wrong, or descriptors or threads change.
    """
    rng = np.random.default_rng(1)
    structures = rng.normal(size=(50, N_ATOMS, 3))
    cells = [(20 + 0.1 * number) * np.eye(3) for number in range(5)]
    every = max(1, n_frames // LOOKS)
    with tempfile.TemporaryDirectory() as folder, listen_unix(f"{folder}/door") as door:
        command = [sys.executable, __file__, "--client", f"{folder}/door"]
        worker = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"})
        try:
            with WorkerPool([door], N_ATOMS) as pool:
                requests = (Request(structures[number % 50], cells[number // 20 % 5]) for number in range(n_frames))
                looks, start = np.full((-(-n_frames // every), 7), -1), time.monotonic()
                for number, answer in enumerate(pool.evaluate(requests)):
                    assert isinstance(answer, Answer), answer
                    if number % every == 0:
                        assert abs(answer.energy - structures[number % 50].sum()) < 1e-9
                        looks[number // every] = number, *state_of(os.getpid()), *state_of(worker.pid)
                elapsed = time.monotonic() - start
            assert worker.wait(20) == 0
        finally:
            worker.kill()
            worker.wait()
    looks = looks[round(WARM * len(looks)) :]
    assert (looks[:, [2, 3, 5, 6]] == looks[0, [2, 3, 5, 6]]).all(), "descriptors or threads changed"
    slopes = [1e4 * np.polyfit(looks[:, 0], looks[:, column], 1)[0] for column in (1, 4)]
    grown = (looks[-1, [1, 4]] - looks[0, [1, 4]]).tolist()
    return {"slopes": slopes, "grown": grown, "frames_per_second": n_frames / elapsed}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=1_000_000)
    parser.add_argument("--client", metavar="ADDRESS")
    arguments = parser.parse_args()
    if arguments.client:
        client(arguments.client)
        return
    print(json.dumps(soak(arguments.frames)))


if __name__ == "__main__":
    main()
