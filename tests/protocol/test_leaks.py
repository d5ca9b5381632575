"""The leak guard finds what it is there for, and takes it away."""

import os
import socket
import subprocess
import sys
import threading
from multiprocessing import resource_tracker, shared_memory
from pathlib import Path

import pytest
from leaks import KINDS, leak_guard


def leave_a_process(kept):
    """Not a child but an orphan of one, which the guard must find too."""
    command = "import subprocess, sys; subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(60)'])"
    subprocess.run([sys.executable, "-S", "-c", command], check=True)


def leave_a_thread(kept):
    told = threading.Event()
    thread = threading.Thread(target=told.wait)
    thread.start()
    kept.extend([told.set, thread.join])


def leave_a_descriptor(kept):
    read, write = os.pipe()
    kept.extend([lambda: os.close(read), lambda: os.close(write)])


def leave_a_socket_file(kept):
    with socket.socket(socket.AF_UNIX) as stream:
        stream.bind(f"/tmp/ipi_leak_{os.getpid()}")


def leave_shared_memory(kept):
    segment = shared_memory.SharedMemory(create=True, size=8)
    segment.close()
    resource_tracker.unregister(segment._name, "shared_memory")  # the helper would remove it at our end


LEAKS = {
    "child processes": leave_a_process,
    "threads": leave_a_thread,
    "descriptors": leave_a_descriptor,
    "socket files": leave_a_socket_file,
    "shared memory": leave_shared_memory,
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_left_behind_is_found_and_removed(kind):
    kept = []
    with pytest.raises(AssertionError, match=f"left behind: {kind}: "), leak_guard(grace=0.1):
        LEAKS[kind](kept)
    for end in kept:
        end()
    with leak_guard(grace=0.1):  # nothing is held against the next test
        pass


@pytest.mark.parametrize("part", ["protocol", "interop", "faults"])
def test_every_test_of_these_parts_is_guarded(part):
    text = (Path(__file__).parents[1] / part / "conftest.py").read_text()
    assert "@pytest.fixture(autouse=True)\ndef _nothing_left(no_leaks):" in text


def test_this_test_is_guarded(request):
    assert "no_leaks" in request.fixturenames
