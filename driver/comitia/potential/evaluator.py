"""Evaluation of one set of atoms over and over: dynamics, beads, replicas."""

from dataclasses import dataclass

import numpy as np

from comitia._core import combine, combined_weights, keep, members_of, spread_weights, statistics_of
from comitia.errors import ModelError, NumericalError
from comitia.potential.incremental import FEWEST_ATOMS, Trials
from comitia.threads import default_threads


@dataclass(frozen=True)
class Predictions:
    """What a committee says of a batch of structures; eV and Å. `None` where there is a single member."""

    energies: np.ndarray  # (n_structures,) mean over the calibrated members
    forces: np.ndarray  # (n_structures, n_atoms, 3)
    virials: np.ndarray  # (n_structures, 3, 3) -dE/d(strain)
    atomic_energies: np.ndarray  # (n_structures, n_atoms) without the reference energies
    member_energies: np.ndarray | None  # (n_structures, n_members)
    energy_uncertainties: np.ndarray | None  # (n_structures,) standard deviation, ddof = 1
    member_forces: np.ndarray | None = None  # (n_structures, n_members, n_atoms, 3), only when asked for
    member_virials: np.ndarray | None = None  # (n_structures, n_members, 3, 3)
    uncertainty_gradients: np.ndarray | None = None  # (n_structures, n_atoms, 3) dσ/dr, eV/Å, only when asked for
    uncertainty_virials: np.ndarray | None = None  # (n_structures, 3, 3) -dσ/d(strain), eV
    atomic_virials: np.ndarray | None = None  # (n_structures, n_atoms, 3, 3) of the forces on each, only when asked for


def committee_energies(mean, deviations, sums, apart=None):
    """Energies of the calibrated members: the mean's, plus what each deviates by.

    Parameters
    ----------
    mean : (n_structures,) array, eV
    deviations : (n_members, width) calibrated weights less their mean
    sums : (n_structures, width) summed features
    apart : (n_structures, n_members) deviations times sums, eV, where these are known

    Returns
    -------
    energies (n_structures,), member energies (n_structures, n_members), uncertainties (n_structures,): the energy
    is the mean of the members to the last bit.
    """
    members = members_of(sums, deviations, mean) if apart is None else mean[:, None] + apart
    energies, spread = statistics_of(members)
    return energies, members, spread


def evaluate_committee(potential, batch, members, n_threads):
    """Energies, forces and virials of the mean of the members; summed features where there are several of them.

    Returns
    -------
    dict as `Kernel.evaluate` makes it; with `members`, where there are several, see `Potential.evaluate_members`.
    """
    several = potential.n_members > 1
    if members and several:
        return potential.evaluate_members(batch, n_threads)
    return potential.kernel.evaluate(batch, potential.mean_weights, sums=several, n_threads=n_threads)


def evaluate_asked(potential, batch, members, uncertainty_gradient, n_threads, atomic_virials=False):
    """What a committee says of a batch: as `evaluate_committee`, or with the gradient of the uncertainty.

    `atomic_virials` (n_atoms, 3, 3), eV, as `Kernel.evaluate` makes them, are of the mean of the members.

    Raises
    ------
    ModelError
        where the gradient of an uncertainty is asked of a potential of one member.
    """
    if atomic_virials:
        mean = potential.kernel.evaluate(
            batch, potential.mean_weights, sums=potential.n_members > 1, atomic_virials=True, n_threads=n_threads
        )
        if not members and not uncertainty_gradient:
            return mean
        found = evaluate_asked(potential, batch, members, uncertainty_gradient, n_threads)
        return found | {"atomic_virials": mean["atomic_virials"]}
    if not uncertainty_gradient:
        return evaluate_committee(potential, batch, members, n_threads)
    if potential.n_members < 2:
        raise ModelError("a model of one member has no uncertainty, nor its gradient; fit it with members: 16")
    found = evaluate_uncertainty(potential, batch, n_threads)
    return potential.evaluate_members(batch, n_threads) | found if members else found


