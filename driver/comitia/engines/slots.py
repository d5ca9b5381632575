"""Atoms whose species change, evaluated as atoms that change places."""

import dataclasses

import numpy as np


class SlotEvaluator:
    """An evaluator that follows atoms whose species are swapped, as by `fix atom/swap` of LAMMPS.

    It has a slot for each atom, of a species that stays. After a swap the atoms go into each other's slots, so that for
    the potential two atoms have moved, and only what they touch is evaluated anew.

    Parameters
    ----------
    evaluator : as `Potential.evaluator` makes it
    numbers : (n_atoms,) atomic numbers that it was made for
    """

    def __init__(self, evaluator, numbers):
        self.potential = evaluator.potential
        self._evaluator, self._numbers = evaluator, np.array(numbers)
        self._atoms = np.arange(len(numbers))  # in each slot

    def follow(self, numbers):
        """Take other species of the same atoms; whether there are slots for them.

        Parameters
        ----------
        numbers : (n_atoms,) atomic numbers
        """
        if len(numbers) != len(self._numbers):
            return False
        wrong = np.flatnonzero(numbers[self._atoms] != self._numbers)
        atoms = self._atoms[wrong]
        into = wrong[np.argsort(self._numbers[wrong], kind="stable")]
        atoms = atoms[np.argsort(numbers[atoms], kind="stable")]
        if not np.array_equal(numbers[atoms], self._numbers[into]):
            return False
        self._atoms[into] = atoms
        return True

    def compute(self, positions, cells, **asked):
        """Predictions for positions (n_structures, n_atoms, 3) of the atoms, and for these atoms."""
        found = self._evaluator.compute(np.asarray(positions)[:, self._atoms], cells, **asked)
        if (self._atoms[:-1] < self._atoms[1:]).all():
            return found
        back = np.argsort(self._atoms)
        axes = {"forces": 1, "atomic_energies": 1, "atomic_virials": 1, "member_forces": 2, "uncertainty_gradients": 1}
        values = {name: getattr(found, name, None) for name in axes}
        moved = {name: value.take(back, axes[name]) for name, value in values.items() if value is not None}
        return dataclasses.replace(found, **moved)
