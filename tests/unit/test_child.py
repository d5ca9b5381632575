"""The process that i-PI runs in: however often it hears of its parent's death, i-PI is told once."""

import os
import signal
import subprocess
import sys

INTERRUPTED = """
import signal, sys

told = []

def interrupt(frame, event, argument):
    "The signal of another thread of the parent, while the handler of the first begins to run."
    if event == "call" and frame.f_code.co_name == "_stop":
        sys.setprofile(None)
        signal.raise_signal(signal.SIGUSR1)

signal.signal(signal.SIGTERM, lambda number, frame: told.append(number))
sys.setprofile(interrupt)
signal.raise_signal(signal.SIGUSR1)
signal.raise_signal(signal.SIGUSR1)
print(len(told))
"""


def run(script, parent):
    command = [sys.executable, "-P", "-m", "comitia.engines.child", str(parent), str(script)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_several_signals_of_a_dying_parent_become_one(tmp_path):
    script = tmp_path / "interrupted.py"
    script.write_text(INTERRUPTED)
    result = run(script, os.getpid())
    assert (result.returncode, result.stdout) == (0, "1\n"), result.stderr


def test_a_parent_that_is_gone_already_leaves_nothing_to_do(tmp_path):
    script = tmp_path / "never.py"
    script.write_text("print('ran')")
    result = run(script, os.getpid() + 1)
    assert (result.returncode, result.stdout) == (128 + signal.SIGTERM, "")
