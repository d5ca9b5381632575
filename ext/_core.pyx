# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
# cython: freethreading_compatible=True
"""The compiled core: neighbour lists, and the kernels over batches of structures."""

from cython.parallel cimport prange
from libc.stdlib cimport calloc, free
from libc.math cimport fabs, fmax, sqrt
from libc.stdint cimport int32_t, int64_t
from libc.string cimport memcpy

import os

import numpy as np

from comitia.errors import NumericalError, SettingsError, StructureError

cdef _refuse(int status, neighbour_list *list, where):
    """Raise what a negative status of the neighbour list means."""
    reason = neighbour_error(status).decode()
    if status == NEIGHBOURS_ERROR_MEMORY:
        raise MemoryError(where + reason)
    if list.offending_atom < list.n_atoms:
        reason = f"atom {list.offending_atom}: {reason}"
    raise (NumericalError if status == NEIGHBOURS_ERROR_NONFINITE else StructureError)(where + reason)


def instruction_sets():
    """Names of the instruction sets with kernels of their own that this CPU has, the fastest first."""
    names, index = [], 0
    while kernels_available(index) != NULL:
        names.append(kernels_available(index).instructions.decode())
        index += 1
    return names


def instructions():
    """Name of the instruction set whose kernels run."""
    return kernels_in_use().instructions.decode()


def use_instructions(name):
    """Run the kernels of another instruction set from now on: for tests and comparisons of speed.

    Raises
    ------
    SettingsError
        where this CPU lacks them, or there are none of that name.
    """
    cdef bytes encoded = str(name).encode()
    cdef int status = kernels_use(encoded)
    if status:
        problem = "this CPU lacks them" if status == INSTRUCTIONS_MISSING else "there are no kernels of that name"
        raise SettingsError(f"instructions {name}: {problem}; it can run {', '.join(instruction_sets())}")


if os.environ.get("COMITIA_INSTRUCTIONS"):
    use_instructions(os.environ["COMITIA_INSTRUCTIONS"])

include "neighbours.pxi"
include "batch.pxi"
include "kernel.pxi"
include "members.pxi"
include "combinations.pxi"
include "incremental.pxi"
include "statistics.pxi"


def _aligned(Py_ssize_t n):
    """Zeroed array of n doubles that begins on a cache line, with a line to spare."""
    raw = np.zeros(n + 24)
    offset = (-raw.ctypes.data // 8) % 8
    return raw[offset : offset + n + 8]
