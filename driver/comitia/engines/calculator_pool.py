"""ASE calculators in several processes: one that crashes costs its structure, and all end when we do."""

import os
import socket
import sys
import tempfile
from multiprocessing.connection import Connection, wait
from pathlib import Path

from comitia.engines.processes import Child, stop_all
from comitia.errors import ComitiaError, EngineError
from comitia.protocol.requests import Failure


class CalculatorPool:
    """Processes, each with a calculator of its own, that take structures as they become free.

    Parameters
    ----------
    specification : str, `ase:MODULE:FACTORY` or `pyscf:SETTINGS`
    n_workers : int
    forces : bool, whether they are wanted
    """

    def __init__(self, specification, n_workers, forces):
        self._specification, self._n_workers, self._forces = specification, n_workers, forces
        self._folder = tempfile.TemporaryDirectory(prefix="comitia-reference-")
        self._workers, self._n_started = {}, 0

    def labels(self, frames):
        """Labels of (number, ase.Atoms) pairs as they come: (number, Label or Failure)."""
        frames, busy = iter(frames), {}
        try:
            while True:
                while len(busy) < self._n_workers and (frame := next(frames, None)) is not None:
                    free = next((link for link in self._workers if link not in busy), None) or self._start()
                    busy[free] = frame[0]
                    self._send(free, frame[1])
                if not busy:
                    return
                for link in wait(list(busy)):
                    yield busy.pop(link), self._outcome(link)
        finally:
            for link in busy:  # nobody waits for them any more
                self._end(link)

    def _start(self):
        ours, theirs = socket.socketpair()
        threads = max(1, (os.cpu_count() or 1) // self._n_workers)
        environment = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads))}
        command = [Path(__file__).with_name("calculator_worker.py"), theirs.fileno()]
        self._n_started += 1
        log = Path(self._folder.name) / f"{self._n_started}.log"
        with theirs:
            child = Child("the reference", command, log, Path.cwd(), environment, (theirs.fileno(),))
        link = Connection(ours.detach())
        self._workers[link] = child
        self._send(link, (self._specification, self._forces, sys.path))
        return link

    def _send(self, link, message):
        try:
            link.send(message)
        except OSError:
            return  # it has died, and what we read next says so

    def _outcome(self, link):
        """What a worker says of its structure; one that has died is taken away."""
        try:
            outcome = link.recv()
        except (EOFError, OSError):
            child = self._workers[link]
            code, said = child.wait(5.0), child.last_line()
            self._end(link)
            return Failure(EngineError(f"{self._specification}: its process ended with code {code} ({said})"))
        return Failure(outcome) if isinstance(outcome, ComitiaError) else outcome

    def _end(self, link):
        link.close()
        self._workers.pop(link).stop(2.0)

    def close(self):
        """End all processes."""
        children = list(self._workers.values())
        for link in self._workers:
            link.close()
        self._workers = {}
        stop_all(children, 2.0)
        self._folder.cleanup()
