"""The other ends of bench_server.py: a server as small as can be, clients to compare with, workers for our server."""

import contextlib
import os
import socket
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

STATUS, GETFORCE, EXIT = (name.ljust(12).encode() for name in ("STATUS", "GETFORCE", "EXIT"))


def process_time(pid):
    """CPU time that a process has had so far, s: of the clock that Linux keeps for each."""
    return time.clock_gettime(~pid << 3 | 2)


def structure(n_atoms):
    """POSDATA and GETFORCE of one structure, in one piece, as i-PI sends them."""
    cell = 30.0 * np.eye(3)
    positions = np.random.default_rng(0).normal(size=(n_atoms, 3))
    numbers = cell.tobytes() + np.linalg.inv(cell).tobytes() + struct.pack("<i", n_atoms) + positions.tobytes()
    return b"POSDATA     " + numbers + GETFORCE


class Server:
    """Drives clients, one at a time, with the same structure over and over: the messages of i-PI's default dialect.

    Parameters
    ----------
    n_atoms : int
    commands : {name: function of the path of a unix socket that returns the command of a client}
    """

    def __init__(self, n_atoms, commands):
        self._request, self._reply = structure(n_atoms), 12 + 8 + 4 + 24 * n_atoms + 72
        self._buffer = memoryview(bytearray(self._reply + (1 << 20)))
        self._stack = contextlib.ExitStack()
        self._clients = {}
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(f"{folder}/s")
            listener.listen()
            listener.settimeout(60)
            for name, command in commands.items():
                process = subprocess.Popen(command(f"{folder}/s"), stdout=subprocess.DEVNULL, env=os.environ)
                self._clients[name] = process, listener.accept()[0]
                self._introduce(self._clients[name][1])

    def _introduce(self, stream):
        stream.settimeout(60)
        stream.sendall(STATUS)
        self._read(stream, 12)
        if bytes(self._buffer[:8]) == b"NEEDINIT":
            stream.sendall(b"INIT        " + struct.pack("<ii", 0, 0))

    def _read(self, stream, n):
        done = 0
        while done < n:
            done += stream.recv_into(self._buffer[done:n])

    def steps(self, name, n_steps):
        """CPU time of one step of a client, mean of `n_steps`, s."""
        process, stream = self._clients[name]
        begin = process_time(process.pid)
        for _ in range(n_steps):
            stream.sendall(STATUS)
            self._read(stream, 12)
            stream.sendall(self._request)
            self._read(stream, self._reply + 4)
            self._read(stream, struct.unpack_from("<i", self._buffer, self._reply)[0])
        return (process_time(process.pid) - begin) / n_steps

    def close(self):
        """Send the clients away."""
        for process, stream in self._clients.values():
            with contextlib.suppress(OSError):
                stream.sendall(EXIT)
            stream.close()
            process.wait(60)


def minimal_client(path, n_atoms):
    """A client that does nothing but answer: as few system calls as the messages need, no number is looked at."""
    stream = socket.socket(socket.AF_UNIX)
    stream.connect(path)
    memory = bytearray(1 << 20)
    buffer, n_request = memoryview(memory), len(structure(n_atoms))
    forces = b"FORCEREADY  " + bytes(8) + struct.pack("<i", n_atoms) + bytes(24 * n_atoms + 72 + 4)
    while True:
        n = stream.recv_into(buffer)
        if memory[0] == STATUS[0]:
            stream.sendall(b"READY       ")
        elif memory[0] == b"P"[0]:
            while n < n_request:
                n += stream.recv_into(buffer[n:])
            stream.sendall(forces)
        else:
            return


def our_client(path, n_atoms, n_members=1):
    """Ours, as `comitia serve` runs it, with a potential that costs nothing."""
    from types import SimpleNamespace

    from ase import Atoms

    from comitia.protocol.service import ForceService
    from comitia.protocol.transports import connect_unix

    several = n_members > 1
    predictions = SimpleNamespace(
        energies=np.zeros(1), forces=np.zeros((1, n_atoms, 3)), virials=np.zeros((1, 3, 3)),
        member_energies=np.random.default_rng(0).normal(size=(1, n_members)) if several else None,
        energy_uncertainties=np.ones(1) if several else None,
    )  # fmt: skip
    evaluator = SimpleNamespace(compute=lambda positions, cells, members: predictions)
    potential = SimpleNamespace(n_members=n_members, evaluator=lambda numbers, pbc, n_threads: evaluator)
    atoms = Atoms(f"Si{n_atoms}", np.zeros((n_atoms, 3)), pbc=True)
    with connect_unix(path, 5) as connection:
        ForceService(potential, atoms).serve([connection])


def command(client, n_atoms, *numbers):
    """Function of a path: the command that runs one of the clients above in a process of its own."""
    return lambda path: [sys.executable, __file__, client, path, str(n_atoms), *map(str, numbers)]


I_PI_CLIENT = Path(sys.executable).with_name("i-pi-py_driver")


def dummy_command(path):
    """i-PI's own client with its potential that is zero."""
    return [str(I_PI_CLIENT), "-u", "-S", "/", "-a", path.lstrip("/"), "-m", "dummy"]


if __name__ == "__main__":
    CLIENTS = {"minimal": minimal_client, "ours": our_client}
    CLIENTS[sys.argv[1]](sys.argv[2], *map(int, sys.argv[3:]))
