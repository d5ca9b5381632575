# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
# cython: freethreading_compatible=True
"""The client's end of the wire at every step: messages in kept memory, and numbers as text."""

from cpython.buffer cimport PyBUF_READ
from cpython.exc cimport PyErr_CheckSignals
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.errno cimport EAGAIN, EINTR, errno
from libc.math cimport isfinite
from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcmp, memcpy, memmove

import os

import numpy as np

from comitia.errors import PeerError, ProtocolError
from comitia.protocol import messages

include "powers.pxi"
include "extras.pxi"
include "stream.pxi"
include "conversation.pxi"
