"""`comitia perturb`: free-energy perturbation from the potential that was sampled to a reference method."""

import json
import logging
import math
from pathlib import Path

import click

from comitia.cli import Finite, pass_stop
from comitia.errors import NumericalError, SettingsError, UsageError
from comitia.signals import PATIENCE

_ALIKE = ("reference", "reference_settings", "model_sha256", "temperature")  # what two results must share


class _Count(click.ParamType):
    """A number of frames, or `all`."""

    name = "N|all"

    def convert(self, value, parameter, context):
        if value == "all" or isinstance(value, int):
            return value
        if not value.isdigit() or int(value) < 1:
            self.fail(f"{value!r} is no number of frames; give 1 or more, or all", parameter, context)
        return int(value)


@click.command(name="perturb", short_help="free energies and averages carried to a reference method")
@click.option(
    "--trajectory",
    required=True,
    metavar="F",
    help="i-PI's xyz (any bead and replica), a LAMMPS dump, extended XYZ.",
)
@click.option("--model", required=True, metavar="MODEL", help="What drove the sampling: a model, or a POTENTIAL.yaml.")
@click.option(
    "--reference",
    required=True,
    metavar="ENGINE",
    help="pyscf:NAME=VALUE,..., ase:MODULE:FACTORY, unix:NAME, tcp:HOST:PORT, model:F, or file:F[:KEY] for energies "
    "that a file has.",
)
@click.option("--temperature", required=True, type=Finite(min=0, min_open=True), help="K.")
@click.option("--ensemble", type=click.IntRange(min=0), help="Which of a replica exchange, where several have this T.")
@click.option("--pbc/--no-pbc", "periodic", default=None, help="Whether the cell of i-PI's files is periodic.")
@click.option("--frames", "n_frames", type=_Count(), help="At most so many; by default all that are uncorrelated.")
@click.option("--skip", type=click.IntRange(min=0), default=0, show_default=True, help="Frames left out at the start.")
@click.option("--beads", "n_beads", type=click.IntRange(min=1), help="Drawn at random from a frame; cumulants only.")
@click.option("--stratify", metavar="F[:COL]", help="Equally many frames from every bin of this variable.")
@click.option("--bins", "n_bins", default=10, show_default=True, type=click.IntRange(min=2), help="Of --stratify.")
@click.option("--bias", metavar="F[:COL]", help="Bias energies of the frames, eV in tables.")
@click.option(
    "--observable", "observables", multiple=True, metavar="F[:COL]", help="Averaged under the reference as well."
)
@click.option("--states", metavar="F[:COL]", help="1, 0 or -1: the correction of state 1 less that of state 0.")
@click.option("--minus", metavar="JSON", help="Result of another phase or statistics: the difference from it.")
@click.option(
    "--constant",
    metavar="E|EL=E,...|F",
    help="Energy constant of the reference for these atoms: eV, eV of each element, or a structure where both agree.",
)
@click.option("--molecules", "n_molecules", type=click.IntRange(min=1), help="Give the result for one of so many too.")
@click.option("--trained", is_flag=True, help="The model was trained on this reference: test its calibration.")
@click.option("--reference-trajectory", metavar="F", help="Frames sampled with the reference: BAR from both ends.")
@click.option("--skip-failed", default=0, show_default=True, type=click.IntRange(min=0), help="Structures.")
@click.option("--workers", "n_workers", default=1, show_default=True, type=click.IntRange(1, 1024), help="Processes.")
@click.option("--threads", "n_threads", type=click.IntRange(1, 1024), help="Threads of a model; default all cores.")
@click.option("--wait", default=60.0, show_default=True, type=Finite(0), help="Seconds to wait for the first worker.")
@click.option("--idle", default=60.0, show_default=True, type=Finite(0), help="Seconds without any worker after that.")
@click.option("--timeout", default=3600.0, show_default=True, type=Finite(0.1), help="Seconds for one structure.")
@click.option("--sockets-prefix", default="/tmp/ipi_", show_default=True, help="Start of the path of unix:NAME.")
@click.option("--allow-remote", is_flag=True, help="Let other machines connect to tcp:HOST:PORT.")
@click.option("--ready-file", type=click.Path(path_type=Path), help="Written when workers may come; says where.")
@click.option("--strict", is_flag=True, help="Exit with 6 if the verdict is unreliable.")
@click.option(
    "-o", "--output", default="perturbation", show_default=True, type=click.Path(path_type=Path), help="Folder."
)
@click.option(
    "--json", "json_path", type=click.Path(path_type=Path), help="Result; OUTPUT/perturbation.json by default."
)
@click.option("-q", "--quiet", is_flag=True, help="No progress bar, no summary.")
@pass_stop
def command(stop, output, json_path, minus, n_molecules, strict, quiet, **given):
    """What a reference method would have said: free-energy perturbation on uncorrelated frames.

    Every energy of the reference is kept in OUTPUT as soon as it is known, and a command that was ended, by a kill as
    well, goes on where it was. That of the model is computed anew on the very coordinates that the reference gets.

    \b
    comitia perturb --trajectory run.pos_0.xyz --no-pbc --model model.safetensors --temperature 300 \\
        --reference pyscf:xc=pbe0,basis=def2-svp,charge=1 --frames 100 --workers 2
    comitia perturb --trajectory frames.xyz --model model.safetensors --temperature 300 --frames all \\
        --reference file:frames.xyz:REF_energy
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s  %(message)s", datefmt="%H:%M:%S")
    stop.patience = PATIENCE
    from comitia.engines.force_engines import EngineOptions
    from comitia.files import check_destination, write_json
    from comitia.thermodynamics.reference_run import ReferenceRun, Request

    names = ("wait", "idle", "timeout", "allow_remote", "sockets_prefix", "n_threads", "n_workers", "ready_file")
    options = EngineOptions(**{name: given.pop(name) for name in names})
    for path in filter(None, (json_path, options.ready_file)):
        check_destination(path)
    if options.ready_file is not None:
        options.ready_file.unlink(missing_ok=True)  # an earlier one
    other = None if minus is None else _read_result(minus)
    output.mkdir(parents=True, exist_ok=True)
    say = (lambda line: None) if quiet else (lambda line: click.echo(line, err=True))
    run = ReferenceRun(Request(folder=output, options=options, **given), progress=not quiet, say=say)
    content, found, frames = run.run()
    if n_molecules is not None:
        share = found.per(n_molecules)
        content["per_molecule"] = {"value": share.delta_f, "unit": "eV/molecule", "statistical_error": share.error}
    if other is not None:
        content["difference"] = _difference(content, other, minus)
    json_path = json_path or output / "perturbation.json"
    write_json(json_path, content)
    figure = _figure(output, content, found, frames, quiet)
    for failure in frames.failed:
        click.echo(f"comitia: frame {failure['frame']} was left out: {failure['error']}", err=True)
    if not quiet:
        _print(content, json_path, figure)
    return NumericalError.exit_code if strict and content["verdict"] == "unreliable" else 0


def _read_result(path):
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
        found["value"], found["constant"], found["model_sha256"], found["per_atom"]["n_atoms"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SettingsError(f"--minus {path}: is no result of `comitia perturb`; give its JSON file") from error
    return found


def _difference(content, other, path):
    """This result less another one of the same composition: what no energy constant enters."""
    from comitia.thermodynamics.verdicts import VERDICTS

    quoted, kept = (content, other), "constant"
    if content["per_atom"]["n_atoms"] != other["per_atom"]["n_atoms"]:
        if not all("per_molecule" in one for one in quoted):
            raise UsageError(f"--minus {path}: is of another number of atoms; give --molecules in both")
        quoted, kept = (content["per_molecule"], other["per_molecule"]), "constant_from"
    for key, what in ((kept, "energy constant"), *((key, key.split("_")[0]) for key in _ALIKE)):
        if content[key] != other[key]:
            raise UsageError(
                f"--minus {path}: its {what} is {other[key]!r}, here it is {content[key]!r}; compare like with like"
            )
    error = math.hypot(*(one["statistical_error"] or 0.0 for one in quoted)) or None
    return {
        "value": quoted[0]["value"] - quoted[1]["value"],
        "unit": "eV",
        "statistical_error": error,
        "committee_error": None,
        "total_error": error,
        "effective_sample_size": min(one["effective_sample_size"] for one in (content, other)),
        "verdict": max((one["verdict"] for one in (content, other)), key=VERDICTS.index),
        "minus": str(path),
    }


def _figure(output, content, found, frames, quiet):
    """The diagnostics, where matplotlib is installed; its path or None."""
    import importlib.util

    if importlib.util.find_spec("matplotlib") is None:
        if not quiet:
            click.echo("comitia: no figure without matplotlib; pip install 'comitia[report]'", err=True)
        return None
    from comitia.report.perturbation import perturbation_figure

    path = output / "perturbation.png"
    reference = frames.reference - content["constant"]
    perturbation_figure(frames.model, reference, content["temperature"], found, path, weights=frames.weights)
    return path


def _print(content, json_path, figure):
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, soft_wrap=True)
    beads = f" of {content['n_beads']} beads" if content["n_beads"] > 1 else ""
    console.print(
        f"{content['n_frames']} frames{beads}, {content['temperature']:g} K; {content['n_called']} structures computed "
        f"now, {content['n_from_before']} before"
    )
    table = Table("F(reference) - F(model)", "eV")
    error, cumulants = content["statistical_error"], content["cumulants"]
    table.add_row(f"{content['method']}, less {content['constant']:.8g}", _number(content["value"], error))
    table.add_row("first cumulant", _number(cumulants["first"], cumulants["first_error"]))
    table.add_row("second cumulant", _number(cumulants["second"], cumulants["second_error"]))
    table.add_row("their sum", _number(cumulants["sum"], cumulants["sum_error"]))
    for key, name in (
        ("both_ends", "both ends (BAR)"),
        ("difference_of_states", "state 1 less state 0"),
        ("difference", "less the other result"),
        ("per_molecule", "for one molecule"),
    ):
        if key in content:
            table.add_row(name, _number(content[key]["value"], content[key]["statistical_error"]))
    console.print(table)
    for name, average in content.get("observables", {}).items():
        console.print(
            f"{name} under the reference: {_number(average['value'], average['statistical_error'])} {average['unit']}"
        )
    if "calibration" in content:
        test = content["calibration"]
        console.print(
            f"calibration: {test['verdict']}, the shift is {test['z']:.2g} of its error (probability "
            f"{test['probability']:.2g})"
        )
    size, spread = content["effective_sample_size"], content["spread"] or 0.0
    more = content["more_frames_to_halve_the_error"]
    halved = "" if error is None else f"; {more} frames more would halve the error"
    console.print(f"effective sample size {size:.1f}, spread of beta dV {spread:.2g}{halved}")
    console.print(f"{content['verdict']}: {content['reason']}")
    for sentence in content["findings"]:
        if sentence != content["reason"]:
            console.print(f"also: {sentence}")
    if "difference" not in content and "difference_of_states" not in content:
        console.print("the number depends on the energy constant; quote differences (--minus, --states) or averages")
    console.print(f"wrote {json_path}" + (f" and {figure}" if figure else ""))


def _number(value, error):
    if value is None:
        return "–"
    return f"{value:.6f}" + ("" if error is None else f" ± {error:.6f}")
