"""The folder of a run: whose it is, and what an earlier run left there."""

import contextlib
import fcntl
import hashlib
import json
import logging
import os
from pathlib import Path

from comitia.engines.ipi_input import IpiInput
from comitia.errors import SettingsError

log = logging.getLogger(__name__)

RECORD = "sample.json"
RESTART = "RESTART"
EXIT = "EXIT"


def file_hash(path):
    """SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def to_ourselves(folder):
    """Hold the folder: two runs in one would write the same files."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SettingsError(
                f"{folder}: another comitia sample runs there; give each run its own --directory"
            ) from None
        yield
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


def earlier_state(folder, run, model_hash):
    """The RESTART in `folder` as an `IpiInput`, or None for a first run.

    Parameters
    ----------
    folder : Path
    run : IpiInput, the input of this run
    model_hash : str, SHA-256 of the model file

    Raises
    ------
    SettingsError
        if RESTART is damaged, or belongs to another input or another model.
    """
    path = Path(folder) / RESTART
    if not path.exists():
        return None
    try:
        state = IpiInput(path)
    except SettingsError as error:
        raise SettingsError(f"{error}; a run that was killed may leave it so: remove it to start anew") from error
    record = read_record(folder)
    same_input = record.get("input_sha256", run.identity()) == run.identity() and state.prefix == run.prefix
    if not same_input:
        raise SettingsError(
            f"{path}: was written by another input than {run.path}; remove it, or choose another --directory"
        )
    if record.get("model_sha256", model_hash) != model_hash:
        raise SettingsError(
            f"{path}: was sampled with another model; one run cannot change its potential: remove it to start anew, "
            "or choose another --directory"
        )
    return state
