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
    with png_figure(path, (2.4 * n_columns + 0.6, 2.2 * n_rows + 0.3)) as figure:
        panels = np.atleast_1d(figure.subplots(n_rows, n_columns, squeeze=False)).ravel()
        for panel, (label, unit, average) in zip(panels, averages, strict=False):
            number = np.arange(len(average.members))
            panel.plot(number, average.members, "o", ms=3, label="members")
            panel.axhline(average.mean, lw=1)
            for error, shade, name in (
                (average.total_error, 0.15, "total error"),
                (average.statistical_error, 0.3, "statistical error"),
            ):
                if error is not None:
                    panel.axhspan(average.mean - error, average.mean + error, alpha=shade, lw=0, label=name)
            panel.set_title(f"{label}\n{average.verdict}", fontsize=8)
            panel.set_ylabel(unit)
            panel.set_xlabel("member")
        panels[0].legend(fontsize=6)
        for panel in panels[len(averages) :]:
            panel.set_axis_off()
