"""What is read off the training set before the fit."""

import numpy as np
import pytest
import systems
from ase.neighborlist import primitive_neighbor_list
from numpy.testing import assert_allclose

from comitia.errors import StructureError
from comitia.structures import LabelledStructure
from comitia.training.dataset import CORE_SEARCH, closest_contacts

SPECIES = [6, 14]


def labelled(atoms):
    return LabelledStructure(atoms, None, None, None, "", "test, frame 0")


@pytest.mark.parametrize("name", ["triclinic", "molecule", "slab", "one atom, periodic", "no neighbours"])
def test_closest_contacts_are_those_of_another_neighbour_list(name):
    atoms = systems.structures(SPECIES)[name]
    first, second, distance = primitive_neighbor_list("ijd", atoms.pbc, atoms.cell.array, atoms.positions, CORE_SEARCH)
    expected = np.full((2, 2), CORE_SEARCH)
    of = np.searchsorted(SPECIES, atoms.numbers)
    np.minimum.at(expected, (of[first], of[second]), distance)
    assert_allclose(closest_contacts([labelled(atoms)], SPECIES), expected, rtol=0, atol=1e-12)


def test_atoms_in_one_place_are_refused():
    atoms = systems.structures(SPECIES)["molecule"]
    atoms.positions[1] = atoms.positions[0] + 0.05
    with pytest.raises(StructureError, match=r"test, frame 0: two atoms are 0\.087 Å apart"):
        closest_contacts([labelled(atoms)], SPECIES)
