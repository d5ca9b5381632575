"""Workers that come, go, die, hang and lie: every structure is answered once, in order, with the right numbers."""

import itertools
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import faulty_worker
import numpy as np
import pytest
from numpy.testing import assert_allclose
from peers import Springs

from comitia.errors import NumericalError, PeerError, StructureError
from comitia.protocol.boundary import WireResults
from comitia.protocol.client import Session, serve
from comitia.protocol.listeners import listen_tcp, listen_unix
from comitia.protocol.requests import Answer, Failure, Request
from comitia.protocol.transports import connect_tcp, connect_unix
from comitia.protocol.worker import Deadlines
from comitia.protocol.worker_pool import WorkerPool
from comitia.units import BOHR, HARTREE

N_ATOMS = 3
STIFFNESS = HARTREE / BOHR**2  # eV/Å², that of faulty_worker.py
QUICK = Deadlines(*6 * [0.5], leaving=0.3)
BOUND = 10.0  # s, 5 x the recovery that is wanted
SCRIPT = Path(faulty_worker.__file__)


def requests(n, seed=0, cell=None):
    rng = np.random.default_rng(seed)
    cell = np.array([[7.0, 0.0, 0.0], [0.5, 6.0, 0.0], [0.3, -0.8, 5.0]]) if cell is None else cell
    return [Request(rng.normal(size=(N_ATOMS, 3)), cell) for _ in range(n)]


def check(outcomes, asked):
    """Every answer, in order, is that of the springs."""
    assert len(outcomes) == len(asked)
    for answer, request in zip(outcomes, asked, strict=True):
        assert isinstance(answer, Answer), answer
        assert_allclose(answer.energy, 0.5 * STIFFNESS * (request.positions**2).sum(), rtol=1e-12)
        assert_allclose(answer.forces, -STIFFNESS * request.positions, rtol=1e-12)


def listener(transport, folder):
    return listen_unix(folder / "socket") if transport == "unix" else listen_tcp("127.0.0.1", 0)


class GoodWorker:
    """Our own client in a thread, `delay` seconds for each request; ends with its server."""

    def __init__(self, address, delay=0.002, n_requests=None):
        self.n_left, self.delay, self.error = n_requests, delay, None
        self.springs = Springs(np.zeros((N_ATOMS, 3)), stiffness=(STIFFNESS,))
        self.thread = threading.Thread(target=self._run, args=(address,))
        self.thread.start()

    def _compute(self, positions, cells):
        time.sleep(self.delay)
        if self.n_left is not None:
            self.n_left -= 1
            if self.n_left < 0:
                raise NumericalError("enough")
        return self.springs(positions, cells)

    def _run(self, address):
        kind, _, rest = address.partition(":")
        try:
            with (
                connect_unix(rest, 5)
                if kind == "unix"
                else connect_tcp("127.0.0.1", int(rest.rsplit(":", 1)[1]), 5) as connection
            ):
                serve([Session(connection, self._compute, WireResults(), N_ATOMS, (True, True, True))])
        except (NumericalError, PeerError) as error:
            self.error = error


@contextmanager
def good_workers(address, n, **options):
    workers = [GoodWorker(address, **options) for _ in range(n)]
    try:
        yield workers
    finally:
        for worker in workers:
            worker.thread.join(20)
            assert not worker.thread.is_alive()


@contextmanager
def bad_workers(address, cases):
    """Processes of faulty_worker.py, one for each (state, fault)."""
    command = [sys.executable, "-S", "-E", str(SCRIPT), address, str(N_ATOMS)]
    processes = [subprocess.Popen([*command, *case], stderr=subprocess.PIPE, text=True) for case in cases]
    try:
        yield processes
    finally:
        for process in processes:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.communicate()


