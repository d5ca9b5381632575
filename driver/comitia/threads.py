"""How many cores there are, and how many threads a kernel uses when nobody says."""

import os


def available_cores():
    """The processors this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_threads():
    """`OMP_NUM_THREADS` where it is set to a number, else the processors this process may run on."""
    wanted = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    if wanted.isdigit() and int(wanted) > 0:
        return int(wanted)
    return available_cores()
