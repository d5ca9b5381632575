"""The client at the end of a real stream: what it sends, and how it goes whatever the server does."""

import json
import socket
import struct
import threading
import time

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from peers import Springs, pair, structures

from comitia.errors import NumericalError, PeerError, ProtocolError
from comitia.protocol import client, messages
from comitia.protocol.boundary import WireResults
from comitia.protocol.client import Session, serve
from comitia.protocol.transports import Connection
from comitia.units import BOHR, HARTREE

PERIODIC = (True, True, True)


class Serving:
    """A client in a thread, with the server's end at hand; entered as a context."""

    def __init__(self, compute, n_atoms=3, pbc=PERIODIC, silence=None, **wire):
        self.server, stream = pair()
        self.connection = Connection(stream, "unix:test")
        self.arguments = (compute, WireResults(**wire), n_atoms, pbc, silence)
        self.served = self.error = None

    def _run(self):
        with self.connection:
            try:
                (self.served,) = serve([Session(self.connection, *self.arguments)])
            except Exception as error:
                self.error = error

    def __enter__(self):
        self.thread = threading.Thread(target=self._run)
        self.thread.start()
        return self

    def __exit__(self, *exception):
        self.server.stream.close()
        self.thread.join(20)
        assert not self.thread.is_alive()

    def join(self):
        """Wait for the client to end; the server's end must stay in order."""
        assert self.server.ended()
        self.server.stream.close()
        self.thread.join(20)
        return self.error if self.served is None else self.served


def evaluate(compute, request, pbc=PERIODIC, **options):
    """One consolidated exchange: (FORCEREADY, Served)."""
    n_structures, n_atoms, _ = request.positions.shape
    batch = n_structures if n_structures > 1 else None
    with Serving(compute, n_atoms, pbc, **options) as serving:
        server = serving.server
        server.say("STATUS")
        assert server.read_header() == "NEEDINIT"
        server.say(messages.encode_init(0, f" batch_size:{batch}" if batch else ""), "STATUS")
        assert server.read_header() == "READY"
        server.say(messages.encode_position_data(request, batched=batch is not None), "GETFORCE")
        reply = server.read_forces(n_atoms, batch)
        server.say("STATUS")
        assert server.read_header() == "READY"
        server.say("EXIT")
        return reply, serving.join()


@pytest.mark.parametrize("n_structures", [1, 4])
def test_what_is_sent_is_what_was_computed(n_structures):
    rng = np.random.default_rng(5)
    springs = Springs(rng.normal(size=(3, 3)), stiffness=(1.0, 1.3, 0.6))
    request = structures(n_structures, 3)
    reply, served = evaluate(springs, request)
    expected = springs(request.positions * BOHR, request.cells * BOHR)
    assert_allclose(reply.energies, expected.energies / HARTREE, rtol=1e-15)
    assert_allclose(reply.forces, expected.forces * BOHR / HARTREE, rtol=1e-15)
    assert_allclose(reply.virials, expected.virials.transpose(0, 2, 1) / HARTREE, rtol=1e-15)
    for energy, text, sigma in zip(reply.energies, reply.extras, expected.energy_uncertainties, strict=True):
        extras = json.loads(text)
        assert sorted(extras) == ["committee_pot", "committee_uncertainty"]
        assert energy == np.mean(extras["committee_pot"])  # to the last bit
        assert_allclose(extras["committee_uncertainty"], sigma / HARTREE, rtol=1e-15)
    assert (served.reason, served.n_requests, served.n_structures) == ("EXIT", 1, n_structures)


def test_rows_inside_are_columns_outside():
    seen = {}

    def compute(positions, cells):
        seen.update(positions=positions, cells=cells)
        return Springs(np.zeros((3, 3)))(positions, cells)

    request = structures(2, 3)
    evaluate(compute, request)
    assert_allclose(seen["cells"], request.cells.transpose(0, 2, 1) * BOHR, rtol=1e-15)
    assert_allclose(seen["positions"], request.positions * BOHR, rtol=1e-15)


def test_a_model_of_one_member_sends_no_extras():
    reply, _ = evaluate(Springs(np.zeros((3, 3)), stiffness=(1.0,)), structures(1, 3))
    assert reply.extras == ("",)


def test_the_offset_goes_from_every_energy():
    springs, request = Springs(np.zeros((3, 3))), structures(1, 3)
    plain, _ = evaluate(springs, request)
    shifted, _ = evaluate(springs, request, offset=-100.0)
    assert_allclose(shifted.energies - plain.energies, 100.0 / HARTREE, rtol=1e-12)
    pots = [np.array(json.loads(reply.extras[0])["committee_pot"]) for reply in (plain, shifted)]
    assert_allclose(pots[1] - pots[0], 100.0 / HARTREE, rtol=1e-12)


