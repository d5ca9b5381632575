"""Timings in turns: every code is a process of its own, on one core, and is asked for one timing after another.

A process is asked by an empty line and answers with the CPU time of one evaluation (energy, forces, virial), in seconds
per atom, the mean over as many evaluations as make the timing long enough for the clock. A code that cannot be loaded
says why and is named as missing.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

LONG_ENOUGH = 0.01  # s of one timing
WARM_UP = 2  # timings of each path that do not count
SLOW, SELDOM = 0.1, 4  # paths that take longer to answer, s, are timed in every fourth round only
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"), "1")


def run_alone(doc, measure, report, rounds=40, plot=None):
    """The command line of one benchmark: how many rounds, and where the numbers and a figure of them go.

    Parameters
    ----------
    doc : what `--help` says
    measure : function of the number of rounds that returns the results
    report : function that prints them
    rounds : int, where none are asked for
    plot : function of the results and a path, or None
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=rounds, help="interleaved rounds; %(default)s")
    parser.add_argument("--json", help="write the numbers here too")
    if plot is not None:
        parser.add_argument("--plot", help="draw the numbers into this file")
    options = parser.parse_args()
    results = measure(options.rounds)
    report(results)
    if options.json:
        from comitia.files import write_json

        write_json(options.json, results)
    if plot is not None and options.plot and results:
        plot(results, options.plot)


def wall_clock(call):
    """Duration of one call, s."""
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def stay_on_one_core():
    """Bind this process, and what it starts, to the last of the cores it may use."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def serve(run, n_atoms):
    """Answer every line of the standard input with one timing of `run(n_steps)`, until the input ends."""
    run(1)
    begin = time.process_time()
    run(1)
    n_steps = int(np.clip(LONG_ENOUGH / max(time.process_time() - begin, 1e-6), 1, 1000))
    print("ready", flush=True)
    for _ in sys.stdin:
        begin = time.process_time()
        run(n_steps)
        print((time.process_time() - begin) / (n_steps * n_atoms), flush=True)


class Missing(Exception):
    """A code that is not installed, or does not start."""


class Code:
    """The process of one code on one system.

    Parameters
    ----------
    name : str, see codes.py; `NAME@SYSTEM` names another system
    system : str, see samples.py
    """

    def __init__(self, name, system):
        name, _, other = name.partition("@")
        self.process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("codes.py"), name, other or system],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env=os.environ | ONE_THREAD,
        )  # fmt: skip
        answer = self._read()
        if answer != "ready":
            self.close()
            raise Missing(answer or "ended without a word")

    def _read(self):
        return self.process.stdout.readline().strip()

    def seconds(self):
        """CPU time of one evaluation over the number of atoms."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return float(self._read())

    def close(self):
        """End the process."""
        self.process.stdin.close()
        self.process.wait(timeout=60)


def interleave(paths, n_rounds):
    """Time several paths in turns, in an order that changes from round to round, so that none always comes first.

    Parameters
    ----------
    paths : {name: function that returns seconds}
    n_rounds : int

    Returns
    -------
    {name: (n_rounds,) array, s}; NaN in the rounds that a slow one was left out of
    """
    slow = set()
    for name, path in paths.items():
        for _ in range(WARM_UP):
            begin = time.perf_counter()
            path()
        if time.perf_counter() - begin > SLOW:
            slow.add(name)
    times = {name: np.full(n_rounds, np.nan) for name in paths}
    for round_ in range(n_rounds):
        for name in np.roll(list(paths), round_):
            if round_ % SELDOM == 0 or name not in slow:
                times[name][round_] = paths[name]()
    return times


def time_codes(names, system, n_rounds):
    """Times of codes on one system.

    Returns
    -------
    {name: (n_rounds,) array, s}, {name: why it is missing}
    """
    running, missing = {}, {}
    try:
        for name in names:
            try:
                running[name] = Code(name, system)
            except Missing as reason:
                missing[name] = str(reason)
        return interleave({name: code.seconds for name, code in running.items()}, n_rounds), missing
    finally:
        for code in running.values():
            code.close()


def ratio(times, name, other):
    """Median over rounds of the ratio of two paths, and its quartiles."""
    low, median, high = np.nanpercentile(times[name] / times[other], [25, 50, 75])
    return {"median": float(median), "quartiles": [float(low), float(high)]}


def summary(times):
    """Least and median time of each path, µs/atom, and in how many rounds it was timed.

    Parameters
    ----------
    times : {name: array, s per atom}
    """
    return {
        name: {
            "minimum": float(np.nanmin(values)) * 1e6,
            "median": float(np.nanmedian(values)) * 1e6,
            "timings": int(np.isfinite(values).sum()),
        }
        for name, values in times.items()
    }
