"""A command whose peer never comes, or that is told to stop, ends in order and says why."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import COMMANDS, labelled, listing


def test_a_server_that_never_comes(folder, refused):
    assert "no server within 0.1 s" in refused(COMMANDS["serve"], code=4)


def test_what_an_earlier_client_said_to_be_ready_is_not_believed(folder, comitia):
    (folder / "ready").write_text("of an earlier run")
    (folder / "model.safetensors").unlink()
    code, _ = comitia([*COMMANDS["serve"], "--ready-file", "ready"])
    assert code == 3
    assert not (folder / "ready").exists()


def test_a_reader_of_the_output_that_goes_away(folder):
    command = f"{sys.executable} -m comitia.cli inspect model.safetensors; echo $? >&2"
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        ["sh", "-c", command], stdout=write, stderr=subprocess.PIPE, text=True, timeout=60, check=True
    )
    os.close(write)
    assert done.stderr.strip() == "1"  # and no traceback


def test_a_signal_that_a_library_swallows_still_ends_the_command(folder):
    program = """
import os, signal, sys, time
from comitia import cli

def swallow(*arguments, **options):
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)
    except BaseException:
        pass
    try:
        for _ in range(1000):
            time.sleep(0.01)
    finally:
        time.sleep(0.5)  # what closes files on the way out is not disturbed
        print("closed", flush=True)

cli.cli.main = swallow
cli.main()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 128 + signal.SIGTERM
    assert done.stdout == "closed\n"
    assert done.stderr == "comitia: stopped by a signal\n"


@pytest.mark.parametrize("patience", [0.5, None])
def test_compiled_code_that_does_not_come_back_is_left(patience):
    """In time where a peer waits, and everywhere at the second signal."""
    program = f"""
import hashlib, os, signal, threading, time
from comitia import cli

def compute(obj, **options):
    obj.patience = {patience}
    n_signals = 1 if obj.patience else 2
    def send():
        while time.process_time() < begin + 0.1:  # until it computes
            time.sleep(0.01)
        for number in range(n_signals):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.2)
    begin = time.process_time()
    threading.Thread(target=send).start()
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**30)  # minutes

cli.cli.main = compute
cli.main()
"""
    begin = time.monotonic()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert time.monotonic() - begin < 25  # 5 x the bound
    assert done.returncode == 128 + signal.SIGTERM
    how = "in the middle of a computation" if patience else "twice"
    assert done.stderr == f"comitia: stopped by a signal {how}\n"


def handles_signals(pid):
    """Whether SIGTERM has a handler in a process."""
    caught = re.search(r"SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())[1]
    return bool(int(caught, 16) >> signal.SIGTERM - 1 & 1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("command", ["fit", "serve"])
def test_a_signal_ends_a_command_in_order(folder, command, number):
    (folder / "data.xyz").write_text(labelled(12) * 4000)  # for much longer than it is given
    arguments = {"fit": ["fit", "fit.yaml"], "serve": [*COMMANDS["serve"][:-1], "60", "--ready-file", "ready"]}
    before = {path for path, _ in listing()}
    process = subprocess.Popen(
        [sys.executable, "-m", "comitia.cli", *arguments[command]], stderr=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        deadline = time.monotonic() + 30
        while not ((folder / "ready").exists() if command == "serve" else handles_signals(process.pid)):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        if command == "fit":
            time.sleep(1.0)  # it reads and computes
        process.send_signal(number)
        _, said = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 128 + number
    assert said.decode().strip().splitlines()[-1] == "comitia: stopped by a signal"
    assert {path for path, _ in listing()} - before - {"ready"} == set()
