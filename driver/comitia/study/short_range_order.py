"""Short-range order of an alloy: how often atoms of one element stand beside those of another."""

import numpy as np

from comitia._core import NeighbourList
from comitia.errors import SeriesError


def warren_cowley(of_first, of_second, positions, cell, pbc, cutoff):
    r"""Warren-Cowley parameter of two groups of atoms.

    .. math:: \alpha_{ab} = 1 - \frac{N_{ab}}{N\,x_a x_b}

    with the number :math:`N_{ab}` of neighbours in group b that the atoms of group a have, the number :math:`N` of
    neighbours that all atoms have, and the fractions :math:`x` of atoms in the groups. It is negative where the two
    attract, 1 where they never touch; where n atoms are placed at random its mean is :math:`-1/(n - 1)` for two
    elements and :math:`(1 - x_a)/(x_a (n - 1))` for one with itself.

    Parameters
    ----------
    of_first, of_second : (n_atoms,) boolean arrays, the atoms of each group
    positions : (n_atoms, 3) array, Å
    cell : (3, 3) array, Å, lattice vectors in rows, or None
    pbc : bool, or three
    cutoff : float, Å, between the shell of neighbours that is meant and the next one

    Returns
    -------
    float

    Cowley, Phys. Rev. 77, 669 (1950), doi:10.1103/PhysRev.77.669.
    """
    pairs = NeighbourList(cutoff)
    pairs.update(positions, cell, pbc)
    if not pairs.n_pairs:
        raise SeriesError(f"no two atoms are within {cutoff:g} Å; give a cutoff beyond the first shell of neighbours")
    first = np.repeat(of_first, np.diff(pairs.start))
    both = np.count_nonzero(first & of_second[pairs.neighbour])
    return 1.0 - both / (pairs.n_pairs * of_first.mean() * of_second.mean())
