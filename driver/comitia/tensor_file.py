"""A file of tensors with one metadata key of JSON and a checksum: safetensors, whole or not at all."""

import json
import zlib
from pathlib import Path

import numpy as np

from comitia.errors import ModelError
from comitia.files import to_json, write_atomic


def write_tensors(path, tensors, metadata):
    """Write {name: array} and a dict to `path`; the CRC-32 of everything before the last tensor is that tensor."""
    from safetensors.numpy import save as serialise

    tensors = {name: np.ascontiguousarray(tensor).reshape(np.shape(tensor)) for name, tensor in tensors.items()}
    content = bytearray(serialise({**tensors, "checksum": np.zeros(4, np.uint8)}, {"comitia": to_json(metadata)}))
    content[-4:] = zlib.crc32(memoryview(content)[:-4]).to_bytes(4, "little")
    write_atomic(path, content)


def read_tensors(path, what, remedy):
    """Tensors and metadata of a file whose checksum is right.

    Parameters
    ----------
    what : str, what the file should be
    remedy : str, what to do where it is not

    Raises
    ------
    ModelError
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load as deserialise

    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    header_end = 8 + int.from_bytes(content[:8], "little")
    if len(content) < 16 or content[8:9] != b"{" or not header_end + 4 <= len(content):
        raise ModelError(f"{path}: not {what}, or cut short; copy or {remedy}")
    if zlib.crc32(memoryview(content)[:-4]) != int.from_bytes(content[-4:], "little"):
        raise ModelError(f"{path}: damaged (the checksum does not match); copy or {remedy}")
    try:
        metadata = json.loads(json.loads(content[8:header_end])["__metadata__"]["comitia"])
        if not isinstance(metadata, dict):
            raise TypeError("its metadata are no mapping")
        return deserialise(content), metadata
    except (SafetensorError, KeyError, ValueError, TypeError, RecursionError) as error:
        raise ModelError(f"{path}: not {what} ({error}); {remedy}") from error
