"""`comitia reweight`: averages under every committee member, with their errors."""

import itertools
import os
import re
import sys
from dataclasses import replace
from pathlib import Path

import click

from comitia.cli import Finite
from comitia.errors import NumericalError, UsageError


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--potentials",
    required=True,
    metavar="F",
    help="Member energies: a table (rows are frames, columns members), a data set F.h5:NAME, or i-PI's committee_pot "
    "of any one bead; the files of all beads, or of all replicas of an exchange, are found.",
)
@click.option(
    "--observable",
    "observables",
    required=True,
    multiple=True,
    metavar="F[:COL]",
    help="i-PI properties or extras, a LAMMPS log, COLVAR, a table, extended XYZ, F.h5:NAME; and the column by name or "
    "number (from 1), a range 2-51, or several with commas. F:members takes one member estimator from each column; "
    "F:models takes one quantity from several models of it, a column each; `potentials` is the potential energy "
    "itself. May be given several times.",
)
@click.option("--temperature", required=True, type=Finite(min=0, min_open=True), help="K.")
@click.option("--temperature-to", type=Finite(min=0, min_open=True), help="K, of the averages, if not that of the run.")
@click.option("--ensemble", type=click.IntRange(min=0), help="Which of a replica exchange, where several have this T.")
@click.option(
    "--units",
    type=click.Choice(["hartree", "eV"]),
    help="Unit of the energies in tables; hartree by default, and always in i-PI's extras.",
)
@click.option(
    "--method",
    type=click.Choice(["cea", "direct", "mbar"]),
    default="cea",
    show_default=True,
    help="mbar takes the frames of all ensembles of a replica exchange, or of all windows, together.",
)
@click.option(
    "--windows",
    multiple=True,
    metavar="DIR",
    help="Folder of an umbrella window, as often as there are windows: --potentials, --observable and --bias are files "
    "in each of them, and the bias F:COLS has the energy of every window in the order of the folders. Implies mbar.",
)
@click.option(
    "--driving",
    default="mean",
    show_default=True,
    metavar="mean|K|F",
    help="What drove the sampling: the mean of the members, member K (from 0), or the energies in F[:COL].",
)
@click.option(
    "--bias",
    metavar="F",
    help="Bias energies of the frames, F[:COL]; averages carry exp(+beta B). Of metadynamics rbias, never its bias.",
)
@click.option("--baseline", metavar="F", help="Energies F[:COL] that the members correct, added to each member.")
@click.option("--skip", type=click.IntRange(min=0), default=0, show_default=True, help="Frames left out at the start.")
@click.option("--strict", is_flag=True, help="Exit with 6 if a verdict is unreliable.")
@click.option("--plot", type=click.Path(path_type=Path), help="Draw value, errors and members into this file.")
@click.option(
    "--json", "json_path", type=click.Path(path_type=Path), help="Result; OBSERVABLE.reweight.json by default."
)
def command(
    potentials,
    observables,
    temperature,
    temperature_to,
    ensemble,
    units,
    method,
    windows,
    driving,
    bias,
    baseline,
    skip,
    strict,
    plot,
    json_path,
):
    """Averages under every committee member: statistical and committee error, effective sample size, verdict.

    \b
    comitia reweight --potentials run.committee_pot_0 --observable run.out:potential --temperature 300
    comitia reweight --potentials POTS --observable OBS:1 --temperature 300 --units eV --method direct
    comitia reweight --potentials run.committee_pot_0 --observable run.out:5-9 --observable COLVAR:d --temperature 300
    comitia reweight --potentials 0_run.committee_pot_0 --observable 0_run.out:potential --temperature 300 --method mbar
    """
    if "numpy" not in sys.modules:  # the matrices are small: threads of BLAS would only wait for each other
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from comitia.files import write_json

    given = {"units": units, "driving": driving, "baseline": baseline}
    if windows or method == "mbar":
        method = "mbar"
        if ensemble is not None:
            raise UsageError("--ensemble picks one of a replica exchange, where mbar takes all; give one of the two")
        sampled = _all_states(potentials, observables, temperature, temperature_to, windows, skip, bias, given)
    else:
        given |= {"bias": bias, "ensemble": ensemble}
        sampled = _one_state(potentials, observables, temperature, temperature_to, method, skip, given)
    frames, found, starts, n_frames, description = sampled
    if frames.n_beads > 1 and temperature_to not in (None, temperature):
        raise UsageError(
            f"--temperature-to {temperature_to:g}: a path integral at another temperature has other springs; sample "
            "there, or average at that of the run"
        )
    found = [(frames.observables[place], found[place], starts[place]) for place in frames.order]
    settings = {
        "potentials": potentials,
        "method": method,
        "driving": driving,
        "bias": bias,
        "baseline": baseline,
        "temperature": temperature_to or temperature,
        "sampled_temperature": temperature,
        "windows": list(windows),
        "ensemble": frames.ensemble.number if frames.ensemble else None,
        "n_frames": n_frames,
        "n_beads": frames.n_beads,
        "warnings": frames.warnings
        + [
            f"{one.label}: the first {start} frames look like the approach to equilibrium; try --skip {skip + start}"
            for one, _, start in found
            if start
        ],
    }
    found = _models_combined([(one, average) for one, average, _ in found])
    name = found[0][0].label if len(found) == 1 else Path(observables[0]).name + " and others"
    json_path = json_path or Path(re.sub(r"[^\w.+-]+", "_", name).strip("_") + ".reweight.json")
    contents = [_content(*one) for one in found]
    write_json(json_path, contents[0] | settings if len(found) == 1 else settings | {"averages": contents})
    _print(frames, found, settings, description, json_path)
    if plot:
        from comitia.report.averages import averages_figure

        averages_figure([(one.label, one.unit, average) for one, average in found], plot)
    unreliable = [one.label for one, average in found if average.verdict == "unreliable"]
    if strict and unreliable:
        raise NumericalError(f"{', '.join(unreliable)}: unreliable; see the reason above, or leave --strict out")


