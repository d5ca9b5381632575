"""Messages of the i-PI protocol as bytes: encoding and parsing, without sockets and without units.

Every message starts with a header of 12 ASCII characters padded with blanks; numbers are little-endian int32
and float64, in Hartree atomic units. Arrays are kept here exactly as they travel: a cell `h` has the lattice
vectors in its columns, and virials are transposed likewise.

    STATUS                                                             server -> client
    INIT        replica:i4  length:i4  text                            server -> client
    POSDATA     h:9f8  inverse:9f8  n_atoms:i4  positions:3n f8        server -> client
    POSDATA     n_atoms:i4  B x (h:9f8 inverse:9f8)  positions:B 3n f8 server -> client, batch of B announced in INIT
    GETFORCE                                                           server -> client
    EXIT                                                               server -> client
    NEEDINIT | READY | HAVEDATA                                        client -> server, answers to STATUS
    POSDATA     n_atoms:i4  [6 x (length:i4 name), the first time]     server -> client, numbers in shared memory
    FORCEREADY  B x (length:i4 text)                                   client -> server, numbers in shared memory
    FORCEREADY  B x energy:f8  n_atoms:i4  forces:B 3n f8  virial:B 9f8  B x (length:i4 text)   client -> server
"""

import struct
import zlib
from dataclasses import dataclass

import numpy as np

from comitia.errors import NumericalError, ProtocolError

HEADER_LENGTH = 12
INT32 = struct.Struct("<i")
FLOAT64 = np.dtype("<f8")
FROM_SERVER = ("STATUS", "INIT", "POSDATA", "GETFORCE", "EXIT")
FROM_CLIENT = ("NEEDINIT", "READY", "HAVEDATA")  # answers to STATUS; FORCEREADY answers GETFORCE

MAX_ATOMS = 50_000_000
MAX_BATCH = 65_536
MAX_TEXT = 1 << 20  # bytes of an INIT string
INTRODUCTION = "#"  # what INIT says where its replica is a `species_number`
MAX_NAME = 255  # bytes of the name of a segment of shared memory
MAX_EXTRAS = 1 << 26  # bytes of one extras string
MAX_BODY = 1 << 33  # bytes of one message


@dataclass(frozen=True)
class Init:
    """The server introduces itself.

    Parameters
    ----------
    replica : int, index of the bead or replica of the first request
    text : str, `key : value` pairs separated by commas; may announce `batch_size:N`
    """

    replica: int
    text: str
    name = "INIT"


@dataclass(frozen=True, eq=False)
class PositionData:
    """Structures to evaluate, as they travel.

    Parameters
    ----------
    cells : (B, 3, 3) array, bohr, lattice vectors in columns
    inverses : (B, 3, 3) array, 1/bohr
    positions : (B, n_atoms, 3) array, bohr
    """

    cells: np.ndarray
    inverses: np.ndarray
    positions: np.ndarray
    name = "POSDATA"


@dataclass(frozen=True)
class SharedPositionData:
    """Structures to evaluate are in shared memory.

    Parameters
    ----------
    n_atoms : int
    names : six names of segments, the first time; then none
    """

    n_atoms: int
    names: tuple
    name = "POSDATA"


@dataclass(frozen=True, eq=False)
class ForceReady:
    """Results, as they travel.

    Parameters
    ----------
    energies : (B,) array, hartree
    forces : (B, n_atoms, 3) array, hartree/bohr
    virials : (B, 3, 3) array, hartree, transposed like the cell
    extras : B strings
    """

    energies: np.ndarray
    forces: np.ndarray
    virials: np.ndarray
    extras: tuple
    name = "FORCEREADY"


def header(name):
    """The 12 bytes that start a message."""
    return name.encode("ascii").ljust(HEADER_LENGTH)


def read_count(buffer, offset, limit, what):
    """An int32 that counts something; checked before memory is reserved for what it counts."""
    (count,) = INT32.unpack_from(buffer, offset)
    if not 0 <= count <= limit:
        raise ProtocolError(f"{what} is {count}, allowed 0 to {limit}; the two ends do not speak the same protocol")
    return count


