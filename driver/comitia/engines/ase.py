"""The potential as an ASE calculator."""

from ase.calculators.calculator import Calculator, all_changes, all_properties
from ase.outputs import Properties
from ase.stress import full_3x3_to_voigt_6_stress

OF_COMMITTEE = ("energy_uncertainty", "member_energies")
OF_MEMBERS = ("force_uncertainty", "member_forces")  # at the price of a few evaluations


class ComitiaCalculator(Calculator):
    """Energy, forces, stress and energies of each atom; neighbour lists are kept between calls.

    Beside ASE's properties, `results` holds for a potential of more than one member `member_energies` (n_members,) and
    `energy_uncertainty`, eV, and where it is limited `uncertainty_bias`, eV, which is part of the energy. With
    `members`, or where `get_property("force_uncertainty", atoms)` asks for it, it holds `force_uncertainty`
    (n_atoms, 3) and `member_forces` (n_members, n_atoms, 3), eV/Å, too. Made by `Potential.calculator`.
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
        self._renew_evaluator(system_changes)
        members = self.members or not set(OF_MEMBERS).isdisjoint(properties)
        self._say(self._evaluator.compute(self.atoms.positions[None], self.atoms.cell.array[None], members))

    def _renew_evaluator(self, system_changes):
        if self._evaluator is None or {"numbers", "pbc"} & set(system_changes):
            self._evaluator = self.potential.evaluator(self.atoms.numbers, self.atoms.pbc, self.n_threads)

    def _say(self, found):
        """Predictions as results."""
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
        if getattr(found, "uncertainty_biases", None) is not None:
            self.results["uncertainty_bias"] = float(found.uncertainty_biases[0])
        if found.member_forces is not None:
            self.results["member_forces"] = found.member_forces[0]
            self.results["force_uncertainty"] = self.potential.force_uncertainty(found.member_forces[0])
        if self.atoms.cell.rank == 3:
            self.results["stress"] = full_3x3_to_voigt_6_stress(-found.virials[0] / self.atoms.cell.volume)

    def export_properties(self):
        """The properties that ASE knows of."""
        return Properties({name: value for name, value in self.results.items() if name in all_properties})


class PlumedCalculator(ComitiaCalculator):
    """The potential and a bias of PLUMED, for the dynamics of ASE.

    Each evaluation of positions that are new is the next step of the dynamics. `results` holds `plumed_bias`, eV, which
    is part of the energy, and what `ComitiaCalculator` has, but nothing of single atoms and members.

        bias = PlumedBias("plumed.dat", atoms.get_masses(), time_step=0.001, temperature=300)
        atoms.calc = PlumedCalculator(potential, bias)
        ...
        bias.close()

    Parameters
    ----------
    potential : Potential or ComposedPotential
    bias : comitia.engines.plumed_bias.PlumedBias; for a run that goes on, made with its `restart_step`
    first_step : int, number of the first evaluation; of a run that goes on, killed or not, the step of its saved state
    n_threads : int or None
    """

    implemented_properties = ("energy", "forces", "stress", "free_energy")

    def __init__(self, potential, bias, first_step=0, n_threads=None):
        super().__init__(potential, n_threads)
        self.implemented_properties = PlumedCalculator.implemented_properties
        self.bias, self.step = bias, first_step - 1

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        Calculator.calculate(self, atoms, properties, system_changes)
        self._renew_evaluator(system_changes)
        self.step += 1
        atoms = self.atoms
        found = self.bias.compute(self.step, atoms.positions, atoms.cell.array, self._evaluator, atoms.pbc)
        self._say(found.predictions)
        self.results.pop("energies", None)
        self.results |= {"energy": found.energy, "free_energy": found.energy, "forces": found.forces}
        self.results["plumed_bias"] = found.bias
        if atoms.cell.rank == 3:
            self.results["stress"] = full_3x3_to_voigt_6_stress(-found.virial / atoms.cell.volume)
