"""i-PI and its force clients under one command.

i-PI runs as a subprocess with a socket folder of its own; so do the clients. A client that dies in the middle of a
force call hangs i-PI 3.3 for ever, whatever other clients there are: whoever goes, the others are stopped here, and all
of them start again from the last state that was saved.
"""

import contextlib
import importlib.metadata
import importlib.util
import logging
import os
import shutil
import sysconfig
import time
from functools import partial
from pathlib import Path

from comitia.engines import run_folder
from comitia.engines.check_input import input_findings
from comitia.engines.composed import load_potential, needs_workers, potential_hash
from comitia.engines.ipi_input import IpiInput
from comitia.engines.ipi_processes import LostError, Processes, remove_orphaned_sockets
from comitia.engines.ipi_rewind import rewind_outputs
from comitia.engines.ipi_structure import read_initial_structure
from comitia.engines.progress import Progress, StepCounter
from comitia.errors import ComitiaError, PeerError, SettingsError, StoppedBySignal
from comitia.files import write_atomic, write_json
from comitia.findings import REFUSAL
from comitia.potential.source import refuse_corrections
from comitia.threads import available_cores, default_threads

log = logging.getLogger(__name__)

LOOK_EVERY = 0.1  # s between two looks at the children
STOP_TIMEOUT = 15.0  # s for i-PI to write RESTART and end, and for clients to follow
FAILED_STOP_TIMEOUT = 3.0  # s for the same where something has failed
STALL_TIMEOUT = 600.0  # s without a step and without work of a client
RETRIES = 3  # losses in a row, without a later state saved in between, before the run is given up


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
    dict, also written to `sample.json` in the folder: status, process id, steps, seconds, hashes of input and model,
    log files, `restarts`, the losses of a process after which all started again, each with the step it started from,
    and `offset`, the energy (eV) that was subtracted from every energy sent.

    Raises
    ------
    SettingsError, ModelError, StructureError
        for an input, model or structure that cannot be used; nothing has been started.
    PeerError, NumericalError
        if i-PI or a client failed, or again and again died or hung, or i-PI ended before the last step; RESTART holds
        the last safe step.
    """
    import comitia

    remove_orphaned_sockets()
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
    initial = None
    if given is not None and given[1] != "chk":
        initial = read_initial_structure(given[0], potential.species)  # refused before there is a folder
    _act_on_findings(input_findings(run, initial, potential, str(model_path)))
    folder.mkdir(parents=True, exist_ok=True)
    with run_folder.to_ourselves(folder) as lock:
        template, atoms = _template(run, folder, potential.species)
        run_folder.Checkpoints(folder, run).mend(begun_here=False)
        state = run_folder.earlier_state(folder, run, potential_hash(model_path))
        first_step = 0 if state is None else state.step
        report = {
            "status": "running",
            "process": os.getpid(),
            "step": first_step,
            "total_steps": total_steps,
            "restarted_from": None if state is None else first_step,
            "restarts": [],
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
        run_folder.remove_exit_file(folder, "left by an earlier run")
        n_threads = n_threads or max(1, default_threads() // (clients * len(run.sockets)))
        n_clients = clients * len(run.sockets)
        if n_threads > 1 and n_clients * n_threads > available_cores():
            log.warning(
                "%d clients with %d threads each take turns on %d cores; give fewer --threads",
                n_clients, n_threads, available_cores(),
            )  # fmt: skip
        more = ["--precision", precision, *(["--offset", offset] if offset else [])]
        options = Path(model_path).resolve(), template, clients, n_threads, more
        if state is not None:
            rewind_outputs(folder, run, state)
        return _Sampling(folder, run, options, report, partial(Processes, find_ipi(), folder, lock, stall)).finish(
            state, progress
        )


def _act_on_findings(findings):
    """Say what is only a warning; the first refusal ends it before anything has been started."""
    for finding in findings:
        if finding.severity == REFUSAL:
            raise SettingsError(finding.sentence)
        log.warning("%s", finding.sentence)


def _written(folder, report):
    write_json(folder / run_folder.RECORD, report)
    return report


class _Sampling:
    """A run on its way to the last step, in one attempt or several; the report says how it ended.

    Parameters
    ----------
    folder : Path
    run : IpiInput
    options : model, template, clients, threads of each, and further options of `comitia serve`
    report : dict
    make_processes : function that makes the `Processes` of an attempt
    """

    def __init__(self, folder, run, options, report, make_processes):
        self.folder, self.run, self.options, self.report = folder, run, options, report
        self._make_processes = make_processes
        self._counter = StepCounter(folder, run.step_files())
        self._checkpoints = run_folder.Checkpoints(folder, run)

    def finish(self, state, progress):
        """Go from a saved state, or None, to the last step; the report."""
        begin, status, reason = time.monotonic(), "failed", None
        report, total_steps = self.report, self.report["total_steps"]
        try:
            _written(self.folder, report)
            with Progress(Path(report["input"]).stem, report["step"], total_steps, progress) as shown:
                finished = self._attempt_until(state, shown)
                shown.update(report["step"])
            status = "finished" if finished else "stopped"
            if not finished:
                raise PeerError(
                    f"i-PI ended at step {report['step']} of {total_steps} (an EXIT file, or its time limit); run the "
                    "same command again to go on"
                )
        except ComitiaError as error:
            reason = str(error)
            raise
        except (StoppedBySignal, KeyboardInterrupt):
            status, reason = "stopped", "by a signal"
            raise
        finally:
            seconds = time.monotonic() - begin
            first = report["restarted_from"] or 0
            report |= {
                "status": status,
                "seconds": seconds,
                "steps_per_second": (report["step"] - first) / seconds,
            } | ({"reason": reason} if reason else {})
            _written(self.folder, report)
        return report

    def _attempt_until(self, state, shown):
        """Attempt after attempt while processes are lost and something is gained; whether the run is finished."""
        n_lost, saved = 0, self.report["step"]
        while True:
            try:
                return self._attempt(state, shown)
            except LostError as error:
                run = IpiInput(self.run.path)  # it may be RESTART itself, which i-PI has written again
                state = run_folder.earlier_state(self.folder, run, self.report["model_sha256"])
                step = 0 if state is None else state.step
                if step >= self.report["total_steps"]:
                    return True
                n_lost = 1 if step > saved else n_lost + 1
                if n_lost > RETRIES:
                    raise
                saved = step
                if state is not None:
                    rewind_outputs(self.folder, run, state)
                log.warning("%s; all start again from step %d", error, step)
                self.report["restarts"].append({"step": step, "reason": str(error)})

    def _attempt(self, state, shown):
        """From a saved state, or None, until i-PI ends; whether the run is finished."""
        processes, patience = self._make_processes(), FAILED_STOP_TIMEOUT
        total_steps = self.report["total_steps"]
        self._checkpoints.keep()
        try:
            processes.start(
                _prepared(self.run, state, self.folder, total_steps, processes.nested_name), self.run, self.options
            )
            self.report["logs"] = [child.log_path.name for child in (processes.ipi, *processes.clients)]
            while processes.check(step := self._counter.step()):
                shown.update(step)
                self._checkpoints.keep()
                processes.ipi.wait(LOOK_EVERY)
            if processes.ipi.exit_code != 0:
                raise PeerError(
                    f"i-PI ended with code {processes.ipi.exit_code}: {processes.ipi.last_line()} "
                    f"(see {processes.ipi.log_path})"
                )
            processes.farewell()
            processes.check(step)
            return _outcome(self.folder, total_steps, processes.ipi, shown.step)[1]
        except (StoppedBySignal, KeyboardInterrupt):
            patience = STOP_TIMEOUT
            raise
        finally:
            processes.stop(patience)
            self._checkpoints.mend(begun_here=True)
            with contextlib.suppress(SettingsError):
                self.report["step"], _ = _outcome(self.folder, total_steps, processes.ipi, self.report["step"])
