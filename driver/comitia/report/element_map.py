"""The map of the elements that a learned contraction draws: elements that act alike lie side by side.

Willatt, Musil, Ceriotti, Phys. Chem. Chem. Phys. 20, 29661 (2018), doi:10.1039/C8CP05921G; Lopanitsyna et al., Phys.
Rev. Mater. 7, 045802 (2023), doi:10.1103/PhysRevMaterials.7.045802.
"""

import numpy as np

from comitia.report.plots import png_figure

NOBLE = (0, 2, 10, 18, 36, 54, 86, 118)
MARKERS = "*Xvosd^"  # of the periods


def group_and_period(number):
    """Group (1 to 18; 3 for the f block) and period of an atomic number."""
    period = int(np.searchsorted(NOBLE, number))
    place, length = number - NOBLE[period - 1], NOBLE[period] - NOBLE[period - 1]
    if place <= 2 and number != 2:
        return place, period
    return max(place + 18 - length, 3), period


def coordinates(contraction):
    """(n_species, 2) rows of u that tell species apart most: the second and the third; 0 where there is no third.

    The first is the total density; the others are in the order of what the weights on them weigh.
    """
    rows = np.zeros((2, contraction.shape[1]))
    differences = np.asarray(contraction)[1:3]
    rows[: len(differences)] = differences
    return rows.T


def element_map_figure(species, contraction, path):
    """Elements on the first two differences of the contraction, coloured by group, with one marker for each period.

    Parameters
    ----------
    species : (n_species,) atomic numbers
    contraction : (n_channels, n_species) array
    path : Path of the PNG
    """
    from ase.data import chemical_symbols

    points = coordinates(contraction)
    places = np.array([group_and_period(int(z)) for z in species])

    with png_figure(path, (6.4, 4.8)) as figure:
        axes = figure.subplots()
        for period in np.unique(places[:, 1]):
            chosen = places[:, 1] == period
            drawn = axes.scatter(
                *points[chosen].T,
                c=places[chosen, 0],
                cmap="turbo",
                vmin=places[:, 0].min() - 0.5,
                vmax=places[:, 0].max() + 0.5,
                s=60,
                marker=MARKERS[period - 1],
                edgecolors="0.2",
                linewidths=0.5,
                label=f"period {period}",
            )
        for number, point in zip(species, points, strict=True):
            axes.annotate(chemical_symbols[number], point, (5, 4), textcoords="offset points")
        axes.set_aspect("equal", adjustable="datalim")
        axes.margins(0.12)
        axes.set_xlabel("second row of u")
        axes.set_ylabel("third row of u" if len(contraction) > 2 else "")
        axes.legend(fontsize=8)
        figure.colorbar(drawn, ax=axes, label="group", ticks=np.unique(places[:, 0]))
