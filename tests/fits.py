"""Small data for fits whose sums are kept, and a stop in the middle of one."""

import models
from ase.calculators.singlepoint import SinglePointCalculator

from comitia.density import Descriptor

CUTOFF = 6.0
BASIS = {"n_max": [6, 3, 0], "l_max": [0, 2, 0]}


def labelled(n_frames, seed=0, species=(18, 36)):
    """Rattled crystals with the energies and forces of a pair potential; some without forces."""
    frames = []
    for frame in range(seed, seed + n_frames):
        atoms = models.crystal(species, (2, 1, 1), rattle=0.05 + 0.02 * (frame % 10), seed=frame)
        energy, forces = models.pair_energy_and_forces(atoms, CUTOFF)
        labels = {"energy": energy, "forces": forces} if frame % 5 else {"energy": energy}
        atoms.calc = SinglePointCalculator(atoms, **labels)
        atoms.info["config_type"] = "hot" if frame % 10 > 4 else "cold"
        frames.append(atoms)
    return frames


class Killed(BaseException):
    """Stands for a signal that ends the fit at once."""


def dies_after(monkeypatch, n_designs):
    """Count designs; from the last of `n_designs` on, computing one ends the fit."""
    counted, compute = [], Descriptor.design

    def design(self, atoms, *arguments, **options):
        counted.append(len(atoms))
        if len(counted) > n_designs:
            raise Killed
        return compute(self, atoms, *arguments, **options)

    monkeypatch.setattr(Descriptor, "design", design)
    return counted
