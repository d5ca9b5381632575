"""`python faulty_worker.py ADDRESS N_ATOMS STATE FAULT`: a worker that is fine until STATE, then meets with FAULT.

States: connected, asked (answered NEEDINIT), introduced, ready, computing, answered. Faults: close, reset, kill, stop,
half (half a message, then silence); and what a wrong engine says: header, order, atoms, nan, virial, six (numbers of
it), extras, unasked; drip (a byte of the right answer now and then).
"""

import contextlib
import os
import signal
import socket
import struct
import sys
import time

STATES = ("connected", "asked", "introduced", "ready", "computing", "answered")
FAULTS = ("close", "reset", "kill", "stop", "half")


def connect(address):
    if address.startswith("unix:"):
        stream = socket.socket(socket.AF_UNIX)
        stream.connect(address[5:])
        return stream
    host, port = address[4:].rsplit(":", 1)
    return socket.create_connection((host, int(port)))


class Script:
    def __init__(self, address, n_atoms):
        self.stream, self.n_atoms = connect(address), n_atoms

    def read(self, n):
        taken = b""
        while len(taken) < n:
            chunk = self.stream.recv(n - len(taken))
            if not chunk:
                sys.exit()
            taken += chunk
        return taken

    def expect(self, name):
        assert self.read(12).decode().strip() == name

    def say(self, name, body=b""):
        self.stream.sendall(name.encode().ljust(12) + body)

    def positions(self):
        self.expect("POSDATA")
        self.read(144)
        assert struct.unpack("<i", self.read(4)) == (self.n_atoms,)
        values = struct.unpack(f"<{3 * self.n_atoms}d", self.read(24 * self.n_atoms))
        self.expect("GETFORCE")
        self.expect("STATUS")
        return values

    def forces(self, positions, n_atoms=None, spoil=None, n_virial=9, extras=b"", length=None):
        """The potential of tests/peers.py with one spring of 1 hartree/bohr², so that answers can be checked."""
        n_atoms = self.n_atoms if n_atoms is None else n_atoms
        forces = [-x for x in positions][: 3 * n_atoms] + [0.0] * (3 * (n_atoms - self.n_atoms))
        energy = 0.5 * sum(x * x for x in positions)
        if spoil is not None:
            forces[spoil] = float("nan")
        body = struct.pack(f"<di{3 * n_atoms}d", energy, n_atoms, *forces)
        body += struct.pack(f"<{n_virial}d", *[0.0] * n_virial)
        return body + struct.pack("<i", len(extras) if length is None else length) + extras

    def go_to(self, state):
        """Behave until `state`; what was asked last."""
        if state == "connected":
            return None
        self.expect("STATUS")
        self.say("NEEDINIT")
        if state == "asked":
            return None
        self.expect("INIT")
        _, length = struct.unpack("<ii", self.read(8))
        self.read(length)
        self.expect("STATUS")
        if state == "introduced":
            return None
        self.say("READY")
        if state == "ready":
            return None
        positions = self.positions()
        if state == "answered":
            self.say("FORCEREADY", self.forces(positions))
        return positions

    def meet(self, fault, positions):
        n = self.n_atoms
        if fault == "close":
            self.stream.close()
        elif fault == "reset":
            self.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.stream.close()
        elif fault in ("kill", "stop"):
            os.kill(os.getpid(), signal.SIGKILL if fault == "kill" else signal.SIGSTOP)
        elif fault == "half":
            if positions is None:
                self.stream.sendall(b"REA")
            else:
                self.stream.sendall(b"FORCEREADY  " + self.forces(positions)[: 12 * n])
        elif fault == "header":
            self.say("HELLO")
        elif fault == "order":
            self.say("HAVEDATA")
        elif fault == "unasked":
            self.say("FORCEREADY", self.forces(positions or [0.0] * 3 * n))
            self.say("FORCEREADY", self.forces(positions or [0.0] * 3 * n))
        elif fault == "atoms":
            self.say("FORCEREADY", self.forces(positions, n_atoms=n + 1))
        elif fault == "nan":
            self.say("FORCEREADY", self.forces(positions, spoil=4))
        elif fault == "virial":
            self.say("FORCEREADY", self.forces(positions, n_virial=12))
        elif fault == "six":
            self.say("FORCEREADY", self.forces(positions, n_virial=6))
        elif fault == "drip":
            for byte in b"FORCEREADY  " + self.forces(positions):
                self.stream.sendall(bytes([byte]))
                time.sleep(0.05)
        elif fault == "extras":
            self.say("FORCEREADY", self.forces(positions, length=-5))
        else:
            raise ValueError(fault)
        if fault not in ("close", "reset"):
            while self.stream.recv(65536):
                time.sleep(0.001)


def main():
    """Play one script."""
    address, n_atoms, state, fault = sys.argv[1:]
    script = Script(address, int(n_atoms))
    with contextlib.suppress(ConnectionError):
        script.meet(fault, script.go_to(state))


if __name__ == "__main__":
    main()
