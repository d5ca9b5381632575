"""Tables on the terminal."""

from comitia.report.numbers import with_error

COLOURS = {"reliable": "green", "doubtful": "yellow", "unreliable": "red"}


def print_results(results, console=None):
    """Print what results.json holds: one line for every average and every exact number."""
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    console = console or Console()
    if not console.is_terminal:
        console.width = max(console.width, 120)
    table = Table(
        box=SIMPLE, caption="errors: one standard deviation; samples: effective number", caption_justify="left"
    )
    table.add_column("observable", no_wrap=True)
    for name in ("value", "statistical", "committee"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("unit", no_wrap=True)
    table.add_column("samples", justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for name, average in results["observables"].items():
        errors = [average["statistical_error"], average["committee_error"]]
        value, *texts = with_error(average["value"], errors)
        verdict = average["verdict"]
        table.add_row(
            name,
            value,
            *texts,
            average["unit"],
            f"{average['effective_sample_size']:.0f}",
            f"[{COLOURS.get(verdict, 'white')}]{verdict}[/]",
        )
    for name, reference in results["references"].items():
        table.add_row(name, f"{reference['value']:.5f}", "", "", reference["unit"], "", "exact")
    console.print(table)
    for reference, found in results.get("perturbation", {}).items():
        console.print(_perturbation(reference, found))
    for name, reason in results.get("reasons", {}).items():
        if results["observables"].get(name, {}).get("verdict") not in ("reliable", None):
            console.print(f"  {name}: {reason}")
    errors = results["model"]["errors"].get("test")
    if errors:
        console.print(f"  potential, {results['model']['n_members']} members, on the hold-out: {_errors(errors)}")


def _perturbation(reference, found):
    """One line for every number that a reference changes."""
    from rich.box import SIMPLE
    from rich.table import Table

    table = Table(box=SIMPLE, title=f"perturbation to {reference}", title_justify="left")
    for name in ("number", "value", "statistical", "perturbation", "shift", "unit", "samples", "verdict"):
        table.add_column(name, justify="left" if name in ("number", "unit", "verdict") else "right", no_wrap=True)
    for name, average in found["observables"].items():
        errors = [average["statistical_error"], average["perturbation_error"], average["shift"]]
        _add(table, name, average, *with_error(average["value"], errors))
    for name, average in found["differences"].items():
        value, error = with_error(average["value"], [average["statistical_error"]])
        _add(table, name, average, value, "", error, value)
    return table


def _add(table, name, average, *texts):
    size = f"{average['effective_sample_size']:.0f}"
    table.add_row(
        name, *texts, average["unit"], size, f"[{COLOURS.get(average['verdict'], 'white')}]{average['verdict']}[/]"
    )


def _errors(errors):
    found = [(kind, errors[kind]) for kind in ("energy", "forces", "virial") if kind in errors]
    return ", ".join(f"{kind} RMSE {error['rmse']:.3g} {error['unit']}" for kind, error in found)
