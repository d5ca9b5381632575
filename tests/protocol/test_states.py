"""The table of states, without sockets: what arrives and how it is cut; orders that have no place."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from peers import Springs, answer, conversation, encode_force_ready, structures

from comitia.errors import NumericalError, PeerError, ProtocolError
from comitia.protocol import messages
from comitia.protocol.states import FORCE_CLIENT, Closed, Evaluate, ForceClient, Send

DIALECTS = [
    {"consolidated": True},
    {"consolidated": False},
    {"consolidated": True, "batch_size": 4},
    {"consolidated": False, "batch_size": 2},
    {"consolidated": True, "n_atoms": 0},
]


def respond(pieces, n_atoms=None):
    """All that a client says to these pieces of a stream, and how it ended."""
    client, said = ForceClient(n_atoms), []
    for piece in [*pieces, None]:
        if piece is None:
            client.end_of_stream()
        else:
            client.feed(piece)
        while (event := client.next_event()) is not None:
            if isinstance(event, Evaluate):
                answer(client, event)
            elif isinstance(event, Send):
                said.append(event.payload)
            else:
                return b"".join(said), event.reason
    raise AssertionError("the client did not end")


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_stream_means_the_same_however_it_is_cut(dialect):
    stream = b"".join(conversation(**dialect))
    whole = respond([stream])
    assert whole[1] == "EXIT"
    assert respond([stream[i : i + 1] for i in range(len(stream))]) == whole
    rng = np.random.default_rng(3)
    for _ in range(20):
        cuts = np.sort(rng.integers(0, len(stream), 12))
        assert respond([stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]) == whole


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_stream_may_end_without_exit(dialect):
    stream = b"".join(conversation(**dialect)[:-1])
    assert respond([stream])[1] == "end of stream"


def test_every_early_end_is_in_order_or_an_error_that_says_so():
    pieces = conversation(consolidated=False)
    for n_messages in range(len(pieces)):
        stream = b"".join(pieces[:n_messages])
        in_havedata = n_messages and pieces[n_messages - 1][:7] in (b"POSDATA", b"STATUS ")
        if in_havedata and any(p[:7] == b"POSDATA" for p in pieces[max(0, n_messages - 2) : n_messages]):
            with pytest.raises(PeerError, match="before it fetched the forces"):
                respond([stream])
        else:
            assert respond([stream])[1] == "end of stream"
        with pytest.raises(PeerError, match="inside a message"):
            respond([stream + pieces[n_messages][:5]])


def test_padding_of_a_batch_is_evaluated_once():
    request = structures(5, 3)
    for array in (request.positions, request.cells, request.inverses):
        array[3:] = array[2]
    client = ForceClient(3)
    client.feed(messages.encode_init(0, " , batch_size:5"))
    client.feed(messages.encode_position_data(request, batched=True) + messages.header("GETFORCE"))
    event = client.next_event()
    assert_array_equal(event.positions, request.positions[:3])
    answer(client, event)
    reply, _ = messages.read_client_message(client.next_event().payload, 3, 5)
    assert_array_equal(reply.energies[3:], reply.energies[2])
    assert_array_equal(reply.forces[4], reply.forces[2])
    assert reply.extras[4] == reply.extras[2] == '{"structure": 2}'


def test_a_server_that_names_its_atoms_must_have_ours():
    client = ForceClient(6, "OH2OH2")
    client.feed(messages.encode_init(messages.species_number("OH2OH2"), "#") + messages.header("STATUS"))
    assert isinstance(client.next_event(), Send)
    for text, species in ((" ", "OH2OH2"), ("a : #", "OH2OH2"), ("#", None)):  # the replica is a number of a bead
        client = ForceClient(6, species)
        client.feed(messages.encode_init(1, text) + messages.header("STATUS"))
        assert isinstance(client.next_event(), Send)
    client = ForceClient(6, "OH2OH2")
    client.feed(messages.encode_init(messages.species_number("O2H4"), "#"))
    with pytest.raises(ProtocolError, match="atoms of the server are not those of the template, OH2OH2"):
        client.next_event()


def test_a_server_may_leave_init_out():
    client = ForceClient(2)
    client.feed(messages.encode_position_data(structures(1, 2)))
    assert isinstance(client.next_event(), Evaluate)


MESSAGES = {
    "STATUS": messages.header("STATUS"),
    "INIT": messages.encode_init(1, "a : b"),
    "POSDATA": messages.encode_position_data(structures(1, 2)),
    "GETFORCE": messages.header("GETFORCE"),
    "EXIT": messages.header("EXIT"),
}
WAY = {"needinit": [], "ready": ["INIT"], "havedata": ["INIT", "POSDATA"]}


@pytest.mark.parametrize("state", WAY)
@pytest.mark.parametrize("name", MESSAGES)
def test_a_message_without_a_place_is_refused_by_name(state, name):
    client = ForceClient(2)
    client.feed(b"".join(MESSAGES[step] for step in WAY[state]))
    while (event := client.next_event()) is not None:
        answer(client, event)
    assert client.state == state
    client.feed(MESSAGES[name])
    if (state, name) in FORCE_CLIENT:
        event = client.next_event()
        assert client.state == FORCE_CLIENT[state, name]
        assert (name == "EXIT") == isinstance(event, Closed)
    else:
        with pytest.raises(ProtocolError, match=rf"{name} arrived in state {state}"):
            client.next_event()


@pytest.mark.parametrize(
    ("stream", "sentence"),
    [
        (b"HELLO WORLD!", "unknown header 'HELLO WORLD!'"),
        (b"status      ", "unknown header 'status'"),
        (b"\xff" * 12, "unknown header"),
        (b"GET / HTTP/1.1\r\n", "unknown header"),
        (messages.header("INIT") + messages.INT32.pack(0) + messages.INT32.pack(-1), "length of the INIT string is -1"),
        (messages.header("INIT") + messages.INT32.pack(0) + messages.INT32.pack(2**30), "allowed 0 to"),
        (messages.encode_init(0, "batch_size:-3"), "batch_size -3"),
        (messages.encode_init(0, "batch_size:many"), "no number"),
        (messages.encode_init(0, "batch_size:1000000"), "allowed 1 to 65536"),
        (messages.header("INIT") + messages.INT32.pack(0) + messages.INT32.pack(2) + b"\xff\xfe", "not UTF-8"),
        (messages.header("POSDATA") + bytes(144) + messages.INT32.pack(-2), "number of atoms in POSDATA is -2"),
        (messages.header("POSDATA") + bytes(144) + messages.INT32.pack(2**31 - 1), "number of atoms in POSDATA"),
        (messages.header("POSDATA") + bytes(144) + messages.INT32.pack(5), "5 atoms, the template has 2"),
        (
            messages.encode_init(0, "batch_size:65536") + messages.header("POSDATA") + messages.INT32.pack(50_000_000),
            "POSDATA holds 50000000 atoms",
        ),
    ],
)
def test_bytes_that_are_not_the_protocol_are_refused(stream, sentence):
    client = ForceClient(2)
    client.feed(stream)
    with pytest.raises(ProtocolError, match=sentence):
        client.next_event()


def test_no_memory_is_reserved_for_an_absurd_batch():
    client = ForceClient()
    client.feed(messages.encode_init(0, "batch_size:65536"))
    client.feed(messages.header("POSDATA") + messages.INT32.pack(40_000_000))
    with pytest.raises(ProtocolError, match="allowed are"):
        client.next_event()


@pytest.mark.parametrize("quantity", ["energy", "force", "virial"])
def test_a_number_that_is_not_finite_never_leaves(quantity):
    client = ForceClient(2)
    client.feed(MESSAGES["POSDATA"])
    client.next_event()
    values = {"energy": np.zeros(1), "force": np.zeros((1, 2, 3)), "virial": np.zeros((1, 3, 3))}
    values[quantity].flat[-1] = np.nan
    with pytest.raises(NumericalError, match=rf"the {quantity} is nan at structure 0"):
        client.answer(*values.values(), [""])


def test_forces_come_back_through_bytes_unchanged():
    rng = np.random.default_rng(1)
    sent = messages.ForceReady(
        rng.normal(size=2), rng.normal(size=(2, 4, 3)), rng.normal(size=(2, 3, 3)), ("", '{"ü": 1}')
    )
    payload = encode_force_ready(sent)
    read, end = messages.read_client_message(payload, 4, 2)
    assert end == len(payload)
    for name in ("energies", "forces", "virials"):
        assert_array_equal(getattr(read, name), getattr(sent, name))
    assert read.extras == sent.extras
    for length in range(len(payload)):
        assert messages.read_client_message(payload[:length], 4, 2) is None


def test_springs_are_their_own_gradient():
    springs = Springs(np.zeros((2, 3)))
    positions, step = np.random.default_rng(0).normal(size=(1, 2, 3)), 1e-4
    shift = np.zeros_like(positions)
    shift[0, 1, 2] = step
    cell = np.zeros((1, 3, 3))
    rise = springs(positions + shift, cell).energies - springs(positions - shift, cell).energies
    assert abs(rise[0] / (2 * step) + springs(positions, cell).forces[0, 1, 2]) < 1e-9
