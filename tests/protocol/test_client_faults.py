"""Servers that die, hang and break off in every state: the client notices, says so, and uses no processor meanwhile."""

import itertools
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import faulty_server
import numpy as np
import pytest

from comitia.errors import ComitiaError, PeerError
from comitia.protocol import client, transports
from comitia.protocol.boundary import WireResults
from comitia.protocol.client import Session, serve
from comitia.protocol.transports import connect_tcp, connect_unix

N_ATOMS = 3
SILENCE = 1.5  # s, every deadline of the client
BOUND = 10.0  # s, 5 x the recovery that is wanted
COMPUTING = 0.2  # s
MATRIX = list(itertools.product(faulty_server.STATES, faulty_server.FAULTS))
IDLE = ("connected", "asked", "introduced", "ready", "answered")  # where an end of stream is in order
SCRIPT = Path(faulty_server.__file__)


@dataclass
class Ending:
    """How a client ended: its error, or None after an orderly end; s from the fault to the end, and of processor."""

    error: ComitiaError | None
    recovery: float
    processor: float


class Case:
    """A faulty server in a process of its own, and our client in a thread.

    Clients meet at `together` before they connect: a server whose processor starts others would be silent meanwhile.
    """

    def __init__(self, transport, state, fault, folder, together):
        self.n_atoms = faulty_server.N_ATOMS_SENDING if state == "sending" else N_ATOMS
        address = f"unix:{folder}/{state}-{fault}" if transport == "unix" else "tcp"
        self.slow = state == "computing"
        command = [sys.executable, "-S", "-E", str(SCRIPT), address, str(self.n_atoms), state, fault]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.ending, self.together = None, together
        self.thread = threading.Thread(target=self._run)

    def _compute(self, positions, cells):
        if self.slow:
            time.sleep(COMPUTING)
        return SimpleNamespace(
            energies=np.zeros(1), forces=np.zeros_like(positions), virials=np.zeros((1, 3, 3)),
            member_energies=None, energy_uncertainties=None,
        )  # fmt: skip

    def _run(self):
        kind, _, rest = self.process.stdout.readline().strip().partition(":")
        error, used = None, 0.0
        self.together.wait(60)
        with connect_unix(rest, 5) if kind == "unix" else connect_tcp("127.0.0.1", int(rest.split(":")[1]), 5) as there:
            print("connected", file=self.process.stdin, flush=True)
            before = time.thread_time()
            try:
                serve([Session(there, self._compute, WireResults(), self.n_atoms, 3 * (True,), SILENCE)])
            except ComitiaError as caught:
                error = caught
            end, used = time.monotonic(), time.thread_time() - before
        began = float(self.process.stdout.readline())
        self.ending = Ending(error, end - began, used)

    def end(self):
        """Wait for the client; end the server."""
        self.thread.join(30)
        self.process.kill()
        self.process.communicate()
        assert not self.thread.is_alive()


@pytest.fixture
def quick(monkeypatch):
    """All deadlines of the client are short."""
    monkeypatch.setattr(client, "MESSAGE_TIMEOUT", SILENCE)
    monkeypatch.setattr(transports, "SEND_TIMEOUT", SILENCE)
    monkeypatch.setattr(transports, "DRAIN_TIMEOUT", 0.5)


def check(state, fault, ending):
    """The client ended as it must."""
    assert ending is not None, "the client failed in another way"
    assert ending.recovery < BOUND, (state, fault, ending)
    assert ending.processor < 0.3, (state, fault, ending)  # of at least 1 s for those that wait
    if fault in ("stop", "half") or state in ("havedata", "sending"):
        assert isinstance(ending.error, PeerError), (state, fault, ending)
        assert ending.error.exit_code == 4
    elif fault == "close" and state in IDLE:
        assert ending.error is None, (state, fault, ending)
    if fault in ("stop", "half") and state != "sending":
        assert f"for {SILENCE:.0f} s" in str(ending.error), (state, fault, ending)
        assert "unix:" in str(ending.error) or "tcp:" in str(ending.error)


@pytest.mark.parametrize("transport", ["unix", "tcp"])
def test_servers_that_fail_in_every_state_at_once(transport, tmp_path, quick):
    with ExitStack() as stack:
        cases, together = {}, threading.Barrier(len(MATRIX))
        for case in MATRIX:
            cases[case] = Case(transport, *case, tmp_path, together)
            stack.callback(cases[case].end)
            cases[case].thread.start()
    for case, ran in cases.items():
        check(*case, ran.ending)
    worst = max(cases, key=lambda case: cases[case].ending.recovery)
    print(f"client role, {transport}: {len(cases)} cases; the last client ended {cases[worst].ending.recovery:.2f} s "
          f"after its server failed {worst}")  # fmt: skip


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_kill_matrix(tmp_path, quick):
    """One server at a time: how long until its client has ended?"""
    endings = {}
    for transport, case in itertools.product(["unix", "tcp"], MATRIX):
        ran = Case(transport, *case, tmp_path, threading.Barrier(1))
        ran.thread.start()
        ran.end()
        check(*case, ran.ending)
        endings[transport, *case] = ran.ending
    dead = [key for key in endings if key[2] in ("close", "reset", "kill")]
    for what, keys in (("that died", dead), (f"that fell silent (limit {SILENCE} s)", endings.keys() - set(dead))):
        worst = max(keys, key=lambda key: endings[key].recovery)
        used = max(endings[key].processor for key in keys)
        print(f"client role: {len(keys)} servers {what}; longest until its client ended {endings[worst].recovery:.2f} s"
              f" {worst}; at most {used:.3f} s of processor")  # fmt: skip
