"""Structures, descriptors and potentials that the physics tests share; every seed is fixed."""

import functools
from types import SimpleNamespace

import numpy as np
import reference
from ase import Atoms
from ase.build import bulk, fcc111
from invariants import count_invariants

SHORTEST = 1.9  # Å, no contact is shorter
CUTOFF = 4.5  # Å


def distances(atoms):
    """Distances up to 6 Å between atoms and their images, Å."""
    return np.linalg.norm(reference.neighbours(atoms, 6.0).vectors, axis=1)


def shortest_contact(atoms):
    """Smallest distance between two atoms or an atom and an image, Å; infinite where there is none below 6 Å."""
    return distances(atoms).min(initial=np.inf)


def rattled(atoms, amplitude, seed):
    """`atoms` moved at random, drawn again until no contact is shorter than `SHORTEST`."""
    rng = np.random.default_rng(seed)
    while True:
        moved = atoms.copy()
        moved.positions += amplitude * rng.uniform(-1, 1, atoms.positions.shape)
        if shortest_contact(moved) > SHORTEST:
            return moved


def filled(numbers, cell, pbc, seed, box=None):
    """Atoms at random in a cell (or a cube of edge `box` Å), no contact shorter than `SHORTEST`."""
    rng = np.random.default_rng(seed)
    basis = np.asarray(cell) if box is None else box * np.eye(3)
    atoms = Atoms(cell=cell, pbc=pbc)
    while len(atoms) < len(numbers):
        trial = atoms + Atoms([numbers[len(atoms)]], positions=[rng.uniform(size=3) @ basis])
        trial.set_cell(cell)
        trial.set_pbc(pbc)
        if shortest_contact(trial) > SHORTEST:
            atoms = trial
    return atoms


def mixed(atoms, numbers, seed):
    """`atoms` with species drawn at random from `numbers`, each present where there are enough atoms."""
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(np.resize(numbers, len(atoms)))
    atoms = atoms.copy()
    atoms.numbers = chosen
    return atoms


def crystal(numbers, repeats, seed):
    """Diamond cells of eight atoms each, rattled by up to 0.1 Å, species at random."""
    atoms = bulk("Si", "diamond", a=5.43, cubic=True).repeat(repeats)
    atoms.positions += np.random.default_rng(seed).uniform(-0.1, 0.1, atoms.positions.shape)
    return mixed(atoms, numbers, seed)


TRICLINIC = np.array([[5.2, 0.3, -0.4], [1.9, 4.9, 0.2], [-1.1, 1.4, 5.6]])
LEFT_HANDED = TRICLINIC[[1, 0, 2]]


@functools.cache
def _bases():
    slab = fcc111("Cu", (2, 2, 2), a=3.9, vacuum=6.0)
    chain = Atoms("Si4", [[0, 0, 0], [2.2, 0.8, 0.1], [4.3, 0, 0.4], [6.4, 0.9, -0.2]], cell=[8.6, 0, 0])
    chain.pbc = (True, False, False)
    plane = Atoms("Si3", [[0, 0, 0], [2.1, 1.5, 0.6], [0.3, 2.9, 1.0]], cell=[[4.4, 0.5, 0], [0.7, 5.1, 0], [0, 0, 0]])
    plane.pbc = (True, True, False)
    primitive = bulk("Si", "diamond", a=5.43)
    bases = {
        "molecule": filled([14] * 7, np.zeros((3, 3)), False, seed=1, box=5.0),
        "molecule in a box": filled([14] * 5, 4.6 * np.eye(3), False, seed=2),
        "bulk": rattled(bulk("Si", "diamond", a=5.43, cubic=True), 0.15, seed=3),
        "slab": rattled(slab, 0.15, seed=4),
        "plane without third vector": rattled(plane, 0.1, seed=5),
        "chain": rattled(chain, 0.1, seed=6),
        "triclinic": filled([14] * 6, TRICLINIC, True, seed=7),
        "left-handed": filled([14] * 6, LEFT_HANDED, True, seed=8),
        "cell below the cutoff": rattled(primitive, 0.12, seed=9),
        "one atom, periodic": Atoms("Si", cell=[[2.5, 0.2, 0.1], [0.4, 2.6, -0.3], [-0.2, 0.3, 2.8]], pbc=True),
        "one atom, isolated": Atoms("Si", positions=[[0.3, -0.2, 0.7]]),
        "one atom, periodic in two": Atoms("Si", cell=[[2.5, 0.2, 0.1], [0.4, 2.6, -0.3], [0, 0, 9.0]], pbc=(1, 1, 0)),
        "no neighbours": Atoms("Si2", positions=[[0, 0, 0], [9.0, 0, 0]]),
    }
    outside = bases["triclinic"].copy()
    outside.positions += np.random.default_rng(10).integers(-4, 5, (len(outside), 3)) @ np.array(outside.cell)
    bases["atoms far outside the cell"] = outside
    return bases


