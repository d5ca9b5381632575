"""Requests for forces and who works on them: every one is answered exactly once. No sockets, no clock."""

import itertools
from dataclasses import dataclass, field

import numpy as np

from comitia.errors import ComitiaError, PeerError


@dataclass(eq=False)
class Request:
    """A structure whose energy and forces are wanted.

    Parameters
    ----------
    positions : (n_atoms, 3) array, Å
    cell : (3, 3) array, Å, vectors in rows; zero along directions without one
    number : int, place in the order of requests, given by the queue
    lost : list of what befell the workers that had it
    """

    positions: np.ndarray
    cell: np.ndarray
    number: int = -1
    lost: list = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Answer:
    """What a worker says of one structure; eV and Å.

    Parameters
    ----------
    energy : float, eV
    forces : (n_atoms, 3) array, eV/Å
    virial : (3, 3) array, eV, −∂E/∂ε
    extras : dict; text that is no JSON object is under "raw"
    worker : str, its name
    """

    energy: float
    forces: np.ndarray
    virial: np.ndarray
    extras: dict
    worker: str


@dataclass(frozen=True)
class Failure:
    """A structure that no worker could answer.

    Parameters
    ----------
    error : ComitiaError
    """

    error: ComitiaError


class RequestQueue:
    """Requests in order, taken by workers, given back by those that are lost.

    Parameters
    ----------
    requests : iterable of Request; taken from as late as possible
    attempts : int, workers that a request may cost before it is given up
    window : int, how far a request may run ahead of the oldest that is not answered
    """

    def __init__(self, requests, attempts=5, window=4096):
        self.attempts, self.window = attempts, window
        self._coming = enumerate(requests)
        self._returned = []
        self._open = {}  # number -> request that is not answered, in order of their start
        self._next = 0

    def more(self):
        """Whether a request waits to be taken."""
        if not self._returned:
            self._peek()
        return bool(self._returned)

    @property
    def done(self):
        """Whether every request was answered."""
        return not self._open and not self.more()

    def take(self, n):
        """Up to `n` requests to work on, those that were given back first."""
        taken = []
        while len(taken) < n and self.more():
            taken.append(self._returned.pop(0))
        return taken

    def answer(self, request, outcome):
        """(number, outcome) of a request that was taken."""
        if self._open.pop(request.number, None) is None:
            raise RuntimeError(f"request {request.number} is answered twice")
        return request.number, outcome

    def give_back(self, request, error):
        """The worker that had the request is lost: None if another is to try, (number, Failure) if enough have."""
        request.lost.append(str(error))
        if len(request.lost) >= self.attempts:
            reasons = "; ".join(dict.fromkeys(request.lost))
            code = type(error) if isinstance(error, ComitiaError) else PeerError
            return self.answer(request, Failure(code(f"{len(request.lost)} workers were lost on it: {reasons}")))
        self._returned.append(request)
        self._returned.sort(key=lambda waiting: waiting.number)
        return None

    def _peek(self):
        """Bring the next request into the row of those that wait, if the window lets it."""
        oldest = next(iter(self._open), self._next)
        if self._next - oldest >= self.window:
            return
        for number, request in itertools.islice(self._coming, 1):
            request.number = number
            self._open[number] = request
            self._returned.append(request)
            self._next = number + 1


def in_order(outcomes):
    """(number, outcome) pairs of any order, from 0 on, in order."""
    early, due = {}, 0
    for number, outcome in outcomes:
        early[number] = outcome
        while due in early:
            yield due, early.pop(due)
            due += 1
