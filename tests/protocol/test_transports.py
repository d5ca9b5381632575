"""Connecting: a server that comes late, never, or is something else."""

import socket
import threading
import time
from types import SimpleNamespace

import pytest

from comitia.errors import PeerError, SettingsError
from comitia.protocol import transports
from comitia.protocol.transports import connect_tcp, connect_unix, readable, unix_address


def listen_later(bind, delay):
    """Bind and listen after `delay` seconds; accept one connection and close it."""

    def run():
        time.sleep(delay)
        with bind() as server:
            server.settimeout(10)
            server.accept()[0].close()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def bind_unix(path):
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen()
    return server


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_unix_server_may_come_late(tmp_path):
    thread = listen_later(lambda: bind_unix(tmp_path / "late"), 0.3)
    with connect_unix(tmp_path / "late", wait=10) as connection:
        assert readable([connection], 10) == [connection]
    thread.join()


def test_a_tcp_server_may_come_late():
    port = free_port()
    thread = listen_later(lambda: socket.create_server(("127.0.0.1", port)), 0.3)
    with connect_tcp("127.0.0.1", port, wait=10) as connection:
        assert readable([connection], 10) == [connection]
        assert connection._stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert connection._stream.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    thread.join()


@pytest.mark.parametrize("stale", [False, True])
def test_no_server_within_the_wait_is_an_error_with_the_address(tmp_path, stale, monkeypatch):
    path, slept = tmp_path / "nobody", []
    if stale:  # the socket of a server that died
        bind_unix(path).close()
    clock = SimpleNamespace(monotonic=lambda: sum(slept), sleep=slept.append)
    with monkeypatch.context() as patch:
        patch.setattr(transports, "time", clock)
        with pytest.raises(PeerError, match=r"nobody: no server within 9 s.*--wait") as caught:
            connect_unix(path, wait=9)
    assert caught.value.exit_code == 4
    assert sum(slept) == pytest.approx(9)
    assert max(slept) == transports.LONGEST_PAUSE
    with pytest.raises(PeerError, match="no server within"):
        connect_tcp("127.0.0.1", free_port(), wait=0.1)


def test_paths_that_can_be_no_socket_are_refused(tmp_path):
    with pytest.raises(SettingsError, match="the system allows 107"):
        connect_unix("/tmp/" + 120 * "x", wait=10)
    (tmp_path / "file").write_text("not a socket")
    with pytest.raises(SettingsError, match="not a socket"):
        connect_unix(tmp_path / "file", wait=10)
    assert unix_address("/tmp/" + 102 * "x")


def test_ports_and_hosts_that_cannot_be():
    with pytest.raises(SettingsError, match="1 to 65535"):
        connect_tcp("localhost", 70_000)
    with pytest.raises(SettingsError, match="host is not known"):
        connect_tcp("no-such-host.invalid", 31415, wait=1)
