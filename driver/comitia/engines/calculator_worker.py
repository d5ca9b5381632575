"""A process of `comitia.engines.calculator_pool`: structures come, what its calculator says of them goes back."""

import signal
import sys
from multiprocessing.connection import Connection


def main():
    """Compute until the other end goes."""
    from comitia.engines.force_engines import CalculatorEngine

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's, who ends us in order
    link = Connection(int(sys.argv[1]))
    engine = None
    try:
        specification, forces, sys.path[:] = link.recv()
        while True:
            atoms = link.recv()
            engine = engine or CalculatorEngine(specification, forces)
            ((_, outcome),) = engine.labels([(0, atoms)])
            link.send(getattr(outcome, "error", outcome))
    except (EOFError, OSError):
        return


if __name__ == "__main__":
    main()
