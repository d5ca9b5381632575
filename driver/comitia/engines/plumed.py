"""Where the PLUMED kernel is, and what an input of PLUMED says."""

import importlib.util
import os
import re
from pathlib import Path

from comitia.errors import SeriesError, SettingsError

INSTALL = "pip install --no-deps hillclimber==0.1.8"
"""Brings the kernel without the 1.5 GB of what the package itself would use."""

ELECTRONVOLT = 96.48530749925792  # kJ/mol, as PLUMED has it, so that UNITS ENERGY=eV gives what was asked for
_ENERGIES = {
    "kj/mol": 1 / ELECTRONVOLT, "kcal/mol": 4.184 / ELECTRONVOLT, "j/mol": 1e-3 / ELECTRONVOLT, "ev": 1.0,
    "ha": 2625.499638 / ELECTRONVOLT,
}  # fmt: skip
_LARGEST_INPUT = 1_000_000  # bytes; tables of numbers may be called so too
_GROWING = re.compile(r"\w*METAD\w*|OPES_\w+|MOVINGRESTRAINT|MAXENT|VES_\w+|EDS|ABMD|DRR")
_TIMES = {"ns": 1e3, "ps": 1.0, "fs": 1e-3, "atomic": 2.418884326509e-5}  # ps


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


def require_kernel():
    """Path of PLUMED's shared library, where its Python interface is there too.

    Raises
    ------
    SettingsError
        that says what is missing, and the line that installs it.
    """
    kernel, named = find_kernel(), os.environ.get("PLUMED_KERNEL")
    if kernel is None and named:
        raise SettingsError(f"PLUMED_KERNEL names {named}, which is not there; correct it, or unset it and {INSTALL}")
    if kernel is None:
        raise SettingsError(f"PLUMED is not installed; {INSTALL}")
    if importlib.util.find_spec("plumed") is None:
        raise SettingsError(f"PLUMED has no Python interface here; {INSTALL}")
    return kernel


def time_unit(path):
    """The unit of time, ps, that an input of PLUMED chooses."""
    name = next((keys["TIME"] for action, keys in actions(path) if action == "UNITS" and "TIME" in keys), "ps")
    if name in _TIMES:
        return _TIMES[name]
    try:
        return float(name)
    except ValueError:
        raise SettingsError(f"{path}: TIME of UNITS is {name!r}; give ns, ps, fs or a number of ps") from None


def actions(path):
    """(name, {key: value}) of every action in an input of PLUMED; LABEL among the keys of those that have one.

    Files that it includes, by paths from the current folder or beside it, are read too.
    """
    words, block = [], False
    for line in Path(path).read_text(encoding="utf-8", errors="replace").splitlines():
        found = line.split("#", 1)[0].split()
        ends = bool(block and found and found[0] == "...")
        words += [] if ends else found
        block = not ends and (block or bool(found and found[-1] == "..."))
        if block or not words:
            continue
        label = words.pop(0)[:-1] if words[0].endswith(":") else None
        if words:
            keys = dict(word.split("=", 1) for word in words[1:] if "=" in word)
            yield words[0], keys | ({} if label is None else {"LABEL": label})
            if words[0] == "INCLUDE" and "FILE" in keys:
                named = (Path(keys["FILE"]), Path(path).parent / keys["FILE"])
                included = next((one for one in named if one.is_file() and not one.samefile(path)), None)
                yield from () if included is None else actions(included)
        words = []


def grows(path):
    """Whether an input of PLUMED has a bias that changes as the run goes on."""
    return any(_GROWING.fullmatch(name) for name, _ in actions(path))


def skips_a_hill(path):
    """Whether an input of PLUMED has a bias that adds no hill at the first step it is told of."""
    return any(re.fullmatch(r"(PB)?METAD|OPES_\w+", name) for name, _ in actions(path))


