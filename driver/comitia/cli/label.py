"""`comitia label`: energies and forces of structures from any engine."""

import logging
from pathlib import Path

import click

from comitia.cli import Finite, pass_stop
from comitia.signals import PATIENCE

SHOWN = 10  # failures that are named on the terminal; all of them are in --json


@click.command(name="label", short_help="energies and forces of structures from any engine")
@click.argument("structures", metavar="STRUCTURES", type=click.Path(path_type=Path))
@click.option(
    "--with",
    "engine",
    required=True,
    metavar="ENGINE",
    help="model:F, pyscf:NAME=VALUE,..., ase:MODULE:FACTORY, unix:NAME, tcp:HOST:PORT or lammps:IN.",
)
@click.option(
    "-o", "--output", required=True, metavar="OUT.xyz", type=click.Path(path_type=Path), help="Written whole."
)
@click.option("--json", "json_path", metavar="F", type=click.Path(path_type=Path), help="Write what failed as JSON.")
@click.option("--wait", default=60.0, show_default=True, type=Finite(0), help="Seconds to wait for the first worker.")
@click.option("--idle", default=60.0, show_default=True, type=Finite(0), help="Seconds without any worker after that.")
@click.option("--ready-file", type=click.Path(path_type=Path), help="Written when workers may come; says where.")
@click.option("--timeout", default=3600.0, show_default=True, type=Finite(0.1), help="Seconds for one structure.")
@click.option(
    "--workers",
    "n_workers",
    default=1,
    show_default=True,
    type=click.IntRange(1, 1024),
    help="Processes of LAMMPS, pyscf: or ase:.",
)
@click.option("--threads", "n_threads", type=click.IntRange(1, 1024), help="Threads of a model; default all cores.")
@click.option("--sockets-prefix", default="/tmp/ipi_", show_default=True, help="Start of the path of unix:NAME.")
@click.option("--allow-remote", is_flag=True, help="Let other machines connect to tcp:HOST:PORT.")
@click.option("-q", "--quiet", is_flag=True, help="No progress bar, no summary.")
@pass_stop
def command(stop, structures, engine, output, json_path, quiet, **options):
    """Compute energies and forces of every structure; write them to OUT.xyz, whole or not at all.

    unix: and tcp: wait for workers of the i-PI protocol (pw.x --ipi, CP2K, ASE, i-pi-py_driver, comitia serve), any
    number of them, that hold the atoms of the structures in their order. A command that was ended goes on where it was;
    structures that failed are tried again.

    lammps: starts LAMMPS with an input that has the potential and says `labelmap atom 1 Si 2 O`, for structures of any
    composition; or that makes atoms, those of all structures in their order.

    Cells reach workers with the first vector along x and the second in the xy plane, as i-PI sends them: a program that
    reads a cell of its own, as pw.x does, must be started with one so oriented (ase: atoms.cell.standard_form()), or
    its energies are wrong.

    \b
    comitia label pool.xyz --with unix:espresso -o labelled.xyz
    comitia label pool.xyz --with lammps:in.lammps -o labelled.xyz
    comitia label pool.xyz --with ase:my_calculator:make --workers 4 -o labelled.xyz
    comitia label pool.xyz --with pyscf:xc=pbe0,basis=def2-svp -o labelled.xyz
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s  %(message)s", datefmt="%H:%M:%S")
    stop.patience = PATIENCE
    from comitia.engines.force_engines import EngineOptions
    from comitia.engines.labels import label_file
    from comitia.files import check_destination, write_json

    for path in filter(None, (json_path, options["ready_file"])):
        check_destination(path)
    if options["ready_file"] is not None:
        options["ready_file"].unlink(missing_ok=True)  # an earlier one
    report = label_file(structures, engine, output, EngineOptions(**options), progress=not quiet)
    error = report.pop("error")
    if json_path is not None:
        write_json(json_path, {"data": str(structures), "engine": engine, "output": str(output), **report})
    for failure in report["failed"][:SHOWN]:
        click.echo(f"comitia: {structures}, frame {failure['frame']}: {failure['error']}", err=True)
    if len(report["failed"]) > SHOWN:
        click.echo(f"comitia: and {len(report['failed']) - SHOWN} more; all are in --json F", err=True)
    if not quiet:
        before = f" ({report['from_before']} of them before)" if report["from_before"] else ""
        click.echo(
            f"{report['labelled']} of {report['structures']} structures labelled{before}, "
            f"{len(report['failed'])} failed, {report['seconds']:.1f} s"
        )
    return error.exit_code if error is not None else 0
