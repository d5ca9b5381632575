"""Atoms whose species are swapped: slots say what the potential says of the atoms as they are."""

import numpy as np
import pytest
from models import crystal, small_model
from numpy.testing import assert_allclose

from comitia.engines.slots import SlotEvaluator


@pytest.mark.parametrize("asked", [{}, {"members": True}, {"uncertainty_gradient": True}])
def test_swaps_are_followed(asked):
    potential, atoms = small_model((10, 18)), crystal((10, 18), seed=2)
    slots = SlotEvaluator(potential.evaluator(atoms.numbers, atoms.pbc, 1), atoms.numbers)
    generator = np.random.default_rng(5)
    for n_exchanged in (0, 2, 2, 40, 64):
        chosen = generator.choice(64, n_exchanged, replace=False)
        atoms.numbers[chosen] = atoms.numbers[generator.permutation(chosen)]
        assert slots.follow(atoms.numbers)
        found = slots.compute(atoms.positions[None], atoms.cell.array[None], **asked)
        fresh = potential.evaluator(atoms.numbers, atoms.pbc, 1)
        expected = fresh.compute(atoms.positions[None], atoms.cell.array[None], **asked)
        for name, value in vars(expected).items():
            if value is None:
                assert getattr(found, name) is None
            else:
                assert_allclose(getattr(found, name), value, rtol=1e-10, atol=1e-12, err_msg=name)


def test_another_composition_is_not_followed():
    atoms = crystal((10, 18))
    slots = SlotEvaluator(small_model((10, 18)).evaluator(atoms.numbers, atoms.pbc, 1), atoms.numbers)
    before = slots.compute(atoms.positions[None], atoms.cell.array[None]).forces
    changed = atoms.numbers.copy()
    changed[0] = 18
    assert not slots.follow(changed)
    assert not slots.follow(atoms.numbers[:-1])
    assert (slots.compute(atoms.positions[None], atoms.cell.array[None]).forces == before).all()
