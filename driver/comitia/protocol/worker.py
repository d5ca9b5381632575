"""One worker of a force server: its connection, what it computes, and when it is late."""

import dataclasses
import time


@dataclasses.dataclass(frozen=True)
class Deadlines:
    """How long a worker may take, s, from the moment it enters a state; all by the monotonic clock.

    Parameters
    ----------
    greeted : to answer STATUS
    introduced : to answer STATUS after INIT, in which it may load what it needs
    computing : to begin its answer
    answered : to answer STATUS after its forces; they are believed all the same if nothing follows them
    message : to send the rest of a message
    sending : without taking a byte of what is sent to it
    leaving : to notice that it was told to go
    """

    greeted: float = 120.0
    introduced: float = 600.0
    computing: float = 3600.0
    answered: float = 120.0
    message: float = 120.0
    sending: float = 60.0
    leaving: float = 3.0

    @classmethod
    def of_structures(cls, seconds):
        """Deadlines of workers that may take so many seconds for a structure, and no longer to say that it was all."""
        return cls(computing=seconds, answered=min(seconds, cls.answered))


class Worker:
    """One connection and what is known of it."""

    def __init__(self, stream, name, machine):
        self.stream, self.name, self.machine = stream, name, machine
        self.outgoing = memoryview(b"")
        self.work = None  # (requests, rotations) that it computes
        self.leaving = False
        self.n_answers = 0
        self._phase, self._since, self._sent_at = None, 0.0, 0.0

    def postpone(self, seconds):
        """Time in which nobody looked at the worker does not count."""
        self._since += seconds
        self._sent_at += seconds

    @property
    def idle(self):
        return self.machine.state == "ready" and not self.leaving and not self.machine.inside_message

    def send(self, payload):
        """Queue bytes."""
        if not self.outgoing:
            self._sent_at = time.monotonic()
        self.outgoing = memoryview(bytes(self.outgoing) + payload)

    def flush(self):
        """Send what the peer takes without waiting."""
        while self.outgoing:
            try:
                n_sent = self.stream.send(self.outgoing)
            except BlockingIOError:
                return
            self.outgoing = self.outgoing[n_sent:]
            self._sent_at = time.monotonic()

    def limit(self, deadlines, now):
        """(moment at which it is late, what for, seconds it had), or None where it may take its time."""
        phase = "leaving" if self.leaving else "message" if self.machine.inside_message else self.machine.state
        key = (phase, self.n_answers, self.machine.n_messages)
        if key != self._phase:
            self._phase, self._since = key, now
        allowed = getattr(deadlines, phase, None)
        limits = [] if allowed is None else [(self._since + allowed, phase, allowed)]
        if self.outgoing and not self.leaving:
            limits.append((self._sent_at + deadlines.sending, "sending", deadlines.sending))
        return min(limits, default=None)
