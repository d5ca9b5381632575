"""Where the PLUMED kernel is."""

import importlib.util
import os
from pathlib import Path

INSTALL = "pip install --no-deps hillclimber==0.1.8"
"""Brings the kernel without the 1.5 GB of what the package itself would use."""


def find_kernel():
    """Path of PLUMED's shared library: `PLUMED_KERNEL`, else the one in the installed package `plumed`; or None."""
    named = os.environ.get("PLUMED_KERNEL")
    if named:
        return Path(named) if Path(named).is_file() else None
    package = importlib.util.find_spec("plumed")
    for folder in (package and package.submodule_search_locations) or []:
        kernel = Path(folder) / "_lib" / "lib" / "libplumedKernel.so"
        if kernel.is_file():
            return kernel
    return None
