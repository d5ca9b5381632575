"""What a test may leave behind by mistake: processes, threads, descriptors, socket files, shared memory."""

import contextlib
import ctypes
import gc
import os
import re
import sys
import threading
import time
from multiprocessing import resource_tracker
from pathlib import Path

_SUBREAPER = 36  # prctl(PR_SET_CHILD_SUBREAPER): orphans of a child become ours, so a leaked grandchild is seen
_GRACE = 5.0  # s that a process or a thread may take to end after the test
_SHARED = "/dev/shm"


def _children():
    """Process ids of our children -> command line; zombies are not counted."""
    found = {}
    for listing in Path("/proc/self/task").glob("*/children"):
        try:
            pids = listing.read_text().split()
        except OSError:  # the thread has ended since it was listed
            continue
        for pid in pids:
            try:
                name, _, status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")
                command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if status.split()[0] != "Z":
                found[int(pid)] = command.strip() or name  # a program that just begins has no command line yet
    # the helper of multiprocessing lives as long as the interpreter
    return {pid: command for pid, command in found.items() if "multiprocessing.resource_tracker" not in command}


def _threads():
    return {thread.ident: thread.name for thread in threading.enumerate()}


def _descriptors():
    """(descriptor, what it is open on) -> the same, as text; not the pipe to the helper of multiprocessing."""
    found = {}
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the one that lists
            target = os.readlink(f"/proc/self/fd/{number}")
            if int(number) != resource_tracker._resource_tracker._fd:
                found[int(number), target] = f"{number} -> {target}"
    return found


def _sockets():
    """Socket files of i-PI's default prefix."""
    return {path: str(path) for path in Path("/tmp").glob("ipi_*")}


def _segments():
    """Segments of shared memory that no other process has mapped; by their number, as names change."""
    found = {}
    for path in Path(_SHARED).glob("*"):
        with contextlib.suppress(OSError):
            if not path.name.startswith(f"mpich_shm_{os.getpid():x}_"):  # MPI in this process lasts as long as it does
                found[path.stat().st_ino] = path
    for maps in Path("/proc").glob("[0-9]*/maps") if found else ():
        if maps.parent.name != str(os.getpid()):
            with contextlib.suppress(OSError):
                for inode in re.findall(rf" (\d+) +{_SHARED}/", maps.read_text()):
                    found.pop(int(inode), None)
    return {path: str(path) for path in found.values()}


def _bound_by_others():
    """Socket files somebody is bound to: those of another program that runs at the same time are not ours."""
    listing = Path("/proc/net/unix").read_text().splitlines()[1:]
    return {Path(line.split()[7]) for line in listing if len(line.split()) > 7}


KINDS = {  # name -> what there is of it now
    "child processes": _children,
    "threads": _threads,
    "descriptors": _descriptors,
    "socket files": _sockets,
    "shared memory": _segments,
}


def _left(before):
    """Kind -> what there is now and was not before."""
    left = {
        kind: {key: text for key, text in look().items() if key not in before[kind]} for kind, look in KINDS.items()
    }
    if not left["child processes"]:
        for path in _bound_by_others():
            left["socket files"].pop(path, None)
    return {kind: found for kind, found in left.items() if found}


@contextlib.contextmanager
def leak_guard(grace=_GRACE):
    """Fail where the body leaves something behind that it made; clean it away.

    Parameters
    ----------
    grace : float, s that what is left may take to go
    """
    if not sys.platform.startswith("linux"):
        yield
        return
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    before = {kind: look() for kind, look in KINDS.items()}
    yield
    deadline = time.monotonic() + grace
    while (left := _left(before)) and time.monotonic() < deadline:
        gc.collect()  # what only waits to be collected is not kept
        time.sleep(0.02)
    for pid in left.get("child processes", ()):
        os.kill(pid, 9)
    for path in (*left.get("socket files", ()), *left.get("shared memory", ())):
        with contextlib.suppress(OSError):
            path.unlink()
    assert not left, "left behind: " + "; ".join(f"{kind}: {sorted(found.values())}" for kind, found in left.items())
