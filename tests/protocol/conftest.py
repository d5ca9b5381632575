"""Tests of the protocol leave nothing behind."""

import pytest


@pytest.fixture(autouse=True)
def _nothing_left(no_leaks):
    """Every test in this folder is under the leak guard of tests/leaks.py."""
