"""A potential as a force client: one model, one set of atoms, one server."""

import logging

import numpy as np

from comitia.errors import ModelError
from comitia.protocol.client import serve

log = logging.getLogger(__name__)


class ForceService:
    """Serves a potential to one server at a time.

    Parameters
    ----------
    potential : comitia.Potential
    atoms : ase.Atoms, species, their order, and the directions that repeat
    n_threads : int or None, None for all cores
    subtract_reference : bool, send energies without the sum of the reference energies of the atoms
    extras : names among `committee_force` and `committee_virial`, sent besides `committee_pot`
    """

    def __init__(self, potential, atoms, *, n_threads=None, subtract_reference=False, extras=()):
        self.potential = potential
        self.numbers = atoms.numbers
        self.pbc = atoms.pbc
        self.n_threads = n_threads
        self.extras = tuple(extras)
        self.offset = 0.0
        if self.extras and potential.n_members < 2:
            raise ModelError(f"the model has one member, so there is no {self.extras[0]} to send; leave out --extras")
        if subtract_reference:
            index = np.searchsorted(potential.species, self.numbers)
            self.offset = float(np.asarray(potential.reference_energies)[index].sum())
            log.info("energies are sent minus the sum of the reference energies, %.17g eV", self.offset)
        self._evaluator = potential.evaluator(self.numbers, self.pbc, n_threads=n_threads)

    def serve(self, connection, silence=None):
        """Answer the server until it is done; see `comitia.protocol.client.serve`."""
        return serve(
            connection,
            self._evaluator.compute,
            len(self.numbers),
            self.pbc,
            offset=self.offset,
            member_terms=self._member_terms if self.extras else None,
            silence=silence,
        )

    def _member_terms(self, positions, cells):
        """Forces and virials of the members, as far as they are to be sent."""
        from ase import Atoms

        structures = [
            Atoms(numbers=self.numbers, positions=p, cell=c, pbc=self.pbc)
            for p, c in zip(positions, cells, strict=True)
        ]
        predictions = self.potential.compute(structures, members=True, n_threads=self.n_threads)
        terms = {}
        if "committee_force" in self.extras:
            terms["member_forces"] = np.stack([p.member_forces for p in predictions])
        if "committee_virial" in self.extras:
            terms["member_virials"] = np.stack([p.member_virials for p in predictions])
        return terms
