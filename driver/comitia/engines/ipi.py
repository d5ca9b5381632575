"""i-PI and its force clients under one command.

i-PI runs as a subprocess with a socket folder of its own; so do the clients. A client that dies in the middle of a
force call hangs i-PI 3.3 for ever: whoever goes, the others are stopped here.
"""

import contextlib
import importlib.metadata
import importlib.util
import logging
import shutil
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

from comitia.engines import run_folder
from comitia.engines.ipi_input import IpiInput
from comitia.engines.ipi_structure import read_initial_structure
from comitia.engines.processes import Child, stop_all
from comitia.engines.progress import Progress, StepCounter
from comitia.errors import ComitiaError, ModelError, NumericalError, PeerError, SettingsError, UncertaintyError
from comitia.files import write_atomic, write_json
from comitia.threads import default_threads

log = logging.getLogger(__name__)

LOOK_EVERY = 0.1  # s between two looks at the children
STOP_TIMEOUT = 15.0  # s for i-PI to write RESTART and end, and for clients to follow
FAREWELL_TIMEOUT = 20.0  # s for one side to end after the other did
STALL_TIMEOUT = 600.0  # s without a step and without work of a client
CONNECT_TIMEOUT = 120.0  # s for a client to find i-PI
ERROR_OF_CODE = {3: ModelError, 5: UncertaintyError, 6: NumericalError}


def find_ipi():
    """The `i-pi` script of this environment.

    Raises
    ------
    SettingsError
        if i-PI is not installed.
    """
    if importlib.util.find_spec("ipi") is not None:
        beside = Path(sysconfig.get_path("scripts")) / "i-pi"
        if beside.is_file():
            return beside
    found = shutil.which("i-pi")
    if found is None:
        raise SettingsError("i-PI is not installed; pip install 'comitia[run]'")
    return Path(found)


class _Run:
    """i-PI and its clients while they run; whatever happens, `stop` leaves nothing of them."""

    def __init__(self, folder, stall):
        self.folder, self.stall = folder, stall
        self.sockets = Path(tempfile.mkdtemp(prefix="comitia-", dir="/tmp" if Path("/tmp").is_dir() else None))
        self.ipi, self.clients = None, []
        self._clients_gone_at = None
        self._sign_of_life = time.monotonic(), None

    def start(self, input_path, run, client_options):
        """Start i-PI on `input_path` and `client_options` clients for every socket of `run`."""
        python = [sys.executable, "-P"]
        prefix = f"{self.sockets}/"
        self.ipi = Child(
            "i-PI",
            [*python, find_ipi(), "-S", prefix, input_path],
            self.folder / "i-pi.log",
            self.folder,
            {"OMP_NUM_THREADS": "1"},
        )
        model, template, n_clients, n_threads, offset = client_options
        for socket in run.sockets:
            where = ["--unix", socket.address] if socket.mode == "unix" else ["--host", socket.address]
            if socket.mode == "inet":
                where += ["--port", socket.port]
            for number in range(n_clients):
                name = f"client-{socket.name or 'forces'}-{number}"
                command = [*python, "-m", "comitia.cli", "serve", model, "--template", template, *where]
                command += ["--sockets-prefix", prefix, "--wait", CONNECT_TIMEOUT, "--threads", n_threads]
                command += ["--offset", offset] if offset else []
                self.clients.append(Child(name, command, self.folder / f"{name}.log", self.folder))

    def check(self, step):
        """Raise when a side has failed or hangs; False when i-PI has ended.

        Raises
        ------
        ComitiaError
            of the class that fits the exit code of a client, or PeerError.
        """
        ended = self.ipi.exit_code is not None
        for client in self.clients:
            if client.exit_code not in (None, 0):
                kind = ERROR_OF_CODE.get(client.exit_code, PeerError)
                raise kind(
                    f"the force client ended with code {client.exit_code}: {client.last_line()} (see {client.log_path})"
                )
        if ended:
            return False
        self._check_alive(step)
        return True

    def _check_alive(self, step):
        now = time.monotonic()
        if all(client.exit_code is not None for client in self.clients):
            self._clients_gone_at = self._clients_gone_at or now
            if now - self._clients_gone_at > FAREWELL_TIMEOUT:
                raise PeerError(
                    f"i-PI did not end {FAREWELL_TIMEOUT:.0f} s after its last force client did, and was stopped; "
                    f"see {self.ipi.log_path}"
                )
        if "Exception in thread" in self.ipi.said():
            raise PeerError(f"a thread of i-PI failed: {self.ipi.last_line()} (see {self.ipi.log_path})")
        work = step, tuple(client.seconds_of_processor() for client in self.clients)
        since, before = self._sign_of_life
        if work != before:
            self._sign_of_life = now, work
        elif now - since > self.stall:
            raise PeerError(
                f"no step and no work of a force client for {self.stall:.0f} s: something hangs; see the logs in "
                f"{self.folder}"
            )

    def farewell(self):
        """After i-PI ended: wait for the clients, who have been told or see the end of their stream."""
        deadline = time.monotonic() + FAREWELL_TIMEOUT
        for client in self.clients:
            client.wait(max(0.0, deadline - time.monotonic()))

    def stop(self):
        """End whatever still runs, and remove the sockets."""
        try:
            if self.ipi is not None:
                self.ipi.stop(STOP_TIMEOUT)
            stop_all(self.clients, STOP_TIMEOUT)
        finally:
            shutil.rmtree(self.sockets, ignore_errors=True)
            run_folder.remove_exit_file(self.folder, "found at the end")


