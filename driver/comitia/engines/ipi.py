"""i-PI and its force clients under one command.

i-PI runs as a subprocess with a socket folder of its own; so do the clients. A client that dies in the middle of a
force call hangs i-PI 3.3 for ever: whoever goes, the others are stopped here.
"""

import contextlib
import importlib.metadata
import importlib.util
import logging
import os
import shutil
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

from comitia.engines import run_folder
from comitia.engines.composed import load_potential, needs_workers, potential_hash
from comitia.engines.ipi_input import IpiInput
from comitia.engines.ipi_rewind import rewind_outputs
from comitia.engines.ipi_structure import read_initial_structure
from comitia.engines.plumed import INSTALL, find_kernel
from comitia.engines.processes import Child, is_running, stop_all
from comitia.engines.progress import Progress, StepCounter
from comitia.errors import (
    ComitiaError,
    ModelError,
    NumericalError,
    PeerError,
    SettingsError,
    StoppedBySignal,
    UncertaintyError,
)
from comitia.files import write_atomic, write_json
from comitia.potential.source import refuse_corrections
from comitia.threads import default_threads

log = logging.getLogger(__name__)

LOOK_EVERY = 0.1  # s between two looks at the children
STOP_TIMEOUT = 15.0  # s for i-PI to write RESTART and end, and for clients to follow
FAILED_STOP_TIMEOUT = 3.0  # s for the same where something has failed
IPI_FIRST_TIMEOUT = 2.0  # s for i-PI to end after a client noticed that it is gone
FAREWELL_TIMEOUT = 20.0  # s for one side to end after the other did
STALL_TIMEOUT = 600.0  # s without a step and without work of a client
CONNECT_TIMEOUT = 120.0  # s for a client to find i-PI
SOCKETS = "comitia-"  # start of the name of a folder of sockets, followed by our process id
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


def _remove_orphaned_sockets():
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
    kernel = find_kernel()
    if kernel is None:
        raise SettingsError(f"{run.path}: <ffplumed> needs PLUMED, which is not installed; {INSTALL}")
    return {"PLUMED_KERNEL": str(kernel)}


