"""What a reweighting costs: `python tests/benchmarks/bench_reweight.py`.

Averages of 50 observables under 64 members by the cumulant expansion, from text files as i-PI's tool takes them: the
whole command `comitia reweight`, which also gives errors and verdicts, against the whole command
`i-pi-committee-reweight POTS OBS --kt`. Called so, without `--index` and without `--multi-obs`, the tool computes the
averages of every column of OBS in one call, and they are right (the largest difference from ours is printed); its
`--multi-obs` swaps potentials and observables, and gives one wrong number for all columns. One call for all columns is
therefore how it must be called, and what is compared. `one call a column` is what `--index` for every observable would
take, from one such call. Both commands are processes of their own, in turns, on all cores of the machine but with one
thread of BLAS; time on the clock, and CPU time, of each, start included; printed are the medians of the ratios of
neighbours. Python may keep its bytecode, as after any installation. The files are of 285 MB.
"""

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from timing import ratio

N_MEMBERS, N_OBSERVABLES, TEMPERATURE = 64, 50, 300.0
KT = TEMPERATURE * 3.1668115634556e-6  # hartree


def write_files(folder, n_frames):
    """Tables of member energies (hartree) and observables, as i-PI prints numbers with `floatformat='%24.16e'`."""
    rng = np.random.default_rng(1)
    with open(folder / "pots", "w") as potentials, open(folder / "obs", "w") as observables:
        for begin in range(0, n_frames, 1000):
            x = rng.normal(size=(min(1000, n_frames - begin), N_OBSERVABLES))
            spread = x[:, :1] + rng.normal(size=(len(x), N_MEMBERS))
            for file, table in ((potentials, 0.2 * KT * spread - 75), (observables, x + 1)):
                row = " ".join(["%24.16e"] * table.shape[1]) + "\n"
                file.writelines(row % tuple(numbers) for numbers in table.tolist())


def run(command, folder):
    """Seconds on the clock and of CPU time that a command takes, and what it printed."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    begin, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, text=True)
    wall, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall": wall, "CPU": cpu}, done.stdout


def difference(folder, printed):
    """Largest difference between the averages of the two, relative to their spread over members."""
    tool = np.loadtxt(printed.splitlines())[:, 2:]
    ours = np.array([average["members"] for average in json.loads((folder / "out.json").read_text())["averages"]])
    return float(np.abs(ours - tool).max() / tool.std(axis=1).max())


def measure(rounds, n_frames=100_000):
    """Times of the commands, their ratios, and whether they agree; at most nine rounds."""
    tool = shutil.which("i-pi-committee-reweight", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    comitia = str(Path(sys.executable).with_name("comitia"))
    if tool is None:
        return {"missing": "i-pi-committee-reweight"}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_files(folder, n_frames)
        ours = [comitia, "reweight", "--potentials", "pots", "--observable", f"obs:1-{N_OBSERVABLES}", "--json"]
        ours += ["out.json", "--temperature", str(TEMPERATURE)]
        theirs = [tool, "pots", "obs", "--kt", repr(KT)]
        run(ours, folder)  # without counting: files and modules are in the cache of the system then
        one_column, _ = run([*theirs, "--index", "0"], folder)
        times = {(clock, code): [] for clock in ("wall", "CPU") for code in ("i-PI", "comitia")}
        for _ in range(min(rounds, 9)):
            seconds, printed = run(theirs, folder)
            for code, found in (("i-PI", seconds), ("comitia", run(ours, folder)[0])):
                for clock, value in found.items():
                    times[clock, code].append(value)
        times = {name: np.array(values) for name, values in times.items()}
        return {
            "frames": n_frames,
            "members": N_MEMBERS,
            "observables": N_OBSERVABLES,
            "cores": len(os.sched_getaffinity(0)),
            "seconds": {" ".join(name): float(np.median(values)) for name, values in times.items()},
            "one call a column": {clock: N_OBSERVABLES * seconds for clock, seconds in one_column.items()},
            "i-PI over comitia": {clock: ratio(times, (clock, "i-PI"), (clock, "comitia")) for clock in one_column},
            "difference over spread of members": difference(folder, printed),
        }


def report(results):
    """Print the numbers."""
    if "missing" in results:
        print(f"{results['missing']} is not installed")
        return
    print(
        f"{results['frames']} frames, {N_MEMBERS} members, {N_OBSERVABLES} observables, the whole command on "
        f"{results['cores']} cores:"
    )
    for name, seconds in results["seconds"].items():
        print(f"  {name:14s} {seconds:7.2f} s")
    for clock, found in results["i-PI over comitia"].items():
        low, high = found["quartiles"]
        print(
            f"i-PI over comitia, {clock}: {found['median']:.1f} ({low:.1f} to {high:.1f}); one call a column "
            f"{results['one call a column'][clock]:.0f} s"
        )
    print(
        f"largest difference of an average: {results['difference over spread of members']:.1e} of the members' spread"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=100_000, help="%(default)s")
    parser.add_argument("--rounds", type=int, default=7, help="interleaved rounds, at most 9; %(default)s")
    parser.add_argument("--json", help="write the numbers here too")
    options = parser.parse_args()
    found = measure(options.rounds, options.frames)
    report(found)
    if options.json:
        Path(options.json).write_text(json.dumps(found, indent=1))