def _template(run, folder, species):
    """The file with the species for the clients; written for an input that takes them from a checkpoint."""
    from ase import Atoms
    from ase.io import write

    found = run.structure_file()
    if found is not None and found[1] != "chk":
        read_initial_structure(found[0], species)
        return found[0]
    symbols = (IpiInput(found[0]) if found else run).symbols()
    path = folder / "client_template.xyz"
    atoms = Atoms(["H" if symbol in ("D", "T") else symbol for symbol in symbols], pbc=True, cell=[1.0, 1.0, 1.0])
    write(path, atoms, format="extxyz")
    read_initial_structure(path, species)
    return path


def _prepared(run, state, folder, total_steps):
    """Path of what i-PI reads: the input, RESTART, or a copy of one of them."""
    source = state or run
    text = source.copy_for(folder, total_steps)
    if text is None:
        return source.path.resolve()
    path = folder / ("i-pi.restart.xml" if state else "i-pi.input.xml")
    write_atomic(path, text)
    return path


def _outcome(folder, total_steps, ipi, counted):
    """(step reached, whether the run is finished); a run is finished at total_steps or when i-PI says so."""
    path = folder / run_folder.RESTART
    step = IpiInput(path).step if path.exists() else counted
    return step, step >= total_steps or "I-PI reports success" in ipi.said()