@pytest.mark.parametrize("transport", ["unix", "tcp"])
@pytest.mark.parametrize("n_workers", [1, 3])
def test_answers_come_in_order(transport, n_workers, tmp_path):
    asked = requests(60)
    with listener(transport, tmp_path) as door, good_workers(door.address, n_workers) as workers:
        with WorkerPool([door], N_ATOMS, species="Ar3") as pool:
            check(list(pool.evaluate(asked)), asked)
            check(list(pool.evaluate(asked[:7])), asked[:7])  # the same workers again
        assert sum(worker.springs.n_structures for worker in workers) == 67
    assert not (tmp_path / "socket").exists()


def test_batches_are_announced_and_padded(tmp_path):
    asked = requests(10)
    with listener("unix", tmp_path) as door, good_workers(door.address, 1) as workers:
        with WorkerPool([door], N_ATOMS, batch_size=4) as pool:
            check(list(pool.evaluate(asked)), asked)
        assert workers[0].springs.n_structures == 10  # the padding was recognised


@contextmanager
def a_pool(transport, folder, cases=(), n_good=1, **options):
    """A pool to which good workers come, and for each of `cases` (state, fault) one that is not."""
    options = {"deadlines": QUICK, "wait": 30.0} | options
    with (
        listener(transport, folder) as door,
        bad_workers(door.address, cases) as bad,
        good_workers(door.address, n_good),
        WorkerPool([door], N_ATOMS, **options) as pool,
    ):
        pool.bad = bad
        yield pool


def until(condition, asked, timeout=60.0):
    """Requests without end until the condition holds; each is put into `asked`."""
    rng, deadline = np.random.default_rng(1), time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        asked.append(Request(rng.normal(size=(N_ATOMS, 3)), 7.0 * np.eye(3)))
        yield asked[-1]


MATRIX = list(itertools.product(faulty_worker.STATES, faulty_worker.FAULTS))


@pytest.mark.parametrize("transport", ["unix", "tcp"])
def test_thirty_workers_that_fail_in_every_state_at_once(transport, tmp_path):
    """Nobody hangs, no request is lost or answered twice, whatever becomes of thirty of the workers."""
    asked = []
    with a_pool(transport, tmp_path, MATRIX, attempts=20) as pool:

        def only_the_good_is_left():
            return pool.n_seen == len(MATRIX) + 1 and pool.n_connected == 1

        check(list(pool.evaluate(until(only_the_good_is_left, asked))), asked)
        print(f"{len(MATRIX)} failures, {pool.n_lost} of them no orderly end, among {len(asked)} requests")


@pytest.mark.parametrize("transport", ["unix", "tcp"])
def test_waiting_for_workers_that_fail_costs_no_processor(transport, tmp_path):
    """All thirty fail and nobody else comes: the pool says so in time and does not spin."""
    with a_pool(transport, tmp_path, MATRIX, n_good=0, attempts=100, wait=30.0, idle=1.5) as pool:
        begin, used = time.monotonic(), time.thread_time()
        with pytest.raises(PeerError, match=r"no worker for 1.5 s \(all \d+ that came were lost\).*--idle"):
            list(pool.evaluate(requests(100)))
        elapsed, used = time.monotonic() - begin, time.thread_time() - used
    print(f"{transport}: {used:.3f} s of processor in {elapsed:.1f} s")
    assert used < 0.5


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_kill_matrix(tmp_path):
    """One failure at a time beside one good worker: how long until it is found and its work done again?"""
    recovery = {}
    for transport, case in itertools.product(["unix", "tcp"], MATRIX):
        asked, answered = [], []
        with a_pool(transport, tmp_path, [case]) as pool:
            stream = until(lambda pool=pool: pool.n_seen == 2 and pool.n_connected == 1, asked)
            answered.extend((time.monotonic(), outcome) for outcome in pool.evaluate(stream))
        times, outcomes = zip(*answered, strict=True)
        check(outcomes, asked)
        recovery[transport, *case] = float(np.max(np.diff(times)))
    worst = max(recovery, key=recovery.get)
    print(f"server role: {len(recovery)} cases; longest wait for an answer {recovery[worst]:.2f} s {worst}")
    assert recovery[worst] < BOUND