def test_forces_and_virials_of_members_on_request():
    rng = np.random.default_rng(2)
    forces, virials = rng.normal(size=(2, 2, 3, 3)), rng.normal(size=(2, 2, 3, 3))
    springs = Springs(np.zeros((3, 3)))

    def compute(positions, cells):
        predictions = springs(positions, cells)
        predictions.member_forces, predictions.member_virials = forces, virials
        return predictions

    reply, _ = evaluate(compute, structures(2, 3), extras=("committee_force", "committee_virial"))
    for text, force, virial in zip(reply.extras, forces, virials, strict=True):
        extras = json.loads(text)
        assert_allclose(extras["committee_force"], force.reshape(2, 9) * BOHR / HARTREE, rtol=1e-15)
        assert_allclose(extras["committee_virial"], virial.transpose(0, 2, 1).reshape(2, 9) / HARTREE, rtol=1e-15)


def test_padding_is_not_computed():
    springs, request = Springs(np.zeros((3, 3))), structures(6, 3)
    request.positions[2:] = request.positions[2]
    reply, served = evaluate(springs, request)
    assert springs.n_structures == served.n_structures == 3
    assert_array_equal(reply.energies[2:], reply.energies[2])


@pytest.mark.parametrize("cell", [np.zeros((3, 3)), np.diag([10.0, 10.0, 0.0])])
def test_a_molecule_needs_no_cell(cell):
    request = structures(1, 3, cell=np.eye(3))
    request.cells[0], request.inverses[0] = cell, np.linalg.pinv(cell)
    reply, _ = evaluate(Springs(np.zeros((3, 3))), request, pbc=(False, False, False))
    assert np.isfinite(reply.energies).all()


def test_a_slab_needs_a_cell_only_where_it_repeats():
    request = structures(1, 3, cell=np.eye(3))
    cell = np.array([[10.0, 2.0, 0.0], [0.0, 10.0, 0.0], [0.0, 0.0, 0.0]])
    request.cells[0], request.inverses[0] = cell, np.linalg.pinv(cell)
    evaluate(Springs(np.zeros((3, 3))), request, pbc=(True, True, False))
    assert "no extent" in str(failure(request, pbc=(True, True, True)))


def failure(request, compute=None, pbc=PERIODIC):
    """The error with which a client ends after one request; the server sees an orderly end of stream."""
    with Serving(compute or Springs(np.zeros((3, 3))), 3, pbc) as serving:
        serving.server.say(messages.encode_position_data(request), "GETFORCE")
        return serving.join()


def test_the_inverse_of_another_cell_is_refused():
    request = structures(1, 3)
    request.inverses[0] = np.linalg.inv(request.cells[0].T)  # as ASE sends it
    evaluate(Springs(np.zeros((3, 3))), request)
    request.inverses[0] = np.linalg.inv(1.01 * request.cells[0])
    error = failure(request)
    assert isinstance(error, ProtocolError)
    assert "inverse cell of structure 0" in str(error)


@pytest.mark.parametrize("what", ["positions", "cells"])
def test_numbers_that_are_not_finite_are_not_computed(what):
    request, springs = structures(1, 3), Springs(np.zeros((3, 3)))
    getattr(request, what)[0, 1, 2] = np.inf
    error = failure(request, springs)
    assert isinstance(error, NumericalError)
    assert error.exit_code == 6
    assert "inf at structure 0" in str(error)
    assert springs.n_structures == 0


@pytest.mark.parametrize("what", ["energies", "forces", "virials", "member_energies", "energy_uncertainties"])
def test_numbers_that_are_not_finite_are_not_sent(what):
    springs = Springs(np.zeros((3, 3)))

    def compute(positions, cells):
        predictions = springs(positions, cells)
        getattr(predictions, what).flat[-1] = np.nan
        return predictions

    error = failure(structures(1, 3), compute)
    assert isinstance(error, NumericalError)
    assert "nan" in str(error)


def test_an_error_of_the_potential_ends_the_stream_in_order():
    def compute(positions, cells):
        raise NumericalError("diverged")

    assert str(failure(structures(1, 3), compute)) == "diverged"


def test_the_wrong_number_of_atoms_is_refused_before_the_positions_arrive():
    with Serving(Springs(np.zeros((3, 3))), 3) as serving:
        serving.server.say("POSDATA", bytes(144), struct.pack("<i", 4))
        error = serving.join()
    assert "4 atoms, the template has 3" in str(error)


STREAMS = {
    "needinit": [],
    "ready": [messages.encode_init(0, "")],
    "havedata": [messages.encode_init(0, ""), messages.encode_position_data(structures(1, 3))],
}


