"""The loop of a force client: connections, a table of states for each, and functions that compute."""

import logging
import time
from dataclasses import dataclass

import numpy as np

from comitia._wire import StreamError
from comitia.errors import NumericalError, PeerError
from comitia.protocol.boundary import WireStructures
from comitia.protocol.states import ForceClient
from comitia.protocol.transports import readable
from comitia.units import BOHR

log = logging.getLogger(__name__)

MESSAGE_TIMEOUT = 60.0  # s between two parts of one message
SILENCE_TIMEOUT = {"needinit": 600.0, "ready": 86_400.0, "havedata": 600.0}  # s without a message, by state
HEARTBEAT = 60.0  # s between two lines in the log


@dataclass
class Served:
    """What a client did before it ended.

    Parameters
    ----------
    n_requests : int, messages with structures
    n_structures : int, structures evaluated, padding of batches not counted
    seconds : float, from the connection to the end
    seconds_computing : float, of which spent in the potential
    reason : str, "EXIT" or "end of stream"
    """

    n_requests: int = 0
    n_structures: int = 0
    seconds: float = 0.0
    seconds_computing: float = 0.0
    reason: str = ""


class Session:
    """One server, and what is computed for it.

    Parameters
    ----------
    connection : comitia.protocol.transports.Connection; left open, for its owner to close
    compute : function of positions (B, n_atoms, 3) in Å and cells (B, 3, 3) in Å with vectors in rows; its result
        has energies (B,) eV, forces (B, n_atoms, 3) eV/Å, virials (B, 3, 3) eV, and member_energies (B, M) eV and
        energy_uncertainties (B,) eV, or None for both
    results : comitia.protocol.boundary.WireResults, what of it is sent
    n_atoms : int, atoms in every structure
    pbc : three booleans, the directions that repeat
    silence : float or None, s to wait for the next message in any state; default by state, a day where the server
        is busy with its own work
    species : str or None, the atoms in their order, compared with those of a server that says which it has
    keep_failed : function of positions (B, n_atoms, 3) and cells (B, 3, 3), Å, and the error, called for a number that
        is not finite; it returns a sentence that says where the structures are; or None
    """

    def __init__(self, connection, compute, results, n_atoms, pbc, silence=None, species=None, keep_failed=None):
        self.connection, self.compute, self.results, self.silence = connection, compute, results, silence
        self.client, self.structures = ForceClient(n_atoms, species, connection.shared), WireStructures(pbc)
        self.served = Served()
        self._keep_failed = keep_failed
        self._begin = self._heard = self._beaten = time.monotonic()
        self._n_beaten = 0

    @property
    def ended(self):
        """Whether the server said EXIT or closed its end in order."""
        return bool(self.served.reason)

    @property
    def deadline(self):
        """The moment at which a server that says nothing until then is lost."""
        return self._heard + self._patience()[0]

    def _patience(self):
        if self.client.inside_message:
            return MESSAGE_TIMEOUT, "stopped inside a message"
        return self.silence or SILENCE_TIMEOUT[self.client.state], "sent nothing"

    def advance(self, wait=False):
        """Answer the server until nothing more arrives from it, for a moment if `wait` says so."""
        heard = self.client.n_received
        try:
            goes_on = self.client.converse(self.connection.fileno(), wait, self._evaluate)
        except StreamError as error:
            if not self._said_exit(error):
                raise self.connection.broken(error.error, error.sending) from error.error
            goes_on = False
        if not goes_on:
            self.served.reason, self.served.seconds = self.client.reason, time.monotonic() - self._begin
        elif self.client.n_received != heard:
            self._heard = time.monotonic()

    def _said_exit(self, error):
        """Whether a server that is gone had said EXIT before it went."""
        if not error.sending:
            return False
        self.client.feed(self.connection.receive_waiting())
        while (what := self.client.advance()) == "send":
            pass
        return what == "closed"

    def check_late(self, now):
        """Raise PeerError where the server has been silent for too long."""
        timeout, what = self._patience()
        if now - self._heard >= timeout:
            raise PeerError(
                f"{self.connection.address}: the server {what} for {timeout:.0f} s (state {self.client.state}); "
                "see whether it still runs"
            )

    def _evaluate(self):
        start = time.monotonic()
        try:
            positions, cells = self.structures(self.client)
            predictions = self.compute(positions, cells)
            self.results.answer(self.client, predictions)
        except NumericalError as error:
            if self._keep_failed is None:
                raise
            request = self.client.request()
            kept = self._keep_failed(request.positions * BOHR, request.cells.transpose(0, 2, 1) * BOHR, error)
            raise NumericalError(f"{error}; {kept}") from error
        now = time.monotonic()
        served = self.served
        served.seconds_computing += now - start
        served.n_requests += 1
        served.n_structures += len(positions)
        if now - self._beaten >= HEARTBEAT:
            self._beat(predictions, positions.shape[1], now)

    def _beat(self, predictions, n_atoms, now):
        """A line in the log."""
        n_structures = self.served.n_structures
        rate = (n_structures - self._n_beaten) / (now - self._beaten)
        sigma = ""
        if predictions.energy_uncertainties is not None:
            per_atom = 1e3 * float(np.max(predictions.energy_uncertainties)) / max(n_atoms, 1)
            sigma = f"  sigma_E {per_atom:.2f} meV/atom"
        log.info("%d structures  %.1f per s  E %.3f eV%s", n_structures, rate, np.mean(predictions.energies), sigma)
        self._beaten, self._n_beaten = now, n_structures


def serve(sessions):
    """Answer servers, each as it asks, until every one has said EXIT or closed its connection.

    Parameters
    ----------
    sessions : list of Session

    Returns
    -------
    list of Served

    Raises
    ------
    PeerError, ProtocolError
        if a server is lost, silent, or does not speak the protocol.
    NumericalError
        if a number that is not finite arrived or was computed; nothing of that result has been sent.
    """
    for session in sessions:
        session.advance()
    while active := [session for session in sessions if not session.ended]:
        left = min(session.deadline for session in active) - time.monotonic()
        ready = readable([session.connection for session in active], max(0.0, left))
        for session in active:
            if session.connection in ready:
                session.advance(wait=len(active) == 1)
        now = time.monotonic()
        for session in active:
            if session.connection not in ready and not session.ended:
                session.check_late(now)
    return [session.served for session in sessions]
