"""`python faulty_server.py ADDRESS N_ATOMS STATE FAULT`: a server that is fine until STATE, then meets with FAULT.

ADDRESS is `unix:PATH` or `tcp`. One line says where the server listens, a second one when the fault begins (monotonic
clock); a line of standard input says that the client is connected, as a reset may reach it before it knows. The states
are those of its client; in `sending` the client has more to send than anybody takes. The faults are those of
faulty_worker.py: close, reset, kill, stop, half.
"""

import contextlib
import os
import socket
import struct
import sys
import time

from faulty_worker import FAULTS, Script

STATES = ("connected", "asked", "introduced", "ready", "havedata", "computing", "sending", "answered")
N_ATOMS_SENDING = 200_000  # forces of so many fit into no buffer
__all__ = ["FAULTS", "N_ATOMS_SENDING", "STATES"]


def listen(address):
    """A listening socket that tells where it is."""
    if address.startswith("unix:"):
        door = socket.socket(socket.AF_UNIX)
        door.bind(address[5:])
        where = address
    else:
        door = socket.socket()
        door.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        door.bind(("127.0.0.1", 0))
        where = f"tcp:127.0.0.1:{door.getsockname()[1]}"
    door.listen()
    print(where, flush=True)
    return door


class FaultyServer(Script):
    """The other side of the conversation of `Script`."""

    def __init__(self, stream, n_atoms):
        self.stream, self.n_atoms = stream, n_atoms

    def structure(self):
        cell = struct.pack("<9d", 20, 0, 0, 0, 20, 0, 0, 0, 20) + struct.pack("<9d", 0.05, 0, 0, 0, 0.05, 0, 0, 0, 0.05)
        return cell + struct.pack("<i", self.n_atoms) + bytes(24 * self.n_atoms)

    def go_to(self, state):
        """Behave until the client is in `state`; half of the message that would come next."""
        if state == "connected":
            return b"STAT"
        self.say("STATUS")
        self.expect("NEEDINIT")
        if state == "asked":
            return b"INIT        " + bytes(3)
        self.say("INIT", struct.pack("<ii", 0, 3) + b"a:b")
        if state == "introduced":
            return b"STAT"
        self.say("STATUS")
        self.expect("READY")
        half = b"POSDATA     " + self.structure()[:160]
        if state == "ready":
            return half
        self.say("POSDATA", self.structure())
        if state == "havedata":
            self.say("STATUS")
            self.expect("HAVEDATA")
            return b"GETFOR"
        self.say("GETFORCE")
        if state == "computing":
            return b"STAT"
        if state == "sending":
            time.sleep(0.3)  # it fills what there is of buffers
            return b"STAT"
        self.expect("FORCEREADY")
        self.read(12 + 24 * self.n_atoms + 72)
        self.read(*struct.unpack("<i", self.read(4)))
        return half

    def meet(self, fault, half):
        print(time.monotonic(), flush=True)
        if fault == "half":
            self.stream.sendall(half)
            time.sleep(60)
        else:
            super().meet(fault, None)


def main():
    """Play one script."""
    address, n_atoms, state, fault = sys.argv[1:]
    with listen(address) as door:
        server = FaultyServer(door.accept()[0], int(n_atoms))
    if address.startswith("unix:"):
        os.unlink(address[5:])
    sys.stdin.readline()
    with contextlib.suppress(ConnectionError):
        server.meet(fault, server.go_to(state))


if __name__ == "__main__":
    main()