def written_by(path):
    """Paths of the files that an input of PLUMED may write, str, relative to the folder where it runs."""
    names = {"HILLS", "KERNELS", "DELTAFS"}
    for action, keys in actions(path):
        own = [f"HILLS.{variable}" for variable in keys.get("ARG", "").split(",")] if action == "PBMETAD" else []
        names.update(keys["FILE"].split(",") if "FILE" in keys and action != "INCLUDE" else own)
    return names


def inputs_of(path):
    """Inputs of PLUMED beside a file that it wrote, which name that file."""
    for candidate in sorted(Path(path).parent.glob("*.dat")):
        if candidate.stat().st_size < _LARGEST_INPUT and any(
            Path(path).name in keys.get("FILE", "").split(",") for _, keys in actions(candidate)
        ):
            yield candidate


def energy_unit(path):
    """The unit, eV, of energies in a file that PLUMED wrote; None where its input is not beside it.

    Raises
    ------
    SettingsError
        for a unit that PLUMED does not have.
    """
    for candidate in inputs_of(path):
        name = next(
            (keys["ENERGY"] for action, keys in actions(candidate) if action == "UNITS" and "ENERGY" in keys), "kj/mol"
        )
        try:
            return _ENERGIES.get(name.lower()) or float(name) / ELECTRONVOLT
        except ValueError:
            raise SettingsError(f"{candidate}: ENERGY of UNITS is {name!r}; give {', '.join(_ENERGIES)}") from None
    return None


def refuse_lost_hills(path, folder, time, time_step):
    """Refuse to go on where hills of metadynamics were not on disk when a run was killed.

    Parameters
    ----------
    path : Path of the input of PLUMED
    folder : Path, where its files are
    time, time_step : float, of the saved state, in PLUMED's unit of time

    Raises
    ------
    SettingsError
    """
    for action, keys in actions(path):
        if action != "METAD" or not keys.get("PACE", "").isdigit() or any(key.startswith("UPDATE_") for key in keys):
            continue
        hills, pace = Path(folder) / keys.get("FILE", "HILLS"), int(keys["PACE"]) * time_step
        rows = hills.read_text().splitlines() if hills.is_file() else []
        last = float(rows[-1].split()[0]) if rows and not rows[-1].startswith("#") else 0.0
        if last < (time + 0.5 * time_step) // pace * pace - 0.5 * time_step:
            raise SettingsError(
                f"{hills}: ends at {last:g}, and the run goes on from {time:g}: PLUMED had not written the hills "
                "between when it was killed; write FLUSH STRIDE=1 into its input, and start anew"
            )


def refuse_no_kernels(path):
    """Refuse to go on from a state before the first kernel of OPES, which reads no file without one.

    Raises
    ------
    SettingsError
    """
    for action, keys in actions(path):
        kernels = Path(keys.get("FILE", "KERNELS"))
        if not action.startswith("OPES_METAD") or "STATE_RFILE" in keys or not kernels.is_file():
            continue
        if all(line.startswith("#") for line in kernels.read_text().splitlines()):
            raise SettingsError(f"{kernels}: holds no kernel earlier than the saved state; start anew")


def check_bias(path, names, columns):
    """Refuse the bias that metadynamics is still building up where energies for weights are wanted.

    Parameters
    ----------
    path : Path of COLVAR
    names : list of str, of its columns
    columns : list of int, those that are wanted
    """
    inputs = {*inputs_of(path), *Path(path).parent.glob("*plumed*.dat")}
    built_up = {keys.get("LABEL") for one in inputs for action, keys in actions(one) if action == "METAD"}
    for name in (names[column] for column in columns if names and names[column].endswith(".bias")):
        label = name.removesuffix(".bias")
        if f"{label}.rbias" in names or label in built_up:
            raise SeriesError(
                f"{path}: {name} is the bias of metadynamics as it grows, which is not the weight of a frame; print "
                f"{label}.rbias (METAD … CALC_RCT) and give that, without the first part of the run (--skip)"
            )
