"""Collective variables equal their definitions, and nothing but the vocabulary is understood."""

import numpy as np
import pytest
from ase import Atoms
from ase.geometry import find_mic
from numpy.testing import assert_allclose

from comitia.errors import SettingsError
from comitia.study.collective_variables import displacement, parse

O1, O2, SHARED = 0, 1, 6
TRANSFER = {"proton_transfer": {"proton": SHARED, "between": [O1, O2]}}


@pytest.fixture
def positions():
    """(frames, beads, atoms, 3), Å."""
    return np.random.default_rng(1).normal(size=(5, 4, 7, 3))


def test_values_are_those_of_the_definitions(positions):
    a, b, h = positions[:, :, O1], positions[:, :, O2], positions[:, :, SHARED]
    first, second = np.linalg.norm(h - a, axis=-1), np.linalg.norm(h - b, axis=-1)
    assert_allclose(parse({"distance": [O1, SHARED]}, "")(positions), first, rtol=1e-14)
    assert_allclose(parse(TRANSFER, "")(positions), first - second, rtol=1e-14)
    assert_allclose(parse({"absolute": TRANSFER}, "")(positions), np.abs(first - second), rtol=1e-14)
    written_out = {"difference": [{"distance": [O1, SHARED]}, {"distance": [O2, SHARED]}]}
    assert_allclose(parse(written_out, "")(positions), first - second, rtol=1e-14)


def test_angle_is_that_of_ase(positions):
    for frame in positions[:, 0]:
        expected = Atoms("H7", frame).get_angle(2, 0, 5)
        assert_allclose(parse({"angle": [2, 0, 5]}, "")(frame), expected, rtol=1e-10)


def test_the_nearest_image_is_taken(positions):
    cell = np.array([[3.0, 0, 0], [0.9, 2.8, 0], [-0.7, 1.1, 3.3]])
    far = 4 * positions
    cells = np.broadcast_to(cell, (*far.shape[:2], 3, 3))
    found = displacement(far, 0, 3, cells)
    expected, _ = find_mic((far[:, :, 3] - far[:, :, 0]).reshape(-1, 3), cell)
    assert_allclose(np.linalg.norm(found, axis=-1).ravel(), np.linalg.norm(expected, axis=1), rtol=1e-12)


def test_the_most_shared_proton_is_counted():
    numbers = np.array([8, 8, 1, 1])
    shared = np.array([[-1.2, 0, 0], [1.2, 0, 0], [0.1, 0, 0], [-1.2, 1.0, 0]])
    exchanged = shared[[0, 1, 3, 2]]
    variable = parse({"proton_transfer": {"proton": 2, "between": [0, 1]}}, "")
    assert variable.fraction_most_shared(np.array([shared, shared, shared, exchanged]), numbers) == 0.75


@pytest.mark.parametrize(
    ("description", "says"),
    [
        ({"distnce": [0, 1]}, "did you mean 'distance'"),
        ({"__import__": ["os"]}, "unknown collective variable"),
        ({"distance": [0, 0]}, "2 different atoms"),
        ({"distance": [0, -1]}, "counted from 0"),
        ({"distance": [0, True]}, "counted from 0"),
        ({"distance": "0, 1"}, "2 different atoms"),
        ({"difference": [{"distance": [0, 1]}]}, "two collective variables"),
        ({"difference": [{"distance": [0, 1]}, {"angle": [0, 1, 2]}]}, "means nothing"),
        ({"proton_transfer": {"proton": 2}}, "between"),
        ({"distance": [0, 1], "angle": [0, 1, 2]}, "a collective variable is"),
        ({"short_range_order": ["Cr", "Ni"]}, "pair: "),
        ({"short_range_order": {"pair": ["Cr"], "cutoff": 3.0}}, "two elements"),
        ({"short_range_order": {"pair": ["Cr", "Xx"], "cutoff": 3.0}}, "no atom of 'Xx'"),
        ({"short_range_order": {"pair": ["Cr", "Cr"], "cutoff": 0}}, "must be a length"),
    ],
)
def test_what_makes_no_sense_is_refused(description, says):
    with pytest.raises(SettingsError, match=says):
        parse(description, "observables.x", numbers=np.full(7, 24))
