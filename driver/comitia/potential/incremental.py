"""Monte Carlo at constant cost: a structure that differs in few atoms from a known one is not evaluated as a whole."""

import logging

import numpy as np

from comitia._core import KnownConfigurations
from comitia.errors import NumericalError

log = logging.getLogger(__name__)

FEWEST_ATOMS = 64  # in fewer than these a trial touches most of the structure
CHECK_EVERY = 1000  # trials
TOLERANCE = 1e-10  # of a check, relative; rounding leaves about 1e-14
COMPARED = ("atomic_energies", "forces", "virials", "sums")
MEMORY = 64 * 1024 * 1024  # bytes for configurations
BYTES_PER_ATOM = 160  # of a configuration


class Trials:
    """Evaluates what differs little from before, and has the rest evaluated in full.

    A client is never told whether a trial was accepted, and replicas may take turns: so a request is compared with
    every configuration that is known, and with the last trial of each. Every so many trials one is evaluated in full
    as well, and the two are compared.

    Parameters
    ----------
    potential : comitia.Potential
    numbers : (n_atoms,) atomic numbers
    pbc : three booleans
    n_threads : int
    """

    def __init__(self, potential, numbers, pbc, n_threads):
        self.n_threads, self.n_trials, self.largest_difference = n_threads, 0, 0.0
        species = np.ascontiguousarray(potential.descriptor.species_index(numbers), np.int32)
        n_sums = potential.descriptor.width if potential.n_members > 1 else 0
        n_most = int(np.clip(MEMORY // (BYTES_PER_ATOM * len(species) + 16 * n_sums), 2, 64))
        self._make = lambda: KnownConfigurations(
            potential.kernel, potential.mean_weights, species, pbc, sums=bool(n_sums), n_most=n_most
        )
        self._known = None

    @property
    def n_touched(self):
        """How many centres the last trial evaluated."""
        return self._known.n_touched if self._known is not None else 0

    def evaluate(self, positions, cells, evaluate_in_full):
        """Results for positions (n_structures, n_atoms, 3) and cells (n_structures, 3, 3), Å.

        Parameters
        ----------
        evaluate_in_full : function of positions and cells that returns what `Kernel.evaluate` does

        Raises
        ------
        NumericalError
            where a check finds that trials since the last one were wrong.
        """
        if self._known is None:
            self._known = self._make()
        positions, cells = np.ascontiguousarray(positions, float), np.ascontiguousarray(cells, float)
        found = self._from_known(positions, cells)
        if found is None:
            found = evaluate_in_full(positions, cells)
            self._known.keep(
                positions, cells, found["atomic_energies"], found["forces"], found["virials"], found.get("sums")
            )
            return found
        before, self.n_trials = self.n_trials, self.n_trials + len(positions)
        if before // CHECK_EVERY != self.n_trials // CHECK_EVERY:
            self._check(found, evaluate_in_full(positions, cells))
        return found

    def _from_known(self, positions, cells):
        """The results if all structures are close to known ones."""
        each = []
        for position, cell in zip(positions, cells, strict=True):
            one = self._known.evaluate(position, cell, self.n_threads)
            if one is None:
                return None
            each.append(one)
        return each[0] if len(each) == 1 else {name: np.concatenate([one[name] for one in each]) for name in each[0]}

    def _check(self, found, full):
        """Compare with a full evaluation, in units of the largest number of each kind, or of 1 eV and 1 eV/Å."""
        difference = max(
            np.abs(found[name] - full[name]).max() / max(1.0, np.abs(full[name]).max())
            for name in COMPARED
            if name in full
        )
        self.largest_difference = max(self.largest_difference, float(difference))
        if not difference <= TOLERANCE:
            self._known = None
            raise NumericalError(
                f"trial {self.n_trials} evaluated from what it changes differs by {difference:.1e} (relative) from "
                f"its full evaluation; the memory of this machine is not to be trusted, nor are the last {CHECK_EVERY} "
                "trials"
            )
        log.info("%d trials from what they change; a full evaluation differs by %.1e", self.n_trials, difference)
