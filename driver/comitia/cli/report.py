"""`comitia report`: one HTML page of a study."""

from pathlib import Path

import click


@click.command(name="report", short_help="one HTML page of a study and its figures")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
def command(folder):
    """Write DIR/report.html from the results.json and the figures that `comitia run` left in DIR.

    The page is complete in itself: figures are inside it.

    \b
    comitia report examples/zundel/quick
    """
    from comitia.report.page import report_page

    click.echo(f"page: {report_page(folder)}")
