"""Doors for workers: who may come in, and what becomes of socket files."""

import os
import socket
import stat

import pytest

from comitia.errors import SettingsError
from comitia.protocol import listeners
from comitia.protocol.listeners import listen_tcp, listen_unix


def test_only_our_user_may_open_a_unix_socket(tmp_path):
    path = tmp_path / "door"
    before = os.umask(0)
    try:
        with listen_unix(path):
            assert stat.S_IMODE(path.lstat().st_mode) == 0o600
    finally:
        os.umask(before)
    assert not path.exists()


def test_a_stranger_is_sent_away(tmp_path, monkeypatch):
    path = str(tmp_path / "door")
    with listen_unix(path) as door, socket.socket(socket.AF_UNIX) as stranger:
        stranger.connect(path)
        ours = os.getuid()
        monkeypatch.setattr(listeners.os, "getuid", lambda: ours + 1)
        monkeypatch.setattr(listeners, "ROOT", -1)
        stream, reason = door.accept()
        assert stream is None
        assert f"of user {ours} was sent away" in reason
        assert stranger.recv(1) == b""


def test_what_a_dead_process_left_is_removed(tmp_path):
    path = tmp_path / "door"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert path.exists()
    with listen_unix(path):
        assert path.exists()
    assert not path.exists()


def test_a_socket_in_use_is_left_alone(tmp_path):
    path = tmp_path / "door"
    with listen_unix(path):
        with pytest.raises(SettingsError, match=f"in use by process {os.getpid()}"):
            listen_unix(path)
        with socket.socket(socket.AF_UNIX) as worker:
            worker.connect(str(path))


def test_the_file_of_another_server_is_not_removed(tmp_path):
    path = tmp_path / "door"
    with listen_unix(path):
        path.unlink()
        other = socket.socket(socket.AF_UNIX)
        other.bind(str(path))
    assert path.exists()
    other.close()


@pytest.mark.parametrize("kind", ["file", "link", "folder"])
def test_what_is_no_socket_is_left_alone(kind, tmp_path):
    path, target = tmp_path / "door", tmp_path / "target"
    target.write_text("valuable")
    {"file": lambda: path.write_text("x"), "link": lambda: path.symlink_to(target), "folder": path.mkdir}[kind]()
    with pytest.raises(SettingsError, match="not a socket"):
        listen_unix(path)
    assert path.exists()
    assert target.read_text() == "valuable"


def test_a_path_that_is_too_long_or_in_no_folder(tmp_path):
    with pytest.raises(SettingsError, match="allows 107"):
        listen_unix(tmp_path / ("x" * 120))
    with pytest.raises(SettingsError, match="cannot be made"):
        listen_unix(tmp_path / "no folder" / "door")


def test_a_port_of_this_machine_alone_unless_asked():
    with listen_tcp("localhost", 0) as door:
        port = int(door.address.rsplit(":", 1)[1])
        assert port > 0
        with pytest.raises(SettingsError, match="cannot be opened"):
            listen_tcp("localhost", port)
    for host in ("0.0.0.0", ""):
        with pytest.raises(SettingsError, match="--allow-remote"):
            listen_tcp(host, 0)
    with listen_tcp("0.0.0.0", 0, allow_remote=True):
        pass
    with pytest.raises(SettingsError, match="host is not known"):
        listen_tcp("no-such-host.invalid", 0)
    with pytest.raises(SettingsError, match="0 to 65535"):
        listen_tcp("localhost", 70_000)