def structures(numbers):
    """Named structures of species `numbers`: every kind of boundary, and cells smaller than the cutoff."""
    return {name: mixed(atoms, list(numbers), seed) for seed, (name, atoms) in enumerate(_bases().items())}


def tables(species, seed, *, n_channels, n_radial, l_max, per_l, per_species=False, cutoff=CUTOFF, n_intervals=24):
    """Arrays of a random descriptor: splines whose value and first two derivatives are continuous, random contraction.

    Every piece interpolates random values, slopes and curvatures at its ends that fall to zero at the cutoff.
    """
    rng = np.random.default_rng(seed)
    n_of_one = n_radial * (l_max + 1) if per_l else n_radial
    n_functions = n_of_one * (len(species) if per_species else 1)
    x = np.linspace(0, 1, n_intervals + 1)[:, None]
    frequency, phase = rng.uniform(2, 9, n_functions), rng.uniform(0, 6, n_functions)
    # values, first and second derivatives with respect to t of (1 - x)^3 cos(frequency x + phase)
    wave, other = np.cos(frequency * x + phase), -np.sin(frequency * x + phase)
    h = 1 / n_intervals
    value = (1 - x) ** 3 * wave
    slope = h * (-3 * (1 - x) ** 2 * wave + (1 - x) ** 3 * frequency * other)
    curvature = h**2 * (6 * (1 - x) * wave - 6 * (1 - x) ** 2 * frequency * other - (1 - x) ** 3 * frequency**2 * wave)
    f0, f1, d0, d1, c0, c1 = value[:-1], value[1:], slope[:-1], slope[1:], curvature[:-1], curvature[1:]
    rise = f1 - f0
    spline = np.stack(
        [
            f0,
            d0,
            c0 / 2,
            10 * rise - 6 * d0 - 4 * d1 - 1.5 * c0 + 0.5 * c1,
            -15 * rise + 8 * d0 + 7 * d1 + 1.5 * c0 - c1,
            6 * rise - 3 * d0 - 3 * d1 - 0.5 * c0 + 0.5 * c1,
        ],
        axis=1,
    )
    offset = np.array([l * n_radial if per_l else 0 for l in range(l_max + 1)], dtype=np.int32)
    if per_species:
        offset = offset + n_of_one * np.arange(len(species), dtype=np.int32)[:, None]
    contraction = np.eye(len(species)) if n_channels is None else rng.normal(size=(n_channels, len(species)))
    return {
        "species": np.array(species),
        "cutoff": cutoff,
        "contraction": contraction,
        "spline": np.ascontiguousarray(spline),
        "n_radial": n_radial,
        "l_max": l_max,
        "radial_offset": offset,
    }


