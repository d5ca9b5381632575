"""Checkpoints that i-PI overwrites in place: what is left where it is killed meanwhile."""

import fcntl
import json
import os
import subprocess
import threading

import pytest

from comitia.engines import run_folder
from comitia.engines.ipi_input import IpiInput
from comitia.engines.run_folder import Checkpoints
from comitia.errors import SettingsError

WHOLE = b"<simulation>\n<step>%d</step>\n</simulation>\n"


@pytest.fixture
def run(tmp_path):
    path = tmp_path / "run.xml"
    path.write_text(
        "<simulation><output prefix='run'><checkpoint filename='saved'/>"
        "<checkpoint filename='all' overwrite='False'/></output></simulation>"
    )
    return IpiInput(path)


@pytest.mark.parametrize("left", [b"", WHOLE[:20]])
def test_the_copy_replaces_a_part(tmp_path, run, left, caplog):
    path, checkpoints = tmp_path / "run.saved", Checkpoints(tmp_path, run)
    for step in 20, 4000:  # of two sizes: the time of a change may be as coarse as 10 ms
        path.write_bytes(WHOLE % step)
        checkpoints.keep()
    path.write_bytes(left)
    checkpoints.keep()  # a part is never copied
    Checkpoints(tmp_path, run).mend(begun_here=False)  # another process, after both were killed
    assert path.read_bytes() == WHOLE % 4000
    assert "the one before it is used" in caplog.text
    assert sorted(file.name for file in tmp_path.iterdir()) == ["run.saved", "run.xml"]


def test_what_is_whole_stays(tmp_path, run):
    path, checkpoints = tmp_path / "run.saved", Checkpoints(tmp_path, run)
    path.write_bytes(WHOLE % 20)
    checkpoints.keep()
    path.write_bytes(WHOLE % 4000)
    checkpoints.mend(begun_here=True)
    assert path.read_bytes() == WHOLE % 4000


@pytest.mark.parametrize("begun_here", [True, False])
def test_a_first_part_is_removed_only_by_the_run_that_began_it(tmp_path, run, begun_here):
    path, checkpoints = tmp_path / "run.saved", Checkpoints(tmp_path, run)
    checkpoints.keep()
    path.write_bytes(WHOLE[:20])
    checkpoints.keep()
    checkpoints.mend(begun_here)
    assert path.exists() == (not begun_here)


def test_checkpoints_with_a_number_are_not_copied(tmp_path, run):
    (tmp_path / "run.all_0").write_bytes(WHOLE % 20)
    Checkpoints(tmp_path, run).keep()
    assert not list(tmp_path.glob(".*"))


@pytest.fixture
def held(tmp_path):
    """A descriptor that holds the folder, as i-PI does."""
    descriptor = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    yield descriptor
    os.close(descriptor)


def test_i_pi_has_its_time_to_end_where_its_run_was_killed(tmp_path, held, monkeypatch):
    monkeypatch.setattr(run_folder, "LOCK_TIMEOUT", 0.0)
    with subprocess.Popen(["true"]) as killed:
        pass
    (tmp_path / "sample.json").write_text(json.dumps({"process": killed.pid}))
    ends = threading.Timer(0.5, fcntl.flock, (held, fcntl.LOCK_UN))
    ends.start()
    with run_folder.to_ourselves(tmp_path):
        ends.join()


@pytest.mark.parametrize("record", [{"process": os.getpid()}, {}])
def test_a_run_that_goes_on_has_its_folder(tmp_path, held, record, monkeypatch):
    monkeypatch.setattr(run_folder, "LOCK_TIMEOUT", 0.0)
    (tmp_path / "sample.json").write_text(json.dumps(record))
    with pytest.raises(SettingsError, match="another comitia sample runs there"), run_folder.to_ourselves(tmp_path):
        pass
