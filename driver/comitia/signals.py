"""Signals that ask a command to stop: the first one in order, the second one at once."""

import contextlib
import os
import select
import signal
import sys
import threading
import time

from comitia.errors import StoppedBySignal

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
AGAIN = 0.1  # s between two looks at whether the command is on its way out
PATIENCE = 4.0  # s that a peer may have to wait until compiled code comes back


class Stop:
    """Handler of the signals that ask a command to stop: raises `StoppedBySignal` until it is on its way out.

    Once is not enough: C code that tries a conversion and clears every error (NumPy reading a number from a string)
    takes the exception with it, and so does a finaliser.

    Python calls a handler only between two steps of its own, so none in the middle of a long evaluation. The system,
    however, writes every signal into a pipe at once, and a thread that reads there ends the process when a signal
    comes for the second time, or `patience` seconds after the first where no handler was called since.

    Attributes
    ----------
    number : int or None, the signal that a handler was called for
    patience : float or None, s; None where the command may take its time, so that it cleans up behind itself
    """

    def __init__(self):
        self.number = self.patience = None

    def install(self):
        """Handle the signals that are not ignored, from now on."""
        handled = [number for number in NUMBERS if signal.getsignal(number) is not signal.SIG_IGN]
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._before = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._watch = threading.Thread(target=self._look, args=(handled,), name="signals", daemon=True)
        self._watch.start()
        for number in handled:
            signal.signal(number, self)

    def __call__(self, number, frame):
        if number != signal.SIGALRM:
            self.number = number
            signal.signal(number, signal.SIG_DFL)  # a second one ends the process at once
            signal.signal(signal.SIGALRM, self)
            signal.setitimer(signal.ITIMER_REAL, AGAIN, AGAIN)
        handled = sys.exc_info()[1]
        while handled is not None and not isinstance(handled, StoppedBySignal):
            handled = handled.__context__
        if handled is None:
            raise StoppedBySignal(self.number)

    def _look(self, handled):
        """Read the numbers of signals as they come, until the other end of the pipe is closed."""
        seen, deadline = [], None
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not select.select([self._read], [], [], left)[0]:
                if self.number is None:
                    self._end(seen[0], "in the middle of a computation")
                deadline = None
                continue
            number = int.from_bytes(os.read(self._read, 1))
            if not number:
                return
            if number in handled:
                if number in seen:
                    self._end(number, "twice")
                seen.append(number)
                if self.patience is not None:
                    deadline = time.monotonic() + self.patience

    @staticmethod
    def _end(number, how):
        with contextlib.suppress(OSError):
            os.write(2, f"comitia: stopped by a signal {how}\n".encode())
        os._exit(128 + number)

    def disarm(self):
        """No exception any more: the command has been told."""
        if self.number is not None:
            signal.setitimer(signal.ITIMER_REAL, 0.0)

    def close(self):
        """End the thread."""
        signal.set_wakeup_fd(self._before)
        os.close(self._write)
        self._watch.join()
        os.close(self._read)
