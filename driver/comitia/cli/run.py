"""`comitia run`: a whole study from one file."""

from pathlib import Path

import click


@click.command(name="run")
@click.argument("study", type=click.Path(path_type=Path), metavar="STUDY.yaml")
@click.option("--setting", metavar="NAME", help="One of the study's settings; by default its first.")
@click.option(
    "--directory",
    type=click.Path(path_type=Path),
    help="Folder of the results; default beside the study, named as the setting.",
)
@click.option("--restart", is_flag=True, help="Do every stage again.")
@click.option(
    "--check", type=click.Path(path_type=Path), metavar="EXPECTED.json", help="Compare with expected numbers."
)
@click.option("-q", "--quiet", is_flag=True, help="No progress, no table.")
def command(study, setting, directory, restart, check, quiet):
    """Fit, sample, reweight and report, as STUDY.yaml says; writes results.json and figure.png.

    A stage is skipped while nothing that it was made from has changed. A run that was stopped goes on where it was.

    \b
    comitia run examples/zundel/study.yaml
    comitia run examples/zundel/study.yaml --setting long
    """
    from comitia.study import run_study
    from comitia.study.expected import compare, read_expected

    if check is not None:
        read_expected(check)
    say = (lambda line: None) if quiet else click.echo
    results, folder = run_study(study, setting, directory, restart, progress=not quiet, say=say)
    if not quiet:
        from comitia.report.tables import print_results

        print_results(results)
    click.echo(f"results: {folder / 'results.json'}  figure: {folder / 'figure.png'}")
    if check is not None:
        compare(results, check)
        click.echo(f"every number is as {check} expects")
