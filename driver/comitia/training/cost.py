"""What an evaluation costs, measured on this machine: energy, forces and virial on one thread, neighbour list kept."""

import time

import numpy as np

from comitia.errors import SettingsError

LONG_ENOUGH, N_TIMINGS = 0.02, 5  # s of a timing; the fastest of so many counts
MOST_ATOMS = 500  # of the structures that are timed
FEWEST_FEATURES, MOST_FEATURES, RUNG = 50, 20000, 1.15  # budgets that are tried: each so many times the one before


def microseconds_per_atom(descriptor, atoms, seed=0):
    """Processor time of one evaluation with random weights, µs for each atom.

    Parameters
    ----------
    descriptor : Descriptor
    atoms : ase.Atoms
    """
    from comitia.potential import Potential

    weights = np.random.default_rng(seed).normal(scale=1e-6, size=(1, descriptor.width))
    evaluator = Potential(descriptor, weights, np.zeros(descriptor.n_species)).evaluator(atoms.numbers, atoms.pbc, 1)
    positions, cells = atoms.positions[None].copy(), atoms.cell.array[None].copy()

    def timing(n_times):
        begin = time.process_time()
        for _ in range(n_times):
            evaluator.compute(positions, cells)
        return (time.process_time() - begin) / n_times

    timing(1)  # the list
    n_times = int(np.clip(LONG_ENOUGH / max(timing(1), 1e-6), 1, 10000))
    return 1e6 * min(timing(n_times) for _ in range(N_TIMINGS)) / len(atoms)


def typical(structures):
    """The structure that costs are measured on: the largest that is not larger than it need be."""
    structures = list(structures)
    small = [a for a in structures if len(a) <= MOST_ATOMS]
    return max(small, key=len) if small else min(structures, key=len)


def largest_within(target, build, atoms):
    """The descriptor with the most features that costs no more than `target`.

    Budgets stand on a ladder, so that noise of the timing rarely makes another model of the same settings.

    Parameters
    ----------
    target : float, µs/atom
    build : function that gives the Descriptor of a budget, the number of features for each centre
    atoms : ase.Atoms to time

    Returns
    -------
    Descriptor, its cost in µs/atom

    Raises
    ------
    SettingsError
        where the smallest model costs more.
    """
    steps = int(np.log(MOST_FEATURES / FEWEST_FEATURES) / np.log(RUNG))
    ladder = [round(FEWEST_FEATURES * RUNG**step) for step in range(steps + 1)]
    low, high, found, refusal = 0, len(ladder), None, None
    while low < high:  # below `low` they are within the target, or too small for the basis; from `high` on not
        rung = (low + high) // 2
        try:
            descriptor = build(ladder[rung])
        except SettingsError as error:
            low, refusal = rung + 1, error
            continue
        cost = microseconds_per_atom(descriptor, atoms)
        if cost <= target:
            found, low = (descriptor, cost), rung + 1
            continue
        size, high = descriptor.n_features, rung
        refusal = SettingsError(
            f"target_cost: a model of {size} features takes {cost:.1f} µs/atom on this machine; {target:g} are too few "
            "for this basis and cutoff"
        )
    if found is None:
        raise refusal
    return found
