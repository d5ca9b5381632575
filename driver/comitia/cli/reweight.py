"""`comitia reweight`: averages under every committee member, with their errors."""

import re
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
    "`potentials` is the potential energy itself. May be given several times.",
)
@click.option("--temperature", required=True, type=Finite(min=0, min_open=True), help="K.")
@click.option("--ensemble", type=click.IntRange(min=0), help="Which of a replica exchange, where several have this T.")
@click.option(
    "--units",
    type=click.Choice(["hartree", "eV"]),
    help="Unit of the energies in tables; hartree by default, and always in i-PI's extras.",
)
@click.option("--method", type=click.Choice(["cea", "direct"]), default="cea", show_default=True)
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
@click.option(
    "--json", "json_path", type=click.Path(path_type=Path), help="Result; OBSERVABLE.reweight.json by default."
)
def command(
    potentials,
    observables,
    temperature,
    ensemble,
    units,
    method,
    driving,
    bias,
    baseline,
    skip,
    strict,
    json_path,
):
    """Averages under every committee member: statistical and committee error, effective sample size, verdict.

    \b
    comitia reweight --potentials run.committee_pot_0 --observable run.out:potential --temperature 300
    comitia reweight --potentials POTS --observable OBS:1 --temperature 300 --units eV --method direct
    comitia reweight --potentials run.committee_pot_0 --observable run.out:5-9 --observable COLVAR:d --temperature 300
    """
    from comitia.engines.frames import gather
    from comitia.files import write_json
    from comitia.thermodynamics import reweight

    frames = gather(potentials, observables, temperature, units, driving, bias, baseline, ensemble)
    n_frames = frames.n_frames - skip
    if n_frames < 1:
        raise UsageError(f"--skip {skip} leaves nothing of {frames.n_frames} frames; skip fewer")
    read = frames.read(skip)
    averages = [
        reweight(
            values,
            read.member_energies,
            temperature,
            method=method,
            driving=read.driving if frames.driving is None else frames.driving,
            bias=read.bias,
        )
        for values in read.observables
    ]
    found = [
        average.as_dict(one.unit)
        | {
            "reason": average.reason,
            "members": average.members,
            "member_effective_sample_sizes": average.effective_sample_size,
            "observable": one.label,
        }
        for one, average in zip(frames.observables, averages, strict=True)
    ]
    settings = {
        "potentials": potentials,
        "method": method,
        "driving": driving,
        "bias": bias,
        "baseline": baseline,
        "temperature": temperature,
        "ensemble": frames.ensemble.number if frames.ensemble else None,
        "n_frames": n_frames,
        "n_beads": frames.n_beads,
        "warnings": frames.warnings + _approach_to_equilibrium(frames, read.observables, skip),
    }
    name = frames.observables[0].label if len(found) == 1 else Path(observables[0]).name + " and others"
    json_path = json_path or Path(re.sub(r"[^\w.+-]+", "_", name).strip("_") + ".reweight.json")
    content = found[0] | settings if len(found) == 1 else settings | {"averages": found}
    write_json(json_path, content)
    _print(frames, averages, settings, json_path)
    unreliable = [
        one.label for one, average in zip(frames.observables, averages, strict=True) if average.verdict == "unreliable"
    ]
    if strict and unreliable:
        raise NumericalError(f"{', '.join(unreliable)}: unreliable; see the reason above, or leave --strict out")


def _approach_to_equilibrium(frames, values, skipped):
    """A warning for each observable where leaving out the first frames would leave many more independent ones."""
    from comitia.thermodynamics import equilibration, statistical_inefficiency

    warnings = []
    for one, series in zip(frames.observables, values, strict=True):
        series = series if series.ndim == 1 else series.mean(axis=1)
        start, _, n_independent = equilibration(series)
        if n_independent >= 1.5 * len(series) / statistical_inefficiency(series):
            warnings.append(
                f"{one.label}: the first {start} frames look like the approach to equilibrium; try --skip "
                f"{skipped + start}"
            )
    return warnings


def _print(frames, averages, settings, json_path):
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, soft_wrap=True, width=1_000)  # numbers are never cut
    beads = f", {frames.n_beads} beads" if frames.n_beads > 1 else ""
    console.print(
        f"{settings['n_frames']} frames{beads}, {frames.n_members} members, {settings['temperature']:g} K, "
        f"method {settings['method']}, driven by {settings['driving']}; potentials in {frames.energy_unit}",
    )
    if frames.ensemble:
        console.print(f"replica exchange, ensemble {frames.ensemble.number} of {frames.ensemble.exchange.describe()}")
    table = Table("average of", "value", "statistical", "committee", "total error", "worst size", "verdict")
    for one, average in zip(frames.observables, averages, strict=True):
        errors = (average.statistical_error, average.committee_error, average.total_error)
        shown = ["–" if error is None else f"{error:.2e}" for error in errors]
        size = f"{average.effective_sample_size.min():.1f}"
        table.add_row(one.label, f"{average.mean:.8e} {one.unit}".strip(), *shown, size, average.verdict)
    console.print(table)
    if len(averages) == 1:
        members = Table("member", "average", "effective sample size")
        for k, (value, size) in enumerate(zip(averages[0].members, averages[0].effective_sample_size, strict=True)):
            members.add_row(str(k), f"{value:.8e}", f"{size:.1f}")
        console.print(members)
    for one, average in zip(frames.observables, averages, strict=True):
        console.print(f"{one.label}: {average.verdict}: {average.reason}")
    for warning in settings["warnings"]:
        click.echo(f"comitia: warning: {warning}", err=True)
    console.print(f"wrote {json_path}")
