"""Moments of a small linear model in which every species is a channel of its own.

The features of a model on pseudo-species are polynomials in the contraction u of those on species: the sums of a
least-squares problem, made once for the species, give the fit on any pseudo-species without another look at the data.
The model has the orders 1 and 2 and few radial functions, so that its sums are small.
"""

import collections
import dataclasses

import numpy as np

from comitia.density import Descriptor

MOST_COLUMNS = 4500
ROWS_PER_COLUMN = 30  # force components beyond which more structures add nothing
# n_max of order 1, n_max and l_max of order 2, whether order 2 has weights for each centre species; the first that fits
SIZES = ((6, 3, 3, True), (6, 3, 3, False), (6, 2, 3, False), (5, 1, 3, False), (4, 1, 2, False), (2, 1, 1, False))


@dataclasses.dataclass(frozen=True)
class Size:
    """How large the model is, and which column is which.

    Columns are the constants (n_species), then order 1 (centre, channel q) with q = s n_first + n, then order 2
    (centre, pair q <= q' of channels with q = s n_second + n, l); `n_centres` is 1 where the centres share order 2.
    """

    n_species: int
    n_first: int
    n_second: int
    n_l: int
    n_centres: int

    @classmethod
    def fitting(cls, n_species):
        """The largest of `SIZES` with at most `MOST_COLUMNS` columns, else the smallest."""
        for n_first, n_second, l_max, resolved in SIZES:
            size = cls(n_species, n_first, n_second, l_max + 1, n_species if resolved else 1)
            if size.n_columns <= MOST_COLUMNS:
                break
        return size

    @property
    def n_order1(self):
        return self.n_species**2 * self.n_first

    @property
    def n_columns(self):
        n_channels = self.n_species * self.n_second
        return self.n_species + self.n_order1 + self.n_centres * n_channels * (n_channels + 1) // 2 * self.n_l

    def pairs(self, n_species):
        """(n_pairs, 2) array: channels q <= q' of so many species or pseudo-species."""
        return np.column_stack(np.triu_indices(n_species * self.n_second))

    def descriptor(self, species, cutoff):
        """The model on these species."""
        n_max, l_max = [self.n_first, self.n_second, 0], [0, self.n_l - 1, 0]
        n_channels = len(species) * self.n_second
        room = 1 + len(species) * self.n_first + n_channels * (n_channels + 1) // 2 * self.n_l
        return Descriptor.build(species, cutoff, n_max=n_max, l_max=l_max, max_features=room)

    def columns(self, features, n_radial, present):
        """Columns of the features of a model on some of the species.

        Parameters
        ----------
        features : (n_features, 10) int array
        n_radial : int
        present : (n_present,) int array, indices of its species

        Returns
        -------
        (n_present * n_features,) int array; features of centres that share a column have the same
        """
        n_channels = self.n_species * self.n_second
        pair = np.zeros((n_channels, n_channels), int)
        first, second = self.pairs(self.n_species).T
        pair[first, second] = pair[second, first] = np.arange(len(first))
        order, l = features[:, 0], features[:, 2]
        (s1, n1), (s2, n2) = (np.divmod(np.maximum(features[:, column], 0), n_radial) for column in (1, 3))
        columns = np.empty((len(present), len(features)), int)
        for row, centre in zip(columns, present, strict=True):
            row[order == 0] = centre
            one, two = order == 1, order == 2
            channel = centre * self.n_species + present[s1[one]]
            row[one] = self.n_species + channel * self.n_first + n1[one]
            shared = 0 if self.n_centres == 1 else centre
            channels = [present[s[two]] * self.n_second + n[two] for s, n in ((s1, n1), (s2, n2))]
            index = (shared * len(first) + pair[channels[0], channels[1]]) * self.n_l + l[two]
            row[two] = self.n_species + self.n_order1 + index
        return columns.ravel()


@dataclasses.dataclass
class ResolvedMoments:
    """Sums of the weighted rows of energies and forces: gram (n, n), rhs (n,), square, count; what the columns are."""

    size: Size
    gram: np.ndarray
    rhs: np.ndarray
    square: float
    count: int


def _representative(sets, structures, n_rows):
    """Structures evenly from all sets of species until they have `n_rows` force components, by set."""
    total = 3 * sum(len(s.atoms) for s in structures)
    every = max(1, total // n_rows)
    return {present: members[:: min(every, max(1, len(members) // 8))] for present, members in sets.items()}


def resolved_moments(structures, target_of, species, cutoff, step):
    """Moments of the small model from as many structures as it takes.

    Each structure is expanded on the species that it has, so that the cost does not grow with their number in the data.

    Parameters
    ----------
    structures : list of LabelledStructure
    target_of : function that gives the Target of a structure
    species : (n_species,) int array, atomic numbers, increasing
    cutoff : float, Å
    step : function called after every structure, read or left out

    Returns
    -------
    ResolvedMoments
    """
    size = Size.fitting(len(species))
    sets = collections.defaultdict(list)
    for index, structure in enumerate(structures):
        sets[tuple(np.searchsorted(species, np.unique(structure.atoms.numbers)).tolist())].append(index)
    chosen = _representative(sets, structures, ROWS_PER_COLUMN * size.n_columns)
    gram, rhs = np.zeros((size.n_columns, size.n_columns)), np.zeros(size.n_columns)
    square, count = 0.0, 0
    for present, members in sets.items():
        descriptor = size.descriptor(species[list(present)], cutoff)
        columns = size.columns(descriptor.features, descriptor.n_radial, np.array(present))
        used, position = np.unique(columns, return_inverse=True)
        own_gram, own_rhs = np.zeros((len(used), len(used))), np.zeros(len(used))
        for index in chosen[present]:
            target = target_of(structures[index])
            design = descriptor.design(structures[index].atoms, forces=target.forces is not None, virial=False)
            rows, values = [], []
            if target.energy is not None:
                rows.append(target.scale["energy"] * design.features[None])
                values.append([target.scale["energy"] * target.energy])
            if target.forces is not None:
                rows.append(target.scale["forces"] * design.forces)
                values.append(target.scale["forces"] * target.forces)
            if rows:
                expanded, value = np.vstack(rows), np.concatenate(values)
                matrix = np.zeros((len(value), len(used)))
                for start in range(0, len(columns), descriptor.n_features):  # columns of one centre are all different
                    centre = slice(start, start + descriptor.n_features)
                    matrix[:, position[centre]] += expanded[:, centre]
                own_gram += matrix.T @ matrix
                own_rhs += matrix.T @ value
                square += float(value @ value)
                count += len(value)
        gram[np.ix_(used, used)] += own_gram
        rhs[used] += own_rhs
        for _ in members:
            step()
    return ResolvedMoments(size, gram, rhs, square, count)
