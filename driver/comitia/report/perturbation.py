"""Diagnostics of a free-energy perturbation in one figure."""

import numpy as np

from comitia.report.plots import COLOURS, png_figure
from comitia.thermodynamics import perturb
from comitia.units import KB

FEWEST = 20  # frames from which the convergence is drawn


def perturbation_figure(energy_model, energy_reference, temperature, found, path, weights=None):
    """Distribution of the work, weights of the frames, convergence, and the cumulants against the exponential.

    Parameters
    ----------
    energy_model, energy_reference : (n_frames, n_given) arrays, eV
    temperature : float, K
    found : FreeEnergyDifference of them
    path : Path of the PNG
    weights : (n_frames,) array, or None
    """
    model, reference = (np.asarray(values).reshape(len(values), -1) for values in (energy_model, energy_reference))
    difference = (reference - model).mean(axis=1)
    given = np.ones(len(difference)) if weights is None else weights
    with png_figure(path, (8.0, 5.6)) as figure:
        (work, shares), (convergence, methods) = figure.subplots(2, 2)
        _draw_work(work, difference, given, temperature, found)
        _draw_weights(shares, difference, given, temperature)
        _draw_convergence(convergence, model, reference, temperature, weights, found)
        _draw_methods(methods, found)


def _draw_work(axes, difference, weights, temperature, found):
    """Where the reference would sample, beside where the model did: the overlap is what counts."""
    kt = KB * temperature
    reduced = (difference - np.average(difference, weights=weights)) / kt
    tilted = weights * np.exp(-(reduced - reduced.min()))
    bins = np.histogram_bin_edges(reduced, bins=min(30, max(8, len(reduced) // 8)))
    axes.hist(reduced, bins, weights=weights, density=True, color=COLOURS[1], alpha=0.55, label="sampled")
    axes.hist(reduced, bins, weights=tilted, density=True, histtype="step", color=COLOURS[0], lw=1.5, label="reference")
    axes.set_xlabel(r"$\beta(\Delta V - \langle\Delta V\rangle)$")
    axes.set_ylabel("density")
    axes.set_title(f"work: spread {found.spread:.2g}, correlation {found.correlation:.3f}")
    axes.legend()


def _draw_weights(axes, difference, weights, temperature):
    """How much of the average the heaviest frames carry."""
    reduced = difference / (KB * temperature)
    share = weights * np.exp(-(reduced - reduced.min()))
    share = np.sort(share / share.sum())[::-1]
    numbers = np.arange(1, len(share) + 1)
    axes.plot(numbers / len(share), np.cumsum(share), color=COLOURS[0], lw=1.6)
    axes.plot([0, 1], [0, 1], color="0.6", lw=0.8, ls=":")
    size = 1 / np.sum(share**2)
    axes.set_xlabel("share of the frames, heaviest first")
    axes.set_ylabel("share of the average")
    axes.set_title(f"weights: effective {size:.0f} of {len(share)}, largest {100 * share[0]:.1f} %")


def _draw_convergence(axes, model, reference, temperature, weights, found):
    """The result from the first n frames, with its error."""
    axes.set_xlabel("frames")
    axes.set_ylabel("from the final value / meV")
    axes.set_title(f"convergence: {found.more_frames} more halve the error")
    counts = np.unique(np.geomspace(FEWEST, len(model), 16).astype(int)) if len(model) > FEWEST else []
    values, errors, used = [], [], []
    for count in counts:
        part = slice(None, count)
        if np.ptp(model[part].mean(axis=1)) == 0:
            continue
        one = perturb(model[part], reference[part], temperature, weights=None if weights is None else weights[part])
        used.append(count)
        values.append(1e3 * (one.delta_f - found.delta_f))
        errors.append(1e3 * (one.error or 0.0))
    if used:
        axes.errorbar(used, values, errors, fmt="o-", ms=3, lw=1.0, color=COLOURS[1], capsize=2)
    axes.axhline(0, color="0.6", lw=0.8, ls=":")


def _draw_methods(axes, found):
    """Exponential average and cumulants, from the first cumulant, meV."""
    first = found.cumulants[0]
    rows = [("first cumulant", 0.0, found.cumulant_errors[0])]
    if np.isfinite(found.cumulants[1]):
        rows.append(("second cumulant", found.cumulants[1], found.cumulant_errors[2]))
    if found.method not in ("first cumulant", "second cumulant"):
        rows.append((found.method, found.delta_f - first, found.error or 0.0))
    for place, (_, value, error) in enumerate(rows):
        axes.errorbar([1e3 * value], [place], xerr=[1e3 * error], fmt="o", color=COLOURS[place], capsize=3)
    axes.set_yticks(range(len(rows)), [name for name, _, _ in rows])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.invert_yaxis()
    axes.set_xlabel("from the first cumulant / meV")
    if found.disagreement is not None and found.disagreement_error is not None:
        errors = abs(found.disagreement) / found.disagreement_error if found.disagreement_error > 0 else 0.0
        axes.set_title(f"{found.verdict}: they differ by {errors:.1f} errors")
    else:
        axes.set_title(found.verdict)
