#!/usr/bin/env python
"""The study beside the true potential, and i-PI beside LAMMPS: a table, a figure, and whether they agree.

    python compare.py quick            # after `comitia run study.yaml`, and swap.in with the committee, see README.md
    python compare.py --true FOLDER    # writes data/truth.json from runs of swap.in with the true potential

Errors of the study are its total errors, of the others statistical ones.
"""

import argparse
import itertools
import json
import sys
from pathlib import Path

import ase.io
import numpy as np

from comitia.engines.ipi_files import bead_files
from comitia.engines.ipi_trajectory import read_trajectory
from comitia.engines.replica_exchange import find_exchange
from comitia.files import write_json
from comitia.report.plots import COLOURS, png_figure
from comitia.study.collective_variables import parse
from comitia.study.settings import read_study
from comitia.thermodynamics import error_of_mean

HERE = Path(__file__).resolve().parent
TEMPERATURES = (1000, 1150, 1320, 1520)  # K
# Deviations in units of errors that come from 16 members are Student's t of 15 degrees of freedom. The 40 parameters
# depend on each other and count for some 20: their root mean square is beyond 1.5, or the largest beyond 5, once in
# 60 times.
LARGEST, LARGEST_RMS = 5.0, 1.5
PER_STEP = 1.0  # exchanges tried in exchange.xml, on average


def pairs():
    """The collective variable of every observable of the study that is one."""
    study, _, _ = read_study(HERE / "study.yaml")
    return {name: observable.cv for name, observable in study.observables.items() if observable.cv is not None}


def of_lammps(paths):
    """Averages of runs of swap.in at one temperature: name -> (value, error), with the fraction of accepted exchanges.

    Runs are averaged by their inverse variances, and so are the fractions by what was tried.
    """
    runs = []
    for path in paths:
        frames = ase.io.read(path, ":", format="lammps-dump-text")
        series = {
            name: np.array([float(parse(cv, name, f.numbers)(f.positions, f.cell.array)) for f in frames])
            for name, cv in pairs().items()
        }
        runs.append({name: (values.mean(), error_of_mean(values)) for name, values in series.items()})
    weights = {name: np.array([run[name][1] ** -2 for run in runs]) for name in runs[0]}
    found = {
        name: (np.dot(w, [run[name][0] for run in runs]) / w.sum(), w.sum() ** -0.5) for name, w in weights.items()
    }
    tried, accepted = np.sum([_exchanges(path.with_suffix(".log")) for path in paths], axis=0)
    return {name: list(map(float, value)) for name, value in found.items()} | {"acceptance": _fraction(accepted, tried)}


def _exchanges(log):
    """Exchanges tried and accepted between the first and the last line of the second run of a log."""
    rows, begun = [], 0
    for line in log.read_text().splitlines():
        begun += line.split()[:1] == ["Step"]
        if begun == 2 and line.split() and line.split()[0].isdigit() and len(line.split()) == 6:
            rows.append([float(word) for word in line.split()[4:]])
    return np.subtract(rows[-1], rows[0])


def _fraction(accepted, tried):
    """A fraction and its error, with the correlation of exchanges left out."""
    fraction = accepted / tried
    return [float(fraction), float(np.sqrt(fraction * (1 - fraction) / tried))]


def of_ipi(folder, first_step):
    """Fraction of accepted exchanges at each temperature, from the sites of a crystal where nothing diffuses.

    Which atom is on which site changes by exchanges only. A permutation with c cycles of n atoms is made of n - c
    exchanges at least; of the few between two frames hardly one undoes another.
    """
    files = sorted(folder.glob("*_alloy.pos_0.xyz"))
    exchange = find_exchange(files[0])
    sites = ase.io.read(HERE / "alloy.xyz")
    accepted, tried = np.zeros(len(files)), np.zeros(len(files))
    for replica, path in enumerate(files):
        trajectory = read_trajectory(bead_files(path))
        frames = np.flatnonzero(trajectory.steps >= first_step)
        places = [_places(positions, sites) for positions in trajectory.positions[frames, 0]]
        known = [number for number, place in enumerate(places) if place is not None]
        for before, after in itertools.pairwise(known):
            begin, end = trajectory.steps[frames[[before, after]]]
            # within this stretch the replica may change its ensemble once; most of it lies in the later one
            ensemble = exchange.ensembles[np.searchsorted(exchange.steps, end, side="left"), replica]
            accepted[ensemble] += _exchanges_between(places[before], places[after])
            tried[ensemble] += PER_STEP * (end - begin)
    return {round(t): _fraction(a, n) for t, a, n in zip(exchange.temperatures, accepted, tried, strict=True)}


def _places(positions, sites):
    """The site of every atom, the nearest one; None where an atom is so far from it that another is nearer."""
    vectors = (positions - positions.mean(axis=0))[:, None] - (sites.positions - sites.positions.mean(axis=0))
    lengths = sites.cell.lengths()
    vectors -= lengths * np.round(vectors / lengths)
    nearest = np.argmin(np.einsum("ijk,ijk->ij", vectors, vectors), axis=1)
    return nearest if len(np.unique(nearest)) == len(nearest) else None


