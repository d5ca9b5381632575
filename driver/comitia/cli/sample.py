"""`comitia sample`: i-PI and its force clients under one command."""

import logging
from pathlib import Path

import click

from comitia.cli import Finite, precision_option


@click.command(name="sample", short_help="i-PI and its force clients under one command")
@click.argument("input_path", metavar="INPUT.xml", type=click.Path(path_type=Path))
@click.option("-m", "--model", required=True, type=click.Path(path_type=Path), help="Model file or POTENTIAL.yaml.")
@click.option("--clients", default=1, show_default=True, type=click.IntRange(1), help="Force clients per <ffsocket>.")
@click.option("--threads", type=click.IntRange(1, 1024), help="Threads of each client; default: the cores are shared.")
@click.option("--steps", type=click.IntRange(0), help="Instead of the input's <total_steps>.")
@click.option("--directory", type=click.Path(path_type=Path), help="Where everything is written; default here.")
@click.option("--offset", type=click.Choice(["e0"]), help="Send energies without the atoms' reference energies.")
@precision_option
@click.option("--stall", default=600.0, show_default=True, type=Finite(1.0), help="Seconds of standstill.")
@click.option("--quiet", is_flag=True, help="Show no progress.")
def command(input_path, model, clients, threads, steps, directory, offset, precision, stall, quiet):
    """Sample with i-PI and a potential; the same command goes on from RESTART.

    \b
    comitia sample nvt.xml --model model.safetensors
    comitia sample pimd.xml --model model.safetensors --directory run --steps 2000
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s  %(message)s", datefmt="%H:%M:%S")
    from comitia.engines.ipi import sample

    report = sample(
        input_path,
        model,
        clients=clients,
        n_threads=threads,
        directory=directory,
        total_steps=steps,
        progress=not quiet,
        offset=offset,
        precision=precision,
        stall=stall,
    )
    click.echo(
        f"{report['status']}: step {report['step']} of {report['total_steps']}, {report['seconds']:.1f} s"
        + (f", {report['steps_per_second']:.1f} steps/s" if report.get("steps_per_second") else "")
    )