WRONG = [
    ("connected", "header", "unknown header 'HELLO'"),
    ("connected", "order", "HAVEDATA arrived in state greeted"),
    ("connected", "unasked", "FORCEREADY arrived in state greeted"),
    ("introduced", "order", "HAVEDATA arrived in state introduced"),
    ("computing", "header", "unknown header 'HELLO'"),
    ("computing", "order", "HAVEDATA arrived in state computing, where it has no place"),
    ("computing", "unasked", "FORCEREADY arrived in state answered"),
    ("computing", "atoms", "FORCEREADY holds 4 atoms, 3 were sent"),
    ("computing", "nan", "the force of atom 1 is nan"),
    ("computing", "virial", "in state answered: unknown header"),
    ("computing", "six", "it did not finish a message for 0.5 s"),
    ("computing", "drip", "it did not finish a message for 0.5 s"),
    ("computing", "extras", "the length of the extras is -5"),
]


@pytest.mark.parametrize(("state", "fault", "sentence"), WRONG, ids=lambda value: value[:10])
def test_a_worker_that_is_wrong_is_refused_by_name(state, fault, sentence, tmp_path, caplog):
    asked = []
    with a_pool("unix", tmp_path, [(state, fault)]) as pool:
        check(list(pool.evaluate(until(lambda: pool.n_lost, asked))), asked)
        assert pool.n_connected >= 1
        what = "lost" if fault in ("six", "drip") else "refused"
        assert re.search(rf"pid {pool.bad[0].pid}\) is {what}: .*({sentence})", caplog.text)


def test_a_structure_that_no_worker_survives_is_given_up(tmp_path, caplog):
    asked = requests(1)
    with a_pool("unix", tmp_path, 3 * [("computing", "close")], n_good=0, attempts=3) as pool:
        (failure,) = pool.evaluate(asked)
    assert isinstance(failure, Failure)
    assert isinstance(failure.error, PeerError)
    assert "3 workers were lost on it" in str(failure.error)


def test_structures_that_cannot_be_sent_harm_no_worker(tmp_path):
    asked = requests(4)
    asked[1].positions[2, 0] = np.inf
    asked[2].positions = np.zeros((5, 3))
    with a_pool("unix", tmp_path) as pool:
        outcomes = list(pool.evaluate(asked))
        assert pool.n_lost == 0
    check([outcomes[0], outcomes[3]], [asked[0], asked[3]])
    assert isinstance(outcomes[1].error, NumericalError)
    assert isinstance(outcomes[2].error, StructureError)


def test_no_worker_is_an_error_with_the_address(tmp_path):
    with a_pool("unix", tmp_path, n_good=0, wait=0.3) as pool:
        begin = time.monotonic()
        with pytest.raises(PeerError, match=r"socket: no worker for 0.3 s \(none came\)") as caught:
            list(pool.evaluate(requests(1)))
        assert time.monotonic() - begin < 5 * 0.4
    assert caught.value.exit_code == 4


def test_a_stranger_without_a_word_is_no_worker(tmp_path):
    with listen_unix(tmp_path / "socket") as door, socket.socket(socket.AF_UNIX) as silent:
        silent.connect(str(tmp_path / "socket"))
        with WorkerPool([door], N_ATOMS, deadlines=QUICK, wait=1.0) as pool:
            with pytest.raises(PeerError, match="no worker for 1 s"):
                list(pool.evaluate(requests(1)))
            assert pool.n_lost == 1  # it was late to answer STATUS


def test_workers_may_come_when_others_have_gone(tmp_path):
    asked = requests(30)
    with listen_unix(tmp_path / "socket") as door, good_workers(door.address, 10, n_requests=4) as workers:
        with WorkerPool([door], N_ATOMS, max_workers=2, deadlines=QUICK) as pool:  # the others wait at the door
            check(list(pool.evaluate(asked)), asked)
        assert sum(worker.springs.n_structures for worker in workers) == 30


