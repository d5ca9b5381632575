"""Series that do not fit into memory."""

import json
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from comitia.units import KB

N_MEMBERS, TEMPERATURE = 64, 300.0

COMMAND = """
import re, sys
from pathlib import Path
from comitia.cli import main
sys.argv = ["comitia", *{arguments!r}]
try:
    main()
finally:
    # not ru_maxrss, which a child has from its parent
    print(int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024, file=sys.stderr)
"""


def write_series(path, n_frames):
    """Oscillators whose members differ in their stiffness: exact averages of x^2 are 1/(1 + s_k)."""
    rng = np.random.default_rng(7)
    stiffness = np.linspace(-0.02, 0.02, N_MEMBERS)
    with h5py.File(path, "w") as file:
        energies = file.create_dataset("energies", (n_frames, N_MEMBERS), dtype=float, chunks=(4096, N_MEMBERS))
        energies.attrs["unit"] = "eV"
        square = file.create_dataset("square", (n_frames,), dtype=float)
        file["step"] = np.arange(n_frames)
        for begin in range(0, n_frames, 10_000):
            x = rng.normal(size=min(10_000, n_frames - begin)) ** 2
            energies[begin : begin + len(x)] = 0.5 * KB * TEMPERATURE * x[:, None] * (1 + stiffness)
            square[begin : begin + len(x)] = x
    return 1 - stiffness  # what the first order makes of it


LONG = [pytest.param(method, 1_000_000, marks=pytest.mark.long) for method in ("cea", "direct")]


@pytest.mark.parametrize(("method", "n_frames"), [("cea", 50_000), *LONG])
def test_memory_does_not_grow_with_the_series(tmp_path, method, n_frames):
    """Peak of the whole command in MB; of a million frames the energies alone are 512."""
    expected = write_series(tmp_path / "run.h5", n_frames)
    arguments = ["reweight", "--potentials", "run.h5:energies", "--observable", "run.h5:square", "--method", method]
    arguments += ["--observable", "potentials", "--temperature", str(TEMPERATURE), "--json", "out.json"]
    done = subprocess.run(
        [sys.executable, "-c", COMMAND.format(arguments=arguments)],
        cwd=tmp_path, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stderr.split()[-1]) < 300
    found = json.loads(Path(tmp_path / "out.json").read_text())
    assert found["n_frames"] == n_frames
    average = found["averages"][0]
    if method == "cea":
        np.testing.assert_allclose(average["members"], expected, atol=5 * np.sqrt(2 / n_frames))
    assert abs(average["value"] - 1) < 5 * average["statistical_error"]
    assert average["verdict"] == "reliable"
