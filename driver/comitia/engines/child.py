"""`python -m comitia.engines.child PARENT COMMAND...`: become COMMAND, and stop when the process PARENT dies.

Linux sends the signal asked for by prctl to a child whose parent has died, however it died; the request
survives exec. So nothing started through this module outlives the command that started it.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main():
    """Ask for SIGTERM at the parent's death, then run the command in this process."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:  # it died before the request
        sys.exit(128 + signal.SIGTERM)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
