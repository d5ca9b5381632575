"""Where workers come in: unix sockets of our own user only, and ports of this machine unless asked for more."""

import contextlib
import ipaddress
import logging
import os
import socket
import stat
import struct

from comitia.errors import SettingsError
from comitia.protocol.transports import set_tcp_options, unix_address

log = logging.getLogger(__name__)

BACKLOG = 128  # connections that wait to be accepted
PROBE_TIMEOUT = 2.0  # s, for whoever owns a socket file to take our connection
ROOT = 0  # user who may come in anywhere
_CREDENTIALS = struct.Struct("iII")  # pid, uid, gid


class Listener:
    """A listening socket.

    Parameters
    ----------
    stream : socket.socket, bound
    address : str, for sentences: `unix:/tmp/ipi_name` or `tcp:host:port`
    path : str or None, the socket's file, removed at the end
    """

    def __init__(self, stream, address, path=None):
        self.address = address
        self._stream, self._path = stream, path
        self._inode = os.lstat(path).st_ino if path else None
        stream.setblocking(False)
        stream.listen(BACKLOG)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def fileno(self):
        """For selectors."""
        return self._stream.fileno()

    def accept(self):
        """(connected socket that does not block, name of the peer); (None, reason) for one that was sent away.

        Raises
        ------
        BlockingIOError
            if nobody waits.
        OSError
            if the system has no room for another connection.
        """
        stream, peer = self._stream.accept()
        stream.setblocking(False)
        if stream.family != socket.AF_UNIX:
            set_tcp_options(stream)
            return stream, f"tcp:{peer[0]}:{peer[1]}"
        if not hasattr(socket, "SO_PEERCRED"):
            return stream, self.address
        pid, uid, _ = _CREDENTIALS.unpack(stream.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
        if uid not in (os.getuid(), ROOT):
            stream.close()
            return None, f"{self.address}: process {pid} of user {uid} was sent away, only user {os.getuid()} may come"
        return stream, f"{self.address} pid {pid}"

    def close(self):
        """Stop listening; the file of the socket goes, if it is still ours."""
        if self._stream.fileno() < 0:
            return
        self._stream.close()
        if self._path is not None:
            with contextlib.suppress(OSError):
                if os.lstat(self._path).st_ino == self._inode:
                    os.unlink(self._path)


def _remove_dead(path):
    """Make room for a socket: a file that a dead process of ours left goes, anything else is refused."""
    try:
        found = os.lstat(path)
    except OSError:
        return  # nothing there
    if found.st_uid != os.getuid():
        raise SettingsError(f"unix socket {path}: belongs to another user (uid {found.st_uid}); use another name")
    if not stat.S_ISSOCK(found.st_mode):
        raise SettingsError(f"unix socket {path}: what is there is not a socket; remove it or use another name")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(PROBE_TIMEOUT)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            log.info("unix socket %s: left behind by a process that is gone; removed", path)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            return
        except FileNotFoundError:
            return
        except OSError as error:
            raise SettingsError(f"unix socket {path}: in use ({error.strerror or error}); use another name") from error
        owner = ""
        if hasattr(socket, "SO_PEERCRED"):
            credentials = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            owner = f" by process {_CREDENTIALS.unpack(credentials)[0]}"
    raise SettingsError(f"unix socket {path}: in use{owner}; end it or use another name")


def listen_unix(path):
    """Listen on the unix socket `path`, which only our own user may open.

    Raises
    ------
    SettingsError
        if the path cannot be a socket, is in use, or belongs to somebody else.
    """
    path = unix_address(path)
    _remove_dead(path)
    stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        os.fchmod(stream.fileno(), 0o600)  # Linux gives the file the permissions of the socket, from the first moment
        stream.bind(path)
        os.chmod(path, 0o600)
        return Listener(stream, f"unix:{path}", path)
    except OSError as error:
        stream.close()
        raise SettingsError(f"unix socket {path}: cannot be made ({error.strerror}); use another place") from error


def listen_tcp(host, port, allow_remote=False):
    """Listen on a TCP port; 0 takes a free one, which `address` then names.

    Parameters
    ----------
    host : str, name or number
    port : int
    allow_remote : bool, whether other machines may be able to connect; nobody has to say who they are

    Raises
    ------
    SettingsError
        if the host is not known, is no address of this machine alone, or the port is in use.
    """
    where = f"tcp:{host}:{port}"
    if not 0 <= port <= 65_535:
        raise SettingsError(f"{where}: a port is a number from 0 to 65535")
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        raise SettingsError(f"{where}: the host is not known ({error}); correct it") from error
    family, kind, protocol, _, address = found[0]
    if not ipaddress.ip_address(address[0].partition("%")[0]).is_loopback:
        if not allow_remote:
            raise SettingsError(
                f"{where}: other machines could connect, and the protocol asks nobody who they are; "
                "use localhost, or --allow-remote where the network is trusted"
            )
        log.warning("%s: whoever reaches this port can take part; the protocol asks nobody who they are", where)
    stream = socket.socket(family, kind, protocol)
    try:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        stream.bind(address)
        return Listener(stream, f"tcp:{host}:{stream.getsockname()[1]}")
    except OSError as error:
        stream.close()
        raise SettingsError(f"{where}: cannot be opened ({error.strerror or error}); use another port") from error
