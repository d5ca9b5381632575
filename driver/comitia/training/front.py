"""What `comitia fit --tune` leaves: the front of error against cost as a table, a figure and settings to go on with."""

import time
import warnings
from pathlib import Path

import msgspec
from threadpoolctl import threadpool_limits

from comitia.errors import SettingsError, StructureError
from comitia.files import check_destination, write_atomic, write_json
from comitia.progress import Stages
from comitia.structures import read_structures, stem
from comitia.training import dataset
from comitia.training.corrections import corrected_split
from comitia.training.fit import check_weights, find_input, with_baseline
from comitia.training.settings import FitSettings, HoldOut, check_settings
from comitia.training.tuning import Search, front

VALIDATION = 0.2  # of the blocks, where the settings name no validation set
GOOD_ENOUGH = 1.1  # times the lowest error: the cheapest on the front below it is the one chosen
UNITS = {"cutoff": "Å", "cost": "µs/atom", "energy": "meV/atom", "forces": "eV/Å", "seconds": "s"}
HEADINGS = ("", "cutoff", "features", "order", "cost", "energy RMSE", "forces RMSE", "error", "settings")
COLUMN_UNITS = ("", "Å", "", "", "µs/atom", "meV/atom", "eV/Å", "", "")


def tune(settings, minutes, directory=".", output=None, progress=True, baseline=None):
    """Search cutoff and basis for a time, and write what was found into the folder MODEL_STEM.tune.

    The folder holds `tune.json`, `front.png`, settings `FIT-1.yaml` … for the points of the front by increasing cost,
    and `trials.jsonl`, from which a search that was killed, or is given more time, goes on.

    Parameters
    ----------
    settings : FitSettings
    minutes : float, the time limit, that of earlier runs of the same search included
    directory : folder that the paths of the settings are relative to
    output : path of the model file that is meant; by default the name of the data file, in the current folder
    progress : bool, whether to show a progress bar on a terminal
    baseline : as in `comitia.training.fit`

    Returns
    -------
    dict, the content of tune.json; `folder` says where it is
    """
    begin = time.perf_counter()
    check_settings(settings)
    for name in ("previous", "target_cost", "columns"):
        if getattr(settings, name) is not None:
            raise SettingsError(f"{name}: a search for the basis cannot keep it; leave it out, or fit without --tune")
    folder = Path(output or stem(settings.data)).with_suffix("").with_suffix(".tune")
    check_destination(folder / "tune.json" if folder.is_dir() else folder)
    settings = with_baseline(_with_absolute_paths(settings, directory), baseline)
    structures = read_structures(settings.data, settings.keys)
    check_weights(settings, structures)
    judged = settings.validation or HoldOut(fraction=VALIDATION, seed=settings.seed)
    split = dataset.split(structures, msgspec.structs.replace(settings, validation=judged), Path)
    if len(split.training) < 2 or not split.validation:
        raise StructureError(f"{settings.data}: too few structures to judge by; give more, or a validation file")
    with Stages(progress) as stages, threadpool_limits(1, "blas"):
        if baseline is not None:
            split = corrected_split(split, baseline, stages)
        search = Search(settings, split, 60 * minutes, folder, stages)
        search.run()
    rows = _rows(search)
    if not rows:
        raise StructureError(f"{settings.data}: none of the bases could be fitted ({search.trials[0].failed})")
    _write_settings(folder, rows, search)
    report = {
        "folder": str(folder),
        "units": UNITS,
        "limit": 60 * minutes,
        "spent": search.spent,
        "seconds": time.perf_counter() - begin,
        "threads": search.n_threads,
        "structures": {"training": len(split.training), "validation": len(split.validation)},
        "candidates": len(search.candidates),
        "table": rows,
        "trials": msgspec.to_builtins(search.trials),
        "settings": msgspec.to_builtins(settings),
    }
    write_json(folder / "tune.json", report)
    _draw(rows, folder / "front.png")
    return report


