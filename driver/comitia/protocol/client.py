"""The loop of a force client: a connection, a table of states and a function that computes."""

import logging
import time
from dataclasses import dataclass

import numpy as np

from comitia.errors import PeerError
from comitia.protocol.boundary import WireStructures
from comitia.protocol.states import Closed, Evaluate, ForceClient, Send

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


class _Heartbeat:
    def __init__(self, served):
        self.served = served
        self.last = time.monotonic()
        self.before = 0

    def beat(self, energies, uncertainties, n_atoms):
        now = time.monotonic()
        if now - self.last < HEARTBEAT:
            return
        rate = (self.served.n_structures - self.before) / (now - self.last)
        sigma = ""
        if uncertainties is not None:
            sigma = f"  sigma_E {1e3 * float(np.max(uncertainties)) / max(n_atoms, 1):.2f} meV/atom"
        log.info("%d structures  %.1f per s  E %.3f eV%s", self.served.n_structures, rate, np.mean(energies), sigma)
        self.last, self.before = now, self.served.n_structures


def serve(connection, compute, results, n_atoms, pbc, silence=None, species=None):
    """Answer a server until it says EXIT or closes the connection.

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

    Returns
    -------
    Served

    Raises
    ------
    PeerError, ProtocolError
        if the server is lost, silent, or does not speak the protocol.
    NumericalError
        if a number that is not finite arrived or was computed; nothing of that result has been sent.
    """
    client, structures = ForceClient(n_atoms, species), WireStructures(pbc)
    served = Served()
    heartbeat = _Heartbeat(served)
    begin = time.monotonic()
    while True:
        event = client.next_event()
        if isinstance(event, Closed):
            served.reason = event.reason
            served.seconds = time.monotonic() - begin
            return served
        if isinstance(event, Send):
            if _send(connection, client, event.payload):
                continue
            served.reason = "EXIT"
            served.seconds = time.monotonic() - begin
            return served
        if isinstance(event, Evaluate):
            start = time.monotonic()
            positions, cells = structures(event)
            predictions = compute(positions, cells)
            client.answer(*results(predictions))
            served.seconds_computing += time.monotonic() - start
            served.n_requests += 1
            served.n_structures += len(positions)
            heartbeat.beat(predictions.energies, predictions.energy_uncertainties, n_atoms)
            continue
        _receive(connection, client, silence)


def _receive(connection, client, silence):
    """Feed the client with what arrives next, within the deadline of its state."""
    if client.inside_message:
        timeout, what = MESSAGE_TIMEOUT, "stopped inside a message"
    else:
        timeout, what = silence or SILENCE_TIMEOUT[client.state], "sent nothing"
    try:
        received = connection.receive(timeout)
    except TimeoutError as error:
        raise PeerError(
            f"{connection.address}: the server {what} for {timeout:.0f} s (state {client.state}); "
            "see whether it still runs"
        ) from error
    if received:
        client.feed(received)
    else:
        client.end_of_stream()


def _send(connection, client, payload):
    """Send; False if the server is gone but had said EXIT before it went."""
    try:
        connection.send(payload)
    except PeerError:
        client.feed(connection.receive_waiting())
        while (event := client.next_event()) is not None and not isinstance(event, Evaluate):
            if isinstance(event, Closed):
                return False
        raise
    return True
