"""What belongs to single atoms: energies of the members, and virials as the heat flux asks for them."""

import numpy as np
import pytest
import systems
from numpy.testing import assert_allclose

SPECIES = (8, 14)
KINDS = {"quadratic": {"n_max": [6, 4, 0], "l_max": [0, 4, 0]}, "correlations": {}}


def evaluated(potential, atoms, **asked):
    batch = potential.descriptor.batch([atoms], 0.0, 2)
    return potential.kernel.evaluate(batch, potential.mean_weights, n_threads=2, **asked)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("structure", ["bulk", "molecule", "triclinic", "cell below the cutoff"])
def test_members_of_atoms_are_weights_times_their_features(kind, structure):
    potential = systems.potential(SPECIES, n_members=5, **KINDS[kind])
    atoms = systems.structures(SPECIES)[structure]
    deviations = potential.deviations.reshape(5, len(SPECIES), -1).swapaxes(0, 1)
    found = evaluated(potential, atoms, deviations=np.ascontiguousarray(deviations), features=True)
    species = potential.descriptor.species_index(atoms.numbers)
    expected = np.einsum("akf,af->ak", deviations[species], found["features"])
    assert_allclose(found["atomic_members"], expected, rtol=1e-11, atol=1e-12)
    apart = potential.compute(atoms).member_energies - potential.compute(atoms).energy
    assert_allclose(found["atomic_members"].sum(axis=0), apart, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("structure", systems.structures(SPECIES))
def test_virials_of_atoms_add_up(structure):
    potential = systems.potential(SPECIES)
    found = evaluated(potential, systems.structures(SPECIES)[structure], atomic_virials=True)
    scale = 1 + np.abs(found["virials"]).max()
    assert_allclose(found["atomic_virials"].sum(axis=0), found["virials"][0], rtol=0, atol=1e-12 * scale)


@pytest.mark.parametrize("kind", KINDS)
def test_virial_of_an_atom_is_of_the_forces_on_it(kind):
    """W_j = sum_i (r_j - r_i) F_j from the energy of atom i (Fan et al., Phys. Rev. B 92, 094301 (2015), eq. 23)."""
    potential = systems.potential(SPECIES, with_core=False, **KINDS[kind])
    atoms = systems.structures(SPECIES)["molecule"]
    batch = potential.descriptor.batch([atoms])
    weights = potential.mean_weights[potential.descriptor.species_index(atoms.numbers)]
    expected = np.zeros((len(atoms), 3, 3))
    for i in range(len(atoms)):
        alone = np.zeros_like(weights)
        alone[i] = weights[i]
        forces = potential.kernel.evaluate(batch, adjoint=alone)["forces"]
        expected += np.einsum("ja,jb->jab", atoms.positions - atoms.positions[i], forces)
    found = evaluated(potential, atoms, atomic_virials=True)["atomic_virials"]
    assert_allclose(found, expected, rtol=0, atol=1e-11 * np.abs(expected).max())
