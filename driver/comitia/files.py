"""Files appear whole or not at all."""

import contextlib
import json
import os
from pathlib import Path

import numpy as np

from comitia.errors import NumericalError, OutputError, SettingsError


def file_hash(path):
    """SHA-256 of a file, as hexadecimal digits.

    Raises
    ------
    SettingsError
        if it cannot be read.
    """
    import hashlib

    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read ({error.strerror or error}); check the path") from error


def check_destination(path):
    """Refuse a path to which no file can be written, before the work whose result it is to hold.

    Raises
    ------
    OutputError
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise OutputError(f"{path}: cannot be written, the folder {path.parent} does not exist; make it")
    if path.is_dir():
        raise OutputError(f"{path}: cannot be written, it is a folder; give the name of a file")


@contextlib.contextmanager
def whole_file(path):
    """A binary file to write, which becomes `path` at the end if nothing failed: a reader never sees a part of it.

    Raises
    ------
    OutputError
    """
    path = Path(path)
    check_destination(path)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror}); make room or choose another place") from error
    finally:
        partial.unlink(missing_ok=True)


def write_atomic(path, content):
    """Write bytes or text to `path` so that a reader sees the old file or the new one, never a part.

    Raises
    ------
    OutputError
    """
    with whole_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def _plain(value):
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def to_json(content):
    """JSON text of nested dictionaries, lists and NumPy values.

    Raises
    ------
    NumericalError
        for a number that is not finite.
    """
    try:
        return json.dumps(content, indent=1, default=_plain, allow_nan=False) + "\n"
    except ValueError as error:
        raise NumericalError(f"a result is not finite and was not written ({error}); check the data") from error


def write_json(path, content):
    """Write `content` as JSON, whole or not at all."""
    write_atomic(path, to_json(content))
