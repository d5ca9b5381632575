"""Chemical systems, the sets of species that structures are made of, and how they are left out of a fit.

A potential for an alloy is asked for mixtures that no structure of its training set shows, such as four elements from
pure ones and binaries. How wrong it is there, folds cannot tell that hold out some structures of every system. So the
groups of a fit keep systems apart: each is in one *part*, and the groups of a part are left out together.
"""

import dataclasses

import numpy as np

MOST_PARTS, FEWEST_PARTS = 10, 3
FEWEST_STRUCTURES = 5  # of a part, on average
MOST_LEFT_OUT = 0.5  # of the structures of a fit


def chemical_system(structure):
    """The species of a structure, such as "Mo-Nb"."""
    return "-".join(sorted(set(structure.atoms.get_chemical_symbols())))


def deal_parts(systems, most, rng):
    """Part of each structure: every chemical system is one, or where there are too many, some at random are.

    Parameters
    ----------
    systems : (n_structures,) list of str
    most : int, number of parts
    rng : numpy.random.Generator

    Returns
    -------
    (n_structures,) int array; structures of one system are in one part
    """
    names, of_structure, counts = np.unique(systems, return_inverse=True, return_counts=True)
    part = np.arange(len(names))
    if len(names) > most:
        size, mixed = np.zeros(most, int), rng.permutation(len(names))
        for system in mixed[np.argsort(-counts[mixed], kind="stable")]:
            part[system] = size.argmin()
            size[part[system]] += counts[system]
    return part[of_structure]


def strata_of(config_types, systems, max_groups, rng):
    """Strata that keep parts of the chemical systems apart, where there is room for enough of these.

    Parameters
    ----------
    config_types, systems : (n_structures,) lists of str
    max_groups : int, of which every stratum takes two at least
    rng : numpy.random.Generator

    Returns
    -------
    (n_structures,) list of str, or None where there is no room or there are too few systems
    """
    most = min(MOST_PARTS, len(systems) // FEWEST_STRUCTURES, max_groups // (2 * len(set(config_types))))
    if most < FEWEST_PARTS or len(set(systems)) < FEWEST_PARTS:
        return None
    parts = deal_parts(systems, most, rng)
    return [f"{kind}, part {part}" for kind, part in zip(config_types, parts, strict=True)]


def cut_blocks(blocks, systems):
    """Blocks that end where another chemical system begins: (n_structures,) int array."""
    names = np.unique(systems, return_inverse=True)[1]
    return np.unique(np.column_stack([blocks, names]), axis=0, return_inverse=True)[1].ravel()


def strata_like(config_types, systems, names, known):
    """Strata of new structures among those of an earlier fit: that of their `config_type` and chemical system.

    Parameters
    ----------
    config_types, systems : (n_structures,) lists of str
    names : (n_groups,) list of str, the stratum of each group
    known : (n_groups,) list of the systems in each

    Returns
    -------
    (n_structures,) list of str
    """
    there = {}
    for name, of_group in zip(names, known, strict=True):
        there |= {(name.rpartition(", part ")[0], system): name for system in of_group}
    pairs = zip(config_types, systems, strict=True)
    return [there.get((kind, system), f"{kind}, part {system}") for kind, system in pairs]


def systems_of_groups(systems, group, known=()):
    """(n_groups,) list of the chemical systems in each group, those `known` of the first groups included."""
    found = [set(of_group) for of_group in known]
    found += [set() for _ in range(max(group) + 1 - len(found))]
    for system, index in zip(systems, group, strict=True):
        found[index].add(system)
    return [sorted(of_group) for of_group in found]


def parts_of_groups(known):
    """Part of each group: groups that share a chemical system, directly or through others, are in one.

    Parameters
    ----------
    known : (n_groups,) list of the systems in each

    Returns
    -------
    (n_groups,) int array
    """
    part, first = np.arange(len(known)), {}
    for group, of_group in enumerate(known):
        for system in of_group:
            part[part == part[group]] = part[first.setdefault(system, group)]
    return np.unique(part, return_inverse=True)[1] % MOST_PARTS


@dataclasses.dataclass(frozen=True)
class LeftOut:
    """A part of the chemical systems, the groups that it is in, and those that are left to fit.

    Attributes
    ----------
    systems : list of str
    part, rest : (n_groups,) bool arrays
    """

    systems: list
    part: np.ndarray
    rest: np.ndarray


def leave_out(known, allowed, counts):
    """`LeftOut` of each part whose species others have too and that is not most of the data.

    Parameters
    ----------
    known : (n_groups,) list of the systems in each
    allowed : (n_groups,) bool array, the groups of a fit
    counts : (n_groups,) array, how much there is in each

    Returns
    -------
    list, empty where there are fewer than `FEWEST_PARTS`
    """
    parts, found = parts_of_groups(known), []
    for number in np.unique(parts[allowed]):
        part, rest = allowed & (parts == number), allowed & (parts != number)
        systems, others = (sorted({s for g in np.flatnonzero(side) for s in known[g]}) for side in (part, rest))
        species, of_others = ({z for s in names for z in s.split("-")} for names in (systems, others))
        if species <= of_others and counts[part].sum() <= MOST_LEFT_OUT * counts[allowed].sum():
            found.append(LeftOut(systems, part, rest))
    return found if len(found) >= FEWEST_PARTS else []
