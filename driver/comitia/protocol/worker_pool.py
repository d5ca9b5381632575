"""The force server: structures go to workers that come and go, each answered exactly once."""

import logging
import selectors
import socket
import time

from comitia.errors import ComitiaError, PeerError, ProtocolError
from comitia.protocol.requests import Failure, RequestQueue, in_order
from comitia.protocol.server_states import Forces, ForceServer, Ready
from comitia.protocol.states import Send
from comitia.protocol.worker import Deadlines, Worker
from comitia.protocol.worker_boundary import check_request, decode_forces, encode_requests

log = logging.getLogger(__name__)

CHUNK = 1 << 20  # bytes asked for in one read
TICK = 0.1  # s between two looks at who is late
WATCH = 1.0  # s between two looks at processes that we started
ACCEPTED_AT_ONCE = 8  # connections before those that are there get their turn
NO_ROOM_PAUSE = 0.5  # s without accepting, when the system has no room for a connection


class WorkerPool:
    """Drives any number of external force engines that connect to us.

    All structures have the same atoms in the same order; the protocol does not tell species, so workers are started
    with them. One thread; nothing a worker does or leaves undone makes another wait.

    Parameters
    ----------
    listeners : list of Listener, closed with the pool
    n_atoms : int
    species : str, the atoms in their order, such as "OH2OH2", which workers of ours compare with theirs
    batch_size : int or None, structures in one message to workers that ask for INIT; they must know of batches
    deadlines : Deadlines
    wait : float, s without any worker, until the first has come, before the pool gives up
    idle : float or None, the same when there was one before; None for as long as `wait`
    attempts : int, workers that one structure may cost before it is given up
    max_workers : int, connections at a time; others wait to be accepted
    watch : function called about once a second, which may raise ComitiaError: it looks after processes of ours
    """

    def __init__(
        self, listeners, n_atoms, *, species="", batch_size=None, deadlines=None, wait=60.0, idle=None,
        attempts=5, max_workers=1024, watch=None,
    ):  # fmt: skip
        self.listeners, self.n_atoms = list(listeners), n_atoms
        self.deadlines = deadlines or Deadlines()
        self.wait, self.idle = wait, wait if idle is None else idle
        self.attempts, self.max_workers = attempts, max_workers
        self._species, self._batch_size, self._watch = species, batch_size, watch
        self._workers = set()
        self.n_seen = self.n_lost = 0  # connections so far; those that ended badly
        self._queue, self._outcomes = RequestQueue(()), []
        self._selector = selectors.DefaultSelector()
        self._accepting = self._closed = self._had_workers = False
        self._accept_again = 0.0
        self._alone_since = self._looked = self._watched = time.monotonic()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    @property
    def addresses(self):
        return ", ".join(listener.address for listener in self.listeners)

    @property
    def n_connected(self):
        """Connections that are open."""
        return len(self._workers)

    @property
    def n_workers(self):
        """Workers that have said something sensible and are still there."""
        return sum(not w.leaving and w.machine.n_messages > 0 for w in self._workers)

    def as_completed(self, requests):
        """Outcomes as they come: pairs of the number of a request, counted from 0, and an `Answer` or a `Failure`.

        Parameters
        ----------
        requests : iterable of Request; taken from when a worker is free

        Raises
        ------
        PeerError
            if there was no worker for `wait` or `idle` seconds while work was left.
        """
        self._queue = RequestQueue(requests, self.attempts)
        self._alone_since = self._resume()
        try:
            while not self._queue.done:
                self._step()
                if self._outcomes:
                    outcomes, self._outcomes = self._outcomes, []
                    yield from outcomes
        finally:
            self._abandon()

    def evaluate(self, requests):
        """Outcomes in the order of the requests, each exactly once: a generator of `Answer` and `Failure`."""
        for _, outcome in in_order(self.as_completed(requests)):
            yield outcome

    def close(self):
        """Tell every worker to go, wait a moment for each to notice, and close everything."""
        if self._closed:
            return
        self._closed = True
        for worker in list(self._workers):
            self._dismiss(worker)
        deadline = time.monotonic() + self.deadlines.leaving
        while self._workers and time.monotonic() < deadline:
            self._poll(max(0.0, deadline - time.monotonic()), listen=False)
        for worker in list(self._workers):
            self._remove(worker)
        for listener in self.listeners:
            listener.close()
        self._selector.close()

    def _resume(self):
        """We look again, now: while whoever asked was busy, or this process did not run, no deadline passed."""
        now = time.monotonic()
        away = max(0.0, now - self._looked - 2 * TICK)  # twice: a look may come almost a tick late
        self._looked, self._alone_since = now, self._alone_since + away
        for worker in self._workers:
            worker.postpone(away)
        return now

    def _abandon(self):
        """Nobody waits for the outcomes any more: workers that compute are sent away."""
        self._queue, self._outcomes = RequestQueue(()), []
        for worker in [w for w in self._workers if w.work is not None]:
            worker.work = None
            self._dismiss(worker)

    def _step(self):
        """Hand out work, wait for something to happen, and deal with it and with what is late."""
        for worker in [w for w in self._workers if w.idle]:
            if not self._queue.more():
                break
            self._hand_out(worker)
        self._poll(0.0 if self._outcomes else TICK)
        if time.monotonic() - self._looked >= TICK:
            self._look_after(self._resume())

    def _look_after(self, now):
        """Workers that are late, that there is one at all, and processes that we started."""
        for worker in list(self._workers):
            limit = worker.limit(self.deadlines, now)
            if limit and now >= limit[0]:
                self._late(worker, *limit[1:])
        self._check_alone(now)
        if self._watch is not None and now - self._watched >= WATCH:
            self._watched = now
            self._watch()

    def _check_alone(self, now):
        limit, option = (self.idle, "--idle") if self._had_workers else (self.wait, "--wait")
        if self.n_workers:
            self._alone_since = now
        elif now - self._alone_since >= limit:
            came = f"all {self.n_lost} that came were lost" if self.n_lost else "none came"
            came = "the last one went in order" if self._had_workers and not self.n_lost else came
            raise PeerError(
                f"{self.addresses}: no worker for {limit:g} s ({came}); start one, or give it more time with {option}"
            )

    def _poll(self, timeout, listen=True):
        """Wait for what comes next and deal with it."""
        self._register_listeners(listen and len(self._workers) < self.max_workers)
        for key, events in self._selector.select(timeout):
            if key.data is None:
                self._accept(key.fileobj)
                continue
            worker = key.data
            if worker not in self._workers:
                continue  # lost to another event of this round
            if events & selectors.EVENT_READ:
                self._receive(worker)
            if events & selectors.EVENT_WRITE and worker in self._workers:
                self._flush(worker)

    def _register_listeners(self, wanted):
        wanted = wanted and time.monotonic() >= self._accept_again
        if wanted != self._accepting:
            for listener in self.listeners:
                if wanted:
                    self._selector.register(listener, selectors.EVENT_READ)
                else:
                    self._selector.unregister(listener)
            self._accepting = wanted

    def _accept(self, listener):
        for _ in range(min(ACCEPTED_AT_ONCE, self.max_workers - len(self._workers))):
            try:
                stream, name = listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:
                log.warning("%s: no further worker can be accepted now (%s)", listener.address, error.strerror)
                self._accept_again = time.monotonic() + NO_ROOM_PAUSE
                return
            if stream is None:
                log.warning("%s", name)
                continue
            machine = ForceServer(self.n_atoms, self._species, self._batch_size)
            worker = Worker(stream, f"worker {self.n_seen} ({name})", machine)
            self.n_seen += 1
            self._workers.add(worker)
            self._selector.register(stream, selectors.EVENT_READ, worker)
            log.info("%s has come", worker.name)
            self._advance(worker)

    def _receive(self, worker):
        try:
            received = worker.stream.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError as error:
            if worker.leaving:
                self._remove(worker)
            else:
                self._lose(worker, PeerError(f"the connection broke ({error.strerror or error})"))
            return
        if worker.leaving:
            if not received:
                self._remove(worker)
            return
        if received:
            worker.machine.feed(received)
        else:
            worker.machine.end_of_stream()
        self._advance(worker)
        if worker.machine.n_messages:
            self._alone_since, self._had_workers = time.monotonic(), True

    def _advance(self, worker):
        """Do what the states of a worker ask for."""
        try:
            while (event := worker.machine.next_event()) is not None:
                if isinstance(event, Send):
                    worker.send(event.payload)
                elif isinstance(event, Forces):
                    self._answer(worker, event.message)
                elif not isinstance(event, Ready):
                    log.info("%s has gone after %d structures", worker.name, worker.n_answers)
                    self._remove(worker)
                    return
        except ComitiaError as error:
            self._lose(worker, error)
            return
        self._flush(worker)

    def _answer(self, worker, message):
        requests, rotations = worker.work
        answers = decode_forces(message, rotations, worker.name)
        worker.work = None
        worker.n_answers += len(answers)
        self._outcomes += [self._queue.answer(*pair) for pair in zip(requests, answers, strict=True)]

    def _hand_out(self, worker):
        requests = [request for request in self._queue.take(worker.machine.capacity) if self._accepted(request)]
        if requests:
            message, rotations = encode_requests(requests)
            worker.work = requests, rotations
            worker.machine.request(message)
            self._advance(worker)

    def _accepted(self, request):
        """Whether a structure can be sent; where not, the structure is at fault and no worker."""
        try:
            check_request(request, self.n_atoms)
        except ComitiaError as error:
            self._outcomes.append(self._queue.answer(request, Failure(error)))
            return False
        return True

    def _flush(self, worker):
        try:
            worker.flush()
        except OSError as error:
            self._drain(worker)  # it may have said something before it went
            if worker in self._workers and not worker.leaving:
                self._lose(worker, PeerError(f"the connection broke ({error.strerror or error})"))
            return
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if worker.outgoing else 0)
        if worker in self._workers and self._selector.get_key(worker.stream).events != wanted:
            self._selector.modify(worker.stream, wanted, worker)

    def _drain(self, worker):
        worker.outgoing = memoryview(b"")
        self._receive(worker)

    def _late(self, worker, phase, allowed):
        if worker.leaving:
            self._remove(worker)
            return
        what = {"sending": "took no bytes", "message": "did not finish a message"}.get(phase, "said nothing")
        state = worker.machine.state
        self._lose(worker, PeerError(f"it {what} for {allowed:g} s (state {state})"))

    def _lose(self, worker, error):
        """A worker died, is late or does not speak the protocol: what it computed goes to another."""
        self.n_lost += 1
        if not isinstance(error, ProtocolError) and not worker.machine.inside_message:
            error = self._take_held(worker) or error
        refused = isinstance(error, ProtocolError)
        work, worker.work = worker.work, None
        also = "; its work goes to another" if work else ""
        log.warning("%s is %s: %s%s", worker.name, "refused" if refused else "lost", error, also)
        named = type(error)(f"{worker.name}: {error}")
        for request in work[0] if work else ():
            outcome = self._queue.give_back(request, named)
            if outcome is not None:
                self._outcomes.append(outcome)
        self._dismiss(worker, say_exit=False)

    def _take_held(self, worker):
        """Believe the forces that a worker sent before it was lost; the error that they are, or None."""
        held = worker.machine.unconfirmed()
        try:
            if held is not None:
                self._answer(worker, held.message)
        except ProtocolError as error:
            return error
        return None

    def _dismiss(self, worker, say_exit=True):
        """End our direction in order and read what the worker still sends; it is closed when it has noticed."""
        if worker.leaving:
            return
        in_order = say_exit and not worker.outgoing
        worker.leaving = True
        try:
            if in_order:
                worker.machine.leave()
                worker.stream.send(worker.machine.next_event().payload)
            worker.outgoing = memoryview(b"")
            self._selector.modify(worker.stream, selectors.EVENT_READ, worker)
            worker.stream.shutdown(socket.SHUT_WR)
        except OSError:
            self._remove(worker)

    def _remove(self, worker):
        if worker in self._workers:
            self._workers.remove(worker)
            self._selector.unregister(worker.stream)
            worker.stream.close()
