"""A potential as a force client: one model, one set of atoms, any number of servers."""

import logging
from functools import partial

from comitia.errors import ModelError
from comitia.protocol.boundary import WireResults
from comitia.protocol.client import Session, serve

log = logging.getLogger(__name__)


class ForceService:
    """Serves a potential to servers, one after the other or several at once.

    Parameters
    ----------
    potential : comitia.Potential
    atoms : ase.Atoms, species, their order, and the directions that repeat
    n_threads : int or None, None for all cores
    subtract_reference : bool, send energies without the sum of the reference energies of the atoms
    extras : names among `committee_force` and `committee_virial`, sent besides `committee_pot`
    """

    def __init__(self, potential, atoms, *, n_threads=None, subtract_reference=False, extras=()):
        if extras and potential.n_members < 2:
            raise ModelError(f"the model has one member, so there is no {extras[0]} to send; leave out --extras")
        self.pbc = atoms.pbc
        self.n_atoms = len(atoms)
        self._species = atoms.symbols.get_chemical_formula(mode="reduce")
        offset = potential.reference_energy(atoms.numbers) if subtract_reference else 0.0
        if subtract_reference:
            log.info("energies are sent minus the sum of the reference energies, %.17g eV", offset)
        self._results = WireResults(offset, extras)
        self._evaluator = partial(potential.evaluator, atoms.numbers, atoms.pbc, n_threads)
        self._members = bool(extras)

    def serve(self, connections, silence=None):
        """Answer the servers until each is done: a list of `comitia.protocol.client.Served`.

        Each has neighbour lists of its own; one of them is computed for at a time, with all threads.
        """
        return serve([self._session(connection, silence) for connection in connections])

    def _session(self, connection, silence):
        compute = partial(self._evaluator().compute, members=self._members)
        return Session(connection, compute, self._results, self.n_atoms, self.pbc, silence, self._species)
