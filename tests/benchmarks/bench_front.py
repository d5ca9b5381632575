"""Error against cost on silicon: `python tests/benchmarks/bench_front.py --plot front.png`.

Models of growing size are fitted to the training part of the silicon set of mlearn (Zuo et al., J. Phys. Chem. A 124,
731 (2020)) and judged by its test part; their time on 512 atoms is measured in turns with `tersoff` of LAMMPS, as in
bench_kernels.py, and stated as a multiple of it. The other points were measured elsewhere, errors and times, also as
multiples of `tersoff` on the same machine: see `ELSEWHERE`.
"""

import tempfile
from pathlib import Path

import numpy as np
from samples import SHARED
from timing import ratio, run_alone, time_codes

KEYS = {"energy": "REF_energy", "forces": "REF_forces", "virial": "REF_virial"}
MODELS = {  # settings of the fit
    "order 2": {"basis": {"radial": "bessel", "n_max": [12, 8, 0], "l_max": [0, 6, 0]}},
    "fast": {"accuracy": "fast"},
    "balanced": {"accuracy": "balanced"},
    "accurate": {"accuracy": "accurate"},
    "3600 features": {"accuracy": "accurate", "basis": {"max_features": 3600}},
}
# Measured on one core of a Zen 5, where `tersoff` takes 0.91 µs/atom: models as published by its authors
# (SNAP, qSNAP, MTP, NNP) or fitted to the same training part (linear ACE by pyace, with its recursive evaluator; POD by
# LAMMPS; GAP by quippy). µs/atom, energy meV/atom and force eV/Å RMSE on the test part.
TERSOFF_THERE = 0.91
ELSEWHERE = {
    "linear ACE": [(9.4, 6.0, 0.142), (13.0, 4.8, 0.131), (18.8, 3.7, 0.112), (30.3, 2.97, 0.097), (54.6, 3.4, 0.090)],
    "MTP": [(199, 3.03, 0.0881)],
    "SNAP": [(192.6, 8.06, 0.205)],
    "qSNAP": [(193.0, 5.51, 0.177)],
    "POD": [(42.8, 10.4, 0.296), (68.5, 10.4, 0.251), (181.6, 7.0, 0.196)],
    "NNP": [(105, 6.93, 0.170)],
    "GAP": [(1737, 4.92, 0.117)],
}


def fit_silicon(settings, path):
    """Fit one model without a committee; returns its test errors and its number of features."""
    from comitia.settings import convert
    from comitia.structures import read_structures
    from comitia.training import FitSettings, evaluate_dataset, fit

    data = SHARED / "mlearn" / "Si_train.xyz.xz"
    content = {"data": str(data), "cutoff": 5.0, "keys": KEYS, "members": 1} | settings
    settings = convert(content, FitSettings, "settings")
    result = fit(settings, data.parent, path, progress=False)
    test = read_structures(data.with_name("Si_test.xyz.xz"), settings.keys)
    errors = evaluate_dataset(result.potential, test)["errors"]
    return {
        "features": result.potential.descriptor.n_features,
        "energy_rmse": errors["energy"]["rmse"],
        "force_rmse": errors["forces"]["rmse"],
    }


def measure(n_rounds):
    """Errors and costs of every model: {name: features, energy_rmse, force_rmse, cost, quartiles, path}."""
    if not SHARED.is_dir():
        return {}
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: str(Path(folder) / f"{number}.safetensors") for number, name in enumerate(MODELS)}
        results = {name: fit_silicon(MODELS[name], path) for name, path in paths.items()}
        times, _ = time_codes(["tersoff", *paths.values()], "si512", n_rounds)
        for name, path in paths.items():
            results[name]["microseconds_per_atom"] = float(np.median(times[path])) * 1e6
            results[name]["times_tersoff"] = ratio(times, path, "tersoff") if "tersoff" in times else None
    return results


def report(results):
    """Print the table."""
    if not results:
        print("error against cost: missing, as there is no reference data (COMITIA_SHARED_DATA)")
    for name, one in results.items():
        cost = one["times_tersoff"]["median"] if one["times_tersoff"] else float("nan")
        print(
            f"{name:13s}{one['features']:5d} features {one['microseconds_per_atom']:7.2f} µs/atom {cost:5.1f} × tersoff"
            f"  energy {one['energy_rmse']:.2f} meV/atom  forces {one['force_rmse']:.4f} eV/Å"
        )


def plot(results, path):
    """Draw both errors against cost, ours of this run and the others as measured elsewhere."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(9.5, 3.8), layout="constrained")
    ours = sorted((one["times_tersoff"]["median"], one["energy_rmse"], one["force_rmse"]) for one in results.values())
    for column, (panel, label) in enumerate(zip(panels, ("energy, meV/atom", "forces, eV/Å"), strict=True), 1):
        for (name, points), marker in zip(ELSEWHERE.items(), "sDv^P*X", strict=True):
            panel.plot(
                [point[0] / TERSOFF_THERE for point in points],
                [point[column] for point in points],
                marker=marker, linestyle="-", linewidth=0.7, markersize=5, label=name,
            )  # fmt: skip
        panel.plot([p[0] for p in ours], [p[column] for p in ours], "ko-", markersize=6, label="comitia, this run")
        panel.set(xscale="log", yscale="log", xlabel="time as a multiple of tersoff", ylabel=f"RMSE of {label}")
        panel.grid(True, which="both", linewidth=0.3)
    panels[1].legend(fontsize=8)
    figure.savefig(path, dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    run_alone(__doc__, measure, report, plot=plot)
