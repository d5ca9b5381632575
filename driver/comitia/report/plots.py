"""Figures, drawn without a display; matplotlib is imported only here."""

import contextlib
import io
import itertools

import numpy as np

from comitia.files import write_atomic
from comitia.units import KB

COLOURS = ("#c1553b", "#1f4e79", "#5b8c5a", "#8a5a9e", "#b8892b")
STYLES = ((0, (5, 2)), (0, (1.5, 1.5)), (0, (5, 2, 1.5, 2)))  # of references
_STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "xtick.direction": "out",
    "ytick.direction": "out",
}


def _as_array(values):
    return np.array([np.nan if value is None else value for value in values], dtype=float)


def _draw_profile(axes, error_axes, profile, label, colour):
    """One free-energy profile, meV, in its committee band (dark) and total band; below it both errors by themselves."""
    x, value = np.array(profile["x"]), 1e3 * _as_array(profile["value"])
    statistical = 1e3 * _as_array(profile["statistical_error"])
    axes.plot(x, value, color=colour, lw=1.6, label=label)
    total = statistical
    if profile["committee_error"] is not None:
        committee = 1e3 * _as_array(profile["committee_error"])
        total = np.hypot(statistical, committee)
        axes.fill_between(x, value - committee, value + committee, color=colour, alpha=0.4, lw=0)
        error_axes.plot(x, committee, color=colour, lw=1.2)
    axes.fill_between(x, value - total, value + total, color=colour, alpha=0.15, lw=0)
    error_axes.plot(x, statistical, color=colour, lw=1.0, ls=(0, (2, 2)))


def _draw_corrected(axes, profiles, colours, style, label):
    """Profiles under one reference, with their error where a curve is drawn; one line of the legend for all of them."""
    for name, profile in profiles.items():
        x, value = np.array(profile["x"]), 1e3 * _as_array(profile["value"])
        error = 1e3 * _as_array(profile["statistical_error"])
        axes.plot(x, value, color=colours[name], lw=1.2, ls=style)
        axes.fill_between(x, value - error, value + error, color=colours[name], alpha=0.12, lw=0)
    axes.plot([], [], color="0.3", lw=1.2, ls=style, label=label)


def _draw_profiles(axes, error_axes, results, report):
    colours = dict(zip(results["profiles"], itertools.cycle(COLOURS), strict=False))
    for name, profile in results["profiles"].items():
        _draw_profile(axes, error_axes, profile, report.labels.get(name, name), colours[name])
    for (name, found), style in zip(results.get("perturbation", {}).items(), itertools.cycle(STYLES), strict=False):
        if found["profiles"]:
            _draw_corrected(axes, found["profiles"], colours, style, report.labels.get(name, name))
    temperatures = {round(sample["temperature"], 3) for sample in results["samples"].values()}
    if len(temperatures) == 1:
        kt = 1e3 * KB * temperatures.pop()
        axes.axhline(kt, color="0.6", lw=0.7, ls=":")
        axes.annotate("kT", (1.0, kt), xycoords=("axes fraction", "data"), color="0.4", ha="right", va="bottom")
    units = {profile["x_unit"] for profile in results["profiles"].values()}
    error_axes.set_xlabel(
        report.labels.get("x", "collective variable") + (f" / {units.pop()}" if len(units) == 1 else "")
    )
    axes.set_ylabel("free energy / meV")
    axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
    axes.tick_params(labelbottom=False)
    axes.legend(loc="upper center")
    error_axes.set_yscale("log")
    error_axes.set_ylabel("error / meV")
    error_axes.plot([], [], color="0.3", lw=1.2, label="committee")
    error_axes.plot([], [], color="0.3", lw=1.0, ls=(0, (2, 2)), label="statistical")
    error_axes.legend(loc="upper center", ncols=2, fontsize=8)


def _drawn_curves(results, labels):
    """Averages as functions of temperature, in the unit of the first: those that have a label, or all."""
    curves = {}
    for name, curve in results.get("against_temperature", {}).items():
        if all(own in results["observables"] for own in curve["names"]):
            curves[name] = curve["temperatures"], [results["observables"][own] for own in curve["names"]]
    units = [averages[0]["unit"] for _, averages in curves.values()]
    curves = {name: curve for name, curve in curves.items() if curve[1][0]["unit"] == units[0]}
    return {name: curve for name, curve in curves.items() if name in labels} or curves


