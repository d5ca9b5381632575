"""The melting temperature of silicon by a pinned interface: of a fitted potential, and of the one it was fitted to.

    python run.py                 # quick: both, minutes; results and figure in quick/
    python run.py long            # the true potential alone, from the series in data/long.npz; in long/
    python run.py long --sample   # samples these series, most of an hour

A run that is complete is not repeated.
"""

import argparse
import contextlib
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from coexistence import coexistence, moving_interface

from comitia.engines.lammps import import_lammps
from comitia.files import whole_file, write_json
from comitia.study.expected import compare

HERE = Path(__file__).resolve().parent
MODEL = "model.safetensors"
STORED = HERE / "data" / "long.npz"
PHASES = ("crystal", "melt", "pinned")
TEMPERATURE, N_ATOMS = 1690.0, 432  # K; of coexistence.lammps
FORCE_CONSTANT, CENTRE = 0.0015, 390.0  # eV; of pinned.dat
TIME_STEP, INTERVAL = 0.002, 50  # ps; steps between frames
HEIGHTS = (3.25, 2.75)  # cells of crystal at the beginning, of even and of odd seeds: it melts, or it grows
# first seed; runs of each phase, and steps of each of them
SETTINGS = {
    "quick": {
        "potentials": ("fitted", "true"),
        "seed": 101,
        "crystal": (1, 4000),
        "melt": (1, 4000),
        "pinned": (1, 25000),
    },
    "long": {"potentials": ("true",), "seed": 1, "crystal": (1, 20000), "melt": (1, 20000), "pinned": (6, 75000)},
}
QUANTITIES = {"chemical_potential": "eV", "fusion_enthalpy": "eV", "melting_temperature": "K"}


