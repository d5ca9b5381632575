"""What all tests share: where the reference data sets are, and a guard against anything a test leaves behind."""

import ctypes
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

_SUBREAPER = 36  # prctl(PR_SET_CHILD_SUBREAPER): orphans of a child become ours, so a leaked grandchild is seen
_GRACE = 5.0  # s that a process or a thread may take to end after the test


def _shared_data_folder():
    """The folder of reference data sets: COMITIA_SHARED_DATA, else `shared/data` beside the checkout; or None."""
    named = os.environ.get("COMITIA_SHARED_DATA")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"
    return folder if folder.is_dir() else None


def pytest_configure():
    """A shell that runs the tests in the background has them ignore Ctrl-C, and what they start would inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config, items):
    """Leave out the tests that need the reference data sets where there are none, and say so."""
    if _shared_data_folder() is not None:
        return
    without = [item for item in items if item.get_closest_marker("shared")]
    if without:
        config.hook.pytest_deselected(items=without)
        items[:] = [item for item in items if not item.get_closest_marker("shared")]
        config.stash[_LEFT_OUT] = len(without)


_LEFT_OUT = pytest.StashKey[int]()


def pytest_terminal_summary(terminalreporter, config):
    """Give the reason for what was left out."""
    count = config.stash.get(_LEFT_OUT, 0)
    if count:
        terminalreporter.write_line(
            f"{count} tests marked `shared` left out: no reference data sets "
            "(set COMITIA_SHARED_DATA to the folder that holds mlearn, committee_reweighting, ...)"
        )


@pytest.fixture(scope="session")
def shared_data():
    """Path of the reference data sets, for tests marked `shared`."""
    folder = _shared_data_folder()
    if folder is None:
        pytest.skip("no reference data sets; set COMITIA_SHARED_DATA")
    return folder


def _children():
    """Process ids of our children -> command line; zombies are reaped and not counted."""
    found = {}
    for listing in Path("/proc/self/task").glob("*/children"):
        try:
            pids = listing.read_text().split()
        except OSError:  # the thread has ended since it was listed
            continue
        for pid in pids:
            try:
                command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if command:
                found[int(pid)] = command.strip()
    # the helper of multiprocessing lives as long as the interpreter
    return {pid: command for pid, command in found.items() if "multiprocessing.resource_tracker" not in command}


def _sockets():
    """Socket files of i-PI's default prefix."""
    return set(Path("/tmp").glob("ipi_*"))


def _bound_by_others():
    """Socket files somebody is bound to: those of another program that runs at the same time are not ours."""
    listing = Path("/proc/net/unix").read_text().splitlines()[1:]
    return {Path(line.split()[7]) for line in listing if len(line.split()) > 7}


@pytest.fixture
def no_leaks():
    """Fail a test that leaves a child process (or an orphan of one), a thread or a socket file behind."""
    if not sys.platform.startswith("linux"):
        yield
        return
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    children, threads, sockets = set(_children()), set(threading.enumerate()), _sockets()
    yield
    deadline = time.monotonic() + _GRACE
    while True:
        left_children = {pid: command for pid, command in _children().items() if pid not in children}
        left_threads = [thread.name for thread in threading.enumerate() if thread not in threads]
        if not (left_children or left_threads) or time.monotonic() > deadline:
            break
        time.sleep(0.02)
    left_sockets = _sockets() - sockets
    left_sockets -= set() if left_children else _bound_by_others()
    for path in left_sockets:
        path.unlink(missing_ok=True)
    for pid in left_children:
        os.kill(pid, 9)
    assert not left_children, f"child processes left running (now killed): {left_children}"
    assert not left_threads, f"threads left running: {left_threads}"
    assert not left_sockets, f"socket files left (now removed): {sorted(map(str, left_sockets))}"
