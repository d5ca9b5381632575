"""i-PI and its force clients as processes: started together, watched, and ended together."""

import contextlib
import importlib.util
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from comitia.engines import run_folder
from comitia.engines.plumed import require_kernel
from comitia.engines.processes import Child, is_running, stop_all
from comitia.errors import ModelError, NumericalError, PeerError, UncertaintyError

IPI_FIRST_TIMEOUT = 2.0  # s for i-PI to end after a client noticed that it is gone
FAREWELL_TIMEOUT = 20.0  # s for one side to end after the other did
CONNECT_TIMEOUT = 120.0  # s for a client to find i-PI
SOCKETS = "comitia-"  # start of the name of a folder of sockets, followed by our process id
ERROR_OF_CODE = {3: ModelError, 5: UncertaintyError, 6: NumericalError}


class LostError(PeerError):
    """A process died or hangs for a reason that need not come again."""


def remove_orphaned_sockets():
    """Remove the sockets of runs that were killed before they could."""
    for path in [*Path("/tmp").glob(f"{SOCKETS}*-*"), *Path("/tmp").glob(f"ipi_{SOCKETS}*-*")]:
        pid = path.name.removeprefix("ipi_").removeprefix(SOCKETS).partition("-")[0]
        with contextlib.suppress(OSError):
            if pid.isdigit() and path.stat().st_uid == os.getuid() and not is_running(int(pid)):
                _remove(path)


def _remove(path):
    """Remove a socket, or a folder of them."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _plumed(run):
    """The environment that PLUMED needs in i-PI, for an input that uses it."""
    if not run.uses_plumed:
        return {}
    return {"PLUMED_KERNEL": str(require_kernel())}


def _reporting(run):
    """What comes before i-PI's script so that PLUMED is told of the first step, see `comitia.engines.ipi_plumed`."""
    if not run.uses_plumed or importlib.util.find_spec("ipi") is None:  # i-PI may be in another environment
        return []
    return [Path(__file__).with_name("ipi_plumed.py")]


class Processes:
    """i-PI and its clients while they run; whatever happens, `stop` leaves nothing of them.

    Parameters
    ----------
    program : path of the `i-pi` script
    folder : Path, where they run
    lock : descriptor that holds the folder
    stall : float, s without a step and without work of a client after which something hangs
    """

    def __init__(self, program, folder, lock, stall):
        self.folder, self.stall = folder, stall
        self._program, self._lock = program, lock
        self.sockets = Path(tempfile.mkdtemp(prefix=f"{SOCKETS}{os.getpid()}-", dir="/tmp"))  # 0700, a short path
        self.nested_name = f"{self.sockets.name}-"  # of sockets that i-PI always puts into /tmp
        self.ipi, self.clients = None, []
        self._clients_gone_at = None
        self._sign_of_life = time.monotonic(), None

    def start(self, input_path, run, client_options):
        """Start i-PI on `input_path` and `client_options` clients for every socket of `run`."""
        python = [sys.executable, "-P"]
        prefix = f"{self.sockets}/"
        self.ipi = Child(
            "i-PI",
            [*_reporting(run), self._program, "-S", prefix, input_path],
            self.folder / "i-pi.log",
            self.folder,
            # what it says at its end stays the last line of its log
            {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"} | _plumed(run),
            (self._lock,),
        )
        model, template, n_clients, n_threads, more = client_options
        for index, socket in enumerate(run.sockets):
            if socket.mode == "inet":
                where = ["--host", socket.address, "--port", socket.port]
            elif socket.nested is None:
                where = [f"--{socket.mode}", socket.address]
            else:
                where = [f"--{socket.mode}", f"/tmp/ipi_{self.nested_name}{socket.nested}"]
            for number in range(n_clients):
                name = f"client-{socket.name or index}-{number}"
                command = [*python, "-m", "comitia.cli", "serve", model, "--template", template, *where]
                command += ["--sockets-prefix", prefix, "--wait", CONNECT_TIMEOUT, "--threads", n_threads, *more]
                log_path, environment = self.folder / f"{name}.log", {"OMP_NUM_THREADS": str(n_threads)}
                # it ends by i-PI's EXIT: told to stop beside i-PI, it would leave a step that i-PI cannot finish
                self.clients.append(Child(name, command, log_path, self.folder, environment, mortal=False))

    def check(self, step):
        """Raise when a side has failed or hangs; False when i-PI has ended.

        Raises
        ------
        ComitiaError
            of the class that fits the exit code of a client, or PeerError: LostError where another try is worth it.
        """
        ended = self.ipi.exit_code is not None
        # looked at before the clients are, one of which may be the reason
        failed_thread = "Exception in thread" in self.ipi.said()
        for client in self.clients:
            if client.exit_code in (None, 0):
                continue
            if client.exit_code == PeerError.exit_code and self.ipi.wait(IPI_FIRST_TIMEOUT) is not None:
                ended = True  # it lost i-PI: what i-PI says is the reason
                continue
            kind = ERROR_OF_CODE.get(client.exit_code, LostError)
            how = f"ended with code {client.exit_code}: {client.last_line()}"
            if client.exit_code < 0:
                how = f"was ended by signal {-client.exit_code}"
            raise kind(f"the force client {how} (see {client.log_path})")
        if (self.ipi.exit_code or 0) < 0:
            raise LostError(f"i-PI was ended by signal {-self.ipi.exit_code} (see {self.ipi.log_path})")
        if ended:
            return False
        if failed_thread:
            raise LostError(f"a thread of i-PI failed: {self.ipi.last_line()} (see {self.ipi.log_path})")
        self._check_alive(step)
        return True

    def _check_alive(self, step):
        now = time.monotonic()
        if all(client.exit_code is not None for client in self.clients):
            self._clients_gone_at = self._clients_gone_at or now
            if now - self._clients_gone_at > FAREWELL_TIMEOUT:
                raise LostError(
                    f"i-PI did not end {FAREWELL_TIMEOUT:.0f} s after its last force client did, and was stopped; "
                    f"see {self.ipi.log_path}"
                )
        work = step, tuple(client.seconds_of_processor() for client in self.clients)
        since, before = self._sign_of_life
        if work != before or None in work[1]:  # or the system does not say
            self._sign_of_life = now, work
        elif now - since > self.stall:
            raise LostError(
                f"no step and no work of a force client for {self.stall:.0f} s: something hangs; see the logs in "
                f"{self.folder}"
            )

    def farewell(self):
        """After i-PI ended in order: wait for the clients, who have been told."""
        deadline = time.monotonic() + FAREWELL_TIMEOUT
        for client in self.clients:
            client.wait(max(0.0, deadline - time.monotonic()))

    def stop(self, timeout):
        """End whatever still runs, by force after `timeout` seconds, and remove the sockets."""
        try:
            if self.ipi is not None:
                self.ipi.stop(timeout)
            stop_all(self.clients, timeout)
        finally:
            for path in [self.sockets, *Path("/tmp").glob(f"ipi_{self.nested_name}*")]:
                _remove(path)
            run_folder.remove_exit_file(self.folder, "found at the end")
