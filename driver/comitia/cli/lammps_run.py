"""`comitia lammps run`: an input of LAMMPS driven by a potential, without a compiler."""

import logging
from pathlib import Path

import click

from comitia.cli import Finite, pass_stop, precision_option
from comitia.cli.guarding import guard_options, make_guard
from comitia.errors import ComitiaError, StoppedBySignal, UsageError


@click.command(
    name="run", short_help="an input of LAMMPS with the forces of a potential, on one core's LAMMPS",
    context_settings={"ignore_unknown_options": False},
)  # fmt: skip
@click.argument("path", metavar="INPUT", type=click.Path(path_type=Path))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.option("--model", "-m", type=click.Path(path_type=Path), help="A model, or a POTENTIAL.yaml, as of `serve`.")
@click.option("--species", metavar="'SI O'", help="Elements of the atom types; default: labelmap, or pair_coeff.")
@click.option("--plumed", type=click.Path(path_type=Path), help="Input of PLUMED, whose bias is added.")
@click.option("--temperature", type=Finite(0), metavar="K", help="For actions of PLUMED that ask LAMMPS for it.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Summary; default INPUT.json.")
@click.option("--restart", type=click.Path(path_type=Path), help="Written on a signal; default INPUT.restart.")
@click.option("--threads", type=click.IntRange(1, 1024), help="Threads of the potential; default all cores.")
@precision_option
@guard_options
@pass_stop
def command(
    stop, path, arguments, model, species, plumed, temperature, json_path, restart, threads, precision, failed, **guards
):  # fmt: skip
    """Run an input of LAMMPS as it stands, with the energy, forces and virial of a potential in it.

    The forces are put in at the line `fix ID all external pf/callback 1 1`, or at `pair_style comitia` and `pair_coeff
    * * MODEL Si O` (an input for the plugin of `comitia lammps build` runs here too); without such lines by a fix named
    comitia before the first run or minimize. What stands after -- goes to LAMMPS, as -log FILE: its log
    is log.lammps otherwise, as of lmp.

    An input of PLUMED with RESTART goes on from the step of read_restart: what its files say of later steps is cut off.

    \b
    comitia lammps run in.melt --model model.safetensors --species 'Si O'
    comitia lammps run in.melt --model model.safetensors --plumed plumed.dat -- -var T 300
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s  %(message)s", datefmt="%H:%M:%S")

    from comitia.engines.lammps_run import InputRun, model_of
    from comitia.files import check_destination, write_json

    json_path = (json_path or path.with_name(f"{path.name}.json")).absolute()  # the input may go to another folder
    restart = restart or path.with_name(f"{path.name}.restart")
    check_destination(json_path)
    check_destination(restart)
    guards["collect"] = Path(guards["collect"]).absolute()
    model = model or model_of(path)
    if model is None and plumed is None:
        raise UsageError("name the potential by --model MODEL, or in the input by `pair_coeff * * MODEL Si O`")
    if temperature is not None and plumed is None:
        raise UsageError("--temperature is for PLUMED; say --plumed INPUT too, or leave it out")
    summary = {"input": str(path), "model": model and str(model), "plumed": plumed and str(plumed), "ended": "end"}
    potential = _potential(model, precision)
    run = InputRun(
        path, potential, species.replace(",", " ").split() if species else None, plumed, temperature,
        make_guard(potential, None, **guards), failed, restart, threads, arguments,
    )  # fmt: skip
    try:
        run.run()
    except (ComitiaError, StoppedBySignal) as error:
        stopped = isinstance(error, StoppedBySignal)
        summary |= {"ended": f"signal {error.exit_code - 128}" if stopped else str(error)}
        summary |= {"restart": str(restart)} if stopped and run.restart.is_file() else {}
        raise
    finally:
        write_json(json_path, summary | run.summary())
        run.close()
        if potential is not None:
            getattr(potential, "close", lambda: None)()


def _potential(model, precision):
    """The potential, of total energies, or None."""
    if model is None:
        return None
    from comitia.engines.composed import load_potential
    from comitia.potential.source import refuse_corrections

    potential = load_potential(model, precision)
    refuse_corrections(potential, model)
    return potential
