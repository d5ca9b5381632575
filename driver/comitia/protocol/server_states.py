"""The force server as a table of states: how a worker is driven. No sockets, no units, no clock."""

from dataclasses import dataclass

import numpy as np

from comitia.errors import PeerError, ProtocolError
from comitia.protocol.messages import (
    INTRODUCTION,
    ForceReady,
    PositionData,
    encode_init,
    encode_position_data,
    header,
    read_client_message,
    species_number,
)
from comitia.protocol.states import Closed, Send

FORCE_SERVER = {  # (state, message received) -> next state
    ("greeted", "NEEDINIT"): "introduced",
    ("greeted", "READY"): "ready",
    ("introduced", "READY"): "ready",
    ("computing", "FORCEREADY"): "answered",
    ("answered", "NEEDINIT"): "introduced",
    ("answered", "READY"): "ready",
}
STATUS, EXIT, GETFORCE = header("STATUS"), header("EXIT"), header("GETFORCE")


@dataclass(frozen=True)
class Ready:
    """The worker waits for structures; call `ForceServer.request`."""


@dataclass(frozen=True, eq=False)
class Forces:
    """The results of the last request, in hartree and bohr, as they travelled; padding of a batch is left out."""

    message: ForceReady


class ForceServer:
    """A server that drives one worker of the protocol.

    Feed it the bytes that arrive, however they are cut; ask `next_event` what to do until it returns None. Structures
    and the request for their forces travel together, as i-PI sends them by default, and `STATUS` with them: forces are
    believed when the worker's answer to it, or an orderly end, follows them. What has another length than it says (more
    atoms, a virial of another shape, longer extras) is followed by neither.

    Parameters
    ----------
    n_atoms : int, atoms in every structure
    species : str, the atoms in their order, such as "OH2OH2", which workers of ours compare with theirs; or empty
    batch_size : int or None, structures in one message to workers that ask for INIT
    """

    def __init__(self, n_atoms, species="", batch_size=None):
        self.n_atoms = n_atoms
        self.state = "greeted"
        self.capacity = 1  # structures that one request may hold
        self.n_messages = 0
        text, replica = (INTRODUCTION, species_number(species)) if species else (" ", 0)
        text += f", batch_size:{batch_size}" if batch_size and batch_size > 1 else ""
        self._introduction = encode_init(replica, text) + STATUS
        self._batch_size = batch_size if batch_size and batch_size > 1 else None
        self._buffer = bytearray()
        self._outgoing = STATUS
        self._n_asked = 0
        self._events, self._held = [], None
        self._ended = False

    @property
    def inside_message(self):
        """Whether a part of a message has arrived and the rest has not."""
        return bool(self._buffer)

    def feed(self, received):
        """Take bytes from the worker."""
        self._buffer += received

    def end_of_stream(self):
        """The worker closed its end."""
        self._ended = True

    def request(self, message):
        """Ask for the forces of structures.

        Parameters
        ----------
        message : PositionData of 1 to `capacity` structures of `n_atoms` atoms
        """
        self._n_asked = len(message.positions)
        if self.state != "ready" or not 1 <= self._n_asked <= self.capacity:
            raise RuntimeError(f"{self._n_asked} structures for a worker in state {self.state}")
        batched = self.capacity > 1
        if batched:
            index = np.minimum(np.arange(self.capacity), self._n_asked - 1)
            message = PositionData(message.cells[index], message.inverses[index], message.positions[index])
        self.state = "computing"
        self._outgoing = encode_position_data(message, batched) + GETFORCE + STATUS

    def leave(self):
        """Say goodbye; whatever the worker still sends is not looked at."""
        self.state = "closed"
        self._outgoing = EXIT

    def next_event(self):
        """What to do next: `Send`, `Ready`, `Forces`, `Closed`, or None when the worker is to be waited for.

        Raises
        ------
        ProtocolError
            for bytes that are not the protocol, or a message that has no place in this state.
        PeerError
            if the stream ended inside a message, or before the forces were sent.
        """
        if self._events:
            return self._events.pop(0)
        if self._outgoing:
            payload, self._outgoing = self._outgoing, b""
            return Send(payload)
        if self.state == "closed":
            return None
        batch_size = self.capacity if self.capacity > 1 else None
        try:
            found = read_client_message(self._buffer, self.n_atoms, batch_size)
        except ProtocolError as error:
            raise ProtocolError(f"in state {self.state}: {error}") from error
        if found is None:
            return self._at_end() if self._ended else None
        message, end = found
        del self._buffer[:end]
        name = message if isinstance(message, str) else message.name
        after = FORCE_SERVER.get((self.state, name))
        if after is None:
            raise ProtocolError(f"{name} arrived in state {self.state}, where it has no place")
        self.n_messages += 1
        self.state = after
        return self._event(message)

    def _event(self, message):
        if self.state == "answered":
            n = self._n_asked
            found = ForceReady(message.energies[:n], message.forces[:n], message.virials[:n], message.extras[:n])
            self._held = Forces(found)
        elif self.state == "introduced":
            self.capacity = self._batch_size or 1
            self._outgoing = self._introduction
        else:
            self._events = [Ready()]
        held = self.unconfirmed() if self.state != "answered" else None
        return held or self.next_event()

    def unconfirmed(self):
        """Forces that are held back, to be taken when nothing more will come; None without any."""
        held, self._held = self._held, None
        return held

    def _at_end(self):
        if self._buffer:
            raise PeerError(f"the worker closed the connection inside a message (state {self.state})")
        if self.state == "computing":
            raise PeerError("the worker closed the connection before it sent the forces")
        if (held := self.unconfirmed()) is not None:
            return held
        self.state = "closed"
        return Closed("end of stream")