def test_many_workers_that_are_killed(tmp_path):
    """Work for 8 workers of which one dies every 20 ms, and another takes its place."""
    asked, killed = requests(400), []
    stop = threading.Event()
    with listen_unix(tmp_path / "socket") as door, good_workers(door.address, 2):

        def die():
            while not stop.wait(0.02):
                with suppress(OSError), socket.socket(socket.AF_UNIX) as worker:  # at the end nobody listens
                    worker.connect(str(tmp_path / "socket"))
                    worker.settimeout(5)
                    worker.sendall(b"READY       ")
                    killed.append(len(worker.recv(400)))  # with a structure in hand

        thread = threading.Thread(target=die)
        thread.start()
        try:
            with WorkerPool([door], N_ATOMS, attempts=50) as pool:
                check(list(pool.evaluate(asked)), asked)
                stop.set()
        finally:
            stop.set()
            thread.join(10)
    assert len(killed) > 3


def test_a_consumer_that_takes_its_time_costs_no_worker(tmp_path):
    asked = requests(6)
    with a_pool("unix", tmp_path, n_good=2) as pool:
        outcomes = []
        for outcome in pool.evaluate(asked):
            outcomes.append(outcome)
            time.sleep(0.7)  # longer than every deadline
        assert pool.n_lost == 0
    check(outcomes, asked)


def test_a_pool_that_did_not_run_blames_no_worker(tmp_path, monkeypatch):
    """As on a machine that was stopped: a time longer than every deadline has passed, in which nothing was read."""
    asked, stopped, poll = requests(4), [], WorkerPool._poll

    def stop(pool, timeout, listen=True):
        computing = any(worker._phase and worker._phase[0] == "computing" for worker in pool._workers)
        if len(stopped) < 2 and computing:  # since the last look
            stopped.append(time.sleep(0.7))
        else:
            poll(pool, timeout, listen)

    monkeypatch.setattr(WorkerPool, "_poll", stop)
    with (
        listen_unix(tmp_path / "socket") as door,
        good_workers(door.address, 1, delay=0.25),
        WorkerPool([door], N_ATOMS, deadlines=QUICK) as pool,
    ):
        check(list(pool.evaluate(asked)), asked)
        assert (len(stopped), pool.n_lost) == (2, 0)


def test_leaving_early_sends_workers_away_in_order(tmp_path):
    with a_pool("unix", tmp_path, n_good=2) as pool:
        answers = pool.evaluate(requests(50))
        next(answers)
        answers.close()
    # the good workers end without an error: their threads are joined, and the guard sees no thread left


@pytest.mark.parametrize(
    ("transport", "n"),
    [("unix", 10_000), ("tcp", 1000), pytest.param("tcp", 10_000, marks=pytest.mark.long)],
)
def test_garbage_at_the_door_does_not_change_an_answer(transport, n, tmp_path, caplog):
    """Connections of garbage while a good worker works: its answers are the same bits, descriptors are not used up."""
    caplog.set_level("ERROR")
    with a_pool(transport, tmp_path, attempts=10**6) as pool:
        (alone,) = pool.evaluate(requests(1))
        before = len(os.listdir("/proc/self/fd"))
        garbage = SCRIPT.with_name("garbage.py")
        thrower = subprocess.Popen([sys.executable, "-S", "-E", str(garbage), pool.addresses, str(n), "4"])

        def again():
            while thrower.poll() is None or pool.n_connected > 1:
                yield requests(1)[0]

        try:
            begin, n_answers = time.monotonic(), 0
            for answer in pool.evaluate(again()):
                n_answers += 1
                assert (answer.energy, answer.forces.tobytes(), answer.virial.tobytes()) == (
                    alone.energy, alone.forces.tobytes(), alone.virial.tobytes(),
                )  # fmt: skip
        finally:
            thrower.kill()
            thrower.wait()
        assert thrower.returncode == 0
        assert pool.n_seen == n + 1
        assert len(os.listdir("/proc/self/fd")) <= before
        assert pool.n_lost <= n
        print(f"{transport}: {n} connections of garbage in {time.monotonic() - begin:.1f} s, {pool.n_lost} refused or "
              f"lost, among {n_answers} answers")  # fmt: skip