def _draw_against_temperature(axes, error_axes, curves, report):
    """Averages at several temperatures, with the committee's error (thick bar) and the total one (thin bar)."""
    colours = itertools.cycle(COLOURS)
    shift = itertools.count(-(len(curves) // 2))  # bars of one temperature stand side by side
    for (name, (temperatures, averages)), colour in zip(curves.items(), colours, strict=False):
        x = np.array(temperatures) + 0.006 * (temperatures[-1] - temperatures[0]) * next(shift)
        value, statistical, committee = (
            _as_array([average[key] for average in averages])
            for key in ("value", "statistical_error", "committee_error")
        )
        axes.plot(x, value, "o-", color=colour, ms=3, lw=1.2, label=report.labels.get(name, name))
        axes.errorbar(x, value, np.hypot(statistical, np.nan_to_num(committee)), color=colour, ls="", lw=0.8)
        axes.errorbar(x, value, committee, color=colour, ls="", lw=2.4)
        error_axes.plot(x, committee, "o-", color=colour, ms=2, lw=1.2)
        error_axes.plot(x, statistical, "o", color=colour, ms=2, lw=1.0, ls=(0, (2, 2)))
    axes.set_ylabel(report.labels.get("y", "average"))
    axes.tick_params(labelbottom=False)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8)
    error_axes.set_xlabel("temperature / K")
    error_axes.set_ylabel("error")
    error_axes.set_yscale("log")
    error_axes.plot([], [], color="0.3", lw=1.2, label="committee")
    error_axes.plot([], [], color="0.3", lw=1.0, ls=(0, (2, 2)), label="statistical")
    error_axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8)


def _draw_parity(axes, reference, predicted, title, unit, error):
    axes.plot(reference, predicted, ".", ms=2.5, color=COLOURS[1], alpha=0.5, mew=0)
    ends = [min(reference.min(), predicted.min()), max(reference.max(), predicted.max())]
    axes.plot(ends, ends, color="0.5", lw=0.7, zorder=0)
    axes.set_title(title)
    axes.set_xlabel(f"reference / {unit}")
    axes.set_ylabel(f"potential / {unit}")
    axes.text(0.05, 0.93, error, transform=axes.transAxes, va="top")


def _parity(energy_axes, forces_axes, structures, predictions):
    """Energies (eV, from their own mean) and forces (eV/Å) of the hold-out."""
    pairs = [(s, p) for s, p in zip(structures, predictions, strict=True) if s.energy is not None]
    if pairs:
        reference = np.array([s.energy for s, _ in pairs])
        predicted = np.array([p.energy for _, p in pairs])
        n_atoms = np.array([len(s.atoms) for s, _ in pairs])
        rmse = 1e3 * np.sqrt(np.mean(((predicted - reference) / n_atoms) ** 2))
        origin = reference.mean()
        text = f"RMSE {rmse:.2f} meV/atom"
        _draw_parity(energy_axes, reference - origin, predicted - origin, "hold-out energies", "eV", text)
    pairs = [(s, p) for s, p in zip(structures, predictions, strict=True) if s.forces is not None]
    if pairs:
        reference = np.concatenate([s.forces.ravel() for s, _ in pairs])
        predicted = np.concatenate([p.forces.ravel() for _, p in pairs])
        rmse = 1e3 * np.sqrt(np.mean((predicted - reference) ** 2))
        _draw_parity(forces_axes, reference, predicted, "hold-out forces", "eV/Å", f"RMSE {rmse:.1f} meV/Å")