def _exchanges_between(before, after):
    """Fewest exchanges that take one placing of atoms to another: atoms less cycles of the permutation."""
    atom_at = np.argsort(after)
    following = atom_at[before]  # whose place after is that of each atom before
    n_cycles, seen = 0, np.zeros(len(before), dtype=bool)
    for first in range(len(before)):
        n_cycles += not seen[first]
        atom = first
        while not seen[atom]:
            seen[atom] = True
            atom = following[atom]
    return len(before) - n_cycles


def deviations(first, second):
    """Differences in units of their errors, of the names that both have."""
    return {
        name: (first[name][0] - second[name][0]) / np.hypot(first[name][1], second[name][1])
        for name in first
        if name in second
    }


def draw(study, truth, lammps, path):
    """Every parameter against temperature: the study's, the true one, and LAMMPS with the committee."""
    with png_figure(path, (9.0, 4.6)) as figure:
        panels = figure.subplots(2, 5, sharex=True, sharey=True).ravel()
        for panel, name in zip(panels, pairs(), strict=True):
            for found, shift, colour, marker, label in (
                (study, 0, COLOURS[1], "o", "committee, i-PI"),
                (lammps, -12, COLOURS[2], "s", "committee, LAMMPS"),
                (truth, 12, COLOURS[0], "D", "true potential"),
            ):
                x = [t + shift for t in TEMPERATURES if t in found]
                value, error = np.array([found[t][name][:2] for t in TEMPERATURES if t in found]).reshape(-1, 2).T
                panel.errorbar(x, value, error, fmt=marker, ms=3, lw=1, color=colour, label=label)
            for t, (value, _, committee) in ((t, study[t][name]) for t in TEMPERATURES):
                panel.errorbar([t], [value], [committee], lw=3, alpha=0.4, color=COLOURS[1])
            panel.axhline(0, color="0.7", lw=0.6)
            panel.set_title("–".join(pairs()[name]["short_range_order"]["pair"]))
        panels[0].legend(fontsize=7)
        figure.supxlabel("temperature / K")
        figure.supylabel("Warren–Cowley parameter")


def of_study(folder):
    """The parameters at each temperature: value, total error, committee error; swap acceptance with its error."""
    results = json.loads((folder / "results.json").read_text())
    accepted = of_ipi(folder / "sample" / "exchange", next(iter(results["samples"].values()))["first_step"])
    return {
        t: {
            name: [results["observables"][f"{name}_{t}K"][key] for key in ("value", "total_error", "committee_error")]
            for name in pairs()
        }
        | {"acceptance": accepted[t]}
        for t in TEMPERATURES
    }


def statistical(study, folder):
    """The same with statistical errors, to be compared with another sampler of the same committee."""
    averages = json.loads((folder / "results.json").read_text())["observables"]
    return {
        t: {name: [value[0], averages[f"{name}_{t}K"]["statistical_error"]] for name, value in study[t].items()
            if name != "acceptance"} | {"acceptance": study[t]["acceptance"]}
        for t in TEMPERATURES
    }  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of the study's results, or of the true runs")
    parser.add_argument("--true", action="store_true", help="write data/truth.json from true_*K*.dump")
    given = parser.parse_args()
    if given.true:
        runs = {t: sorted(given.folder.glob(f"true_{t}K*.dump")) for t in TEMPERATURES}
        write_json(HERE / "data" / "truth.json", {t: of_lammps(paths) for t, paths in runs.items() if paths})
        return 0
    study = of_study(given.folder)
    truth = {int(t): found for t, found in json.loads((HERE / "data" / "truth.json").read_text()).items()}
    runs = {t: sorted(given.folder.glob(f"committee_{t}K*.dump")) for t in TEMPERATURES}
    lammps = {t: of_lammps(paths) for t, paths in runs.items() if paths}
    draw(study, truth, lammps, given.folder / "compare.png")
    compared = {
        "study_against_truth": {t: deviations(study[t], truth[t]) for t in truth},
        "ipi_against_lammps": {t: deviations(statistical(study, given.folder)[t], lammps[t]) for t in lammps},
    }
    write_json(given.folder / "compare.json", {"study": study, "truth": truth, "lammps": lammps, **compared})
    agree = True
    for what, of_temperature in compared.items():
        order = []
        for t, found in of_temperature.items():
            print(f"{what}  {t} K  " + "  ".join(f"{name} {value:+.1f}" for name, value in found.items()))
            order += [value for name, value in found.items() if what == "ipi_against_lammps" or name != "acceptance"]
        if order:
            largest, rms = np.abs(order).max(), np.sqrt(np.mean(np.square(order)))
            print(f"{what}: rms {rms:.2f}, largest {largest:.1f} (at most {LARGEST_RMS} and {LARGEST} are expected)")
            agree &= bool(largest <= LARGEST and rms <= LARGEST_RMS)
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
