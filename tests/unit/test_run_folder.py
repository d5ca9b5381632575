"""Checkpoints that i-PI overwrites in place: what is left where it is killed meanwhile."""

import pytest

from comitia.engines.ipi_input import IpiInput
from comitia.engines.run_folder import Checkpoints

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
    for step in 20, 40:
        path.write_bytes(WHOLE % step)
        checkpoints.keep()
    path.write_bytes(left)
    checkpoints.keep()  # a part is never copied
    Checkpoints(tmp_path, run).mend(begun_here=False)  # another process, after both were killed
    assert path.read_bytes() == WHOLE % 40
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
