"""What a reweighting costs: `python tests/benchmarks/bench_reweight.py`.

Averages of 50 observables under 64 members by the cumulant expansion, from text files as i-PI's tool takes them: the
whole command `comitia reweight`, which also gives errors and verdicts, against the whole command
`i-pi-committee-reweight POTS OBS --kt`, called once for all columns. Both are processes of their own on one thread,
in turns; CPU time of each, start included; printed is the median of the ratios of neighbours. `reading alone` is
`numpy.loadtxt` of the two files, without a process; `one call a column` is what `--index` for every observable would
take, from one such call. With --frames 100000 the files are of 285 MB.
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
from timing import ratio, stay_on_one_core

N_MEMBERS, N_OBSERVABLES, TEMPERATURE = 64, 50, 300.0
KT = TEMPERATURE * 3.1668115634556e-6  # hartree


def write_files(folder, n_frames):
    """Tables of member energies (hartree) and observables, as i-PI prints numbers with `floatformat='%24.16e'`."""
    rng = np.random.default_rng(1)
    with open(folder / "pots", "w") as potentials, open(folder / "obs", "w") as observables:
        for begin in range(0, n_frames, 1000):
            x = rng.normal(size=(min(1000, n_frames - begin), N_OBSERVABLES))
            spread = x[:, :1] + rng.normal(size=(len(x), N_MEMBERS))
            np.savetxt(potentials, 0.2 * KT * spread - 75, fmt="%24.16e")
            np.savetxt(observables, x + 1, fmt="%24.16e")


def cpu_time(command, folder):
    """CPU time of a command and what it printed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout


def difference(folder, printed):
    """Largest difference between the averages of the two, relative to their spread over members."""
    tool = np.loadtxt(printed.splitlines())[:, 2:]
    ours = np.array([average["members"] for average in json.loads((folder / "out.json").read_text())["averages"]])
    return float(np.abs(ours - tool).max() / tool.std(axis=1).max())


def measure(rounds, n_frames=20_000):
    """CPU times of the commands, their ratio, and whether they agree; at most five rounds."""
    tool = shutil.which("i-pi-committee-reweight", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    comitia = str(Path(sys.executable).with_name("comitia"))
    if tool is None:
        return {"missing": "i-pi-committee-reweight"}
    stay_on_one_core()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_files(folder, n_frames)
        ours = [comitia, "reweight", "--potentials", "pots", "--observable", f"obs:1-{N_OBSERVABLES}", "--json"]
        ours += ["out.json", "--temperature", str(TEMPERATURE)]
        theirs = [tool, "pots", "obs", "--kt", repr(KT)]
        for command in (ours, theirs):  # once without counting: files and modules are in the cache of the system then
            cpu_time(command, folder)
        times = {"i-PI": [], "comitia": [], "reading alone": []}
        one_column = cpu_time([*theirs, "--index", "0"], folder)[0]
        for _ in range(min(rounds, 5)):
            seconds, printed = cpu_time(theirs, folder)
            times["i-PI"].append(seconds)
            times["comitia"].append(cpu_time(ours, folder)[0])
            begin = time.process_time()
            for file in ("pots", "obs"):
                np.loadtxt(folder / file)
            times["reading alone"].append(time.process_time() - begin)
        times = {name: np.array(values) for name, values in times.items()}
        return {
            "frames": n_frames,
            "members": N_MEMBERS,
            "observables": N_OBSERVABLES,
            "cpu seconds": {name: float(np.median(values)) for name, values in times.items()},
            "one call a column": N_OBSERVABLES * one_column,
            "i-PI over comitia": ratio(times, "i-PI", "comitia"),
            "numpy.loadtxt over comitia": ratio(times, "reading alone", "comitia"),
            "difference over spread of members": difference(folder, printed),
        }


def report(results):
    """Print the numbers."""
    if "missing" in results:
        print(f"{results['missing']} is not installed")
        return
    print(f"{results['frames']} frames, {N_MEMBERS} members, {N_OBSERVABLES} observables, CPU time of the command:")
    for name, seconds in results["cpu seconds"].items():
        print(f"  {name:14s} {seconds:7.2f} s")
    print(f"  {'one call a column':14s} {results['one call a column']:7.2f} s (i-PI)")
    for name in ("i-PI over comitia", "numpy.loadtxt over comitia"):
        low, high = results[name]["quartiles"]
        print(f"{name}: {results[name]['median']:.1f} ({low:.1f} to {high:.1f})")
    print(
        f"largest difference of an average: {results['difference over spread of members']:.1e} of the members' spread"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=20_000, help="%(default)s")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds; %(default)s")
    parser.add_argument("--json", help="write the numbers here too")
    options = parser.parse_args()
    found = measure(options.rounds, options.frames)
    report(found)
    if options.json:
        Path(options.json).write_text(json.dumps(found, indent=1))
