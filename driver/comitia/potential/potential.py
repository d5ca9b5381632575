"""The potential: energies, forces and virials with the uncertainty of a committee."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from comitia.density import Descriptor
from comitia.errors import ModelError, SettingsError
from comitia.potential.baselines import ZBL
from comitia.potential.evaluator import Evaluator, committee_energies, evaluate_asked, refuse_non_finite
from comitia.threads import default_threads

ATOMS_PER_BATCH = 4096  # structures are evaluated together up to this many atoms


@dataclass(frozen=True)
class Prediction:
    """What a committee says of one structure; eV and Å. `None` where there is a single member."""

    energy: float  # mean over the calibrated members
    forces: np.ndarray  # (n_atoms, 3)
    virial: np.ndarray  # (3, 3) -dE/d(strain)
    atomic_energies: np.ndarray  # (n_atoms,) without the reference energies
    volume: float  # Å^3, 0 without a cell
    member_energies: np.ndarray | None  # (n_members,)
    energy_uncertainty: float | None  # standard deviation over members, ddof = 1
    member_forces: np.ndarray | None = None  # (n_members, n_atoms, 3), only when asked for
    member_virials: np.ndarray | None = None  # (n_members, 3, 3), only when asked for
    force_uncertainty: np.ndarray | None = None  # (n_atoms, 3), only when members were asked for
    uncertainty_gradient: np.ndarray | None = None  # (n_atoms, 3) dσ/dr of the energy's, only when asked for
    uncertainty_virial: np.ndarray | None = None  # (3, 3) -dσ/d(strain)

    @property
    def stress(self):
        """(3, 3) array, eV/Å^3, positive in tension (ASE): -virial / volume."""
        if not self.volume:
            raise ValueError("stress needs a cell: this structure has no volume")
        return -self.virial / self.volume


class Potential:
    """A committee of linear potentials on one descriptor.

    .. math:: E_k = \\sum_s W_{k,s} \\cdot \\Phi_s + \\sum_i e_0(s_i) + E_\\mathrm{core}, \\qquad
              V_k = \\bar E + \\alpha (E_k - \\bar E)

    Parameters
    ----------
    descriptor : Descriptor
    weights : (n_members, n_species * n_features) array, eV, as fitted (before calibration)
    reference_energies : (n_species,) array, eV
    core : ZBL or None
    alpha_energy : float, rescaling of the members about their mean
    alpha_forces, force_floor : float; force uncertainties are √(floor² + alpha_forces² × raw variance), eV/Å
    recentred : bool, whether the mean of the members is the fit to all data
    metadata : dict that JSON can hold
    precision : "float64", or "float32" for energies, forces and virials from a kernel of single precision numbers;
        the vectors between atoms, all sums over atoms, member forces and derivatives of features stay in float64

    Musil et al., J. Chem. Theory Comput. 15, 906 (2019); Imbalzano et al., J. Chem. Phys. 154, 074102 (2021).
    """

    def __init__(
        self,
        descriptor: Descriptor,
        weights,
        reference_energies,
        core: ZBL | None = None,
        alpha_energy=1.0,
        alpha_forces=1.0,
        recentred=False,
        metadata=None,
        force_floor=0.0,
        precision="float64",
    ):
        self.descriptor = descriptor
        self.weights = np.array(weights, float, ndmin=2)
        self.reference_energies = np.array(reference_energies, float)
        self.core = core
        self.alpha_energy, self.alpha_forces = float(alpha_energy), float(alpha_forces)
        self.force_floor = float(force_floor)
        self.recentred = bool(recentred)
        self.metadata = dict(metadata or {})
        self.precision = precision
        if precision not in ("float64", "float32"):
            raise SettingsError(f"precision is {precision!r}; it must be float64 or float32")
        if self.weights.shape[1] != descriptor.width:
            raise ModelError(
                f"each member has {self.weights.shape[1]} weights; the descriptor needs {descriptor.width}"
            )
        if self.reference_energies.shape != (descriptor.n_species,):
            raise ModelError(f"there must be {descriptor.n_species} reference energies, one for each species")
        if core is not None and not np.array_equal(core.species, descriptor.species):
            raise ModelError("the repulsive core and the descriptor have different species")
        if core is not None and np.max(core.outer) > descriptor.cutoff:
            raise ModelError("the repulsive core reaches further than the cutoff")
        numbers = (self.weights, self.reference_energies, self.alpha_energy, self.alpha_forces, self.force_floor)
        if not all(np.all(np.isfinite(value)) for value in numbers):
            raise ModelError("weights, reference energies and alpha must be finite")

    @property
    def species(self):
        """Atomic numbers, increasing."""
        return tuple(int(z) for z in self.descriptor.species)

    @property
    def corrects(self):
        """The baseline that the potential is a correction to, as its fit described it; None for total energies."""
        return self.metadata.get("baseline")

    @property
    def cutoff(self):
        """Å."""
        return self.descriptor.cutoff

    @property
    def n_members(self):
        return len(self.weights)

    @cached_property
    def kernel(self):
        """The compiled kernel, repulsive core included."""
        core = None if self.core is None else self.core.parameters
        return self.descriptor.kernel(core, self.precision == "float32")

    @cached_property
    def mean_weights(self):
        """(n_species, n_features) weights of the mean of the members."""
        return np.ascontiguousarray(self.weights.mean(axis=0).reshape(self.descriptor.n_species, -1))

    @cached_property
    def deviations(self):
        """(n_members, width) calibrated weights less their mean."""
        return self.alpha_energy * (self.weights - self.mean_weights.ravel())

    @cached_property
    def member_weights(self):
        """(n_members, n_species, n_features) calibrated weights."""
        if self.n_members == 1:
            return self.mean_weights[None]
        return self.mean_weights + self.deviations.reshape(self.n_members, *self.mean_weights.shape)

    @cached_property
    def _member_kernel(self):
        """The compiled kernel of the mean, and of how far all members but the first are from it before calibration."""
        deviations = self.weights[1:].reshape(self.n_members - 1, *self.mean_weights.shape) - self.mean_weights
        weights = np.concatenate([self.mean_weights[None], deviations])
        return self.descriptor.member_kernel(self.kernel, weights, np.eye(self.n_members)[0])

    def evaluate_members(self, batch, n_threads):
        """Energies, forces and virials of the mean, which calibration leaves as they are to the last bit, and of all.

        Returns
        -------
        dict as `Kernel.evaluate` makes it for the mean, with `sums`; and `member_forces` (n_members, n_atoms, 3),
        `member_virials` (n_members, n_structures, 3, 3) of the calibrated members, eV/Å and eV.
        """
        found = self._member_kernel.evaluate(batch, n_threads)
        for name in ("forces", "virials"):
            of_all = found[name]
            found[name] = np.ascontiguousarray(of_all[..., 0])
            members = np.empty((self.n_members, *found[name].shape))
            np.multiply(np.moveaxis(of_all[..., 1:], -1, 0), self.alpha_energy, out=members[1:])
            np.negative(members[1:].sum(axis=0), out=members[0])  # deviations from the mean add up to zero
            members += found[name]
            found[f"member_{name}"] = members
        return found

    def reference_energy(self, numbers):
        """Sum of the reference energies of atoms with these atomic numbers, eV."""
        return float(self.reference_energies[self.descriptor.species_index(numbers)].sum())

    def force_uncertainty(self, member_forces):
        """Uncertainty of forces, eV/Å, from those of the calibrated members (n_members, ...), eV/Å."""
        scale = self.alpha_forces / self.alpha_energy
        return np.hypot(self.force_floor, scale * member_forces.std(axis=0, ddof=1))

    def compute(self, atoms, members=False, n_threads=None, uncertainty_gradient=False):
        """Energy, forces, virial and their uncertainty.

        Parameters
        ----------
        atoms : ase.Atoms, or a list of them
        members : bool, whether every member's forces and virial are computed too
        n_threads : int, default OMP_NUM_THREADS or the number of processors
        uncertainty_gradient : bool, whether the gradient of the energy's uncertainty σ is computed too

        Returns
        -------
        Prediction, or a list of them.

        Raises
        ------
        ModelError
            where the gradient of an uncertainty is asked of a potential of one member.
        StructureError
            for a species that the model does not know, or a cell that does not span its periodic directions.
        NumericalError
            for positions or a result that are not finite, naming the atom.
        """
        if not isinstance(atoms, list | tuple):
            return self.compute([atoms], members, n_threads, uncertainty_gradient)[0]
        return list(self.stream(atoms, members, n_threads, uncertainty_gradient))

    def stream(self, structures, members=False, n_threads=None, uncertainty_gradient=False):
        """`Prediction` of one structure after another: as `compute`, in memory that does not grow with their number.

        Parameters
        ----------
        structures : iterable of ase.Atoms; of about `ATOMS_PER_BATCH` atoms at a time the threads share the work
        members, n_threads, uncertainty_gradient : as in `compute`
        """
        asked = members, uncertainty_gradient, n_threads or default_threads()
        chunk, n_atoms, first = [], 0, 0
        for structure in structures:
            if chunk and n_atoms + len(structure) > ATOMS_PER_BATCH:
                yield from self._compute(chunk, first, *asked)
                chunk, n_atoms, first = [], 0, first + len(chunk)
            chunk.append(structure)
            n_atoms += len(structure)
        if chunk:
            yield from self._compute(chunk, first, *asked)

    def _compute(self, structures, first, members, uncertainty_gradient, n_threads):
        batch = self.descriptor.batch(structures, 0.0, n_threads, first)
        sizes = [len(a) for a in structures]
        found = evaluate_asked(self, batch, members, uncertainty_gradient, n_threads)
        refuse_non_finite(found, sizes, first)
        ends = np.cumsum(sizes)[:-1]
        atomic, forces = np.split(found["atomic_energies"], ends), np.split(found["forces"], ends)
        energies = np.array(
            [e.sum() + self.reference_energy(a.numbers) for e, a in zip(atomic, structures, strict=True)]
        )
        member_energies = sigma = member_forces = member_virials = [None] * len(structures)
        uncertainty = member_forces
        if self.n_members > 1:
            sums = found["sums"].reshape(len(structures), -1)
            energies, member_energies, sigma = committee_energies(
                energies, self.deviations, sums, found.get("members_apart")
            )
            sigma = sigma.tolist()
        if "member_forces" in found:
            member_forces = np.split(found["member_forces"], ends, axis=1)
            member_virials = list(found["member_virials"].swapaxes(0, 1))
            uncertainty = [self.force_uncertainty(f) for f in member_forces]
        gradients = uncertainty_virials = [None] * len(structures)
        if uncertainty_gradient:
            gradients, uncertainty_virials = (
                np.split(found["uncertainty_gradients"], ends),
                found["uncertainty_virials"],
            )
        return [
            Prediction(
                float(energies[s]), forces[s], found["virials"][s], atomic[s],
                float(a.cell.volume) if a.cell.rank == 3 else 0.0,
                member_energies[s], sigma[s], member_forces[s], member_virials[s], uncertainty[s],
                gradients[s], uncertainty_virials[s],
            )
            for s, a in enumerate(structures)
        ]  # fmt: skip

    def evaluator(self, numbers, pbc, n_threads=None, skin=0.5, incremental=True):
        """An `Evaluator` for dynamics and Monte Carlo of atoms with these atomic numbers."""
        return Evaluator(self, numbers, pbc, n_threads, skin, incremental)

    def member_directional(self, numbers, pbc, positions, cells, directions, n_threads=None):
        """Forces of every calibrated member along directions, see `Evaluator.member_directional`."""
        return self.evaluator(numbers, pbc, n_threads, 0.0).member_directional(positions, cells, directions)

    def calculator(self, n_threads=None, members=False):
        """An ASE calculator; with `members` it always computes the forces of all members and their uncertainty too."""
        from comitia.engines.ase import ComitiaCalculator

        return ComitiaCalculator(self, n_threads, members)

    def save(self, path):
        """Write the model file, whole or not at all."""
        from comitia.potential.model_file import save

        save(self, path)