def _with_absolute_paths(settings, directory):
    """The settings written in another folder, with every input where it is now."""
    changes = {"data": str(find_input(directory, settings.data).resolve())}
    for name in ("validation", "test"):
        held = getattr(settings, name)
        if held is not None and held.file is not None:
            changes[name] = msgspec.structs.replace(held, file=str(find_input(directory, held.file).resolve()))
    if settings.baseline is not None and settings.baseline.model is not None:
        model = str(find_input(directory, settings.baseline.model).resolve())
        changes["baseline"] = msgspec.structs.replace(settings.baseline, model=model)
    return msgspec.structs.replace(settings, **changes)


def _rows(search):
    """The table: what was judged on the most structures, by increasing cost; the front and the choice are marked."""
    trials = sorted(search.judged(), key=lambda one: one.cost)
    on_front = front(trials)
    best = min((trial.error for trial in on_front), default=0.0)
    chosen = next((trial for trial in on_front if trial.error <= GOOD_ENOUGH * best), None)
    rows = []
    for trial in trials:
        candidate = search.candidates[trial.candidate]
        rows.append(
            {
                "cutoff": candidate.cutoff,
                "n_max": list(candidate.n_max),
                "l_max": list(candidate.l_max),
                "max_features": candidate.max_features,
                "order": sum(n > 0 for n in candidate.n_max),
                "front": any(trial is other for other in on_front),
                "chosen": trial is chosen,
                **{key: value for key, value in msgspec.to_builtins(trial).items() if key != "failed"},
            }
        )
    return rows


def _write_settings(folder, rows, search):
    """Settings for every point of the front; those of an earlier search go."""
    import yaml

    for path in folder.glob("FIT-*.yaml"):
        path.unlink()
    default = msgspec.to_builtins(FitSettings(data="", cutoff=1.0))
    number = 0
    for row in rows:
        if not row["front"]:
            continue
        number += 1
        found = msgspec.to_builtins(search.candidates[row["candidate"]].settings(search.settings))
        found["basis"] = {key: value for key, value in found["basis"].items() if value != default["basis"][key]}
        content = {key: value for key, value in found.items() if value != default[key]}
        forces = "" if row["forces"] is None else f", forces {row['forces']:.4f} eV/Å"
        energy = "" if row["energy"] is None else f"energy {row['energy']:.3f} meV/atom"
        head = f"# {energy}{forces} on {len(search.split.validation)} structures, {row['cost']:.2f} µs/atom\n"
        row["settings"] = f"FIT-{number}.yaml"
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, default_flow_style=None)
        write_atomic(folder / row["settings"], head + text)


def _draw(rows, path):
    try:
        from comitia.report.plots import front_figure

        front_figure(rows, path)
    except ImportError:
        warnings.warn(f"{path}: not drawn, matplotlib is missing; install comitia[report]", stacklevel=2)


def tune_lines(report):
    """What `comitia fit --tune` prints: the table, and how to go on."""
    table = [HEADINGS, COLUMN_UNITS]
    for row in report["table"]:
        mark = "chosen" if row["chosen"] else "front" if row["front"] else ""
        energy = "-" if row["energy"] is None else f"{row['energy']:.3f}"
        forces = "-" if row["forces"] is None else f"{row['forces']:.4f}"
        cells = (mark, f"{row['cutoff']:g}", str(row["features"]), str(row["order"]), f"{row['cost']:.2f}", energy)
        table.append((*cells, forces, f"{row['error']:.3f}", row.get("settings", "")))
    widths = [max(len(row[column]) for row in table) for column in range(len(HEADINGS))]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:-1], widths[1:-1], strict=True)), row[-1]]
        )
        for row in table
    ]
    chosen = next(row for row in report["table"] if row["chosen"])
    counts, n_trials = report["structures"], len(report["trials"])
    return [
        f"{n_trials} trials of {report['candidates']} candidates, the last on {chosen['structures']} of "
        f"{counts['training']} structures, judged on {counts['validation']}; {report['spent']:.0f} s",
        *(line.rstrip() for line in lines),
        f"go on with  comitia fit {Path(report['folder']) / chosen['settings']}",
    ]
