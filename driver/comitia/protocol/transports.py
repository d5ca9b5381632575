"""Streams to a server: unix and TCP sockets, connected with patience and left in order."""

import contextlib
import errno
import logging
import os
import select
import socket
import stat
import struct
import time

from comitia.errors import PeerError, SettingsError
from comitia.protocol.shared_memory import SharedArrays

log = logging.getLogger(__name__)

MAX_UNIX_PATH = 107  # bytes, Linux
CHUNK = 1 << 20  # bytes asked for in one read
PATIENCE = 0.05  # s in the system's own wait for bytes; what takes longer is waited for by polling
SEND_TIMEOUT = 120.0  # s, for the server to take one whole message
DRAIN_TIMEOUT = 3.0  # s, for the server to notice that we go
FIRST_PAUSE, LONGEST_PAUSE, PAUSE_GROWTH = 0.02, 1.0, 1.5  # s, s, factor between two attempts to connect
KEEPALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 20, "TCP_KEEPCNT": 3}  # s, s, probes until a peer is gone
TIMEVAL = struct.Struct("@ll")  # s, µs
NOT_YET = (FileNotFoundError, ConnectionRefusedError, ConnectionResetError, BlockingIOError, TimeoutError)


def _readable(stream, timeout):
    """Whether `stream` has bytes, or its end, to read within `timeout` seconds (None: wait for ever)."""
    poll = select.poll()
    poll.register(stream, select.POLLIN)
    return bool(poll.poll(None if timeout is None else 1e3 * timeout))


def readable(connections, timeout):
    """Those of `connections` that have bytes, or their end, to read within `timeout` seconds; at least one, or none."""
    poll = select.poll()
    by_descriptor = {connection.fileno(): connection for connection in connections}
    for descriptor in by_descriptor:
        poll.register(descriptor, select.POLLIN)
    return [by_descriptor[descriptor] for descriptor, _ in poll.poll(1e3 * timeout)]


class Connection:
    """A connected stream socket.

    Parameters
    ----------
    stream : socket.socket
    address : str, for sentences: `unix:/tmp/ipi_name` or `tcp:host:port`
    shared : comitia.protocol.shared_memory.SharedArrays, for a server that puts its numbers there; or None
    """

    def __init__(self, stream, address, shared=None):
        self.address, self.shared = address, shared
        self._stream = stream
        stream.settimeout(None)
        for option, seconds in ((socket.SO_RCVTIMEO, PATIENCE), (socket.SO_SNDTIMEO, SEND_TIMEOUT)):
            stream.setsockopt(socket.SOL_SOCKET, option, TIMEVAL.pack(int(seconds), int(seconds % 1 * 1e6)))

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def fileno(self):
        """For polling."""
        return self._stream.fileno()

    def receive_waiting(self):
        """Whatever has arrived already, maybe nothing; never waits and never fails."""
        arrived = b""
        try:
            while _readable(self._stream, 0):
                chunk = self._stream.recv(CHUNK)
                if not chunk:
                    break
                arrived += chunk
        except OSError:
            pass
        return arrived

    def broken(self, error, sending):
        """The PeerError for what the system said when bytes were sent or received."""
        if not sending:
            return PeerError(f"{self.address}: the connection broke ({error.strerror})")
        if error.errno == errno.EAGAIN:
            return PeerError(f"{self.address}: the server took no bytes for {SEND_TIMEOUT:.0f} s")
        return PeerError(f"{self.address}: the server is gone ({error.strerror})")

    def leave(self):
        """Tell the server that nothing more will come."""
        with contextlib.suppress(OSError):  # it may be gone
            self._stream.shutdown(socket.SHUT_WR)

    def close(self, deadline=None):
        """Leave in order: end our direction, read what the server still sends, then close.

        A socket that is closed with unread bytes resets the connection, and a server that is reset in the middle of
        a force call may wait for ever; after an end of stream it gives the work to another client.

        Parameters
        ----------
        deadline : float or None, moment until which the server may take to notice
        """
        if self._stream.fileno() < 0:
            return
        deadline = deadline or time.monotonic() + DRAIN_TIMEOUT
        try:
            self.leave()
            while (left := deadline - time.monotonic()) > 0:
                if not _readable(self._stream, left) or not self._stream.recv(CHUNK):
                    break
        except OSError as error:
            log.debug("%s: while closing: %s", self.address, error)
        finally:
            self._stream.close()
            if self.shared is not None:
                self.shared.close()


