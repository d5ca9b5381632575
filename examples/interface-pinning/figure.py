"""The figure of the study: order parameters of at most two runs in time, and melting temperatures with their errors."""

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np

from comitia.files import whole_file

COLOURS = {"fitted": "#c1553b", "true": "#1f4e79"}
LITERATURE_RANGE = (1671, 1711)  # K: 1691 ± 20, J. Q. Broughton and X. P. Li, Phys. Rev. B 35, 9120 (1987)
SMOOTHING = 10  # frames


def figure(runs, results, interval, centre, path):
    """Draw it.

    Parameters
    ----------
    runs : {potential: {phase: [(order parameter (n_frames,), energies), ...]}}
    results : dict, the content of results.json
    interval : float, between frames, ps
    centre : float, of the bias
    path : Path of a PNG file
    """
    canvas, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), width_ratios=(1.8, 1.4), layout="constrained")
    for potential, phases in runs.items():
        for order, _ in phases["pinned"][:2]:
            smooth = np.convolve(order, np.ones(SMOOTHING) / SMOOTHING, mode="valid")
            time = interval * (np.arange(len(smooth)) + SMOOTHING / 2)
            left.plot(time, smooth, color=COLOURS[potential], lw=0.7, alpha=0.8)
        left.plot([], [], color=COLOURS[potential], label=potential)
    left.axhline(centre, color="0.5", lw=0.8, ls=":")
    left.set(xlabel="time / ps", ylabel="order parameter Q, means over 1 ps", xlim=(0, None))
    left.legend(frameon=False, ncols=2, loc="upper right")
    _temperatures(right, results)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    with whole_file(path) as partial:
        canvas.savefig(partial, format="png", dpi=150)
    plt.close(canvas)


def _temperatures(axes, results):
    """Melting temperatures: of single runs where they are there, of each potential, and of the true one, whose
    distance from the fitted one is that of the same frames, with the error of this distance."""
    repeated = results.get("repeated", {"long": {"values": [], "errors": []}})["long"]
    pairs = enumerate(zip(repeated["values"], repeated["errors"], strict=True), start=1)
    points = [(str(number), value, error, "0.6") for number, (value, error) in pairs]
    for potential, found in results["potentials"].items():
        temperature = found["melting_temperature"]
        points.append(
            (
                "all" if repeated["values"] else potential,
                temperature["value"],
                temperature["total_error"],
                COLOURS[potential],
            )
        )
        if "true_minus_fitted" in found:
            shift = found["true_minus_fitted"]["melting_temperature"]
            label = "fitted + difference\non its frames"
            points.append((label, temperature["value"] + shift["value"], shift["total_error"], "0.4"))
    for place, (_, value, error, colour) in enumerate(points):
        axes.errorbar(place, value, error, fmt="o", ms=4, capsize=3, color=colour)
    axes.axhspan(*LITERATURE_RANGE, color="0.87", zorder=0)
    across = axes.get_yaxis_transform()
    axes.text(0.02, LITERATURE_RANGE[1] - 1, "Broughton and Li", va="top", color="0.4", fontsize=8, transform=across)
    axes.set(xticks=range(len(points)), xlim=(-0.6, len(points) - 0.4), ylabel="melting temperature / K")
    axes.set_xticklabels([point[0] for point in points], fontsize=8)
