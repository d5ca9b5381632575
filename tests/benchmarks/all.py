"""Every benchmark with one command: `python tests/benchmarks/all.py --json results.json --plot front.png`.

Takes about twenty minutes on a machine that should do nothing else. What is measured is said in each bench_*.py,
which can be run alone as well. Peers: `pip install '.[test]' featomic calorine nep-adapters`; one that is not there is
named as missing.
"""

import argparse
import importlib.metadata
import os
import platform
import time

import bench_committee
import bench_elements
import bench_fit
import bench_front
import bench_kernels
import bench_lammps
import bench_neighbours
import bench_reweight
import bench_server
import bench_swaps
import bench_threads
import peak

PARTS = {
    "kernels": bench_kernels,
    "elements": bench_elements,
    "committee": bench_committee,
    "neighbours": bench_neighbours,
    "swaps": bench_swaps,
    "threads": bench_threads,
    "server": bench_server,
    "lammps": bench_lammps,
    "fit": bench_fit,
    "reweight": bench_reweight,
    "front": bench_front,
}
PACKAGES = ("comitia", "numpy", "lammps", "featomic", "sphericart", "vesin", "calorine", "nep-adapters")


def versions():
    """Version of each package, None where it is not installed."""
    found = dict.fromkeys(PACKAGES)
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="some of the parts")
    parser.add_argument("--rounds", type=int, default=40, help="interleaved rounds of each part")
    parser.add_argument("--json", help="write the numbers here too")
    parser.add_argument("--plot", help="draw error against cost into this file")
    options = parser.parse_args()

    results = {
        "date": time.strftime("%Y-%m-%d"),
        "processor": peak.processor(),
        "n_cores": len(os.sched_getaffinity(0)),
        "load_average": os.getloadavg()[0],
        "python": platform.python_version(),
        "versions": versions(),
        "gflops_of_one_core": peak.measure(),
    }
    print(f"{results['processor']}, {results['n_cores']} cores, load {results['load_average']:.2f} at the start")
    for what, value in results["gflops_of_one_core"].items():
        print(f"  {what:26s}{value:8.1f} GFlop/s")
    for name in options.only:
        print(f"\n== {name}", flush=True)
        results[name] = PARTS[name].measure(options.rounds)
        PARTS[name].report(results[name])
    if options.json:
        from comitia.files import write_json

        write_json(options.json, results)
    if options.plot and results.get("front"):
        bench_front.plot(results["front"], options.plot)


if __name__ == "__main__":
    main()