@pytest.mark.parametrize("state", STREAMS)
@pytest.mark.parametrize("half", [b"", b"POSD"])
@pytest.mark.parametrize("abrupt", [False, True])
def test_a_server_that_goes_is_noticed_at_once(state, half, abrupt):
    with Serving(Springs(np.zeros((3, 3))), 3) as serving:
        server = serving.server
        server.say(*STREAMS[state], half)
        if abrupt:  # a reset
            server.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        start = time.monotonic()
        server.stream.close()
        serving.thread.join(5)
        assert time.monotonic() - start < 5
    if state == "havedata" or half:
        assert isinstance(serving.error, PeerError)
        assert serving.error.exit_code == 4
    else:
        assert serving.served.reason == "end of stream"


def test_a_server_that_falls_silent_is_named(monkeypatch):
    serving = Serving(Springs(np.zeros((3, 3))), 3, silence=0.2)
    serving.server.say(messages.encode_init(0, ""))  # before its silence counts
    with serving:
        error = serving.join()
    assert isinstance(error, PeerError)
    assert "unix:test" in str(error)
    assert "state ready" in str(error)
    monkeypatch.setattr(client, "MESSAGE_TIMEOUT", 0.2)
    with Serving(Springs(np.zeros((3, 3))), 3) as serving:
        serving.server.say(messages.encode_init(0, ""), "POSDATA", b"123")
        assert "stopped inside a message" in str(serving.join())


def test_exit_while_computing_is_an_exit():
    gone = threading.Event()

    def compute(positions, cells):
        gone.wait(10)
        return Springs(np.zeros((3, 3)))(positions, cells)

    with Serving(compute, 3) as serving:
        server = serving.server
        server.say(messages.encode_position_data(structures(1, 3)), "GETFORCE", "EXIT")
        server.stream.close()
        gone.set()
        serving.thread.join(20)
    assert serving.served.reason == "EXIT"


def test_nothing_unread_is_left_behind():
    """A client that fails has read what the server had sent, so that the server sees an end and not a reset."""

    def compute(positions, cells):
        time.sleep(0.2)  # the server goes on talking meanwhile
        raise NumericalError("diverged")

    with Serving(compute, 3) as serving:
        serving.server.say(messages.encode_position_data(structures(1, 3)), "GETFORCE", *["STATUS"] * 50)
        assert str(serving.join()) == "diverged"


def test_the_log_shows_that_it_lives(monkeypatch, caplog):
    monkeypatch.setattr(client, "HEARTBEAT", 0.0)
    with caplog.at_level("INFO"):
        evaluate(Springs(np.zeros((3, 3))), structures(1, 3))
    assert "1 structures" in caplog.text
    assert "meV/atom" in caplog.text


def test_several_servers_are_answered_as_they_ask():
    """One thread, two servers that take turns and then ask at the same time; each ends by itself."""
    ends = [pair() for _ in range(3)]
    springs = [Springs(np.full((3, 3), float(number)), stiffness=(1.0,)) for number in range(3)]
    sessions = [
        Session(Connection(stream, f"unix:{number}"), springs[number], WireResults(), 3, PERIODIC)
        for number, (_, stream) in enumerate(ends)
    ]
    results = []
    thread = threading.Thread(target=lambda: results.extend(serve(sessions)))
    thread.start()
    request = structures(1, 3)
    asked = messages.encode_position_data(request), "GETFORCE"
    for number in (0, 1, 0, 2, 2):
        ends[number][0].say(*asked)
        expected = springs[number](request.positions * BOHR, request.cells * BOHR).energies / HARTREE
        assert_allclose(ends[number][0].read_forces(3).energies, expected, rtol=1e-15)
    for server, _ in ends:
        server.say(*asked)
    for server, _ in ends:
        server.read_forces(3)
    for server, _ in ends[:2]:
        server.say("EXIT")
    ends[2][0].say(*asked)  # the others have gone
    ends[2][0].read_forces(3)
    ends[2][0].stream.close()
    thread.join(20)
    assert [(served.reason, served.n_requests) for served in results] == [
        ("EXIT", 3), ("EXIT", 2), ("end of stream", 4),
    ]  # fmt: skip
    for session, (server, _) in zip(sessions, ends, strict=True):
        server.stream.close()
        session.connection.close()


def test_one_server_that_fails_ends_the_service():
    """Whoever watches must learn of it; a server that hears nothing any more could wait for ever."""
    ends = [pair() for _ in range(2)]
    sessions = [
        Session(Connection(stream, f"unix:{number}"), Springs(np.zeros((3, 3))), WireResults(), 3, PERIODIC, 0.3)
        for number, (_, stream) in enumerate(ends)
    ]
    ends[0][0].say("HELLO")
    with pytest.raises(ProtocolError, match="unknown header 'HELLO'"):
        serve(sessions)
    sessions[0].client = sessions[1].client.__class__(3)
    with pytest.raises(PeerError, match=r"unix:\d: the server sent nothing for 0 s"):
        serve(sessions)
    for session, (server, _) in zip(sessions, ends, strict=True):
        server.stream.close()
        session.connection.close()
