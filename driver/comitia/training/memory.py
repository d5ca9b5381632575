"""How much memory a fit takes, said before it begins."""

import os
import warnings
from pathlib import Path

from comitia.errors import SettingsError
from comitia.training.normal_equations import CHUNK, PANEL, triangle_size

MATRICES = 6  # square matrices that one solution has at a time: moments, their sum, its factor, the inverse of that
BASE = 300 << 20  # the interpreter, libraries and small arrays
CLEARLY = 1.5  # a fit is refused where it needs this many times what is free; below, it may go on, with a warning
CGROUPS = Path("/sys/fs/cgroup")
PROC = Path("/proc")


def fit_memory(n_columns, n_groups, n_threads, largest, n_parts=0):
    """Largest memory of a fit, bytes; it does not depend on the number of structures but for what their labels take.

    Parameters
    ----------
    n_columns, n_groups, n_threads : int
    largest : int, atoms of the largest structure
    n_parts : int, parts of the groups of which the sums are kept beside
    """
    sums = 8 * n_groups * triangle_size(n_columns)
    rows = max(CHUNK, n_columns // 2) + 3 * largest
    summing = n_threads * 8 * n_columns * (2 * rows + 3 * largest + min(PANEL, n_columns))
    solving = n_threads * 8 * (MATRICES * n_columns**2 + n_parts * triangle_size(n_columns))
    return BASE + sums + max(summing, solving)


def _machine_memory():
    """Bytes that the machine can still give, swap included; None where it does not say."""
    try:
        found = dict(line.split(":") for line in (PROC / "meminfo").read_text().splitlines())
        return 1024 * sum(int(found[name].split()[0]) for name in ("MemAvailable", "SwapFree"))
    except (OSError, KeyError, ValueError):
        pages, size = (os.sysconf(name) for name in ("SC_PHYS_PAGES", "SC_PAGE_SIZE"))
        return pages * size if pages > 0 else None


def _left_in(folder, names):
    """Bytes that one control group may still take; files that it has read can be dropped. None without a limit."""
    limit, usage, dropped = names
    try:
        left = int((folder / limit).read_text()) - int((folder / usage).read_text())
        kept = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return max(0, left + int(kept.get(dropped, 0)))
    except (OSError, ValueError):  # there is no such file, or it says "max"
        return None


def _container_memory():
    """Bytes that the control groups of this process (version 1 or 2) leave it, those above included; may be empty."""
    try:
        lines = (PROC / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return []
    left = []
    for _, controllers, path in (line.split(":", 2) for line in lines if line.count(":") >= 2):
        if controllers == "":
            root, names = CGROUPS, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            root, names = CGROUPS / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        inside = Path(path.strip("/"))
        left += [_left_in(root / folder, names) for folder in (inside, *inside.parents)]
    return [number for number in left if number is not None]


def available_memory():
    """Bytes that this process can still get; None where nothing says."""
    found = [number for number in (_machine_memory(), *_container_memory()) if number is not None]
    return min(found, default=None)


def check_memory(needed, n_columns, n_groups):
    """Refuse a fit that this machine clearly has no room for; warn of one that may find none.

    Raises
    ------
    SettingsError
    """
    available = available_memory()
    if available is None or needed <= available:
        return
    sentence = (
        f"basis: {n_columns} columns in {n_groups} groups need about {needed / 2**30:.1f} GiB of memory, "
        f"{available / 2**30:.1f} GiB are free; lower max_features, or threads"
    )
    if needed > CLEARLY * available:
        raise SettingsError(sentence)
    warnings.warn(sentence, stacklevel=2)
