"""The compiled step of the client against the protocol written down slowly, and what of its memory is kept."""

import random
import socket
import struct

import numpy as np
import pytest
from fuzz import SEEDS, mutated
from numpy.testing import assert_array_equal
from peers import answer, conversation, encode_force_ready, structures

from comitia._wire import StreamError, Units
from comitia.errors import NumericalError, PeerError, ProtocolError
from comitia.protocol import messages
from comitia.protocol.states import FORCE_CLIENT, Evaluate, ForceClient, Send

REPLIES = {state: messages.header(state.upper()) for state in ("needinit", "ready", "havedata")}


class SlowClient:
    """`ForceClient` for a whole stream, from the layout in `comitia.protocol.messages`."""

    def __init__(self, stream):
        self.stream, self.state, self.batch, self.said, self.result = stream, "needinit", None, [], None

    def run(self):
        """All that it says and how it ends."""
        try:
            while self.state != "closed":
                self.step()
            return b"".join(self.said), "EXIT"
        except EOFError:
            if self.stream or self.state == "havedata":
                return b"".join(self.said), "PeerError"
            return b"".join(self.said), "end of stream"
        except ProtocolError:
            return b"".join(self.said), "ProtocolError"

    def bytes(self, offset, n):
        if len(self.stream) < offset + n:
            raise EOFError
        return self.stream[offset : offset + n]

    def integer(self, offset):
        return struct.unpack("<i", self.bytes(offset, 4))[0]

    def step(self):
        name = self.bytes(0, 12).decode("ascii", "replace").rstrip(" ")
        if (self.state, name) not in FORCE_CLIENT:
            raise ProtocolError(name)
        end = {"INIT": self.init, "POSDATA": self.posdata}.get(name, lambda: 12)()
        self.stream = self.stream[end:]
        self.state = FORCE_CLIENT[self.state, name]
        if name == "STATUS":
            self.said.append(REPLIES[self.state])
        elif name == "GETFORCE":
            self.said.append(self.result)

    def init(self):
        length = self.integer(16)
        if not 0 <= length <= messages.MAX_TEXT:
            raise ProtocolError(str(length))
        try:
            self.batch = messages.batch_size_announced(self.bytes(20, length).decode())
        except UnicodeDecodeError as error:
            raise ProtocolError(str(error)) from None
        return 20 + length

    def posdata(self):
        n, batched = self.batch or 1, self.batch is not None
        n_atoms = self.integer(12 if batched else 156)
        if not 0 <= n_atoms <= messages.MAX_ATOMS or 4 + n * (144 + 24 * n_atoms) > messages.MAX_BODY:
            raise ProtocolError(str(n_atoms))
        cells_at, positions_at = (16, 16 + 144 * n) if batched else (12, 160)
        positions = np.frombuffer(self.bytes(positions_at, 24 * n * n_atoms)).reshape(n, n_atoms, 3)
        cells = np.frombuffer(self.bytes(cells_at, 144 * n)).reshape(n, 2, 3, 3)
        event = Evaluate(cells[:, 0], cells[:, 1], positions)
        distinct = n
        while distinct > 1 and all(
            a[distinct - 1].tobytes() == a[distinct - 2].tobytes() for a in (cells[:, 0], positions)
        ):
            distinct -= 1
        found = replied(event, distinct)
        self.result = encode_force_ready(messages.ForceReady(*(values[:n] for values in found)))
        return positions_at + positions.nbytes


def replied(event, distinct):
    """What every client here answers, repeated for the padding."""
    index = np.minimum(np.arange(len(event.positions)), distinct - 1)
    whole = np.nan_to_num(np.clip(event.positions, -9, 9))[index]
    return whole.sum(axis=(1, 2)), np.sin(whole), np.full((len(index), 3, 3), 2.0), [f"{{{b}}}" for b in index]


def compiled(pieces):
    """The same of `ForceClient`, fed in pieces."""
    client, said = ForceClient(), []
    try:
        for piece in [*pieces, None]:
            client.end_of_stream() if piece is None else client.feed(piece)
            while (event := client.next_event()) is not None:
                if isinstance(event, Evaluate):
                    client.answer(*replied(event, len(event.positions)))
                elif isinstance(event, Send):
                    said.append(event.payload)
                else:
                    return b"".join(said), event.reason
    except PeerError as error:
        return b"".join(said), type(error).__name__
    raise AssertionError("the client did not end")