def comitia(*arguments, folder):
    """A command of comitia in a folder, where its output goes into a file."""
    with open(folder / "out.log", "w") as log:
        done = subprocess.run(
            [sys.executable, "-m", "comitia.cli", *map(str, arguments)],
            cwd=folder,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    if done.returncode:
        sys.exit(f"comitia {arguments[0]} failed; see {folder / 'out.log'}")


def sample(folder, potential, phase, seed, n_steps):
    """Run LAMMPS, unless it was run; then the true energies of frames that the committee sampled."""
    finished = folder / "finished"
    if finished.is_file() and len(read(folder, potential)[0]) > n_steps // INTERVAL:
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for path in [*HERE.glob("*.lammps"), *HERE.glob("*.dat"), HERE / "silicon.sw"]:
        shutil.copy(path, folder)
    model = ["--model", folder.parent / MODEL] if potential == "fitted" else []
    variables = {"phase": phase, "seed": seed, "steps": n_steps, "height": HEIGHTS[seed % 2]}
    if potential == "fitted":
        variables |= {"potential": "model.lammps", "positions": "yes"}
    else:
        variables["potential"] = "sw.lammps"
    given = [word for name, value in variables.items() for word in ("-var", name, value)]
    bias = "pinned.dat" if phase == "pinned" else "bulk.dat"
    print(folder.name, flush=True)
    comitia(
        "lammps", "run", "coexistence.lammps", *model, "--threads", 1, "--plumed", bias, "--", *given, folder=folder
    )
    if potential == "fitted":
        with contextlib.chdir(folder):
            lmp = import_lammps().lammps(cmdargs=["-log", "none", "-screen", "none"])
            lmp.file("reference.lammps")
            lmp.close()
    finished.touch()


def read(folder, potential):
    """Order parameter (n_frames,) and potential energies (n_frames, n_potentials), eV, of a run, at the same steps.

    The potentials are the members of a committee and the true one, or the true one alone.
    """
    rows = np.loadtxt(folder / "series.txt", ndmin=2)
    order = {round(time / TIME_STEP): q for time, q in np.loadtxt(folder / "COLVAR", usecols=(0, 1), ndmin=2)}
    if potential == "true":
        energies = rows[:, 2:3] - rows[:, -1:]  # without the bias
    else:
        true = dict(np.loadtxt(folder / "reference.txt", ndmin=2))
        energies = np.column_stack([rows[:, 5:-1], [true[step] for step in rows[:, 0]]])  # before: the uncertainty
    return np.array([order[step] for step in rows[:, 0].astype(int)]), energies


def sampled(folder, setting, first_seed):
    """Series of every phase of every potential, a list of runs: {potential: {phase: [(Q, energies), ...]}}."""
    folder.mkdir(exist_ok=True)
    if "fitted" in setting["potentials"] and not (folder / MODEL).is_file():
        comitia("fit", HERE / "fit.yaml", "-o", MODEL, folder=folder)
    runs = {}
    for potential in setting["potentials"]:
        runs[potential] = {}
        for phase in PHASES:
            n_runs, n_steps = setting[phase]
            runs[potential][phase] = []
            for seed in range(first_seed, first_seed + n_runs):
                of_run = folder / f"{potential}_{phase}_{seed}"
                sample(of_run, potential, phase, seed, n_steps)
                runs[potential][phase].append(read(of_run, potential))
    return runs


def stored():
    """The series of the true potential that were sampled before."""
    with np.load(STORED) as file:
        return {
            phase: list(zip(file[f"{phase}_order"], file[f"{phase}_energies"][..., None], strict=True))
            for phase in PHASES
        }


def store(runs):
    """Keep the series of the true potential, rounded to a thousandth of their fluctuations."""
    arrays = {}
    for phase, of_phase in runs.items():
        arrays[f"{phase}_order"] = np.array([order for order, _ in of_phase]).round(2).astype(np.float32)
        arrays[f"{phase}_energies"] = np.array([energies[:, 0] for _, energies in of_phase]).round(2)
    with whole_file(STORED) as file:
        np.savez_compressed(file, **arrays)


def joined(runs):
    """The runs of a phase as one series (Q, energies), and how long it is in ps."""
    order, energies = (np.concatenate(parts) for parts in zip(*runs, strict=True))
    return (order, energies), INTERVAL * TIME_STEP * len(order)


def interface_of(phases):
    """The interface of the long runs of the true potential."""
    crystal, melt = (joined(phases[phase])[0][0].mean() for phase in ("crystal", "melt"))
    orders, energies = (np.array(parts) for parts in zip(*phases["pinned"], strict=True))
    duration = INTERVAL * TIME_STEP * orders.size
    return moving_interface(orders, energies[..., 0], duration, TEMPERATURE, FORCE_CONSTANT, (crystal - melt) / N_ATOMS)


def analysed(phases, interface):
    """Results of one potential, as they stand in results.json."""
    series = [joined(phases[phase])[0] for phase in PHASES]
    duration = joined(phases["pinned"])[1]
    n_potentials = series[0][1].shape[1]
    found, independent, verdict, reason = coexistence(
        *series, TEMPERATURE, FORCE_CONSTANT, CENTRE, N_ATOMS, duration, interface, reference=n_potentials > 1
    )
    results = {name: found[name][0].as_dict(unit) for name, unit in QUANTITIES.items()}
    results |= {"duration": duration, "independent_places": independent, "verdict": verdict, "reason": reason}
    if n_potentials > 1:
        results["true_minus_fitted"] = {name: found[name][1].as_dict(unit) for name, unit in QUANTITIES.items()}
        for name, of_committee in results["true_minus_fitted"].items():
            error = np.hypot(of_committee["statistical_error"], results[name]["committee_error"])
            of_committee["standard_deviations"] = float(abs(of_committee["value"]) / error)
    return results


def repeated(long, n_frames, interface):
    """Melting temperatures of pieces of the long runs, with their errors, and their rms deviation in errors."""
    pieces = []
    for order, energies in long["pinned"]:
        for start in range(0, len(order) - n_frames + 1, n_frames):
            part = slice(start, start + n_frames)
            pieces.append(
                analysed(long | {"pinned": [(order[part], energies[part])]}, interface)["melting_temperature"]
            )
    values, errors = (np.array([piece[key] for piece in pieces]) for key in ("value", "statistical_error"))
    z = (values - values.mean()) / errors
    return {
        "duration": INTERVAL * TIME_STEP * n_frames,
        "values": values.tolist(),
        "errors": errors.tolist(),
        "rms_error": float(np.sqrt(np.mean(errors**2))),
        "standard_deviation": float(values.std(ddof=1)),
        "rms_deviation_in_errors": float(np.sqrt(np.sum(z**2) / (len(z) - 1))),
    }


def report(results):
    """Print what results.json says."""
    for potential, found in results["potentials"].items():
        print(f"\n{potential}: {found['duration']:.0f} ps, {found['verdict']} {found['reason']}")
        for name, unit in QUANTITIES.items():
            text = f"  {name:20s} {found[name]['value']:10.4f} ± {found[name]['statistical_error']:.4f}"
            if found[name]["committee_error"] is not None:
                shift = found["true_minus_fitted"][name]
                text += f" ± {found[name]['committee_error']:.4f} (committee); true potential, same frames: "
                text += f"{shift['value']:+.4f} ± {shift['statistical_error']:.4f}"
            print(text, unit)
    for name, found in results.get("repeated", {}).items():
        spread = f"{found['standard_deviation']:.0f} K apart, {found['rms_deviation_in_errors']:.2f} of their errors"
        print(f"{len(found['values'])} of {found['duration']:.0f} ps ({name}): {spread}, {found['rms_error']:.0f} K")
    for name, compared in results.get("fitted_minus_true", {}).items():
        print(f"fitted less true, {name}: {compared['value']:.4f} ± {compared['error']:.4f} {QUANTITIES[name]}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("setting", nargs="?", default="quick", choices=list(SETTINGS))
    parser.add_argument("--sample", action="store_true", help="long: sample again, and store the series")
    parser.add_argument("--seed", type=int, help="first seed of the runs")
    parser.add_argument("--check", type=Path, help="expected.json to compare with")
    arguments = parser.parse_args()
    setting = SETTINGS[arguments.setting]
    seed = setting["seed"] if arguments.seed is None else arguments.seed
    folder = HERE / arguments.setting
    folder.mkdir(exist_ok=True)
    if arguments.setting == "long" and arguments.sample:
        store(sampled(folder, setting, seed)["true"])
    long = stored()
    interface = interface_of(long)
    runs = {"true": long} if arguments.setting == "long" else sampled(folder, setting, seed)
    results = {"mobility": {"value": interface.mobility, "unit": "atoms^2/ps"}}
    results["memory"] = {"value": interface.memory, "unit": "ps"}
    results["potentials"] = {potential: analysed(phases, interface) for potential, phases in runs.items()}
    if len(runs) == 2:
        results["fitted_minus_true"] = {}
        for name in QUANTITIES:
            fitted, true = (results["potentials"][potential][name] for potential in ("fitted", "true"))
            error = float(np.hypot(fitted["total_error"], true["total_error"]))
            difference = fitted["value"] - true["value"]
            compared = {"value": difference, "error": error, "standard_deviations": abs(difference) / error}
            results["fitted_minus_true"][name] = compared
    else:
        long_frames, quick_frames = (SETTINGS[setting]["pinned"][1] // INTERVAL for setting in ("long", "quick"))
        results["repeated"] = {
            "long": repeated(long, long_frames, None),
            "quick": repeated(long, quick_frames, None),
            "quick_with_mobility": repeated(long, quick_frames, interface),
        }
    report(results)
    write_json(folder / "results.json", results)
    from figure import figure  # Matplotlib takes a second

    figure(runs, results, INTERVAL * TIME_STEP, CENTRE, folder / "figure.png")
    if arguments.check:
        compare(results, arguments.check)
        print(f"as {arguments.check} expects")


if __name__ == "__main__":
    main()
