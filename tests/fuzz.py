"""`python tests/fuzz.py --streams N`: mutated streams through both roles of the protocol.

Whatever arrives, a role gives messages, `PeerError` or (for a number that it must not send) `NumericalError`, and the
same however the stream is cut: one stream in four is also fed in two pieces, one in a hundred byte by byte. Memory
does not grow.
"""

import argparse
import functools
import multiprocessing
import os
import random
import time
from pathlib import Path

import numpy as np
from peers import conversation, encode_force_ready, replies, structures

from comitia.errors import NumericalError, PeerError
from comitia.protocol.messages import FROM_CLIENT, FROM_SERVER, header
from comitia.protocol.server_states import Forces, ForceServer, Ready
from comitia.protocol.states import Closed, Evaluate, ForceClient, Send

SEEDS = {
    "client": [
        b"".join(conversation(n_atoms=1, n_steps=1)),
        b"".join(conversation(n_atoms=2, consolidated=False)),
        b"".join(conversation(n_atoms=1, batch_size=3)),
    ],
    "server": [b"".join(replies(2)), b"".join(replies(2, n_steps=1)), b"".join(replies(1))],
    "server of batches": [b"".join(replies(2, batch_size=3)), b"".join(replies(2, batch_size=3, n_steps=1))],
}
NAMES = (*FROM_SERVER, *FROM_CLIENT, "FORCEREADY")
WORDS = [*(header(name) for name in NAMES), b"\xff\xff\xff\x7f", bytes(4)]
N_REQUESTS = 2  # of the server, as many as its workers answer
ENDS = ("EXIT", "end of stream", "waiting")  # of a stream that was not refused
GROWTH = 5.0  # MB that a process may grow by after its first tenth
PIECE = 10_000  # streams for a process at a time


def mutated(rng, seeds):
    """A valid stream with a few bytes changed, cut out, repeated or spliced with another."""
    stream = bytearray(rng.choice(seeds))
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(stream) + 1)
        kind = rng.randrange(6)
        if kind == 0 and at < len(stream):
            stream[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del stream[at : at + rng.choice((1, 4, 12, 60))]
        elif kind == 2:
            stream[at:at] = rng.choice(WORDS)
        elif kind == 3:
            stream[at : at + 4] = rng.choice((b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", bytes(4), b"\x01\0\0\0"))
        elif kind == 4:
            other = rng.choice(seeds)
            stream[at:] = other[rng.randrange(len(other)) :]
        else:
            stream[at:at] = rng.randbytes(rng.randint(1, 16))
    return bytes(stream)


@functools.cache
def _results(n_structures, n_atoms):
    shape = n_structures, n_atoms, 3
    return np.ones(n_structures), np.ones(shape), np.ones((n_structures, 3, 3)), n_structures * ["{}"]


@functools.cache
def _request(n_structures, n_atoms):
    return structures(n_structures, n_atoms)


def client_outcome(pieces):
    """What the client read and says, and how it ends, an error included."""
    client, said = ForceClient(), []
    try:
        for piece in pieces:
            client.feed(piece)
            while (event := client.next_event()) is not None:
                if isinstance(event, Evaluate):
                    said += [event.cells.tobytes(), event.inverses.tobytes(), event.positions.tobytes()]
                    client.answer(*_results(*event.positions.shape[:2]))
                elif isinstance(event, Send):
                    said.append(event.payload)
                else:
                    return b"".join(said), event.reason
        client.end_of_stream()
        event = client.next_event()
        return b"".join(said), event.reason if isinstance(event, Closed) else "waiting"
    except PeerError as error:
        return b"".join(said), str(error)


def server_outcome(pieces, batch_size=None):
    """What the server says and believes, and how it ends, an error included."""
    server, said = ForceServer(2, "Ar2", batch_size), []
    n_left = N_REQUESTS

    def listen():
        nonlocal n_left
        while (event := server.next_event()) is not None:
            if isinstance(event, Send):
                said.append(event.payload)
            elif isinstance(event, Forces):
                said.append(encode_force_ready(event.message))
            elif isinstance(event, Ready) and n_left:
                n_left -= 1
                server.request(_request(server.capacity, 2))
            elif isinstance(event, Closed):
                return event.reason
        return "waiting"

    try:
        listen()
        for piece in pieces:
            server.feed(piece)
            listen()
        server.end_of_stream()
        return b"".join(said), listen()
    except NumericalError:
        return b"".join(said), "not finite"
    except PeerError as error:
        return b"".join(said), str(error)


ROLES = {"client": client_outcome, "server": server_outcome, "server of batches": lambda p: server_outcome(p, 3)}


def fuzz(role, n_streams, seed):
    """How many of `n_streams` mutated streams were refused; AssertionError where cutting one changed what it means."""
    rng, outcome, seeds = random.Random(seed), ROLES[role], SEEDS[role]
    refused = 0
    for number in range(n_streams):
        stream = mutated(rng, seeds)
        whole = outcome([stream])
        if number % 4 == 0:
            cut = rng.randrange(len(stream) + 1)
            assert outcome([stream[:cut], stream[cut:]]) == whole
        if number % 100 == 0:
            assert outcome([stream[i : i + 1] for i in range(len(stream))]) == whole
        refused += whole[1] not in ENDS
    return refused


def resident():
    """Memory of this process, MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def _piece(task):
    role, n_streams, seed = task
    start = time.process_time()
    refused = fuzz(role, n_streams, seed)
    return role, n_streams, refused, os.getpid(), time.process_time() - start, resident()


def run(n_streams, seed=1, processes=2):
    """Fuzz all roles with `n_streams` in all, half of them for the client; print what happened.

    Raises
    ------
    AssertionError
        if cutting a stream changed its meaning, mutations were all harmless or all refused, or memory grew.
    """
    shares = {"client": 0.5, "server": 0.25, "server of batches": 0.25}
    roles = [role for role, share in shares.items() for _ in range(round(share * n_streams / PIECE))]
    tasks = [(role, PIECE, 1000 * seed + index) for index, role in enumerate(roles)]
    random.Random(seed).shuffle(tasks)  # so that every process sees every role from its beginning on
    memory, done, start = {}, [], time.monotonic()
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for piece in pool.imap_unordered(_piece, tasks):
            done.append(piece[:3])
            memory.setdefault(piece[3], []).append(piece[5])
            seconds = piece[4]
    for role in shares:
        n, refused = (sum(piece[i] for piece in done if piece[0] == role) for i in (1, 2))
        assert 0.2 * n < refused < n, f"{role}: {refused} of {n} were refused"
        print(f"{role}: {n} streams, {refused} refused")
    growth = max(max(sizes[len(sizes) // 10 :]) - sizes[len(sizes) // 10] for sizes in memory.values())
    n_done, elapsed = sum(piece[1] for piece in done), time.monotonic() - start
    print(
        f"{n_done} streams in {elapsed:.0f} s ({n_done / elapsed:.0f} per s, {processes} processes, the last piece "
        f"{1e6 * seconds / PIECE:.0f} µs of processor each); memory grew by {growth:.2f} MB"
    )
    assert growth < GROWTH


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--streams", type=int, default=2_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    run(arguments.streams, arguments.seed, arguments.processes)