def test_mutated_streams_mean_what_the_slow_client_takes_them_for():
    rng, ends = random.Random(6), set()
    for _ in range(3000):
        stream = mutated(rng, SEEDS["client"])
        cut = rng.randrange(len(stream) + 1)
        expected = SlowClient(stream).run()
        assert compiled([stream[:cut], stream[cut:]]) == expected
        ends.add(expected[1])
    assert ends == {"EXIT", "end of stream", "PeerError", "ProtocolError"}


@pytest.fixture
def stream():
    ends = socket.socketpair()
    yield ends
    for end in ends:
        end.close()


def test_a_conversation_over_a_socket_is_that_of_its_events(stream):
    """Whatever is there is answered; then the caller is asked to wait."""
    server, ours = stream
    said = b"".join(conversation(n_atoms=2, n_steps=3))
    events, replies = ForceClient(2), []
    events.feed(said)
    while (event := events.next_event()) is not None:
        if isinstance(event, Evaluate):
            answer(events, event)
        elif isinstance(event, Send):
            replies.append(event.payload)
    client = ForceClient(2)
    evaluate = lambda: answer(client, client.request())  # noqa: E731
    server.sendall(said[:50])
    assert client.converse(ours.fileno(), False, evaluate)
    server.sendall(said[50:])
    assert not client.converse(ours.fileno(), False, evaluate)
    assert client.reason == "EXIT"
    assert server.recv(1 << 16) == b"".join(replies)


def test_a_stream_that_breaks_is_told_apart_from_one_that_ends(stream):
    server, ours = stream
    server.sendall(messages.header("STATUS"))
    server.shutdown(socket.SHUT_RD)
    client = ForceClient(2)
    with pytest.raises(StreamError) as broken:
        client.converse(ours.fileno(), False, None)
    assert broken.value.sending
    assert isinstance(broken.value.error, BrokenPipeError)
    with pytest.raises(StreamError) as broken:
        ForceClient(2).converse(-1, False, None)
    assert not broken.value.sending


def test_memory_is_used_again_and_numbers_are_those_sent():
    client, units = ForceClient(3), Units(0.5, 2.0, 4.0, 8.0)
    kept = None
    for seed in range(3):
        request = structures(1, 3, seed=seed)
        client.feed(messages.encode_position_data(request) + messages.header("GETFORCE"))
        assert client.advance() == "evaluate"
        positions = client.positions_in(0.5)
        assert kept is None or positions is kept
        kept = positions
        assert_array_equal(positions, 0.5 * request.positions)
        virials = np.arange(9.0).reshape(1, 3, 3)
        client.answer(np.ones(1), request.positions, virials, [""], units)
        assert client.advance() == "send"
        sent, _ = messages.read_client_message(client.take_reply(), 3)
        assert sent.energies == 0.25
        assert_array_equal(sent.forces, 4.0 * request.positions)
        assert_array_equal(sent.virials[0], virials[0].T / 8)


def test_what_does_not_belong_to_the_request_is_refused():
    client = ForceClient(3)
    with pytest.raises(RuntimeError, match="no structures"):
        client.positions_in(1.0)
    client.feed(messages.encode_position_data(structures(1, 3)))
    client.advance()
    for again in (client.advance, lambda: client.feed(b"x")):
        with pytest.raises(RuntimeError, match="have not been answered"):
            again()
    one, good = np.zeros(1), (np.zeros((1, 3, 3)), np.zeros((1, 3, 3)), [""])
    for wrong in (
        (np.zeros(2), *good), (np.zeros(0), *good), (one, np.zeros((1, 2, 3)), *good[1:]), (one, *good[:2], []),
        (one, good[0], np.zeros((1, 2, 3)), [""]),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="do not belong"):
            client.answer(*wrong)
    forces = np.zeros((1, 3, 3))
    forces[0, 1, 2] = np.inf
    with pytest.raises(NumericalError, match="the force is inf at structure 0, atom 1, component 2"):
        client.answer(one, forces, good[1], [""], Units(0.0, 1.0, 10.0, 1.0))
    client.answer(one, *good)
