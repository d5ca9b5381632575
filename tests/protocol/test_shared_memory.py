"""The dialect whose numbers are in shared memory: what is there, what is not, and how the messages are cut."""

from contextlib import ExitStack, contextmanager
from multiprocessing import resource_tracker, shared_memory

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from peers import answer, structures

from comitia.errors import ProtocolError
from comitia.protocol import messages
from comitia.protocol.shared_memory import KINDS, SharedArrays
from comitia.protocol.states import Closed, Evaluate, ForceClient, Send

N_ATOMS = 3
SIZES = {"positions": 3 * N_ATOMS, "cells": 9, "inverses": 9, "energies": 1, "forces": 3 * N_ATOMS, "virials": 9}


@contextmanager
def segments(n_structures):
    """Six segments as i-PI makes them, and views of their numbers."""
    with ExitStack() as stack:
        made = {}
        for kind in KINDS:
            segment = shared_memory.SharedMemory(create=True, size=8 * n_structures * SIZES[kind])
            stack.callback(segment.unlink)
            stack.callback(segment.close)
            made[kind] = segment
        views = {kind: np.frombuffer(made[kind].buf, float, n_structures * SIZES[kind]) for kind in KINDS}
        yield made, views
        views.clear()
        for segment in made.values():  # attaching in the same process took it off the tracker's list
            resource_tracker.register(segment._name, "shared_memory")


def posdata(made=None, n_atoms=N_ATOMS):
    parts = [messages.header("POSDATA"), messages.INT32.pack(n_atoms)]
    for segment in made.values() if made else ():
        raw = segment.name.encode()
        parts += [messages.INT32.pack(len(raw)), raw]
    return b"".join(parts)


def drain(client):
    events = []
    while (event := client.next_event()) is not None:
        events.append(event)
        if isinstance(event, Evaluate):
            answer(client, event)
    return events


@pytest.mark.parametrize("n_structures", [1, 4])
@pytest.mark.parametrize("cut", [False, True])
def test_numbers_go_through_memory_and_messages_through_the_socket(n_structures, cut):
    shared = SharedArrays()
    client = ForceClient(N_ATOMS, shared=shared)

    def feed(stream):
        events = []
        for i in range(len(stream)) if cut else [slice(None)]:
            client.feed(stream[i : i + 1] if cut else stream)
            events += drain(client)
        return events

    feed(messages.encode_init(0, f"batch_size:{n_structures}"))
    with segments(n_structures) as (made, views):
        for step in range(3):
            request = structures(n_structures, N_ATOMS, seed=step)
            views["positions"][:] = request.positions.ravel()
            views["cells"][:] = request.cells.ravel()
            views["inverses"][:] = request.inverses.ravel()
            events = feed(posdata(made if step == 0 else None) + messages.header("GETFORCE"))
            evaluated, sent = events
            assert_array_equal(evaluated.positions, request.positions)
            assert_array_equal(views["forces"].reshape(-1, N_ATOMS, 3), np.sin(request.positions) + request.cells.sum())
            assert_array_equal(views["virials"].reshape(-1, 3, 3), np.cos(request.cells) + request.inverses)
            assert isinstance(sent, Send)
            extras = b"".join(
                messages.INT32.pack(len(text)) + text
                for text in (f'{{"structure": {s}}}'.encode() for s in range(n_structures))
            )
            assert sent.payload == messages.header("FORCEREADY") + extras
        assert isinstance(feed(messages.header("EXIT"))[0], Closed)
        shared.close()


def attach(names, n_atoms=N_ATOMS, n_structures=1):
    shared = SharedArrays()
    try:
        shared.attach(names, n_structures, n_atoms)
    finally:
        shared.close()


def test_memory_that_is_not_there_or_too_small_is_refused():
    with pytest.raises(ProtocolError, match="is not there, or is another user's"):
        attach(["nothing-of-this-name"])
    with pytest.raises(ProtocolError, match="is not there, or is another user's"):
        attach(["../etc/passwd"])
    with pytest.raises(ProtocolError, match="does not hold 1 structures"):
        attach([])
    with segments(1) as (made, _):
        names = [segment.name for segment in made.values()]
        with pytest.raises(ProtocolError, match="too few for"):
            attach(names, n_atoms=5000)
        for segment in list(made.values())[1:]:  # only the first was opened, and taken off the tracker's list
            resource_tracker.unregister(segment._name, "shared_memory")


def test_a_change_of_the_number_of_atoms_is_refused():
    client = ForceClient(shared=SharedArrays())
    with segments(1) as (made, views):
        views["cells"][:] = views["inverses"][:] = np.eye(3).ravel()
        client.feed(posdata(made) + messages.header("GETFORCE"))
        drain(client)
        client.feed(posdata(n_atoms=N_ATOMS - 1))
        with pytest.raises(ProtocolError, match="does not hold 1 structures of 2 atoms"):
            drain(client)
        client.shared.close()


def test_absurd_names_reserve_nothing():
    client = ForceClient(shared=SharedArrays())
    client.feed(posdata() + messages.INT32.pack(2**31 - 1))
    with pytest.raises(ProtocolError, match="length of the name of shared memory"):
        drain(client)