def species_number(species):
    """The replica number by which a server of ours says which atoms it has, for instance "OH2OH2"; 31 bits.

    INIT has no better place for it: pw.x reads one byte of its text, whatever its length, CP2K into 1024.
    """
    return zlib.crc32(species.encode()) & 0x7FFFFFFF


def batch_size_announced(text):
    """The number of structures in every POSDATA that an INIT string announces, or None without an announcement."""
    tokens = [token.partition(":") for token in text.split(",")]
    value = next((v.strip() for key, found, v in reversed(tokens) if found and key.strip() == "batch_size"), None)
    if value is None:
        return None
    try:
        size = int(value)
    except ValueError:
        raise ProtocolError(f"INIT announces batch_size {value!r}, which is no number") from None
    if not 1 <= size <= MAX_BATCH:
        raise ProtocolError(f"INIT announces batch_size {size}, allowed 1 to {MAX_BATCH}")
    return size if size != 1 else None


def check_n_atoms(n_atoms, n_atoms_expected):
    """Refuse a number of atoms in POSDATA that cannot be, or is not that of the template where there is one.

    Raises
    ------
    ProtocolError
    """
    if not 0 <= n_atoms <= MAX_ATOMS:
        read_count(INT32.pack(n_atoms), 0, MAX_ATOMS, "the number of atoms in POSDATA")
    if n_atoms_expected is not None and n_atoms != n_atoms_expected:
        raise ProtocolError(
            f"POSDATA holds {n_atoms} atoms, the template has {n_atoms_expected}; "
            "start the client with the structure that the server simulates"
        )


def check_body(n_bytes):
    """Refuse a POSDATA that is longer than any that makes sense.

    Raises
    ------
    ProtocolError
    """
    if n_bytes > MAX_BODY:
        raise ProtocolError(f"POSDATA announces {n_bytes} bytes, allowed are {MAX_BODY}; use a smaller batch_size")


def read_shared_position_data(buffer, n_names, n_atoms_expected):
    """The POSDATA at the start of a buffer whose numbers are in shared memory.

    Parameters
    ----------
    buffer : bytes-like
    n_names : int, names of segments that it holds
    n_atoms_expected : int or None

    Returns
    -------
    (SharedPositionData, end), or None while bytes are missing.
    """
    offset = HEADER_LENGTH
    if len(buffer) < offset + INT32.size:
        return None
    (n_atoms,) = INT32.unpack_from(buffer, offset)
    check_n_atoms(n_atoms, n_atoms_expected)
    end, names = offset + INT32.size, []
    for _ in range(n_names):
        if len(buffer) < end + INT32.size:
            return None
        length = read_count(buffer, end, MAX_NAME, "the length of the name of shared memory")
        start, end = end + INT32.size, end + INT32.size + length
        if len(buffer) < end:
            return None
        names.append(bytes(buffer[start:end]).decode("utf-8", errors="replace"))
    return SharedPositionData(n_atoms, tuple(names)), end


def read_init(buffer):
    """The INIT at the start of a buffer: (Init, end), or None while bytes are missing."""
    offset, text_at = HEADER_LENGTH, HEADER_LENGTH + 2 * INT32.size
    if len(buffer) < text_at:
        return None
    (replica,) = INT32.unpack_from(buffer, offset)
    length = read_count(buffer, offset + INT32.size, MAX_TEXT, "the length of the INIT string")
    if len(buffer) < text_at + length:
        return None
    try:
        text = bytes(buffer[text_at : text_at + length]).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ProtocolError(f"the INIT string is not UTF-8 ({error}); correct <parameters> at the server") from error
    return Init(replica, text), text_at + length


def _read_header(buffer, offset):
    raw = bytes(buffer[offset : offset + HEADER_LENGTH])
    if len(raw) < HEADER_LENGTH:
        return None
    try:
        return raw.decode("ascii").rstrip(" ")
    except UnicodeDecodeError:
        return repr(raw)


def unknown_header(buffer):
    """A sentence about the header of a server at the start of a buffer."""
    return f"unknown header {_read_header(buffer, 0)!r}; known are {', '.join(FROM_SERVER)}"


