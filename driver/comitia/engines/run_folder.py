"""The folder of a run: whose it is, and what an earlier run left there."""

import contextlib
import fcntl
import json
import logging
import os
import time
from pathlib import Path

from comitia.engines.ipi_input import IpiInput
from comitia.engines.processes import is_running
from comitia.errors import SettingsError
from comitia.files import write_atomic

log = logging.getLogger(__name__)

RECORD = "sample.json"
RESTART = "RESTART"
EXIT = "EXIT"
LOCK_TIMEOUT = 3.0  # s for a run to end
ORPHAN_TIMEOUT = 30.0  # s for i-PI to end where its run was killed: it looks at signals once a second and ends its step


@contextlib.contextmanager
def to_ourselves(folder):
    """Hold the folder: two runs in one would write the same files.

    Yields the descriptor that holds it. Children that inherit it hold it too, so that i-PI, which takes a second or
    more to end when we are killed, cannot meet its successor.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    begin = time.monotonic()
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                was_killed = not is_running(read_record(folder).get("process", os.getpid()))
                if time.monotonic() - begin > (ORPHAN_TIMEOUT if was_killed else LOCK_TIMEOUT):
                    raise SettingsError(
                        f"{folder}: another comitia sample runs there; give each run its own --directory"
                    ) from None
                time.sleep(0.1)
        yield descriptor
    finally:
        os.close(descriptor)


def remove_exit_file(folder, when):
    """Remove an EXIT file, which would stop i-PI at once."""
    path = Path(folder) / EXIT
    if path.exists():
        log.warning("%s: EXIT file %s; removed", path, when)
        path.unlink(missing_ok=True)


def read_record(folder):
    """What an earlier run wrote of itself, or {}."""
    try:
        content = json.loads((Path(folder) / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _is_restart(folder, run):
    return run.path.resolve() == (Path(folder) / RESTART).resolve()


def identity_of(folder, run):
    """SHA-256 of the input with which the run in `folder` began: of `run`, unless that is the RESTART of the folder."""
    return read_record(folder).get("input_sha256", run.identity()) if _is_restart(folder, run) else run.identity()


class Checkpoints:
    """Copies of the checkpoints that i-PI overwrites in place: where it is killed meanwhile, only a part is there.

    Parameters
    ----------
    folder : Path
    run : IpiInput
    """

    def __init__(self, folder, run):
        overwritten = [element for element in run.root.iterfind("output/checkpoint") if _is_overwritten(element)]
        self._copies = {
            Path(folder) / name: Path(folder) / f".{name}.whole" for name in _checkpoint_names(run, overwritten)
        }
        self._kept = {}  # path -> the stamp of what was copied

    def keep(self):
        """Copy what was written since the last look and is whole."""
        for path, copy in self._copies.items():
            with contextlib.suppress(FileNotFoundError):
                stamp = _stamp(path)
                if stamp != self._kept.get(path):
                    content = path.read_bytes()
                    if _is_whole(content) and _stamp(path) == stamp:
                        write_atomic(copy, content)
                        self._kept[path] = stamp

    def mend(self, begun_here):
        """Put the copy where only a part is, now that i-PI has ended; a first one of which there is none is removed.

        Parameters
        ----------
        begun_here : bool, whether `keep` has followed this run, so that without a copy there was no state before
        """
        for path, copy in self._copies.items():
            if path.exists() and not _is_whole(path.read_bytes()):
                if copy.exists():
                    log.warning("%s: i-PI was killed while it wrote it; the one before it is used", path)
                    copy.replace(path)
                elif begun_here:
                    path.unlink()
            copy.unlink(missing_ok=True)
            self._kept.pop(path, None)


def _is_overwritten(checkpoint):
    return checkpoint.get("overwrite", "True").strip().lower() != "false"


def _checkpoint_names(run, checkpoints):
    return [f"{run.prefix}.{element.get('filename', 'restart').strip()}" for element in checkpoints]


def _is_whole(content):
    return content.rstrip().endswith(b"</simulation>")


def _stamp(path):
    status = path.stat()
    return status.st_mtime_ns, status.st_size


def _states(folder, run):
    """Every saved state in `folder` that can be read, and the error of the last that cannot."""
    found, damage = [], None
    names = _checkpoint_names(run, run.root.iterfind("output/checkpoint"))
    paths = [path for name in names for path in sorted(Path(folder).glob(f"{name}*"))]
    for path in [Path(folder) / RESTART, *paths]:
        if path.is_file():
            try:
                found.append(IpiInput(path))
            except SettingsError as error:
                damage = error
    return found, damage


def earlier_state(folder, run, model_hash):
    """The latest state that an earlier run saved in `folder`, as an `IpiInput`; None for a first run.

    i-PI writes RESTART when it is stopped, and the checkpoints that the input asks for meanwhile: the latter serve
    after a kill.

    Parameters
    ----------
    folder : Path
    run : IpiInput, the input of this run
    model_hash : str, SHA-256 of the model file

    Raises
    ------
    SettingsError
        if there are only damaged states, or they belong to another input or another model.
    """
    found, damage = _states(folder, run)
    if not found:
        if damage is not None:
            raise SettingsError(f"{damage}; a run that was killed may leave it so: remove it to start anew")
        return None
    if damage is not None:
        log.warning("%s; another saved state is used", damage)
    state = max(found, key=lambda candidate: candidate.step)
    record = read_record(folder)
    if _is_restart(folder, run):
        state = run
    identity = identity_of(folder, run)
    if record.get("input_sha256", identity) != identity or state.prefix != run.prefix:
        raise SettingsError(
            f"{state.path}: was written by another input than {run.path}; remove it, or choose another --directory"
        )
    if record.get("model_sha256", model_hash) != model_hash:
        raise SettingsError(
            f"{state.path}: was sampled with another model; one run cannot change its potential: remove it to start "
            "anew, or choose another --directory"
        )
    return state
