"""`comitia lammps`: LAMMPS with the committee inside, or driven by it."""

import importlib

import click

COMMANDS = {"build": "comitia.cli.lammps_build", "run": "comitia.cli.lammps_run"}


class _LazyGroup(click.Group):
    def list_commands(self, context):
        return list(COMMANDS)

    def get_command(self, context, name):
        return importlib.import_module(COMMANDS[name]).command if name in COMMANDS else None


@click.group(name="lammps", cls=_LazyGroup)
def command():
    """LAMMPS with the committee inside as a pair style, or driven by it.

    \b
    comitia lammps build
    comitia lammps run in.melt --model model.safetensors --species 'Si O'
    """
