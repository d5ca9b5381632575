"""The memory of a fit: a bound that holds, stated; a refusal where there clearly is none, and only there."""

import tracemalloc
import warnings

import numpy as np
import pytest
from ase.io.extxyz import write_xyz
from fits import BASIS, CUTOFF, labelled

from comitia.errors import SettingsError
from comitia.settings import convert
from comitia.training import FitSettings, fit, memory
from comitia.training.normal_equations import NormalEquations

GIB = 1 << 30


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("memory")
    write_xyz(folder / "data.xyz", labelled(20))
    return folder


def run(folder, output):
    settings = convert({"data": "data.xyz", "cutoff": CUTOFF, "basis": BASIS, "members": 2}, FitSettings, "test")
    return fit(settings, folder, output, progress=False)


def test_sums_of_many_rows_stay_below_the_bound():
    rng, n_columns, n_groups = np.random.default_rng(0), 60, 4
    equations, rows = NormalEquations(n_groups, n_columns), rng.normal(size=(300, n_columns))
    tracemalloc.start()
    for number in range(200):
        equations.add(number % n_groups, "forces", rows, rows[:, 0])
    for group in range(n_groups):
        equations.condense(group)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 2 * 8 * n_groups * n_columns**2
    # here all groups are filled at once, as by as many threads
    assert peak < memory.fit_memory(n_columns, n_groups, n_groups, 100) - memory.BASE


def test_the_report_states_the_memory(folder, tmp_path):
    found = run(folder, tmp_path / "m.safetensors").report["memory"]
    assert found["unit"] == "bytes"
    assert 0 < found["peak"] < 16 * GIB
    assert memory.BASE < found["estimate"] < 2 * GIB


def test_a_fit_that_clearly_has_no_room_is_refused(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 100 << 20)
    with pytest.raises(SettingsError, match=r"columns in \d+ groups need about 0.\d GiB of memory, 0.1 GiB are free"):
        run(folder, tmp_path / "m.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("available", "warned"), [(None, 0), (40 * GIB, 0), (10 * GIB, 0), (9 * GIB, 1), (7 * GIB, 1)])
def test_a_fit_that_may_find_room_goes_on(monkeypatch, available, warned):
    monkeypatch.setattr(memory, "available_memory", lambda: available)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        memory.check_memory(10 * GIB, 2000, 32)
    assert len(found) == warned


# files of control groups -> bytes that are left below a machine of 8 GiB and 1 GiB of swap
CONTAINERS = {
    "none": ("0::/\n", {}, 9 * GIB),
    "no limit": ("0::/\n", {"memory.max": "max\n", "memory.current": "4096\n", "memory.stat": "anon 1\n"}, 9 * GIB),
    "version 2": (
        "0::/a/b\n",
        {"a/memory.max": f"{4 * GIB}\n", "a/memory.current": f"{3 * GIB}\n", "a/memory.stat": f"inactive_file {GIB}\n"},
        2 * GIB,
    ),
    "version 2, seen from inside": (
        "0::/../x\n",
        {"memory.max": f"{2 * GIB}\n", "memory.current": f"{GIB}\n", "memory.stat": "anon 1\n"},
        GIB,
    ),
    "version 1": (
        "5:cpu,cpuacct:/\n4:memory:/docker/1\n",
        {
            "memory/docker/1/memory.limit_in_bytes": f"{3 * GIB}\n",
            "memory/docker/1/memory.usage_in_bytes": f"{GIB}\n",
            "memory/docker/1/memory.stat": "cache 5\ntotal_inactive_file 0\n",
        },
        2 * GIB,
    ),
    "version 1 without limit": (
        "4:memory:/\n",
        {
            "memory/memory.limit_in_bytes": "9223372036854771712\n",
            "memory/memory.usage_in_bytes": f"{GIB}\n",
            "memory/memory.stat": "total_inactive_file 0\n",
        },
        9 * GIB,
    ),
    "nonsense": ("what\n", {"memory.max": "?"}, 9 * GIB),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_limits_of_containers(tmp_path, monkeypatch, name):
    groups, files, expected = CONTAINERS[name]
    monkeypatch.setattr(memory, "PROC", tmp_path / "proc")
    monkeypatch.setattr(memory, "CGROUPS", tmp_path / "groups")
    files = {f"groups/{path}": text for path, text in files.items()} | {"proc/self/cgroup": groups}
    machine = f"MemTotal: 1 kB\nMemAvailable:   {8 << 20} kB\nSwapFree: {1 << 20} kB\nHugePages_Total: 0\n"
    files["proc/meminfo"] = machine
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    assert memory.available_memory() == expected


def test_a_machine_without_proc_says_what_it_has(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "PROC", tmp_path)
    assert memory.available_memory() > 0
