"""`comitia select`: the structures, or the features, that say most."""

from pathlib import Path

import click

from comitia.cli import Finite

METHODS = {"fps": "farthest points", "cur": "largest leverage", "uncertain": "largest uncertainty"}


@click.command(name="select", short_help="the structures, or the features, that say most")
@click.argument("structures", metavar="DATA.xyz", type=click.Path(path_type=Path))
@click.option("-o", "--output", metavar="OUT.xyz", type=click.Path(path_type=Path), help="Write what is chosen.")
@click.option("--count", required=True, type=click.IntRange(1), help="How many to choose.")
@click.option(
    "--method",
    type=click.Choice(list(METHODS)),
    default="fps",
    show_default=True,
    help="Farthest points, CUR, or largest uncertainty.",
)
@click.option("--model", metavar="MODEL", type=click.Path(path_type=Path), help="Its features and its committee.")
@click.option(
    "--cutoff", type=Finite(0, min_open=True), help="Of the features where there is no model, Å.  [default: 5]"
)
@click.option(
    "--initial", metavar="FILE.xyz", type=click.Path(path_type=Path), help="Structures that count as chosen already."
)
@click.option(
    "--closest",
    type=Finite(0),
    default=0.01,
    show_default=True,
    help="Structures nearer than this to a chosen one are left out, in units of the spread of the data.",
)
@click.option("--features", is_flag=True, help="Choose features, by fps or cur, instead of structures.")
@click.option("--json", "json_path", metavar="F", type=click.Path(path_type=Path), help="Write indices and scores.")
@click.option("--threads", type=click.IntRange(1, 1024), help="Number of threads; default all cores.")
@click.option("-q", "--quiet", is_flag=True, help="No progress bar, no table.")
def command(structures, output, count, method, model, cutoff, initial, closest, features, json_path, threads, quiet):
    """Choose COUNT frames of DATA.xyz and write them in the order of the choice, each as it stands in the file.

    fps: each as far as can be from those before; a structure is the mean of the features of its atoms. cur: largest
    leverage. uncertain: largest uncertainty of a force component under the committee of MODEL. With --features the
    indices of features are chosen instead, and go to --json or the terminal.

    \b
    comitia select pool.xyz -o chosen.xyz --count 50 --model silicon.safetensors --initial train.xyz
    """
    from comitia.errors import UsageError
    from comitia.files import check_destination, to_json, write_atomic, write_json
    from comitia.progress import Stages
    from comitia.training.selection import frames_as_they_stand, select

    if method == "uncertain" and (features or model is None):
        raise UsageError("--method uncertain chooses structures, and needs the committee of a --model")
    if features and (output or initial):
        raise UsageError("--features chooses no structures: leave out -o and --initial, and name a file with --json")
    if model is not None and cutoff is not None:
        raise UsageError("--cutoff is that of the --model; leave one of them out")
    if not features and output is None and json_path is None:
        raise UsageError("say where the choice goes, with -o or --json")
    for path in (output, json_path):
        if path is not None:
            check_destination(path)
    with Stages(not quiet) as stages:
        chosen = select(structures, count, method, model, cutoff or 5.0, initial, closest, features, threads, stages)
    if output is not None:
        write_atomic(output, frames_as_they_stand(structures, chosen["indices"]))
    if json_path is not None:
        write_json(json_path, chosen)
    elif features:
        click.echo(to_json(chosen), nl=False)
    if not quiet and not features:
        click.echo(f"{len(chosen['indices'])} of {chosen['of']} structures, {METHODS[method]}")
    if len(chosen["indices"]) < count:
        what = "features" if features else f"structures, or nearer than --closest {closest:g} to one that is chosen"
        click.echo(f"comitia: warning: {len(chosen['indices'])} are chosen: all others are copies of {what}", err=True)