def sample(
    input_path,
    model_path,
    *,
    clients=1,
    n_threads=None,
    directory=None,
    total_steps=None,
    progress=True,
    offset=None,
    stall=STALL_TIMEOUT,
):
    """Run an input of i-PI with a potential, from the start or from where an earlier run ended.

    Parameters
    ----------
    input_path : i-PI's XML; files it names are looked for in the working folder, then beside it
    model_path : model file
    clients : int, force clients for every <ffsocket>
    n_threads : int or None, threads of each client; None shares the cores between the clients
    directory : folder in which everything is written, made if need be; None for the working folder
    total_steps : int or None, instead of the input's <total_steps>
    progress : bool, show progress on standard error
    offset : None or "e0", send energies without the reference energies of the atoms
    stall : float, s without a step and without work of a client after which the run is taken to hang

    Returns
    -------
    dict, also written to `sample.json` in the folder: status, steps, seconds, hashes of input and model, log files.

    Raises
    ------
    SettingsError, ModelError, StructureError
        for an input, model or structure that cannot be used; nothing has been started.
    PeerError, NumericalError
        if i-PI or a client failed, hung, or ended before the last step; RESTART holds the last safe step.
    """
    import comitia

    run = IpiInput(input_path)
    if not run.sockets:
        raise SettingsError(f"{input_path}: has no <ffsocket>, so there is nobody to send forces to")
    folder = Path(directory or Path.cwd()).resolve()
    potential = comitia.load(model_path)
    total_steps = run.total_steps if total_steps is None else total_steps
    folder.mkdir(parents=True, exist_ok=True)
    with run_folder.to_ourselves(folder):
        template = _template(run, folder, potential.species)
        state = run_folder.earlier_state(folder, run, run_folder.file_hash(model_path))
        first_step = 0 if state is None else state.step
        report = {
            "status": "running",
            "step": first_step,
            "total_steps": total_steps,
            "restarted_from": None if state is None else first_step,
            "input": str(Path(input_path).resolve()),
            "input_sha256": run.identity(),
            "model": str(Path(model_path).resolve()),
            "model_sha256": run_folder.file_hash(model_path),
            "offset": offset,
            "prefix": run.prefix,
            "n_beads": run.n_beads,
            "clients": clients,
            "versions": {"comitia": comitia.__version__, "ipi": importlib.metadata.version("ipi")},
        }
        if first_step >= total_steps:
            log.info("%s: finished already, step %d of %d", folder, first_step, total_steps)
            return _written(folder, report | {"status": "finished", "seconds": 0.0})
        for sentence in run.warnings():
            log.warning("%s", sentence)
        run_folder.remove_exit_file(folder, "left by an earlier run")
        n_threads = n_threads or max(1, default_threads() // (clients * len(run.sockets)))
        options = Path(model_path).resolve(), template, clients, n_threads, offset
        return _sample(folder, run, _prepared(run, state, folder, total_steps), options, report, progress, stall)


def _written(folder, report):
    write_json(folder / run_folder.RECORD, report)
    return report


def _sample(folder, run, prepared, options, report, progress, stall):
    """Start, watch, stop; the report says how it ended."""
    _written(folder, report)
    total_steps, begin = report["total_steps"], time.monotonic()
    counter = StepCounter(folder, run.progress_columns())
    children = _Run(folder, stall)
    status, reason = "failed", None
    try:
        with Progress(Path(report["input"]).stem, report["step"], total_steps, progress) as shown:
            children.start(prepared, run, options)
            report["logs"] = [child.log_path.name for child in (children.ipi, *children.clients)]
            while children.check(step := counter.step()):
                shown.update(step)
                children.ipi.wait(LOOK_EVERY)
            children.farewell()
            children.check(step)
            report["step"], finished = _outcome(folder, total_steps, children.ipi, shown.step)
            shown.update(report["step"])
        if children.ipi.exit_code != 0:
            raise PeerError(
                f"i-PI ended with code {children.ipi.exit_code}: {children.ipi.last_line()} "
                f"(see {children.ipi.log_path})"
            )
        status = "finished" if finished else "stopped"
        if not finished:
            raise PeerError(
                f"i-PI ended at step {report['step']} of {total_steps} (an EXIT file, or its time limit); run the same "
                "command again to go on"
            )
    except ComitiaError as error:
        reason = str(error)
        raise
    except BaseException:
        status, reason = "stopped", "by a signal"
        raise
    finally:
        children.stop()
        with contextlib.suppress(SettingsError):
            report["step"], _ = _outcome(folder, total_steps, children.ipi, report["step"])
        seconds = time.monotonic() - begin
        first = report["restarted_from"] or 0
        report |= {
            "status": status,
            "seconds": seconds,
            "steps_per_second": (report["step"] - first) / seconds,
        } | ({"reason": reason} if reason else {})
        _written(folder, report)
    return report
