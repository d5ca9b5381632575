"""`python garbage.py ADDRESS N SEED`: N connections of garbage, some of which begin as a good worker does.

A quarter says READY first, waits for a structure and answers with garbage; a few stay open until the end.
"""

import contextlib
import random
import sys

from faulty_worker import connect

KEPT = 20  # connections that stay open, of which the oldest goes when another comes


def main():
    """Throw."""
    address, n, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    rng, kept = random.Random(seed), []
    for _ in range(n):
        stream = connect(address)
        with contextlib.suppress(OSError):
            if rng.random() < 0.25:
                stream.sendall(b"READY       ")
                stream.settimeout(0.05)
                stream.recv(65536)
            stream.sendall(rng.randbytes(rng.randint(1, 200)))
        if rng.random() < 0.1:
            kept.append(stream)
        else:
            stream.close()
        if len(kept) > KEPT:
            kept.pop(0).close()


if __name__ == "__main__":
    main()
