"""The force client as a table of states: bytes in, things to do out. No sockets, no units, no clock."""

from dataclasses import dataclass

import numpy as np

from comitia.errors import PeerError, ProtocolError
from comitia.protocol.messages import (
    INTRODUCTION,
    ForceReady,
    batch_size_announced,
    encode_force_ready,
    header,
    read_server_message,
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
STATUS_REPLY = {"needinit": header("NEEDINIT"), "ready": header("READY"), "havedata": header("HAVEDATA")}


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


def count_distinct(message):
    """How many structures of a batch are left when repetitions of its last one, the padding, are dropped."""
    n_distinct = len(message.positions)
    while (
        n_distinct > 1
        and np.array_equal(message.cells[n_distinct - 1], message.cells[n_distinct - 2])
        and np.array_equal(message.positions[n_distinct - 1], message.positions[n_distinct - 2])
    ):
        n_distinct -= 1
    return n_distinct


class ForceClient:
    """A client that answers a server of the protocol.

    Feed it the bytes that arrive, however they are cut; ask `next_event` what to do until it returns None.

    Parameters
    ----------
    n_atoms : int or None, the number of atoms that every structure must have
    species : str or None, the atoms in their order, such as "OH2OH2"; a server that says which it has must have these
    shared : comitia.protocol.shared_memory.SharedArrays for a server that puts its numbers there, or None
    """

    def __init__(self, n_atoms=None, species=None, shared=None):
        self.n_atoms, self.species, self.shared = n_atoms, species, shared
        self._n_names = None if shared is None else N_SHARED
        self.state = "needinit"
        self.batch_size = None
        self.replica = None
        self._buffer = bytearray()
        self._ended = False
        self._unanswered = None
        self._result = None

    @property
    def inside_message(self):
        """Whether a part of a message has arrived and the rest has not."""
        return bool(self._buffer)

    def feed(self, received):
        """Take bytes from the server."""
        self._buffer += received

    def end_of_stream(self):
        """The server closed its end."""
        self._ended = True

    def next_event(self):
        """What to do next: `Send`, `Evaluate`, `Closed`, or None when more bytes are needed.

        Raises
        ------
        ProtocolError
            for bytes that are not the protocol, or a message that has no place in this state.
        PeerError
            if the stream ended inside a message, or before the forces were fetched.
        """
        if self._unanswered is not None:
            raise RuntimeError("the structures of the last Evaluate have not been answered")
        if self.state == "closed":
            return None
        try:
            found = read_server_message(self._buffer, 0, self.batch_size, self.n_atoms, self._n_names)
        except ProtocolError as error:
            raise ProtocolError(f"in state {self.state}: {error}") from error
        if found is None:
            return self._at_end() if self._ended else None
        message, end = found
        del self._buffer[:end]
        after = FORCE_CLIENT.get((self.state, message.name))
        if after is None:
            raise ProtocolError(f"{message.name} arrived in state {self.state}, where it has no place")
        self.state = after
        return self._event(message)

    def answer(self, energies, forces, virials, extras):
        """The results of the last `Evaluate`, in hartree and bohr, arrays shaped as in `ForceReady`."""
        n_structures = self._unanswered
        index = np.minimum(np.arange(n_structures), len(energies) - 1)
        self._result = encode_force_ready(
            ForceReady(energies[index], forces[index], virials[index], tuple(extras[i] for i in index)), self.shared
        )
        self._unanswered = None

    def _event(self, message):
        if message.name == "STATUS":
            return Send(STATUS_REPLY[self.state])
        if message.name == "INIT":
            self.replica = message.replica
            self.batch_size = batch_size_announced(message.text)
            theirs = message.replica if message.text.startswith(INTRODUCTION) else None
            if theirs is not None and self.species is not None and theirs != species_number(self.species):
                raise ProtocolError(
                    f"the atoms of the server are not those of the template, {self.species:.200}; start the client "
                    "with the structure that the server holds, its atoms in the same order"
                )
            return self.next_event()
        if message.name == "POSDATA":
            if self.shared is not None:
                self.shared.attach(message.names, self.batch_size or 1, message.n_atoms)
                message, self._n_names = self.shared.read(), 0
            self._unanswered = len(message.positions)
            n = count_distinct(message)
            return Evaluate(message.cells[:n], message.inverses[:n], message.positions[:n])
        if message.name == "GETFORCE":
            payload, self._result = self._result, None
            return Send(payload)
        return Closed("EXIT")

    def _at_end(self):
        if self._buffer:
            raise PeerError(f"the server closed the connection inside a message (state {self.state})")
        if self.state == "havedata":
            raise PeerError("the server closed the connection before it fetched the forces")
        self.state = "closed"
        return Closed("end of stream")