def evaluate_uncertainty(potential, batch, n_threads):
    r"""The mean of the members, and the gradient of their spread, which is a linear combination of their gradients.

    .. math:: \nabla \sigma = \sum_k a_k \nabla V_k, \qquad a_k = \frac{V_k - \bar V}{(M - 1)\, \sigma}

    The summed features give a_k; from the densities, which are kept meanwhile, one reverse pass then gives mean and
    combination. Where sigma is 0 so is its gradient.

    Returns
    -------
    dict of `atomic_energies`, `energies`, `forces`, `virials`, `sums`, `finite` as `Kernel.evaluate` makes them,
    `members_apart` (n_structures, n_members), eV, how far the energies of the members are from the mean, and
    `uncertainty_gradients` (n_atoms, 3), eV/Å, `uncertainty_virials` (n_structures, 3, 3), eV.

    Imbalzano et al., J. Chem. Phys. 154, 074102 (2021).
    """
    sums = keep(potential.kernel, batch, n_threads)
    members = members_of(sums.reshape(len(sums), -1), potential.deviations, np.zeros(len(sums)))
    weights = spread_weights(members, potential.mean_weights, potential.deviations)
    found = combine(potential.kernel, batch, weights, np.array([1.0, 0.0]))
    energies = found["atomic_energies"][0]
    return {
        "atomic_energies": energies,
        "energies": batch.summed(energies),
        "forces": found["forces"][0],
        "virials": found["virials"][0],
        "sums": sums,
        "members_apart": members,
        "finite": found["finite"],
        "uncertainty_gradients": -found["forces"][1],
        "uncertainty_virials": found["virials"][1],
    }


def refuse_non_finite(found, sizes, first=0):
    """Raise NumericalError for the first atom whose energy or force is not finite; structures count from `first`."""
    if found["finite"]:
        return
    bad = ~np.isfinite(found["atomic_energies"]) | ~np.isfinite(found["forces"]).all(axis=1)
    atom = int(np.argmax(bad))
    structure = int(np.searchsorted(np.cumsum(sizes), atom, side="right"))
    atom -= int(np.sum(sizes[:structure]))
    raise NumericalError(
        f"structure {first + structure}, atom {atom}: energy or force is not finite; two atoms may be in the same "
        "place, or positions far outside what the model was trained on"
    )


