"""Threads and batches change how work is shared, not what comes out."""

import numpy as np
import pytest
import systems
from ase.build import bulk
from numpy.testing import assert_allclose

from comitia.density import Descriptor
from comitia.errors import NumericalError, StructureError

TOLERANCE = 1e-12  # relative to the largest number of each kind


@pytest.fixture(scope="module")
def potential():
    return systems.potential([6, 14], n_members=5, n_max=[5, 3, 2])


@pytest.fixture(scope="module")
def crystal(potential):
    return systems.crystal(potential.species, 2, seed=41)


def equal_to_rounding(found, expected):
    for name in ("energy", "forces", "virial", "atomic_energies", "member_energies", "energy_uncertainty"):
        reference = getattr(expected, name)
        scale = np.abs(reference).max() + 1e-300
        assert_allclose(getattr(found, name), reference, rtol=0, atol=TOLERANCE * max(1.0, scale), err_msg=name)


def same_bits(found, expected):
    for name in ("energy", "forces", "virial", "atomic_energies", "member_energies", "energy_uncertainty"):
        assert np.array_equal(getattr(found, name), getattr(expected, name)), name


def test_two_threads_equal_one(potential, crystal):
    equal_to_rounding(potential.compute(crystal, n_threads=2), potential.compute(crystal, n_threads=1))


@pytest.mark.parametrize("n_threads", [1, 2, 3])
def test_same_bits_for_the_same_number_of_threads(potential, crystal, n_threads):
    first = potential.compute(crystal, n_threads=n_threads)
    for _ in range(3):
        same_bits(potential.compute(crystal, n_threads=n_threads), first)


def test_more_threads_than_atoms(potential):
    structures = systems.structures(potential.species)
    for name in ("one atom, isolated", "one atom, periodic", "no neighbours"):
        found = potential.compute(structures[name], n_threads=8)
        equal_to_rounding(found, potential.compute(structures[name], n_threads=1))


@pytest.mark.parametrize("n_threads", [1, 2])
def test_batch_equals_one_by_one(potential, crystal, n_threads):
    structures = [crystal, *systems.structures(potential.species).values(), crystal]
    batch = potential.compute(structures, n_threads=n_threads)
    for found, atoms in zip(batch, structures, strict=True):
        equal_to_rounding(found, potential.compute(atoms, n_threads=1))


def test_a_stream_is_cut_into_batches_and_counts_on(potential, crystal, monkeypatch):
    monkeypatch.setattr("comitia.potential.potential.ATOMS_PER_BATCH", 2 * len(crystal))
    structures = [crystal] * 5
    found = list(potential.stream((atoms for atoms in structures), members=True))
    assert len(found) == 5
    for one in found:
        equal_to_rounding(one, potential.compute(crystal))
    flat = crystal.copy()
    flat.cell[2] = flat.cell[1]
    with pytest.raises(StructureError, match="structure 4: "):
        potential.compute([*structures[:4], flat])
    lost = crystal.copy()
    lost.positions[1] = np.nan
    with pytest.raises(NumericalError, match="structure 3: atom 1"):
        potential.compute([*structures[:3], lost])


def test_sums_and_tangents_of_two_threads_equal_one(potential, crystal):
    descriptor, kernel = potential.descriptor, potential.kernel
    one, two = (descriptor.sums([crystal, crystal], n_threads=n) for n in (1, 2))
    assert_allclose(two, one, rtol=0, atol=TOLERANCE * np.abs(one).max())
    directions = np.random.default_rng(1).normal(size=(len(crystal), 3))
    one, two = (kernel.tangent(descriptor.batch([crystal]), directions, n) for n in (1, 2))
    assert_allclose(two, one, rtol=0, atol=TOLERANCE * np.abs(one).max())


def test_structures_in_python_threads_equal_one_after_the_other(potential):
    from concurrent.futures import ThreadPoolExecutor

    structures = list(systems.structures(potential.species).values())
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(potential.descriptor.design, structures))
    for found, atoms in zip(together, structures, strict=True):
        for part, expected in zip(found, potential.descriptor.design(atoms), strict=True):
            assert np.array_equal(part, expected)


def test_no_atoms_and_no_structures(potential):
    from ase import Atoms

    assert potential.compute([]) == []
    empty = potential.compute(Atoms())
    assert empty.energy == 0.0
    assert empty.forces.shape == (0, 3)
    assert not empty.virial.any()


@pytest.mark.parametrize("n_threads", [0, -1])
def test_a_number_of_threads_that_makes_no_sense_is_refused(n_threads):
    descriptor = Descriptor.build([14], 3.0, n_max=[2, 0, 0], l_max=[0, 0, 0])
    batch = descriptor.batch([bulk("Si", "diamond", a=5.43)])
    with pytest.raises(ValueError, match="thread"):
        descriptor.kernel().evaluate(batch, np.zeros((1, descriptor.n_features)), n_threads=n_threads)
