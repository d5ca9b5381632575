"""Figure of averages: their values with errors, and what each member says."""

import numpy as np

from comitia.report.plots import png_figure


def averages_figure(averages, path):
    """Every average in a panel of its own: the members, their mean, and its errors.

    Parameters
    ----------
    averages : list of (label, unit, comitia.thermodynamics.Average)
    path : Path of the PNG
    """
    n_columns = min(len(averages), 4)
    n_rows = -(-len(averages) // n_columns)
    with png_figure(path, (2.4 * n_columns + 0.6, 2.2 * n_rows + 0.7)) as figure:
        panels = np.atleast_1d(figure.subplots(n_rows, n_columns, squeeze=False)).ravel()
        for panel, (label, unit, average) in zip(panels, averages, strict=False):
            number = np.arange(len(average.members))
            if average.statistical_error is not None:
                ends = average.mean - average.statistical_error, average.mean + average.statistical_error
                panel.axhspan(*ends, color="0.85", lw=0, label="statistical error")
                for sign in (-1, 1):
                    end = average.mean + sign * average.total_error
                    panel.axhline(end, color="C1", lw=1, ls="--", label="total error" if sign == 1 else None)
            panel.axhline(average.mean, color="C0", lw=1, label="average")
            panel.plot(number, average.members, "o", color="C0", ms=3, label="members")
            panel.margins(y=0.1)
            panel.set_title(f"{label}\n{average.verdict}", fontsize=8)
            panel.set_ylabel(unit)
            panel.set_xlabel("member")
        shown = {}  # a panel of an exact average has no errors
        for panel in panels[: len(averages)]:
            for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
                shown.setdefault(label, handle)
        place = {"loc": "outside lower center", "ncols": min(len(shown), 2 * n_columns)}
        figure.legend(shown.values(), shown, **place, fontsize=8, frameon=False)
        for panel in panels[len(averages) :]:
            panel.set_axis_off()