class Evaluator:
    """A potential bound to the species and periodicity of one set of atoms; made by `Potential.evaluator`.

    Neighbour lists are kept for each place in the batch, and rebuilt only when an atom there moved more than half
    the skin. Structures that differ in few atoms from one that was evaluated are not evaluated as a whole, see
    `comitia.potential.incremental`. Not to be shared between threads.

    Parameters
    ----------
    incremental : bool, whether to do that; without it the bits do not depend on what was evaluated before
    """

    def __init__(self, potential, numbers, pbc, n_threads=None, skin=0.5, incremental=True):
        self.potential = potential
        self.numbers = np.asarray(numbers, np.int64)
        potential.descriptor.species_index(self.numbers)
        self.pbc = np.broadcast_to(np.asarray(pbc, bool), 3)
        self.n_threads = n_threads or default_threads()
        self.skin = skin
        self._batches = {}
        serves = incremental and len(self.numbers) >= FEWEST_ATOMS and potential.precision == "float64"
        self._trials = Trials(potential, self.numbers, self.pbc, self.n_threads) if serves else None
        self._e0 = potential.reference_energy(self.numbers)

    @property
    def n_atoms(self):
        return len(self.numbers)

    @property
    def n_touched(self):
        """Number of centres that the last trial evaluated: of those that differ in few atoms from a known structure."""
        return self._trials.n_touched if self._trials is not None else 0

    def batch(self, positions, cells):
        """The compiled batch for (n_structures, n_atoms, 3) positions, brought up to date."""
        n = len(positions)
        if n not in self._batches:
            self._batches[n] = self.potential.descriptor.empty_batch([self.numbers] * n, [self.pbc] * n, self.skin)
        batch = self._batches[n]
        flat = np.ascontiguousarray(positions, float).reshape(n * self.n_atoms, 3)
        batch.update(flat, np.ascontiguousarray(cells, float), self.n_threads)
        return batch

    def compute(self, positions, cells, members=False, uncertainty_gradient=False, atomic_virials=False):
        """Predictions for positions (n_structures, n_atoms, 3) and cells (n_structures, 3, 3), rows, Å.

        Parameters
        ----------
        members : bool, whether every member's forces and virial are computed too
        uncertainty_gradient : bool, whether the gradient of the energy's uncertainty σ is computed too
        atomic_virials : bool, whether the virial is computed as a sum over the atoms too

        Raises
        ------
        ModelError
            where the gradient of an uncertainty is asked of a potential of one member.
        NumericalError
            for an input or a result that is not finite, naming the atom.
        StructureError
            for a cell that does not span its periodic directions.
        """
        potential = self.potential
        n, shape = len(positions), (len(positions), self.n_atoms)
        if self._trials is None or members or uncertainty_gradient or atomic_virials:
            found = self._evaluate(positions, cells, members, uncertainty_gradient, atomic_virials)
        else:
            found = self._trials.evaluate(positions, cells, self._evaluate)
        atomic, forces = found["atomic_energies"].reshape(shape), found["forces"].reshape(*shape, 3)
        energies, member_energies, sigma = found["energies"] + self._e0, None, None
        if potential.n_members > 1:
            energies, member_energies, sigma = committee_energies(
                energies, potential.deviations, found["sums"].reshape(n, -1), found.get("members_apart")
            )
        member_forces = member_virials = None
        if "member_forces" in found:
            member_forces = found["member_forces"].reshape(-1, *shape, 3).swapaxes(0, 1)
            member_virials = found["member_virials"].swapaxes(0, 1)
        gradients = found["uncertainty_gradients"].reshape(*shape, 3) if uncertainty_gradient else None
        of_atoms = found["atomic_virials"].reshape(*shape, 3, 3) if atomic_virials else None
        return Predictions(
            energies, forces, found["virials"], atomic, member_energies, sigma, member_forces, member_virials,
            gradients, found.get("uncertainty_virials"), of_atoms,
        )  # fmt: skip

    def _evaluate(self, positions, cells, members=False, uncertainty_gradient=False, atomic_virials=False):
        """A full evaluation, all of whose numbers are finite."""
        batch = self.batch(positions, cells)
        found = evaluate_asked(self.potential, batch, members, uncertainty_gradient, self.n_threads, atomic_virials)
        refuse_non_finite(found, [self.n_atoms] * len(positions))
        return found

    def combined(self, positions, cells, choose):
        """A combination of the members that depends on their energies: these first, then one reverse pass for it.

        Parameters
        ----------
        positions, cells : as `compute`
        choose : function of the energies of the calibrated members (n_structures, n_members), eV, to a
            `comitia.potential.mixing.Combination`; where the potential has a repulsive core, which is the same for
            all members, the function does not see it, and the coefficients must add up to one

        Returns
        -------
        Combination, forces (n_structures, n_atoms, 3) eV/Å, virials (n_structures, 3, 3) eV

        Raises
        ------
        ModelError
            for a potential of one member.
        NumericalError
            for an input or a result that is not finite, naming the atom.
        """
        potential = self.potential
        if potential.n_members < 2:
            raise ModelError("only a committee can be combined by the energies of its members")
        batch, n = self.batch(positions, cells), len(positions)
        sums = keep(potential.kernel, batch, self.n_threads)
        flat = sums.reshape(n, -1)
        mean = members_of(flat, potential.mean_weights.reshape(1, -1), np.full(n, self._e0))[:, 0]
        members, has_core = members_of(flat, potential.deviations, mean), potential.core is not None
        combination = choose(members)
        weights = combined_weights(combination.coefficients, potential.mean_weights, potential.deviations)
        found = combine(potential.kernel, batch, weights, np.array([float(has_core)]))
        forces, virials = found["forces"][0], found["virials"][0]
        energies = found["atomic_energies"][0]
        refuse_non_finite(
            {"atomic_energies": energies, "forces": forces, "finite": found["finite"]}, [self.n_atoms] * n
        )
        if has_core:
            seen = np.einsum("sk,sk->s", combination.coefficients, members)
            combination = combination.raised(batch.summed(energies) + self._e0 - seen)
        return combination, forces.reshape(n, self.n_atoms, 3), virials

    def member_directional(self, positions, cells, directions):
        """Forces of every calibrated member along directions: sum over atoms of f_k . d.

        One tangent of the summed features serves all members.

        Parameters
        ----------
        positions, directions : (n_structures, n_atoms, 3) arrays, Å
        cells : (n_structures, 3, 3) array, Å

        Returns
        -------
        (n_structures, n_members) array, eV.
        """
        n = len(positions)
        batch = self.batch(positions, cells)
        flat = np.ascontiguousarray(directions, float).reshape(n * self.n_atoms, 3)
        tangent = self.potential.kernel.tangent(batch, flat, self.n_threads).reshape(n, -1)
        weights = self.potential.member_weights.reshape(self.potential.n_members, -1)
        along = -tangent @ weights.T
        if self.potential.core is not None:  # the same for every member
            zero = np.zeros_like(self.potential.mean_weights)
            core = self.potential.kernel.evaluate(batch, zero, n_threads=self.n_threads)["forces"]
            along += np.einsum("sad,sad->s", core.reshape(n, self.n_atoms, 3), directions)[:, None]
        return along
