"""`python -m comitia.engines.child PARENT SCRIPT...`: run a Python script, and stop when the process PARENT dies.

Linux sends the signal asked for by prctl to a child whose parent has died, however it died: once for every thread of
the parent that it dies after. i-PI writes its state at the first SIGTERM and leaves without it at the second, so the
signal asked for is another one, and what follows is a single SIGTERM.
"""

import ctypes
import os
import runpy
import signal
import sys
import threading

_PR_SET_PDEATHSIG = 1
_told = threading.Lock()  # taken once: a handler can be interrupted by itself, even in `signal.signal`


def _stop(number, frame):
    if _told.acquire(blocking=False):
        os.kill(os.getpid(), signal.SIGTERM)


def main():
    """Ask for a signal at the parent's death, then run the script in this process."""
    parent, sys.argv = int(sys.argv[1]), sys.argv[2:]
    if sys.platform.startswith("linux"):
        signal.signal(signal.SIGUSR1, _stop)
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGUSR1, 0, 0, 0)
    if os.getppid() != parent:  # it died before the request
        sys.exit(128 + signal.SIGTERM)
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