@contextlib.contextmanager
def connections(connect_functions, wait):
    """Connections to several servers, each waited for; left in order at the end, all within one time limit.

    Parameters
    ----------
    connect_functions : functions of the seconds to wait, such as `connect_unix` with its path
    wait : float, s
    """
    found = []
    try:
        deadline = time.monotonic() + wait
        found.extend(connect(max(0.0, deadline - time.monotonic())) for connect in connect_functions)
        yield found
    finally:
        for connection in found:
            connection.leave()
        deadline = time.monotonic() + DRAIN_TIMEOUT
        for connection in found:
            connection.close(deadline)


def unix_address(path):
    """The path of a unix socket, refused if it cannot be one.

    Raises
    ------
    SettingsError
        if the path is too long, or something else than a socket is there.
    """
    path = os.fspath(path)
    length = len(os.fsencode(path))
    if length > MAX_UNIX_PATH:
        raise SettingsError(
            f"unix socket {path}: the path has {length} bytes, the system allows {MAX_UNIX_PATH}; "
            "use a shorter name or --sockets-prefix"
        )
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return path  # not there yet
    if not stat.S_ISSOCK(mode):
        raise SettingsError(f"unix socket {path}: what is there is not a socket; remove it or use another name")
    return path


def _unix_stream(path):
    stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        unix_address(path)
        stream.settimeout(LONGEST_PAUSE)
        stream.connect(path)
    except BaseException:
        stream.close()
        raise
    return stream


def set_tcp_options(stream):
    """Send at once, and find out when the machine of the peer is gone, which says nothing any more."""
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in KEEPALIVE.items():
        if hasattr(socket, option):
            stream.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def _tcp_stream(host, port):
    stream = socket.create_connection((host, port), timeout=10.0)
    set_tcp_options(stream)
    return stream


def _patiently(connect, address, wait):
    """Call `connect` until it succeeds, with growing pauses, for at most `wait` seconds."""
    deadline = time.monotonic() + wait
    pause = FIRST_PAUSE
    while True:
        try:
            return Connection(connect(), address)
        except NOT_YET as error:
            reason = error
        except socket.gaierror as error:
            raise SettingsError(f"{address}: the host is not known ({error.strerror}); correct --host") from error
        except OSError as error:
            if error.errno not in (errno.EHOSTUNREACH, errno.ENETUNREACH):
                raise PeerError(f"{address}: cannot be reached ({error.strerror or error})") from error
            reason = error
        left = deadline - time.monotonic()
        if left <= 0:
            raise PeerError(
                f"{address}: no server within {wait:.3g} s ({reason.strerror or reason}); "
                "start the server, or give it more time with --wait"
            ) from reason
        time.sleep(min(pause, left))
        pause = min(pause * PAUSE_GROWTH, LONGEST_PAUSE)


def connect_unix(path, wait=0.0):
    """Connect to the unix socket `path`, which may not exist yet, within `wait` seconds."""
    path = unix_address(path)
    return _patiently(lambda: _unix_stream(path), f"unix:{path}", wait)


def connect_shm(path, wait=0.0):
    """As `connect_unix`, to a server that puts its numbers into shared memory."""
    connection = connect_unix(path, wait)
    connection.shared = SharedArrays()
    return connection


def connect_tcp(host, port, wait=0.0):
    """Connect to a TCP port, where nobody may listen yet, within `wait` seconds."""
    if not 1 <= port <= 65_535:
        raise SettingsError(f"tcp:{host}:{port}: a port is a number from 1 to 65535")
    return _patiently(lambda: _tcp_stream(host, port), f"tcp:{host}:{port}", wait)
