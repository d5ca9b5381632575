"""Random descriptors on random structures: the kernels equal their twins whatever the sizes."""

import numpy as np
import reference
import systems
from ase import Atoms
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

SPECIES = (1, 6, 8, 14, 29)


@st.composite
def models(draw):
    """Arrays of a descriptor with random sizes, contraction and feature list."""
    species = sorted(draw(st.sets(st.sampled_from(SPECIES), min_size=1, max_size=4)))
    return systems.random_arrays(
        species,
        draw(st.integers(0, 2**31)),
        n_channels=draw(st.one_of(st.none(), st.integers(1, 5))),
        n_radial=draw(st.integers(1, 10)),
        l_max=draw(st.integers(0, 5)),
        per_l=draw(st.booleans()),
        per_species=draw(st.booleans()),
        n_each=draw(st.integers(1, 12)),
        cutoff=draw(st.sampled_from([2.5, 4.0])),
        n_intervals=draw(st.sampled_from([1, 7, 64])),
    )


@st.composite
def batches(draw, species):
    """One to three structures of up to 12 atoms, with any boundaries and cells of either handedness."""
    structures = []
    for _ in range(draw(st.integers(1, 3))):
        rng = np.random.default_rng(draw(st.integers(0, 2**31)))
        n_atoms = draw(st.integers(1, 12))
        cell = rng.normal(size=(3, 3)) + 3.5 * np.eye(3)[rng.permutation(3)]
        structures.append(
            Atoms(
                rng.choice(species, n_atoms),
                scaled_positions=rng.uniform(-2, 2, (n_atoms, 3)),
                cell=cell,
                pbc=draw(st.tuples(st.booleans(), st.booleans(), st.booleans())),
            )
        )
    return structures


@given(data=st.data(), arrays=models(), n_threads=st.integers(1, 3))
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_kernels_equal_twins(data, arrays, n_threads):
    descriptor = systems.descriptor(arrays)
    structures = data.draw(batches(arrays["species"]))
    weights = np.random.default_rng(1).normal(size=(descriptor.n_species, descriptor.n_features))
    found = descriptor.kernel().evaluate(
        descriptor.batch(structures), weights, sums=True, features=True, n_threads=n_threads
    )
    directions = np.random.default_rng(2).normal(size=(sum(map(len, structures)), 3))
    tangents = descriptor.kernel().tangent(descriptor.batch(structures), directions, n_threads)
    model = reference.Model(descriptor, weights.ravel())
    first = 0
    for s, atoms in enumerate(structures):
        mine = slice(first, first + len(atoms))
        first += len(atoms)
        expected = reference.features(descriptor, atoms)
        forces, virial = model.forces(atoms)[0], model.virials(atoms)[0]
        tangent = reference.summed(descriptor, atoms, reference.jvp(descriptor, atoms, directions[mine]))
        sums = reference.summed(descriptor, atoms, expected)
        # forces may be small differences of large terms of many atoms: the scale is that of the features too
        scale = max(1.0, np.abs(expected).max())
        for value, twin in (
            (found["features"][mine], expected),
            (found["sums"][s].ravel(), sums),
            (found["forces"][mine], forces),
            (found["virials"][s], virial),
            (tangents[s].ravel(), tangent),
        ):
            assert_allclose(value, twin, rtol=0, atol=1e-12 * max(scale, np.abs(twin).max()))
