"""The force client as a table of states: bytes in, things to do out. No sockets, no units, no clock."""

from dataclasses import dataclass

import numpy as np

from comitia._wire import Conversation
from comitia.errors import ProtocolError
from comitia.protocol.messages import (
    FLOAT64,
    INTRODUCTION,
    batch_size_announced,
    read_init,
    read_shared_position_data,
    species_number,
)

FORCE_CLIENT = {  # (state, message received) -> next state
    ("needinit", "STATUS"): "needinit",
    ("needinit", "INIT"): "ready",
    ("needinit", "POSDATA"): "havedata",  # servers that never introduce themselves
    ("needinit", "EXIT"): "closed",
    ("ready", "STATUS"): "ready",
    ("ready", "POSDATA"): "havedata",
    ("ready", "EXIT"): "closed",
    ("havedata", "STATUS"): "havedata",
    ("havedata", "GETFORCE"): "ready",
    ("havedata", "EXIT"): "closed",
}
N_SHARED = 6  # names of segments of shared memory in the first POSDATA that uses it


@dataclass(frozen=True)
class Send:
    """Send these bytes to the server."""

    payload: bytes


@dataclass(frozen=True, eq=False)
class Evaluate:
    """Compute these structures, then call `ForceClient.answer`.

    Parameters
    ----------
    cells, inverses : (B, 3, 3) arrays, bohr and 1/bohr, as they travel
    positions : (B, n_atoms, 3) array, bohr

    A batch that the server padded by repeating its last structure holds that structure once.
    """

    cells: np.ndarray
    inverses: np.ndarray
    positions: np.ndarray


@dataclass(frozen=True)
class Closed:
    """The conversation is over, and was ended in order."""

    reason: str


class ForceClient(Conversation):
    """A client that answers a server of the protocol.

    Feed it the bytes that arrive, however they are cut; ask `next_event` what to do until it returns None. Or let it
    `converse` through a socket: what comes at every step is compiled.

    Parameters
    ----------
    n_atoms : int or None, the number of atoms that every structure must have
    species : str or None, the atoms in their order, such as "OH2OH2"; a server that says which it has must have these
    shared : comitia.protocol.shared_memory.SharedArrays for a server that puts its numbers there, or None
    """

    def __init__(self, n_atoms=None, species=None, shared=None):
        super().__init__(FORCE_CLIENT, n_atoms, shared)
        self.species, self.replica = species, None
        self._n_names = N_SHARED

    def next_event(self):
        """What to do next: `Send`, `Evaluate`, `Closed`, or None when more bytes are needed.

        Raises
        ------
        ProtocolError
            for bytes that are not the protocol, or a message that has no place in this state.
        PeerError
            if the stream ended inside a message, or before the forces were fetched.
        """
        what = self.advance()
        if what == "send":
            return Send(self.take_reply())
        if what == "evaluate":
            return self.request()
        return Closed(self.reason) if what == "closed" else None

    def request(self):
        """The structures to compute, as an `Evaluate` with arrays of its own."""
        n = self.n_requested
        cells = np.frombuffer(self.cells_sent, FLOAT64).reshape(n, 2, 3, 3).copy()
        positions = np.frombuffer(self.positions_sent, FLOAT64).reshape(n, -1, 3).copy()
        return Evaluate(cells[:, 0], cells[:, 1], positions)

    def take_rare(self, name, buffer):
        """Act on INIT, or on POSDATA with its numbers in shared memory: its length, None while bytes are missing."""
        if name == "INIT":
            found = read_init(buffer)
            act = self._introduced
        else:
            found = read_shared_position_data(buffer, self._n_names, self.n_atoms)
            act = self._shared_request
        if found is None:
            return None
        message, end = found
        act(message)
        return end

    def _introduced(self, message):
        self.replica = message.replica
        self.batch_size = batch_size_announced(message.text)
        theirs = message.replica if message.text.startswith(INTRODUCTION) else None
        if theirs is not None and self.species is not None and theirs != species_number(self.species):
            raise ProtocolError(
                f"the atoms of the server are not those of the template, {self.species:.200}; start the client "
                "with the structure that the server holds, its atoms in the same order"
            )

    def _shared_request(self, message):
        self.shared.attach(message.names, self.batch_size or 1, message.n_atoms)
        self._n_names = 0
        found = self.shared.read()
        self.request_elsewhere(np.stack([found.cells, found.inverses], axis=1), found.positions)
