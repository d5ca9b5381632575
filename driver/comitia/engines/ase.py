"""The potential as an ASE calculator."""

from ase.calculators.calculator import Calculator, all_changes
from ase.stress import full_3x3_to_voigt_6_stress


class ComitiaCalculator(Calculator):
    """Energy, forces, stress and energies of each atom; neighbour lists are kept between calls.

    Beside ASE's properties, `results` holds `member_energies` (n_members,) and `energy_uncertainty`, eV, for a
    potential of more than one member. Made by `Potential.calculator`.
    """

    implemented_properties = ("energy", "forces", "stress", "energies", "free_energy")

    def __init__(self, potential, n_threads=None):
        super().__init__()
        self.potential, self.n_threads = potential, n_threads
        self._evaluator = None

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        if self._evaluator is None or {"numbers", "pbc"} & set(system_changes):
            self._evaluator = self.potential.evaluator(self.atoms.numbers, self.atoms.pbc, self.n_threads)
        found = self._evaluator.compute(self.atoms.positions[None], self.atoms.cell.array[None])
        e0 = self.potential.reference_energies[self.potential.descriptor.species_index(self.atoms.numbers)]
        self.results = {
            "energy": float(found.energies[0]),
            "free_energy": float(found.energies[0]),
            "forces": found.forces[0],
            "energies": found.atomic_energies[0] + e0,
        }
        if found.member_energies is not None:
            self.results["member_energies"] = found.member_energies[0]
            self.results["energy_uncertainty"] = float(found.energy_uncertainties[0])
        if self.atoms.cell.rank == 3:
            self.results["stress"] = full_3x3_to_voigt_6_stress(-found.virials[0] / self.atoms.cell.volume)
