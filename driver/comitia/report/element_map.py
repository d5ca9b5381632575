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


def principal_coordinates(contraction):
    """Coordinates of the species along the principal axes of their columns of u, about the mean.

    Parameters
    ----------
    contraction : (n_channels, n_species) array

    Returns
    -------
    coordinates : (n_species, n_axes) array, the axis of the largest spread first, the entry farthest out positive
    share : (n_axes,) array, part of the variance along each axis
    """
    points = np.asarray(contraction).T
    points = points - points.mean(axis=0)
    _, spread, axes = np.linalg.svd(points, full_matrices=False)
    coordinates = points @ axes.T
    largest = np.take_along_axis(coordinates, np.abs(coordinates).argmax(axis=0)[None], axis=0)
    variance = spread**2
    return coordinates * np.where(largest < 0, -1.0, 1.0), variance / max(variance.sum(), 1e-300)


def element_map_figure(species, contraction, path):
    """Elements on the first two principal axes of the contraction, coloured by group, with one marker for each period.

    Parameters
    ----------
    species : (n_species,) atomic numbers
    contraction : (n_channels, n_species) array
    path : Path of the PNG
    """
    from ase.data import chemical_symbols

    coordinates, share = principal_coordinates(contraction)
    if coordinates.shape[1] < 2:
        coordinates, share = np.column_stack([coordinates[:, 0], np.zeros(len(species))]), np.append(share, 0.0)
    places = np.array([group_and_period(int(z)) for z in species])

    with png_figure(path, (6.4, 4.8)) as figure:
        axes = figure.subplots()
        for period in np.unique(places[:, 1]):
            chosen = places[:, 1] == period
            drawn = axes.scatter(
                *coordinates[chosen, :2].T,
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
        for number, point in zip(species, coordinates, strict=True):
            axes.annotate(chemical_symbols[number], point[:2], (5, 4), textcoords="offset points")
        axes.set_aspect("equal", adjustable="datalim")
        axes.margins(0.12)
        axes.set_xlabel(f"first principal axis of u ({100 * share[0]:.0f} % of the variance)")
        axes.set_ylabel(f"second principal axis of u ({100 * share[1]:.0f} %)")
        axes.legend(fontsize=8)
        figure.colorbar(drawn, ax=axes, label="group", ticks=np.unique(places[:, 0]))
