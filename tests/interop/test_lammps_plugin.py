"""The plugin as a library: what it shows to a process, and which LAMMPS it is for."""

import ctypes
import json
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import systems
from lammps_runs import lammps_atoms, lammps_environment, lmp, opening, write_data

ROOT = Path(__file__).resolve().parents[2]
SPECIES = (8, 14)
CORE = ("evaluate", "kernels_use", "kernels_in_use", "linear_members", "neighbour_list_update", "evaluate_baseline")

# The plugin comes first and shows all that it has: the extension must not run its kernels, nor it the extension's.
SCRIPT = """
import ctypes, json, sys
import numpy as np

from comitia.engines.lammps import import_lammps

lammps = import_lammps()
if sys.argv[1]:
    ctypes.CDLL(lammps.__path__[0] + "/liblammps.so", mode=ctypes.RTLD_GLOBAL)
    ctypes.CDLL(sys.argv[1], mode=ctypes.RTLD_GLOBAL)
import comitia
from comitia._core import instructions, use_instructions

use_instructions("baseline")
potential = comitia.load("model.safetensors")
start = np.load("start.npz")
from ase import Atoms

atoms = Atoms(numbers=start["numbers"], positions=start["positions"], cell=start["cell"], pbc=True)
found = {"instructions": instructions(), "bits": potential.compute(atoms, n_threads=1).forces.tobytes().hex()}
if sys.argv[1]:
    lmp = lammps.lammps(cmdargs=["-log", "none", "-screen", "none"])
    lmp.command("plugin load " + sys.argv[1])
    lmp.file("in.energy")
    found["lammps"] = lmp.get_thermo("pe")
    found["python"] = potential.compute(atoms).energy
    found["after"] = potential.compute(atoms, n_threads=1).forces.tobytes().hex()
    found["still"] = instructions()
print(json.dumps(found))
"""


def plugin_of(cache):
    return next(Path(cache).rglob("comitiaplugin.so"))


def test_nothing_of_the_core_is_shown(plugin_cache):
    from comitia.engines.lammps import import_lammps

    folder = Path(import_lammps().__path__[0])
    ctypes.CDLL(str(folder / "liblammps.so"), mode=ctypes.RTLD_GLOBAL)
    plugin = ctypes.CDLL(str(plugin_of(plugin_cache)))
    assert plugin.lammpsplugin_init
    assert [name for name in CORE if hasattr(plugin, name)] == []


def test_plugin_and_extension_use_their_own_kernels(plugin_cache, tmp_path):
    import numpy as np

    systems.potential(SPECIES, n_members=3).save(tmp_path / "model.safetensors")
    atoms = lammps_atoms(systems.structures(SPECIES)["triclinic"])
    np.savez(tmp_path / "start.npz", numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell.array)
    write_data(tmp_path / "atoms.data", atoms, SPECIES)
    script = [*opening(atoms, SPECIES, "atoms.data", "model.safetensors"), "run 0"]
    (tmp_path / "in.energy").write_text("\n".join(script) + "\n")
    alone, both = (
        json.loads(
            subprocess.run(
                [sys.executable, "-c", SCRIPT, plugin], cwd=tmp_path, env=lammps_environment(plugin_cache),
                capture_output=True, text=True, timeout=120, check=True,
            ).stdout.splitlines()[-1]
        )
        for plugin in ("", str(plugin_of(plugin_cache)))
    )  # fmt: skip
    assert alone["instructions"] == both["instructions"] == both["still"] == "baseline"
    assert alone["bits"] == both["bits"] == both["after"]
    assert both["lammps"] == pytest.approx(both["python"], rel=1e-12)


@pytest.mark.long
def test_a_plugin_for_another_lammps_says_so(plugin_cache, tmp_path):
    from comitia.engines.lammps_plugin import installed_headers

    systems.potential(SPECIES, n_members=3).save(tmp_path / "model.safetensors")
    atoms = lammps_atoms(systems.structures(SPECIES)["bulk"])
    write_data(tmp_path / "atoms.data", atoms, SPECIES)
    shutil.copytree(installed_headers(), tmp_path / "src")
    (tmp_path / "src" / "version.h").write_text('#define LAMMPS_VERSION "2 Aug 2023"\n')
    for options, words in ((), "version 20230802, and this is version 20250722"), (("bigbig",), "sizes of integers"):
        if options:
            (tmp_path / "src" / "version.h").write_text('#define LAMMPS_VERSION "22 Jul 2025"\n')
        sizes = ["--sizes", *options] if options else []
        command = [sys.executable, "-m", "comitia.cli", "lammps", "build", "--include", str(tmp_path / "src"), *sizes]
        done = subprocess.run(
            command, env=lammps_environment(tmp_path), capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr
        line = done.stdout.splitlines()[-1].strip()
        script = [line, *opening(atoms, SPECIES, "atoms.data", "model.safetensors"), "run 0"]
        text, code = lmp(tmp_path, script, tmp_path / "empty", check=False)
        assert code > 0
        assert words in text, text
        assert "comitia lammps build" in text
        assert "Unrecognized pair style 'comitia'" in text


@pytest.mark.long
@pytest.mark.skipif(not (ROOT / "ext" / "CMakeLists.txt").is_file(), reason="no sources beside the tests")
def test_cmake_builds_the_plugin_without_python(plugin_cache, tmp_path):
    from comitia.engines.lammps_plugin import installed_headers

    systems.potential(SPECIES, n_members=3).save(tmp_path / "model.safetensors")
    atoms = lammps_atoms(systems.structures(SPECIES)["bulk"])
    write_data(tmp_path / "atoms.data", atoms, SPECIES)
    scripts = Path(sysconfig.get_path("scripts"))
    cmake = shutil.which("cmake", path=f"{scripts}:/usr/bin") or pytest.skip("no cmake")
    options = [f"-DLAMMPS_INCLUDE={installed_headers()}", "-DLAMMPS_VERSION=20250722", "-DCOMITIA_DISPATCH=OFF"]
    options += [f"-DMPI_CXX_COMPILER={scripts / 'mpicxx'}", "-DCOMITIA_PYTHON=OFF", "-DCOMITIA_LAMMPS=ON"]
    for command in (["-S", str(ROOT / "ext"), "-B", "build", *options], ["--build", "build", "-j2"]):
        done = subprocess.run([cmake, *command], cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    load = "plugin load build/comitiaplugin.so"
    text = lmp(tmp_path, [load, *opening(atoms, SPECIES, "atoms.data", "model.safetensors"), "run 0"], tmp_path)
    assert "Total # of neighbors" in text
