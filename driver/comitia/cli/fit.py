"""`comitia fit`: a committee of potentials from reference data."""

import contextlib
import warnings
from pathlib import Path

import click

from comitia.cli import Finite


def show_warning(message, category, filename, line_number, file=None, line=None):
    """A warning as one sentence on stderr."""
    click.echo(f"comitia: warning: {message}", err=True)


def draw_calibration(calibration, path):
    """The reliability figure, or one sentence where there is nothing to draw."""
    if not calibration or not any(calibration.values()):
        click.echo(f"comitia: warning: {path}: no structure says how large the errors are; nothing is drawn", err=True)
        return
    from comitia.report.plots import reliability_figure

    reliability_figure(calibration, path)


@click.command(name="fit", short_help="fit a committee of potentials to reference data")
@click.argument("settings", metavar="FIT.yaml", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    metavar="MODEL",
    type=click.Path(path_type=Path),
    help="Model file; default DATA_STEM.safetensors.",
)
@click.option("--members", type=click.IntRange(1, 4096), help="Overrides `members`.")
@click.option("--threads", type=click.IntRange(1, 1024), help="Overrides `threads`.")
@click.option("--keep-sums", is_flag=True, default=None, help="Overrides `keep_sums`: another fit can go on from this.")
@click.option("--previous", metavar="MODEL", help="Overrides `previous`: go on from MODEL with the new structures.")
@click.option("--figure", metavar="F", type=click.Path(path_type=Path), help="Draw errors against uncertainties.")
@click.option(
    "--tune",
    metavar="MINUTES",
    type=Finite(min=0, min_open=True),
    help="Search cutoff and basis for so long instead: table, figure and settings in MODEL_STEM.tune.",
)
@click.option("-q", "--quiet", is_flag=True, help="No progress bar, no table.")
def command(settings, output, figure, tune, quiet, **flags):
    """Fit a committee to energies, forces and virials; write MODEL and its report beside it (.json).

    Data files are looked for beside FIT.yaml, then in the current folder; MODEL is written to the current folder unless
    -o says otherwise. A fit that was killed goes on where it was when the same command is given again.

    \b
    comitia fit FIT.yaml -o silicon.safetensors --keep-sums
    comitia fit MORE.yaml -o better.safetensors --previous silicon.safetensors
    comitia fit FIT.yaml -o silicon.safetensors --tune 10
    """
    import msgspec

    from comitia.files import check_destination
    from comitia.settings import load
    from comitia.training import FitSettings, fit
    from comitia.training.summary import fit_lines

    if figure is not None:
        check_destination(figure)
    loaded = load(settings, FitSettings)
    loaded = msgspec.structs.replace(loaded, **{name: value for name, value in flags.items() if value is not None})
    with warnings.catch_warnings(), contextlib.ExitStack() as stack:
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = show_warning
        options = {"directory": settings.parent, "output": output, "progress": not quiet}
        if loaded.baseline is not None:
            from comitia.engines.baselines import open_baseline

            folders = settings.parent, Path.cwd()
            options["baseline"] = open_baseline(loaded.baseline, *folders, n_threads=loaded.threads)
            stack.callback(options["baseline"].close)
        if tune is not None:
            from comitia.training import front

            report = front.tune(loaded, tune, **options)
            if not quiet:
                click.echo("\n".join(front.tune_lines(report)))
            return
        result = fit(loaded, **options)
    if figure is not None:
        draw_calibration(result.report["calibration"].get("quality"), figure)
    if not quiet:
        click.echo("\n".join(fit_lines(result.report)))
