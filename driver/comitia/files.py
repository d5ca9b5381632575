"""Files appear whole or not at all."""

import json
import os
from pathlib import Path

import numpy as np


def write_atomic(path, content):
    """Write bytes or text to `path` so that a reader sees the old file or the new one, never a part."""
    path = Path(path)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _plain(value):
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def to_json(content):
    """JSON text of nested dictionaries, lists and NumPy values; a number that is not finite is refused."""
    return json.dumps(content, indent=1, default=_plain, allow_nan=False) + "\n"


def write_json(path, content):
    """Write `content` as JSON, whole or not at all."""
    write_atomic(path, to_json(content))
