"""Energy, forces and virial of one evaluation against other codes: `python tests/benchmarks/bench_kernels.py`.

Every code is a process of its own on the same core with one thread, evaluates the same atoms, and is timed in turns
with the others in CPU time; positions stand still and neighbour lists are kept where a code can keep them. Printed are
the least and the median time, and the medians of the ratios of neighbouring timings; and how far the forces of the
kernels of single precision are from those of doubles, with weights that were fitted.
"""

import precision
from codes import SINGLE, WHAT
from samples import CUTOFF, SYSTEMS
from timing import ratio, run_alone, summary, time_codes

OURS = ["comitia order 2", "comitia order 3"]
OURS_SINGLE = [name + SINGLE for name in OURS]
NEP = ["nep (nep-adapters)", "nep (calorine)"]
TABLES = {  # `tersoff` on silicon is the yardstick of every table
    "si512": [*OURS, *OURS_SINGLE, "tersoff", "sw", "snap", "pod", "uf3", *NEP, "featomic", "sphericart", "vesin"],
    "water192": [*OURS, "tersoff@si512", *NEP, "featomic"],
    "cu500": [*OURS, "tersoff@si512", "eam", "snap", *NEP],
}


def measure(n_rounds):
    """Times of every code on every system, and ratios of ours to theirs."""
    results = {}
    for system, names in TABLES.items():
        times, missing = time_codes(names, system, n_rounds)
        results[system] = {
            "n_atoms": len(SYSTEMS[system]()),
            "cutoff": CUTOFF[system],
            "rounds": n_rounds,
            "microseconds_per_atom": summary(times),
            "ratios": {
                name: {other: ratio(times, name, other) for other in times if other not in OURS}
                for name in OURS
                if name in times
            },
            "missing": missing,
        }
    results["si512"]["single_precision"] = precision.ask(OURS)
    return results


def report(results):
    """Print the tables."""
    for system, table in results.items():
        print(f"{system}: {table['n_atoms']} atoms, cutoff {table['cutoff']} Å, energy + forces + virial")
        print(f"  {'µs/atom':26s}{'least':>9s}{'median':>9s}" + "".join(f"{name:>17s}" for name in table["ratios"]))
        for name, one in table["microseconds_per_atom"].items():
            ratios = [ours.get(name) for ours in table["ratios"].values()]
            columns = "".join(f"{r['median']:15.4f} ×" if r else " " * 17 for r in ratios)
            note = WHAT.get(name)
            print(f"  {name:26s}{one['minimum']:9.2f}{one['median']:9.2f}{columns}" + (f"   ({note})" if note else ""))
        for name, reason in table["missing"].items():
            print(f"  {name:26s} missing: {reason}")
        for name, largest in (table.get("single_precision") or {}).items():
            print(f"  {name}: forces of float32 differ by {largest:.1e} eV/Å at most")


if __name__ == "__main__":
    run_alone(__doc__, measure, report)
