"""Where the PLUMED kernel is."""

import importlib.util
import os
import re
from pathlib import Path

from comitia.errors import SeriesError

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


def check_bias(path, names, columns):
    """Refuse the bias that metadynamics is still building up where energies for weights are wanted.

    Parameters
    ----------
    path : Path of COLVAR
    names : list of str, of its columns
    columns : list of int, those that are wanted
    """
    for name in (names[column] for column in columns if names and names[column].endswith(".bias")):
        label = name.removesuffix(".bias")
        inputs = (file.read_text(errors="replace") for file in sorted(Path(path).parent.glob("*plumed*.dat")))
        built_up = re.compile(
            rf"^\s*(?:{re.escape(label)}:\s*METAD\b|METAD\b.*\bLABEL={re.escape(label)}\b)", re.MULTILINE
        )
        if f"{label}.rbias" in names or any(built_up.search(text) for text in inputs):
            raise SeriesError(
                f"{path}: {name} is the bias of metadynamics as it grows, which is not the weight of a frame; print "
                f"{label}.rbias (METAD … CALC_RCT) and give that, without the first part of the run (--skip)"
            )
