"""Numbers through shared memory: the segments of a server on this machine, whose socket carries only messages."""

import os
from multiprocessing import resource_tracker, shared_memory
from pathlib import Path

import numpy as np

from comitia.errors import ProtocolError
from comitia.protocol.messages import FLOAT64, PositionData

KINDS = ("positions", "cells", "inverses", "energies", "forces", "virials")  # in the order of their names in POSDATA
MOUNT = Path("/dev/shm")  # where Linux shows the segments and whose they are


class SharedArrays:
    """Segments that a server owns; attached when it names them."""

    def __init__(self):
        self._segments, self._arrays = [], {}

    def attach(self, names, n_structures, n_atoms):
        """Open the segments `names`, one for each of `KINDS`; without names, see that they still fit.

        Raises
        ------
        ProtocolError
            if a segment is not there, is not ours, or is too small; or the number of atoms changed.
        """
        shapes = dict.fromkeys(KINDS, (n_structures, 3, 3))
        shapes |= {"energies": (n_structures,), "positions": (n_structures, n_atoms, 3)}
        shapes["forces"] = shapes["positions"]
        if names and self._arrays:
            raise ProtocolError("the server names its shared memory a second time")
        for kind, name in zip(KINDS, names, strict=False):
            self._arrays[kind] = self._open(name, shapes[kind])
        if {kind: array.shape for kind, array in self._arrays.items()} != shapes:
            raise ProtocolError(f"the shared memory does not hold {n_structures} structures of {n_atoms} atoms")

    def _open(self, name, shape):
        if "/" in name or (MOUNT.is_dir() and _owner(MOUNT / name) != os.getuid()):
            raise ProtocolError(f"shared memory {name!r} is not there, or is another user's")
        try:
            segment = shared_memory.SharedMemory(name=name)
        except (OSError, ValueError) as error:
            raise ProtocolError(f"shared memory {name!r} cannot be opened ({error})") from error
        resource_tracker.unregister(segment._name, "shared_memory")  # the server removes it, we must not
        self._segments.append(segment)
        n_numbers = int(np.prod(shape))
        if segment.size < n_numbers * FLOAT64.itemsize:
            raise ProtocolError(f"shared memory {name!r} has {segment.size} bytes, too few for {n_numbers} numbers")
        return np.frombuffer(segment.buf, FLOAT64, n_numbers).reshape(shape)

    def read(self):
        """The structures that are in it now."""
        return PositionData(*(self._arrays[kind].copy() for kind in ("cells", "inverses", "positions")))

    def write(self, energies, forces, virials):
        """Put results, as they travel, where the server looks for them."""
        for kind, numbers in (("energies", energies), ("forces", forces), ("virials", virials)):
            self._arrays[kind][...] = numbers

    def close(self):
        """Let go of the segments; the server removes them."""
        self._arrays.clear()
        while self._segments:
            self._segments.pop().close()


def _owner(path):
    try:
        return path.stat().st_uid
    except OSError:
        return None
