"""The table of states of the server role, without sockets."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from peers import answer, encode_force_ready, structures

from comitia.errors import PeerError, ProtocolError
from comitia.protocol import messages
from comitia.protocol.server_states import FORCE_SERVER, Forces, ForceServer, Ready
from comitia.protocol.states import Closed, Evaluate, ForceClient, Send

N_ATOMS = 2


def forces(n_atoms=N_ATOMS, n_structures=1, seed=0):
    rng = np.random.default_rng(seed)
    return messages.ForceReady(
        rng.normal(size=n_structures),
        rng.normal(size=(n_structures, n_atoms, 3)),
        rng.normal(size=(n_structures, 3, 3)),
        tuple("{}" for _ in range(n_structures)),
    )


MESSAGES = {
    "NEEDINIT": messages.header("NEEDINIT"),
    "READY": messages.header("READY"),
    "HAVEDATA": messages.header("HAVEDATA"),
    "FORCEREADY": encode_force_ready(forces()),
}
WAY = {
    "greeted": [],
    "introduced": ["NEEDINIT"],
    "ready": ["READY"],
    "computing": ["READY", None],
    "answered": ["READY", None, "FORCEREADY"],
}


def drain(server):
    """All that a server wants now."""
    events = []
    while (event := server.next_event()) is not None:
        events.append(event)
    return events


def in_state(state):
    server = ForceServer(N_ATOMS, "Ar2")
    drain(server)
    for step in WAY[state]:
        if step is None:
            server.request(structures(1, N_ATOMS))
        else:
            server.feed(MESSAGES[step])
        drain(server)
    assert server.state == state
    return server


@pytest.mark.parametrize("state", WAY)
@pytest.mark.parametrize("name", MESSAGES)
def test_a_message_without_a_place_is_refused_by_name(state, name):
    server = in_state(state)
    server.feed(MESSAGES[name])
    if (state, name) in FORCE_SERVER:
        drain(server)
        assert server.state == FORCE_SERVER[state, name]
    else:
        with pytest.raises(ProtocolError, match=rf"{name} arrived in state {state}, where it has no place"):
            drain(server)


@pytest.mark.parametrize("state", WAY)
def test_an_early_end_is_in_order_or_an_error_that_says_so(state):
    server = in_state(state)
    server.end_of_stream()
    if state == "computing":
        with pytest.raises(PeerError, match="before it sent the forces"):
            drain(server)
    else:
        events = drain(server)
        assert isinstance(events[-1], Closed)
        assert any(isinstance(event, Forces) for event in events) == (state == "answered")
    server = in_state(state)
    server.feed(b"REA")
    server.end_of_stream()
    with pytest.raises(PeerError, match="inside a message"):
        drain(server)


def test_forces_wait_for_the_answer_to_status():
    server = in_state("computing")
    server.feed(MESSAGES["FORCEREADY"])
    assert drain(server) == []
    server.feed(MESSAGES["READY"])
    found, ready = drain(server)
    assert_array_equal(found.message.forces, forces().forces)
    assert isinstance(ready, Ready)


def test_a_worker_may_want_to_be_introduced_again():
    server = in_state("answered")
    server.feed(MESSAGES["NEEDINIT"])
    found, send = drain(server)
    assert isinstance(found, Forces)
    # pw.x reads one byte of text, whatever its length
    assert send.payload == messages.encode_init(messages.species_number("Ar2"), "#") + messages.header("STATUS")


@pytest.mark.parametrize(
    "spoiled",
    [
        encode_force_ready(forces(n_atoms=3)),
        MESSAGES["FORCEREADY"] + bytes(24),  # twelve numbers of a virial
        MESSAGES["FORCEREADY"][:-30],  # six, and no extras
        MESSAGES["FORCEREADY"] + MESSAGES["FORCEREADY"],
        messages.header("FORCEREADY") + bytes(8) + messages.INT32.pack(-1),
    ],
)
def test_forces_of_another_length_are_never_believed(spoiled):
    server = in_state("computing")
    server.feed(spoiled + MESSAGES["READY"])
    server.end_of_stream()
    with pytest.raises(PeerError):
        assert not any(isinstance(event, Forces) for event in iter(server.next_event, None))


def test_no_memory_is_reserved_for_absurd_lengths():
    for count_at, what in ((20, "number of atoms in FORCEREADY"), (20 + 4 + 48 + 72, "length of the extras")):
        for count in (2**31 - 1, -1):
            server = in_state("computing")
            stream = bytearray(MESSAGES["FORCEREADY"])
            stream[count_at : count_at + 4] = messages.INT32.pack(count)
            server.feed(stream)
            with pytest.raises(ProtocolError, match=what):
                drain(server)


@pytest.mark.parametrize("batch_size", [None, 1, 3])
def test_the_two_roles_understand_each_other(batch_size):
    server, client = ForceServer(N_ATOMS, "Ar2", batch_size), ForceClient(N_ATOMS, "Ar2")
    got, asked = [], [structures(n, N_ATOMS, seed) for seed, n in enumerate([1] if batch_size != 3 else [3, 1, 2])]
    waiting = list(asked)
    for _ in range(20):
        for event in drain(server):
            if isinstance(event, Send):
                client.feed(event.payload)
            elif isinstance(event, Forces):
                got.append(event.message)
            elif isinstance(event, Ready) and waiting:
                server.request(waiting.pop(0))
        while (event := client.next_event()) is not None:
            if isinstance(event, Evaluate):
                answer(client, event)
            elif isinstance(event, Send):
                server.feed(event.payload)
    assert client.replica == messages.species_number("Ar2")
    assert len(got) == len(asked)
    for reply, request in zip(got, asked, strict=True):
        assert_array_equal(reply.forces, np.sin(request.positions) + request.cells.sum())
    server.leave()
    client.feed(drain(server)[0].payload)
    assert isinstance(client.next_event(), Closed)
