"""What all tests share: where the reference data sets are, and a guard against anything a test leaves behind."""

import os
import signal
from pathlib import Path

import pytest
from leaks import leak_guard


def _shared_data_folder():
    """The folder of reference data sets: COMITIA_SHARED_DATA, else `shared/data` beside the checkout; or None."""
    named = os.environ.get("COMITIA_SHARED_DATA")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"
    return folder if folder.is_dir() else None


def pytest_configure():
    """A shell that runs the tests in the background has them ignore Ctrl-C, and what they start would inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config, items):
    """Leave out the tests that need the reference data sets where there are none, and say so."""
    if _shared_data_folder() is not None:
        return
    without = [item for item in items if item.get_closest_marker("shared")]
    if without:
        config.hook.pytest_deselected(items=without)
        items[:] = [item for item in items if not item.get_closest_marker("shared")]
        config.stash[_LEFT_OUT] = len(without)


_LEFT_OUT = pytest.StashKey[int]()


def pytest_terminal_summary(terminalreporter, config):
    """Give the reason for what was left out."""
    count = config.stash.get(_LEFT_OUT, 0)
    if count:
        terminalreporter.write_line(
            f"{count} tests marked `shared` left out: no reference data sets "
            "(set COMITIA_SHARED_DATA to the folder that holds mlearn, committee_reweighting, ...)"
        )


@pytest.fixture(scope="session")
def shared_data():
    """Path of the reference data sets, for tests marked `shared`."""
    folder = _shared_data_folder()
    if folder is None:
        pytest.skip("no reference data sets; set COMITIA_SHARED_DATA")
    return folder


@pytest.fixture
def no_leaks():
    """Fail a test that leaves something behind: processes, threads, descriptors, socket files, shared memory."""
    with leak_guard():
        yield
