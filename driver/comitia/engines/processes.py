"""Child processes: started with a log file, watched, and always ended."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

_TAIL = 65_536  # bytes of a log that are looked at


class Child:
    """A program that runs beside us.

    It has a session of its own, so a Ctrl-C of the terminal reaches only us, and we stop it in order.

    Parameters
    ----------
    command : list of str
    log_path : its output and errors are appended here
    cwd : folder in which it runs
    environment : dict added to ours
    descriptors : open files that it inherits
    mortal : whether `command` is a Python script that is sent SIGTERM when we die, however we die; otherwise it is any
        program, and must end by what it is connected to
    """

    def __init__(self, name, command, log_path, cwd, environment=None, descriptors=(), mortal=True):
        self.name = name
        self.log_path = Path(log_path)
        self._log_start = self.log_path.stat().st_size if self.log_path.exists() else 0
        watch = [sys.executable, "-P", "-m", "comitia.engines.child", str(os.getpid())] if mortal else []
        with open(self.log_path, "ab") as log_file:
            self._process = subprocess.Popen(
                [*watch, *map(str, command)],
                cwd=cwd,
                env=os.environ | (environment or {}),
                stdin=subprocess.DEVNULL,
                stdout=log_file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=descriptors,
            )

    @property
    def pid(self):
        return self._process.pid

    @property
    def exit_code(self):
        """Its exit code, or None while it runs."""
        return self._process.poll()

    def wait(self, timeout):
        """Its exit code, or None if it still runs after `timeout` seconds."""
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None

    def ask_to_stop(self):
        """Request its end and do not wait."""
        if self.exit_code is None:
            self._process.terminate()

    def stop(self, timeout):
        """End it: a request first, after `timeout` seconds by force."""
        for number, patience in ((signal.SIGTERM, timeout), (signal.SIGCONT, 1.0), (signal.SIGKILL, 10.0)):
            if self.exit_code is not None:
                return
            self._process.send_signal(number)
            self.wait(patience)

    def seconds_of_processor(self):
        """Processor time that it has used, s; None where the system does not say."""
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def said(self):
        """The end of what it wrote to its log since it was started."""
        try:
            with open(self.log_path, "rb") as file:
                file.seek(max(self._log_start, file.seek(0, os.SEEK_END) - _TAIL))
                return file.read().decode("utf-8", errors="replace")
        except OSError:
            return ""

    def last_line(self):
        """The last line it wrote that says something."""
        lines = [line.strip() for line in self.said().splitlines()]
        return next((line for line in reversed(lines) if any(c.isalpha() for c in line)), "no output")


def is_running(pid):
    """Whether a process with this number exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def stop_all(children, timeout):
    """End all the children, each within `timeout` seconds of the request to the first."""
    deadline = time.monotonic() + timeout
    for child in children:
        child.ask_to_stop()
    for child in children:
        child.wait(max(0.0, deadline - time.monotonic()))
        child.stop(0.0)
