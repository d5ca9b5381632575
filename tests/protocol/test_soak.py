"""Frames without end: memory does not grow, descriptors and threads stay."""

import pytest
from soak import soak

SLOPE = 1.0  # kB per 10 000 frames
PAGES = 64  # kB, of a short run, in which single pages count


def test_ten_thousand_frames_leave_no_trace():
    _, grown, rate = soak(10_000)
    print(f"{rate:.0f} frames/s")
    assert max(grown) < PAGES


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_million_frames_leave_no_trace():
    slopes, grown, rate = soak(1_000_000)
    print(f"{rate:.0f} frames/s; {slopes} kB per 10 000 frames; {grown} kB in all")
    assert max(slopes) < SLOPE
