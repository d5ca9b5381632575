"""The potential as an ASE calculator."""

from ase.calculators.calculator import Calculator, all_changes, all_properties
from ase.outputs import Properties
from ase.stress import full_3x3_to_voigt_6_stress

OF_COMMITTEE = ("energy_uncertainty", "member_energies")
OF_MEMBERS = ("force_uncertainty", "member_forces")  # at the price of a few evaluations


class ComitiaCalculator(Calculator):
    """Energy, forces, stress and energies of each atom; neighbour lists are kept between calls.

    Beside ASE's properties, `results` holds for a potential of more than one member `member_energies` (n_members,) and
    `energy_uncertainty`, eV. With `members`, or where `get_property("force_uncertainty", atoms)` asks for it, it holds
    `force_uncertainty` (n_atoms, 3) and `member_forces` (n_members, n_atoms, 3), eV/Å, too. Made by
    `Potential.calculator`.
    """

    implemented_properties = ("energy", "forces", "stress", "energies", "free_energy")

    def __init__(self, potential, n_threads=None, members=False):
        super().__init__()
        self.potential, self.n_threads, self.members = potential, n_threads, members
        if not hasattr(potential, "descriptor"):  # composed of several
            self.implemented_properties = ("energy", "forces", "stress", "free_energy")
        if potential.n_members > 1:
            self.implemented_properties = (*self.implemented_properties, *OF_COMMITTEE, *OF_MEMBERS)
        self._evaluator = None

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        if self._evaluator is None or {"numbers", "pbc"} & set(system_changes):
            self._evaluator = self.potential.evaluator(self.atoms.numbers, self.atoms.pbc, self.n_threads)
        members = self.members or not set(OF_MEMBERS).isdisjoint(properties)
        found = self._evaluator.compute(self.atoms.positions[None], self.atoms.cell.array[None], members)
        self.results = {
            "energy": float(found.energies[0]),
            "free_energy": float(found.energies[0]),
            "forces": found.forces[0],
        }
        if getattr(found, "atomic_energies", None) is not None:
            e0 = self.potential.reference_energies[self.potential.descriptor.species_index(self.atoms.numbers)]
            self.results["energies"] = found.atomic_energies[0] + e0
        if found.member_energies is not None:
            self.results["member_energies"] = found.member_energies[0]
            self.results["energy_uncertainty"] = float(found.energy_uncertainties[0])
        if found.member_forces is not None:
            self.results["member_forces"] = found.member_forces[0]
            self.results["force_uncertainty"] = self.potential.force_uncertainty(found.member_forces[0])
        if self.atoms.cell.rank == 3:
            self.results["stress"] = full_3x3_to_voigt_6_stress(-found.virials[0] / self.atoms.cell.volume)

    def export_properties(self):
        """The properties that ASE knows of."""
        return Properties({name: value for name, value in self.results.items() if name in all_properties})
