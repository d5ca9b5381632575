"""What many elements cost: `python tests/benchmarks/bench_elements.py`.

The same atoms in the same places, once of one element and then of more, with the same number of channels
(pseudo-species) everywhere: a dense contraction from species to channels. Process CPU time of one thread, in turns.
The second case are structures of up to six elements each from the reference set, where it is there, evaluated in
one batch with a model of all 25 and with one that takes every atom for the same.
"""

import dataclasses
import time

import numpy as np
from samples import D_BLOCK, SHARED, alloy, read
from timing import interleave, ratio, run_alone, stay_on_one_core, summary

N_CHANNELS = 4
COUNTS = (1, 2, 5, 10, 25)
CUTOFF = 5.0  # Å
BASIS = {
    "order 2": {"n_max": [6, 6, 0], "l_max": [0, 4, 0], "max_features": 1000},
    "order 3": {"n_max": [6, 6, 3], "l_max": [0, 4, 3], "max_features": 1000},
}


def potential_of(species, **basis):
    """A model of any number of species that are contracted to `N_CHANNELS`; its features do not depend on them."""
    from comitia.density import Descriptor
    from comitia.potential import Potential

    rng = np.random.default_rng(2)
    channels = Descriptor.build(range(1, N_CHANNELS + 1), CUTOFF, **basis)
    contraction = rng.normal(size=(N_CHANNELS, len(species)))
    descriptor = dataclasses.replace(channels, species=np.array(species), contraction=contraction)
    weights = rng.normal(scale=1e-3, size=(1, descriptor.width))
    return Potential(descriptor, weights, np.zeros(len(species)))


def path_of(structures, potential):
    """A function: () -> CPU time per atom of energies, forces and virials of some structures, their lists kept."""
    batch = potential.descriptor.batch(structures)
    weights, kernel = potential.mean_weights, potential.kernel
    n_atoms = sum(len(atoms) for atoms in structures)

    def seconds():
        begin = time.process_time()
        kernel.evaluate(batch, weights, n_threads=1)
        return (time.process_time() - begin) / n_atoms

    return seconds


def as_one_element(atoms):
    changed = atoms.copy()
    changed.numbers[:] = D_BLOCK[0]
    return changed


def measure(n_rounds):
    """Times and ratios to one element: {case: {number of elements: ...}}."""
    cases = {}
    for order, basis in BASIS.items():
        lattice = {n: ([alloy(n)], D_BLOCK[:n]) for n in COUNTS}
        cases[f"lattice of 500 atoms, {order}"] = lattice, basis
        path = SHARED / "hea25_subset" / "hea25_100.xyz.xz"
        if path.exists():
            frames = read(path)[:20]
            of_one = [as_one_element(atoms) for atoms in frames]
            cases[f"20 alloys of the reference set, {order}"] = {1: (of_one, [21]), 25: (frames, D_BLOCK)}, basis
    results = {}
    for case, (systems, basis) in cases.items():
        paths = {n: path_of(structures, potential_of(z, **basis)) for n, (structures, z) in systems.items()}
        times = interleave(paths, n_rounds)
        results[case] = {
            n: {"microseconds_per_atom": one, "to_one_element": ratio(times, n, 1)} for n, one in summary(times).items()
        }
    return results


def report(results):
    """Print the table."""
    for case, counts in results.items():
        print(f"{case}, {N_CHANNELS} channels")
        for n, one in counts.items():
            print(
                f"  {n:3d} elements {one['microseconds_per_atom']['median']:8.2f} µs/atom, "
                f"{one['to_one_element']['median']:.3f} × one element"
            )


if __name__ == "__main__":
    stay_on_one_core()
    run_alone(__doc__, measure, report)
