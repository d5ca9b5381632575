"""A server of the protocol and a potential, both as simple as can be, for tests of the client."""

import socket
from types import SimpleNamespace

import numpy as np

from comitia.protocol import messages


class Springs:
    """Every atom on a spring to its place in a template; the members have different spring constants.

    Parameters
    ----------
    template : (n_atoms, 3) array, Å
    stiffness : (M,) array, eV/Å²
    """

    def __init__(self, template, stiffness=(1.0, 1.5)):
        self.template = template
        self.stiffness = np.asarray(stiffness)
        self.n_structures = 0

    def __call__(self, positions, cells):
        assert np.shape(cells) == (len(positions), 3, 3)
        self.n_structures += len(positions)
        displacements = positions - self.template
        mean = self.stiffness.mean()
        squares = 0.5 * (displacements**2).sum(axis=(1, 2))
        members = squares[:, None] * self.stiffness
        return SimpleNamespace(
            energies=members.mean(axis=1),
            forces=-mean * displacements,
            virials=np.einsum("bia,bic->bac", -mean * displacements, positions),
            member_energies=members if len(self.stiffness) > 1 else None,
            energy_uncertainties=members.std(axis=1, ddof=1) if len(self.stiffness) > 1 else None,
        )


def structures(n_structures, n_atoms, seed=0, cell=None):
    """POSDATA of random structures in a sheared cell, bohr."""
    rng = np.random.default_rng(seed)
    cell = np.array([[12.0, 1.0, 2.0], [0.0, 11.0, 3.0], [0.0, 0.0, 13.0]]) if cell is None else cell
    cells = np.repeat(cell[None], n_structures, axis=0)
    return messages.PositionData(cells, np.linalg.inv(cells), rng.normal(size=(n_structures, n_atoms, 3)))


def encode_force_ready(message):
    """Bytes of FORCEREADY, as `Conversation.answer` makes them."""
    parts = [messages.header("FORCEREADY"), np.asarray(message.energies, "<f8").tobytes()]
    parts += [messages.INT32.pack(message.forces.shape[1])]
    parts += [np.asarray(numbers, "<f8").tobytes() for numbers in (message.forces, message.virials)]
    for text in message.extras:
        parts += [messages.INT32.pack(len(text.encode())), text.encode()]
    return b"".join(parts)


def conversation(n_atoms=3, batch_size=None, consolidated=True, n_steps=2):
    """All that a server says to one client, as a list of messages in bytes."""
    text = " a : 1 , " if batch_size is None else f" a : 1 , , batch_size:{batch_size}"
    said = [messages.header("STATUS"), messages.encode_init(0, text), messages.header("STATUS")]
    for step in range(n_steps):
        request = structures(batch_size or 1, n_atoms, seed=step)
        said.append(messages.encode_position_data(request, batched=batch_size is not None))
        if not consolidated:
            said.append(messages.header("STATUS"))
        said += [messages.header("GETFORCE"), messages.header("STATUS")]
    return [*said, messages.header("EXIT")]


def replies(n_atoms=2, batch_size=None, n_steps=2):
    """All that a worker says to a server, as a list of messages in bytes."""
    said = [messages.header("NEEDINIT")]
    for step in range(n_steps):
        request = structures(batch_size or 1, n_atoms, seed=step)
        n = len(request.positions)
        found = messages.ForceReady(np.arange(n, dtype=float), request.positions, request.cells, n * ("{}",))
        said += [messages.header("READY"), encode_force_ready(found)]
    return [*said, messages.header("READY")]


def answer(client, event):
    """Answer with numbers that depend on every number received."""
    n_structures, n_atoms, _ = event.positions.shape
    forces = np.sin(event.positions) + event.cells.sum()
    virials = np.cos(event.cells) + event.inverses
    extras = [f'{{"structure": {b}}}' for b in range(n_structures)]
    client.answer(forces.sum(axis=(1, 2)), forces.reshape(n_structures, n_atoms, 3), virials, extras)


class ServerEnd:
    """The server's end of a connection, for scripts in tests.

    Parameters
    ----------
    stream : connected socket
    """

    def __init__(self, stream):
        self.stream = stream
        self.stream.settimeout(20.0)
        self.buffer = b""

    def say(self, *parts):
        """Send headers by name, or bytes."""
        self.stream.sendall(b"".join(messages.header(p) if isinstance(p, str) else p for p in parts))

    def read(self, n_bytes):
        """Exactly so many bytes."""
        while len(self.buffer) < n_bytes:
            received = self.stream.recv(65536)
            if not received:
                raise EOFError(f"end of stream after {len(self.buffer)} of {n_bytes} bytes")
            self.buffer += received
        taken, self.buffer = self.buffer[:n_bytes], self.buffer[n_bytes:]
        return taken

    def read_header(self):
        """The name of the message that comes."""
        return self.read(12).decode().strip()

    def read_forces(self, n_atoms, batch_size=None):
        """The FORCEREADY that comes."""
        while (found := messages.read_client_message(self.buffer, n_atoms, batch_size)) is None:
            received = self.stream.recv(65536)
            if not received:
                raise EOFError("end of stream where FORCEREADY was due")
            self.buffer += received
        message, end = found
        self.buffer = self.buffer[end:]
        return message

    def ended(self):
        """Whether the client ended in order: an end of stream, no reset, nothing more to read."""
        return self.buffer == b"" and self.stream.recv(1) == b""


def pair():
    """Both ends of a unix stream: (ServerEnd, socket of the client)."""
    server, client = socket.socketpair()
    return ServerEnd(server), client
