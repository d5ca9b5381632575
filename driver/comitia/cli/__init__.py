"""The command line: one file per command, each imported only when it is called."""

import gc
import importlib
import math
import os
import sys

import click

from comitia.errors import ComitiaError, OutputError, StoppedBySignal
from comitia.signals import Stop

COMMANDS = {
    "run": "a whole study: fit, sample, reweight, perturb, report",
    "fit": "fit a committee of potentials to reference data",
    "eval": "errors and calibration of a model on a data set",
    "select": "the structures, or the features, that say most",
    "inspect": "what is inside a model file",
    "check": "what an input will do, before a queue finds out",
    "serve": "the force client for i-PI, ASE or any server of the protocol",
    "label": "energies and forces of structures from any engine",
    "lammps": "the LAMMPS plugin, and LAMMPS driven by a committee",
    "sample": "i-PI and its force clients under one command",
    "reweight": "averages under every committee member, with their errors",
    "perturb": "free energies and averages carried to a reference method",
    "report": "one HTML page of a study and its figures",
}


class Finite(click.FloatRange):
    """A number on the command line within a range; `nan` and `inf` are refused too."""

    def convert(self, value, parameter, context):
        number = super().convert(value, parameter, context)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number", parameter, context)
        return number


pass_stop = click.make_pass_decorator(Stop, ensure=True)  # to commands that say how long a signal may wait

precision_option = click.option(
    "--precision",
    type=click.Choice(["float64", "float32"]),
    default="float64",
    show_default=True,
    help="Of the kernels; float32 takes a quarter less time, forces change by less than 1e-4 eV/Å.",
)


class _LazyGroup(click.Group):
    def list_commands(self, context):
        return list(COMMANDS)

    def get_command(self, context, name):
        if name not in COMMANDS:
            return None
        return importlib.import_module(f"comitia.cli.{name}").command

    def format_commands(self, context, formatter):
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _version(context, option, value):
    if value:
        from comitia import __version__

        click.echo(f"comitia {__version__}")
        context.exit()


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Print the version."
)
def cli():
    """Machine-learned potentials with committees: fit, serve, sample, and averages with their errors.

    \b
    comitia fit FIT.yaml
    comitia serve model.safetensors --template init.xyz --unix comitia
    """


def main():
    """Run the command line; end with the exit code that says what happened."""
    stop = Stop()
    stop.install()
    try:
        code = _main(stop)
    finally:
        stop.disarm()
        stop.close()
    gc.freeze()  # modules go with the process: to look through them for garbage takes as long as to load click
    sys.exit(code)


def _main(stop):
    try:
        code = cli.main(standalone_mode=False, obj=stop)
    except click.UsageError as error:
        error.show()
        code = 2
    except click.Abort:
        click.echo("comitia: interrupted", err=True)
        code = 130
    except StoppedBySignal as stopped:
        stop.disarm()
        click.echo("comitia: stopped by a signal", err=True)
        code = stopped.exit_code
    except ComitiaError as error:
        if os.environ.get("COMITIA_TRACEBACK"):
            raise
        click.echo(f"comitia: {error}", err=True)
        code = error.exit_code
    except MemoryError as error:
        if os.environ.get("COMITIA_TRACEBACK"):
            raise
        click.echo(f"comitia: not enough memory ({error}); use fewer members, features or atoms", err=True)
        code = ComitiaError.exit_code
    except OSError as error:
        if os.environ.get("COMITIA_TRACEBACK"):
            raise
        name = f"{error.filename}: " if error.filename else ""
        click.echo(f"comitia: {name}{error.strerror or error}; check the place and its permissions", err=True)
        code = OutputError.exit_code
    return code if isinstance(code, int) else 0