def _one_state(potentials, observables, temperature, temperature_to, method, skip, given):
    """Frames, averages, where equilibrium begins, number of frames, and a line on the ensemble."""
    import numpy as np

    from comitia.engines.frames import gather
    from comitia.thermodynamics import MemberMoments, averages
    from comitia.thermodynamics.beginning import Beginning

    frames = gather(potentials, observables, temperature, **given)
    n_frames = frames.n_frames - skip
    if n_frames < 1:
        raise UsageError(f"--skip {skip} leaves nothing of {frames.n_frames} frames; skip fewer")
    moments = MemberMoments(temperature_to or temperature, method, frames.driving, temperature, n_frames)
    beginning = Beginning(n_frames)
    for piece in frames.pieces(skip):
        moments.add(piece.member_energies, piece.observables, piece.estimators, piece.driving, piece.bias)
        beginning.add(np.hstack([piece.observables, piece.estimators.mean(axis=2)]))
    chosen = frames.ensemble
    description = chosen.describe() if chosen else ""
    return frames, averages(moments, findings=frames.findings), beginning.starts(), n_frames, description


def _all_states(potentials, observables, temperature, temperature_to, windows, skip, bias, given):
    """The same from the frames of all ensembles, or of all windows."""
    from comitia.thermodynamics.sampled_states import gather_states

    sampled = gather_states(potentials, observables, temperature, windows, skip, bias, **given)
    ensemble, frames, piece = sampled.ensemble(temperature_to or temperature), sampled.frames, sampled.piece
    values = [*piece.observables.T, *piece.estimators.swapaxes(0, 1)]
    found = [ensemble.average(one, frames.findings) for one in values]
    return frames, found, sampled.starts, len(sampled.states), sampled.description


def _models_combined(found):
    """Averages by several models of one quantity as one."""
    from comitia.thermodynamics import combine_models

    result = []
    for models, group in itertools.groupby(found, key=lambda one: one[0].models):
        group = list(group)
        if models:
            group = [(replace(group[0][0], label=models), combine_models([average for _, average in group]))]
        result += group
    return result


def _content(one, average):
    """One average as it stands in JSON."""
    return average.as_dict(one.unit) | {
        "reason": average.reason,
        "members": average.members,
        "member_effective_sample_sizes": average.effective_sample_size,
        "observable": one.label,
    }


def _print(frames, found, settings, description, json_path):
    beads = f", {frames.n_beads} beads" if frames.n_beads > 1 else ""
    sampled = settings["sampled_temperature"]
    elsewhere = "" if settings["temperature"] == sampled else f" from {sampled:g} K"
    click.echo(
        f"{settings['n_frames']} frames{beads}, {frames.n_members} members, {settings['temperature']:g} K{elsewhere}, "
        f"method {settings['method']}, driven by {settings['driving']}; potentials in {frames.energy_unit}",
    )
    if description:
        click.echo(description)
    rows = [("average of", "value", "unit", "statistical", "committee", "total error", "worst size", "verdict")]
    for one, average in found:
        errors = (average.statistical_error, average.committee_error, average.total_error)
        shown = ["–" if error is None else f"{error:.2e}" for error in errors]
        size = f"{average.effective_sample_size.min():.1f}"
        rows.append((one.label, f"{average.mean:.8e}", one.unit, *shown, size, average.verdict))
    _print_table(rows)
    if len(found) == 1:
        average = found[0][1]
        sizes = zip(average.members, average.effective_sample_size, strict=True)
        rows = [(str(k), f"{value:.8e}", f"{size:.1f}") for k, (value, size) in enumerate(sizes)]
        _print_table([("member", "average", "effective sample size"), *rows])
    for one, average in found:
        click.echo(f"{one.label}: {average.verdict}: {average.reason}")
    for warning in settings["warnings"]:
        click.echo(f"comitia: warning: {warning}", err=True)
    click.echo(f"wrote {json_path}")


def _print_table(rows):
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    click.echo()