class _Run:
    """i-PI and its clients while they run; whatever happens, `stop` leaves nothing of them."""

    def __init__(self, folder, lock, stall):
        self.folder, self.stall = folder, stall
        self._lock = lock
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
            [find_ipi(), "-S", prefix, input_path],
            self.folder / "i-pi.log",
            self.folder,
            {"OMP_NUM_THREADS": "1"} | _plumed(run),
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
            of the class that fits the exit code of a client, or PeerError.
        """
        ended = self.ipi.exit_code is not None
        for client in self.clients:
            if client.exit_code in (None, 0):
                continue
            if client.exit_code == PeerError.exit_code and self.ipi.wait(IPI_FIRST_TIMEOUT) is not None:
                ended = True  # it lost i-PI: what i-PI says is the reason
                continue
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
        if work != before or None in work[1]:  # or the system does not say
            self._sign_of_life = now, work
        elif now - since > self.stall:
            raise PeerError(
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


def _template(run, folder, species):
    """(file that tells the clients the species, atoms); written for an input that starts from a checkpoint."""
    from ase import Atoms
    from ase.io import write

    found = run.structure_file()
    if found is not None and found[1] != "chk":
        return found[0], read_initial_structure(found[0], species)
    symbols = (IpiInput(found[0]) if found else run).symbols()
    path = folder / "client_template.xyz"
    atoms = Atoms(["H" if symbol in ("D", "T") else symbol for symbol in symbols], pbc=True, cell=[1.0, 1.0, 1.0])
    write(path, atoms, format="extxyz")
    return path, read_initial_structure(path, species)


def _prepared(run, state, folder, total_steps, nested_name):
    """Path of what i-PI reads: the input, RESTART, or a copy of one of them."""
    source = state or run
    text = source.copy_for(folder, total_steps, nested_name)
    if text is None:
        return source.path.resolve()
    path = folder / ("i-pi.restart.xml" if state else "i-pi.input.xml")
    write_atomic(path, text)
    return path


def _outcome(folder, total_steps, ipi, counted):
    """(step reached, whether the run is finished).

    A run is finished at total_steps, or when i-PI says so, as it does after a minimisation; it says the same after
    an EXIT file or at its time limit.
    """
    path = folder / run_folder.RESTART
    step = IpiInput(path).step if path.exists() else counted
    said = "" if ipi is None else ipi.said()
    cut_short = "EXIT file detected" in said or "ime expired" in said
    return step, step >= total_steps or ("I-PI reports success" in said and not cut_short)


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
    precision="float64",
    stall=STALL_TIMEOUT,
):
    """Run an input of i-PI with a potential, from the start or from where an earlier run ended.

    Parameters
    ----------
    input_path : i-PI's XML; files it names are looked for in the working folder, then beside it
    model_path : model file, or a POTENTIAL.yaml
    clients : int, force clients for every <ffsocket>
    n_threads : int or None, threads of each client; None shares the cores between the clients
    directory : folder in which everything is written, made if need be; None for the working folder
    total_steps : int or None, instead of the input's <total_steps>
    progress : bool, show progress on standard error
    offset : None or "e0", send energies without the reference energies of the atoms
    precision : "float64" or "float32", of the kernels, see `Potential`
    stall : float, s without a step and without work of a client after which the run is taken to hang

    Returns
    -------
    dict, also written to `sample.json` in the folder: status, steps, seconds, hashes of input and model, log files,
    and `offset`, the energy (eV) that was subtracted from every energy sent.

    Raises
    ------
    SettingsError, ModelError, StructureError
        for an input, model or structure that cannot be used; nothing has been started.
    PeerError, NumericalError
        if i-PI or a client failed, hung, or ended before the last step; RESTART holds the last safe step.
    """
    import comitia

    _remove_orphaned_sockets()
    run = IpiInput(input_path)
    if not run.sockets:
        raise SettingsError(f"{input_path}: has no <ffsocket>, so there is nobody to send forces to")
    folder = Path(directory or Path.cwd()).resolve()
    potential = load_potential(model_path)
    refuse_corrections(potential, model_path)
    if needs_workers(potential) and clients * len(run.sockets) > 1:
        raise SettingsError(
            f"{model_path}: its workers connect to one client only; leave out --clients, and other sockets"
        )
    total_steps = run.total_steps if total_steps is None else total_steps
    if folder.exists() and not folder.is_dir():
        raise SettingsError(f"--directory {folder}: is not a folder; name another")
    given = run.structure_file()
    if given is not None and given[1] != "chk":
        read_initial_structure(given[0], potential.species)  # refused before there is a folder
    folder.mkdir(parents=True, exist_ok=True)
    with run_folder.to_ourselves(folder) as lock:
        template, atoms = _template(run, folder, potential.species)
        state = run_folder.earlier_state(folder, run, potential_hash(model_path))
        first_step = 0 if state is None else state.step
        report = {
            "status": "running",
            "step": first_step,
            "total_steps": total_steps,
            "restarted_from": None if state is None else first_step,
            "input": str(Path(input_path).resolve()),
            "input_sha256": run_folder.identity_of(folder, run),
            "model": str(Path(model_path).resolve()),
            "model_sha256": potential_hash(model_path),
            "offset": potential.reference_energy(atoms.numbers) if offset else 0.0,
            "offset_unit": "eV",
            "precision": precision,
            "prefix": run.prefix,
            "n_beads": run.n_beads,
            "clients": clients,
            "versions": {"comitia": comitia.__version__, "ipi": importlib.metadata.version("ipi")},
        }
        if first_step >= total_steps:
            log.info("%s: finished already, step %d of %d", folder, first_step, total_steps)
            earlier = run_folder.read_record(folder)
            return _written(folder, report | {"seconds": 0.0} | earlier | {"status": "finished"})
        for sentence in run.warnings():
            log.warning("%s", sentence)
        run_folder.remove_exit_file(folder, "left by an earlier run")
        n_threads = n_threads or max(1, default_threads() // (clients * len(run.sockets)))
        more = ["--precision", precision, *(["--offset", offset] if offset else [])]
        options = Path(model_path).resolve(), template, clients, n_threads, more
        if state is not None:
            rewind_outputs(folder, run, first_step)
        return _sample(_Run(folder, lock, stall), run, state, options, report, progress)


def _written(folder, report):
    write_json(folder / run_folder.RECORD, report)
    return report


def _sample(children, run, state, options, report, progress):
    """Start, watch, stop; the report says how it ended."""
    folder, total_steps, begin = children.folder, report["total_steps"], time.monotonic()
    counter = StepCounter(folder, run.step_files())
    status, reason = "failed", None
    try:
        _written(folder, report)
        prepared = _prepared(run, state, folder, total_steps, children.nested_name)
        with Progress(Path(report["input"]).stem, report["step"], total_steps, progress) as shown:
            children.start(prepared, run, options)
            report["logs"] = [child.log_path.name for child in (children.ipi, *children.clients)]
            while children.check(step := counter.step()):
                shown.update(step)
                children.ipi.wait(LOOK_EVERY)
            if children.ipi.exit_code != 0:
                raise PeerError(
                    f"i-PI ended with code {children.ipi.exit_code}: {children.ipi.last_line()} "
                    f"(see {children.ipi.log_path})"
                )
            children.farewell()
            children.check(step)
            report["step"], finished = _outcome(folder, total_steps, children.ipi, shown.step)
            shown.update(report["step"])
        status = "finished" if finished else "stopped"
        if not finished:
            raise PeerError(
                f"i-PI ended at step {report['step']} of {total_steps} (an EXIT file, or its time limit); run the same "
                "command again to go on"
            )
    except ComitiaError as error:
        reason = str(error)
        raise
    except (StoppedBySignal, KeyboardInterrupt):
        status, reason = "stopped", "by a signal"
        raise
    finally:
        children.stop(FAILED_STOP_TIMEOUT if status == "failed" else STOP_TIMEOUT)
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
