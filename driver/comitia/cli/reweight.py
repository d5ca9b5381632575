"""`comitia reweight`: averages under every committee member, with their errors."""

import re
from pathlib import Path

import click

from comitia.cli import Finite
from comitia.errors import UsageError


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--potentials",
    required=True,
    metavar="F",
    help="Member energies: a table (rows are frames, columns members), or i-PI's committee_pot of any one bead; "
    "the files of all beads are found and averaged.",
)
@click.option(
    "--observable",
    required=True,
    metavar="F[:COL]",
    help="A table or an i-PI property file, and the column by name or by number (from 1). "
    "F:members takes one member estimator from each column; `potentials` is the potential energy itself.",
)
@click.option("--temperature", required=True, type=Finite(min=0, min_open=True), help="K.")
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
@click.option("--bias", metavar="F", help="Bias energies of the frames, F[:COL]; averages carry exp(+beta B).")
@click.option("--baseline", metavar="F", help="Energies F[:COL] that the members correct, added to each member.")
@click.option("--skip", type=click.IntRange(min=0), default=0, show_default=True, help="Frames left out at the start.")
@click.option(
    "--json", "json_path", type=click.Path(path_type=Path), help="Result; OBSERVABLE.reweight.json by default."
)
def command(potentials, observable, temperature, units, method, driving, bias, baseline, skip, json_path):
    """Averages under every committee member: statistical and committee error, effective sample size, verdict.

    \b
    comitia reweight --potentials run.committee_pot_0 --observable run.out:potential --temperature 300
    comitia reweight --potentials POTS --observable OBS:1 --temperature 300 --units eV --method direct
    """
    from comitia.engines.frames import gather
    from comitia.files import write_json
    from comitia.thermodynamics import reweight

    frames = gather(potentials, observable, temperature, units, driving, bias, baseline)
    n_frames = len(frames.member_energies) - skip
    if n_frames < 1:
        raise UsageError(f"--skip {skip} leaves nothing of {len(frames.member_energies)} frames; skip fewer")
    average = reweight(
        frames.observable[skip:],
        frames.member_energies[skip:],
        temperature,
        method=method,
        driving=frames.driving if isinstance(frames.driving, (str, int)) else frames.driving[skip:],
        bias=None if frames.bias is None else frames.bias[skip:],
    )
    warnings = frames.warnings + _approach_to_equilibrium(frames.observable[skip:], skip)
    json_path = json_path or Path(re.sub(r"[^\w.+-]+", "_", frames.label).strip("_") + ".reweight.json")
    content = average.as_dict(frames.unit) | {
        "reason": average.reason,
        "members": average.members,
        "member_effective_sample_sizes": average.effective_sample_size,
        "observable": observable,
        "potentials": potentials,
        "method": method,
        "driving": driving,
        "bias": bias,
        "baseline": baseline,
        "temperature": temperature,
        "n_frames": n_frames,
        "n_beads": frames.n_beads,
        "warnings": warnings,
    }
    write_json(json_path, content)
    _print(average, frames, content, json_path)


def _approach_to_equilibrium(observable, skipped):
    """A warning where leaving out the first frames would leave many more independent ones."""
    from comitia.thermodynamics import equilibration, statistical_inefficiency

    series = observable if observable.ndim == 1 else observable.mean(axis=1)
    start, _, n_independent = equilibration(series)
    if n_independent < 1.5 * len(series) / statistical_inefficiency(series):
        return []
    return [f"the first {start} frames look like the approach to equilibrium; try --skip {skipped + start}"]


def _print(average, frames, content, json_path):
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, soft_wrap=True)
    beads = f", {frames.n_beads} beads" if frames.n_beads > 1 else ""
    console.print(
        f"{content['n_frames']} frames{beads}, {len(average.members)} members, {content['temperature']:g} K, "
        f"method {average.method}, driven by {content['driving']}; potentials in {frames.energy_unit}",
    )
    table = Table("average of", frames.label)
    table.add_row("value", f"{average.mean:.8e} {frames.unit}")
    for name in ("statistical_error", "committee_error", "total_error"):
        error = getattr(average, name)
        table.add_row(name.replace("_", " "), "–" if error is None else f"{error:.2e} {frames.unit}")
    table.add_row("effective sample size", f"{average.effective_sample_size.min():.1f} (worst member)")
    table.add_row("verdict", average.verdict)
    console.print(table)
    members = Table("member", "average", "effective sample size")
    for k, (value, size) in enumerate(zip(average.members, average.effective_sample_size, strict=True)):
        members.add_row(str(k), f"{value:.8e}", f"{size:.1f}")
    console.print(members)
    console.print(f"{average.verdict}: {average.reason}")
    for warning in content["warnings"]:
        click.echo(f"comitia: warning: {warning}", err=True)
    console.print(f"wrote {json_path}")
