"""`comitia lammps build`: the plugin with `pair_style comitia` and `fix comitia`."""

from pathlib import Path

import click


@click.command(name="build", short_help="compile the plugin for a LAMMPS")
@click.option(
    "--include",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Headers of another LAMMPS than that of this environment, as the src folder of its sources.",
)
@click.option(
    "--sizes",
    type=click.Choice(["smallbig", "bigbig", "smallsmall"]),
    help="Of the integers of that LAMMPS, where it does not say so itself; smallbig is its default.",
)
def command(include, sizes):
    """Compile `pair_style comitia` and `fix comitia` against an installed LAMMPS, once for each version, in 10 s.

    \b
    comitia lammps build
    """
    from comitia.engines.lammps_plugin import build

    plugin, is_new = build(include, sizes)
    click.echo(f"plugin      {plugin}{'' if is_new else ' (was there already)'}")
    if include is None:
        click.echo("every lmp of this environment loads it by itself; for another way to start LAMMPS, its input says")
    else:
        click.echo("LAMMPS loads it where its input says")
    click.echo(f"  plugin load {plugin}")
