"""One HTML page of a study, complete in itself: its numbers, its checks, its figures."""

import base64
import html
import json
from pathlib import Path

from comitia.errors import SettingsError
from comitia.files import write_atomic
from comitia.report.numbers import with_error

PAGE = "report.html"
_HEAD = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 15px/1.45 system-ui, sans-serif; max-width: 62em; margin: 2em auto; padding: 0 1em; color: #222 }}
table {{ border-collapse: collapse; margin: 0.6em 0 1.6em }}
th, td {{ padding: 0.2em 0.8em; text-align: right; border-bottom: 1px solid #ddd }}
th:first-child, td:first-child, .text {{ text-align: left }}
.reliable {{ color: #2c7a3f }} .doubtful {{ color: #a06a00 }} .unreliable {{ color: #b3261e }}
img {{ max-width: 100% }} h1 {{ font-size: 1.5em }} h2 {{ font-size: 1.15em }}
</style></head><body>
"""


def _row(cells, tag="td"):
    return "<tr>" + "".join(f"<{tag}>{cell}</{tag}>" for cell in cells) + "</tr>\n"


def _table(head, rows):
    return f"<table>\n{_row(head, 'th')}{''.join(_row(row) for row in rows)}</table>\n" if rows else ""


def _verdict(average, reason=""):
    verdict, reason = (html.escape(text or "") for text in (average["verdict"], reason))
    return f'<span class="{verdict}" title="{reason}">{verdict}</span>'


def _averages(results):
    rows = []
    for name, average in results["observables"].items():
        errors = [average[key] for key in ("statistical_error", "committee_error", "total_error")]
        shown = with_error(average["value"], errors)
        verdict = _verdict(average, results.get("reasons", {}).get(name))
        size = f"{average['effective_sample_size']:.0f}"
        rows.append([html.escape(name), *shown, html.escape(average["unit"]), size, verdict])
    for name, exact in results["references"].items():
        rows.append([html.escape(name), f"{exact['value']:.5f}", "", "", "", html.escape(exact["unit"]), "", "exact"])
    return _table(["", "value", "statistical", "committee", "total", "unit", "samples", "verdict"], rows)


def _corrected(found):
    """What one reference changes: averages, and differences between samples."""
    rows = []
    for name, average in found["observables"].items():
        errors = [average[key] for key in ("statistical_error", "perturbation_error", "total_error", "shift")]
        verdict = _verdict(average)
        rows.append([html.escape(name), *with_error(average["value"], errors), html.escape(average["unit"]), verdict])
    for name, pair in found["differences"].items():
        value, error = with_error(pair["value"], [pair["statistical_error"]])
        rows.append(
            [f"correction of {html.escape(name)}", value, "", error, error, value, pair["unit"], _verdict(pair)]
        )
    page = _table(["", "value", "statistical", "perturbation", "total", "shift", "unit", "verdict"], rows)
    rows = []
    for name, one in found["samples"].items():
        numbers = [one["n_frames"], one["n_beads"], f"{one['effective_sample_size']:.0f}", f"{one['spread']:.2g}"]
        rows.append([html.escape(name), *numbers, _verdict(one, one["reason"])])
    return page + _table(["sample", "frames", "beads", "effective", "σ(βΔV)", "verdict"], rows)


def _figure(path):
    encoded, name = base64.b64encode(path.read_bytes()).decode(), html.escape(path.stem)
    return f'<p>{name}<br><img alt="{name}" src="data:image/png;base64,{encoded}"></p>\n'


def _plain(numbers):
    """A table of names and numbers."""
    rows = []
    for name, value in numbers.items():
        shown = f"{value:.6g}" if isinstance(value, float) else str(value)
        rows.append([html.escape(str(name)), html.escape(shown)])
    return _table(["", ""], rows)


def _errors(results):
    return {
        f"{which}: {kind} RMSE / {error['unit']}": error["rmse"]
        for which, errors in results["model"]["errors"].items()
        for kind, error in errors.items()
        if isinstance(error, dict) and "rmse" in error
    }


def report_page(folder):
    """Write `report.html` into the folder of a study, its figures inside it.

    Parameters
    ----------
    folder : Path, holds results.json, as `comitia run` writes it

    Returns
    -------
    Path of the page

    Raises
    ------
    SettingsError
        if there are no results.
    """
    folder = Path(folder)
    try:
        results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        title = f"{results['study']}, {results['setting']}" if results["setting"] else results["study"]
        parts = [_HEAD.format(title=html.escape(title)), f"<h1>{html.escape(title)}</h1>\n"]
        parts += [_figure(path) for path in sorted(folder.glob("*.png"))]
        parts += ["<h2>Averages</h2>\n", _averages(results)]
        for name, found in results.get("perturbation", {}).items():
            parts += [f"<h2>Perturbation to {html.escape(name)}</h2>\n", _corrected(found)]
            paths = [folder / "perturb" / f"{name}-{sample}.png" for sample in found["samples"]]
            parts += [_figure(path) for path in paths if path.is_file()]
        parts += ["<h2>Potential</h2>\n", _plain(_errors(results)), "<h2>Checks</h2>\n", _plain(results["checks"])]
        parts += ["<h2>Versions</h2>\n", _plain(results["versions"]), "</body></html>\n"]
    except OSError as error:
        raise SettingsError(f"{folder}: has no results.json ({error.strerror}); run `comitia run` first") from error
    except (ValueError, KeyError, TypeError) as error:
        raise SettingsError(f"{folder / 'results.json'}: is not what a study writes ({error}); run it again") from error
    write_atomic(folder / PAGE, "".join(parts))
    return folder / PAGE