@contextlib.contextmanager
def png_figure(path, size):
    """An empty figure of `size`, inches, that is written to `path` as a PNG at the end."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=size, dpi=150, layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
    write_atomic(path, buffer.getvalue())


def study_figure(results, report, path, parity=None):
    """Free-energy profiles of a study with their bands, or where it has none averages against temperature; beside them
    the potential against its reference.

    Parameters
    ----------
    results : dict, the content of results.json
    report : comitia.study.settings.Report
    path : Path of the PNG
    parity : (structures, predictions) of the hold-out, or None
    """
    with png_figure(path, (8.0, 4.8) if parity else (5.2, 4.8)) as figure:
        halves = figure.subfigures(1, 2, width_ratios=[2.1, 1]) if parity else [figure.subfigures()]
        main, errors = halves[0].subplots(2, 1, sharex=True, height_ratios=[3, 1])
        curves = _drawn_curves(results, report.labels)
        if results["profiles"]:
            _draw_profiles(main, errors, results, report)
        elif curves:
            _draw_against_temperature(main, errors, curves, report)
        else:
            main.set_axis_off()
            errors.set_axis_off()
        if report.title:
            main.set_title(report.title)
        if parity:
            _parity(*halves[1].subplots(2, 1), *parity)


def _draw_reliability(curve_axes, error_axes, found, kind, factor, unit):
    """Quantile curve, and binned RMSE against the one expected, of energies or of forces."""
    from matplotlib.ticker import LogLocator, NullFormatter

    curve_axes.plot([0, 1], [0, 1], color="0.6", lw=0.7, ls=":")
    curve_axes.plot(found["curve"]["expected"], found["curve"]["observed"], color=COLOURS[1], lw=1.6)
    area = f"area {found['miscalibration_area']:.3f}\nrms z {found['rms_z']:.2f}"
    curve_axes.text(0.05, 0.95, area, transform=curve_axes.transAxes, va="top")
    curve_axes.set_title(kind)
    curve_axes.set_xlabel("expected fraction")
    curve_axes.set_ylabel("observed fraction")
    expected, observed = (factor * np.array(found["bins"][name]) for name in ("expected_rmse", "rmse"))
    error_axes.loglog(expected, observed, "o", ms=3.5, color=COLOURS[0])
    ends = np.array([min(expected.min(), observed.min()) / 1.3, max(expected.max(), observed.max()) * 1.3])
    error_axes.plot(ends, ends, color="0.6", lw=0.7, ls=":")
    for axis in (error_axes.xaxis, error_axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())
    if found["rank_correlation"] is not None:
        text = f"rank correlation {found['rank_correlation']:.2f}"
        error_axes.text(0.05, 0.95, text, transform=error_axes.transAxes, va="top")
    error_axes.set_xlabel(f"expected RMSE / {unit}")
    error_axes.set_ylabel(f"RMSE / {unit}")


def reliability_figure(calibration, path):
    """Whether uncertainties are as large as errors: quantile curves, and binned RMSE against σ, of energies and forces.

    Parameters
    ----------
    calibration : dict, as returned by `Evaluation.calibration`
    path : Path of the PNG
    """
    rows = [
        (kind, factor, unit)
        for kind, factor, unit in (("energy", 1e3, "meV/atom"), ("forces", 1.0, "eV/Å"))
        if calibration.get(kind)
    ]
    with png_figure(path, (6.4, 2.9 * len(rows))) as figure:
        for axes, (kind, factor, unit) in zip(figure.subplots(len(rows), 2, squeeze=False), rows, strict=True):
            _draw_reliability(*axes, calibration[kind], kind, factor, unit)


def front_figure(rows, path):
    """Error against cost of what `comitia fit --tune` tried, the front drawn through.

    Parameters
    ----------
    rows : list of dict, the `table` of tune.json
    path : Path of the PNG
    """
    from matplotlib.ticker import LogLocator, NullFormatter

    kinds = [(kind, unit) for kind, unit in (("energy", "meV/atom"), ("forces", "eV/Å")) if rows[0][kind] is not None]
    with png_figure(path, (3.6 * len(kinds), 3.2)) as figure:
        for axes, (kind, unit) in zip(figure.subplots(1, len(kinds), squeeze=False)[0], kinds, strict=True):
            cost, error = (np.array([row[name] for row in rows]) for name in ("cost", kind))
            on_front, chosen = (np.array([row[name] for row in rows]) for name in ("front", "chosen"))
            axes.loglog(cost[~on_front], error[~on_front], "o", ms=3, color="0.7", label="tried")
            axes.loglog(cost[on_front], error[on_front], "o-", ms=4, lw=1.2, color=COLOURS[1], label="front")
            axes.loglog(cost[chosen], error[chosen], "o", ms=8, mfc="none", color=COLOURS[0], label="chosen")
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axis.set_major_formatter("{x:g}")
                axis.set_minor_formatter(NullFormatter())
            axes.set_xlabel("cost / µs per atom")
            axes.set_ylabel(f"RMSE of the {kind} / {unit}" if kind == "energy" else f"RMSE of forces / {unit}")
            axes.legend()
