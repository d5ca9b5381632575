"""How much memory a fit takes, said before it begins."""

import os

from comitia.errors import SettingsError
from comitia.training.normal_equations import CHUNK, triangle_size

MATRICES = 8  # square matrices that one solution has at a time: moments, their sum, factor, inverse
BASE = 300 << 20  # the interpreter, libraries and small arrays


def fit_memory(n_columns, n_groups, n_threads, largest, cache):
    """Largest memory of a fit, bytes; it does not depend on the number of structures but for what they hold.

    Parameters
    ----------
    n_columns, n_groups, n_threads : int
    largest : int, atoms of the largest structure
    cache : int, bytes of designs that are kept
    """
    sums = 8 * n_groups * triangle_size(n_columns)
    rows = max(CHUNK, n_columns // 2) + 3 * largest
    summing = n_threads * 8 * (2 * rows * n_columns + 3 * largest * n_columns + n_columns**2)
    solving = n_threads * 8 * MATRICES * n_columns**2
    return BASE + sums + cache + max(summing, solving)


def available_memory():
    """Bytes that this machine can still give; None where it does not say."""
    try:
        with open("/proc/meminfo") as file:
            found = dict(line.split(":") for line in file)
        return 1024 * int(found["MemAvailable"].split()[0])
    except (OSError, KeyError, ValueError):
        pages, size = (os.sysconf(name) for name in ("SC_PHYS_PAGES", "SC_PAGE_SIZE"))
        return pages * size if pages > 0 else None


def check_memory(needed, n_columns, n_groups):
    """Refuse a fit that this machine has no room for.

    Raises
    ------
    SettingsError
    """
    available = available_memory()
    if available is not None and needed > available:
        raise SettingsError(
            f"basis: {n_columns} columns in {n_groups} groups need about {needed / 2**30:.1f} GiB of memory, "
            f"{available / 2**30:.1f} GiB are free; lower max_features, or threads"
        )