def random_features(seed, *, n_channels, l_max, n_each):
    """Feature list (F, 10) of the constant and `n_each` random features of each order 1 to 4; -1 padded."""
    rng = np.random.default_rng(seed)
    rows = {(0,) + (-1,) * 9}
    rows |= {(1, q, 0) + (-1,) * 7 for q in rng.permutation(n_channels)[:n_each]}
    while len(rows) < 1 + min(n_each, n_channels) + n_each:
        l = int(rng.integers(l_max + 1))
        q1, q2 = sorted(rng.integers(n_channels, size=2).tolist())
        rows.add((2, q1, l, q2, l) + (-1,) * 5)
        if len(rows) > (l_max + 1) * n_channels * (n_channels + 1) // 2:
            break
    n_lower = len(rows)
    triples = set()
    for _ in range(50 * n_each):
        l1, l2 = rng.integers(l_max + 1, size=2)
        l3 = rng.integers(abs(l1 - l2), min(l1 + l2, l_max) + 1)
        if (l1 + l2 + l3) % 2 == 0:
            parts = sorted(zip(rng.integers(n_channels, size=3).tolist(), (int(l1), int(l2), int(l3)), strict=True))
            if count_invariants(parts):
                triples.add((3, *parts[0], *parts[1], *parts[2], -1, -1, -1))
        if len(triples) == n_each:
            break
    quadruples = set()
    for _ in range(50 * n_each):
        ls = rng.integers(l_max + 1, size=4).tolist()
        allowed = range(max(abs(ls[0] - ls[1]), abs(ls[2] - ls[3])), min(ls[0] + ls[1], ls[2] + ls[3]) + 1)
        if sum(ls) % 2 == 0 and allowed:
            parts = zip(rng.integers(n_channels, size=4).tolist(), ls, strict=True)
            quadruples.add((4, *(number for part in parts for number in part), int(rng.choice(allowed))))
        if len(quadruples) == n_each:
            break
    ordered = sorted(rows) + sorted(triples) + sorted(quadruples)
    assert len(ordered) == n_lower + len(triples) + len(quadruples)
    return np.array(ordered, dtype=np.int32)


def random_arrays(species, seed, *, n_channels=None, n_radial=3, l_max=3, per_l=False, n_each=12, **options):
    """All arrays of a random descriptor."""
    arrays = tables(species, seed, n_channels=n_channels, n_radial=n_radial, l_max=l_max, per_l=per_l, **options)
    total = len(arrays["contraction"]) * n_radial
    arrays["features"] = random_features(seed, n_channels=total, l_max=l_max, n_each=n_each)
    return arrays


def plain(arrays):
    """Arrays as an object that the twins read."""
    return SimpleNamespace(**arrays)


def descriptor(arrays):
    """Arrays as a `comitia.density.Descriptor`."""
    from comitia.density import Descriptor

    return Descriptor(**arrays)


def random_weights(descriptor, atoms, n_members, seed):
    """Weights (n_members, width) under which forces in structures like `atoms` are about 1 eV/Å."""
    rng = np.random.default_rng(seed)
    features, forces, _ = descriptor.design(atoms, virial=False)
    columns = np.sqrt((forces**2).mean(axis=0)) + 0.1 * np.abs(features) / len(atoms)
    typical = np.median(columns[columns > 0]) if np.any(columns > 0) else 1.0
    mean = rng.normal(size=descriptor.width)
    spread = 0.2 * rng.normal(size=(n_members, descriptor.width)) * (n_members > 1)
    return (mean + spread) / (columns + 0.3 * typical) / np.sqrt(descriptor.n_features)


def core(species, inner=1.3, outer=2.7):
    """A repulsive core that the shortest contacts reach."""
    from comitia.potential import ZBL

    n = len(species)
    step = 0.05 * (np.arange(n)[:, None] + np.arange(n))
    return ZBL(np.array(species), inner + step, outer - step)


def potential(species, seed=1, *, n_members=1, with_core=True, alpha=(1.7, 1.4), arrays=None, **options):
    """A potential with random weights, forces of about 1 eV/Å; options are those of `Descriptor.build`."""
    from comitia.density import Descriptor
    from comitia.potential import Potential

    options = {"n_max": [6, 4, 2], "l_max": [0, 4, 3]} | options
    built = Descriptor.build(species, CUTOFF, **options) if arrays is None else descriptor(arrays)
    atoms = structures(species)["triclinic"]
    return Potential(
        built,
        random_weights(built, atoms, n_members, seed),
        -3.0 - np.arange(len(species)),
        core(species) if with_core else None,
        *alpha,
        False,
        {"note": "random weights"},
    )
