"""Any bytes whatever give messages or ProtocolError, the same however they are cut."""

import random

import pytest
from peers import answer, conversation

from comitia.errors import PeerError
from comitia.protocol.messages import FROM_SERVER, header
from comitia.protocol.states import Closed, Evaluate, ForceClient, Send

SEEDS = [
    b"".join(conversation(n_atoms=1, n_steps=1)),
    b"".join(conversation(n_atoms=2, consolidated=False)),
    b"".join(conversation(n_atoms=1, batch_size=3)),
]
WORDS = [*(header(name) for name in FROM_SERVER), b"\xff\xff\xff\x7f", bytes(4)]


def mutated(rng):
    """A valid stream with a few bytes changed, cut out, repeated or spliced with another."""
    stream = bytearray(rng.choice(SEEDS))
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(stream) + 1)
        kind = rng.randrange(6)
        if kind == 0 and at < len(stream):
            stream[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del stream[at : at + rng.choice((1, 4, 12, 60))]
        elif kind == 2:
            stream[at:at] = rng.choice(WORDS)
        elif kind == 3:
            stream[at : at + 4] = rng.choice((b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", bytes(4), b"\x01\0\0\0"))
        elif kind == 4:
            other = rng.choice(SEEDS)
            stream[at:] = other[rng.randrange(len(other)) :]
        else:
            stream[at:at] = rng.randbytes(rng.randint(1, 16))
    return bytes(stream)


def outcome(pieces):
    """What the client says and how it ends, an error included."""
    client, said = ForceClient(), []
    try:
        for piece in pieces:
            client.feed(piece)
            while (event := client.next_event()) is not None:
                if isinstance(event, Evaluate):
                    event.positions[:] = 0.5
                    event.cells[:] = event.inverses[:] = 1.0
                    answer(client, event)
                elif isinstance(event, Send):
                    said.append(event.payload)
                else:
                    return b"".join(said), event.reason
        client.end_of_stream()
        event = client.next_event()
        return b"".join(said), event.reason if isinstance(event, Closed) else "waiting"
    except PeerError as error:
        return b"".join(said), str(error)


def fuzz(n_streams, seed):
    rng = random.Random(seed)
    refused = 0
    for _ in range(n_streams):
        stream = mutated(rng)
        whole = outcome([stream])
        cut = rng.randrange(len(stream) + 1)
        assert outcome([stream[:cut], stream[cut:]]) == whole
        if rng.randrange(50) == 0:
            assert outcome([stream[i : i + 1] for i in range(len(stream))]) == whole
        refused += whole[1] not in ("EXIT", "end of stream")
    assert 0.2 * n_streams < refused < n_streams  # the mutations neither miss everything nor break everything


def test_mutated_streams():
    fuzz(60_000, seed=1)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_many_mutated_streams():
    fuzz(1_000_000, seed=2)