def read_client_message(buffer, n_atoms, batch_size=None):
    """The message of a client at the start of a buffer.

    Parameters
    ----------
    buffer : bytes or bytearray
    n_atoms : int, atoms in every structure that was sent
    batch_size : int or None, structures in FORCEREADY if INIT announced a batch

    Returns
    -------
    (message, end): for the answers to STATUS the message is their name; None while bytes are missing.

    Raises
    ------
    ProtocolError
        for anything that cannot become a message.
    """
    name = _read_header(buffer, 0)
    if name is None:
        return None
    if name in FROM_CLIENT:
        return name, HEADER_LENGTH
    if name == ForceReady.name:
        return _read_force_ready(buffer, n_atoms, batch_size or 1)
    raise ProtocolError(f"unknown header {name!r}; known are {', '.join((*FROM_CLIENT, ForceReady.name))}")


def _read_force_ready(buffer, n_atoms, n_structures):
    count_at = HEADER_LENGTH + n_structures * FLOAT64.itemsize
    if len(buffer) < count_at + INT32.size:
        return None
    found = read_count(buffer, count_at, MAX_ATOMS, "the number of atoms in FORCEREADY")
    if found != n_atoms:
        raise ProtocolError(f"FORCEREADY holds {found} atoms, {n_atoms} were sent; the worker has another structure")
    numbers_at = count_at + INT32.size
    n_numbers = n_structures * (3 * n_atoms + 9)
    end = numbers_at + n_numbers * FLOAT64.itemsize
    if len(buffer) < end:
        return None
    spans = []
    for _ in range(n_structures):
        if len(buffer) < end + INT32.size:
            return None
        length = read_count(buffer, end, MAX_EXTRAS, "the length of the extras")
        spans.append((end + INT32.size, end + INT32.size + length))
        end = spans[-1][1]
    if len(buffer) < end:
        return None
    energies = np.frombuffer(buffer, FLOAT64, n_structures, HEADER_LENGTH).copy()
    numbers = np.frombuffer(buffer, FLOAT64, n_numbers, numbers_at).copy()
    forces, virials = numbers[: 3 * n_atoms * n_structures], numbers[3 * n_atoms * n_structures :]
    try:
        extras = tuple(bytes(buffer[start:stop]).decode("utf-8") for start, stop in spans)
    except UnicodeDecodeError as error:
        raise ProtocolError(f"the extras are not UTF-8 ({error}); the two ends do not agree on lengths") from error
    shape = (n_structures, n_atoms, 3)
    return ForceReady(energies, forces.reshape(shape), virials.reshape(n_structures, 3, 3), extras), end


def encode_init(replica, text):
    """Bytes of INIT."""
    raw = text.encode("utf-8")
    return header("INIT") + INT32.pack(replica) + INT32.pack(len(raw)) + raw


def encode_position_data(message, batched=False):
    """Bytes of POSDATA; `batched` is the layout of a batch announced in INIT."""
    n_atoms = INT32.pack(message.positions.shape[1])
    positions = np.ascontiguousarray(message.positions, FLOAT64).tobytes()
    cells = np.ascontiguousarray(np.stack([message.cells, message.inverses], axis=1), FLOAT64).tobytes()
    return header("POSDATA") + (n_atoms + cells + positions if batched else cells + n_atoms + positions)


def check_finite(quantity, values, axes):
    """Refuse numbers that are not finite.

    Parameters
    ----------
    quantity : str, what the numbers are, as it reads in "the forces of structure 0, atom 7 are nan"
    values : array
    axes : names of the axes of `values`, for the sentence

    Raises
    ------
    NumericalError
        naming the quantity and where in it the first such number is; its `place` maps axes to indices.
    """
    values = np.asarray(values)
    if np.isfinite(values).all():
        return
    first = np.argwhere(~np.isfinite(values))[0]
    place = ", ".join(f"{axis} {index}" for axis, index in zip(axes, first, strict=True))
    raise NumericalError(
        f"{quantity} is {values[tuple(first)]} at {place} (counted from 0); stopped before it was used",
        dict(zip(axes, first.tolist(), strict=True)),
    )


def check_results(energies, forces, virials):
    """Refuse results that are not finite: arrays (B,), (B, n_atoms, 3) and (B, 3, 3).

    Raises
    ------
    NumericalError
    """
    check_finite("the energy", energies, ("structure",))
    check_finite("the force", forces, ("structure", "atom", "component"))
    check_finite("the virial", virials, ("structure", "row", "column"))
