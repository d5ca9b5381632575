"""A potential as a force client: one model, one set of atoms, one server."""

import logging
from functools import partial

from comitia.errors import ModelError
from comitia.protocol.boundary import WireResults
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
        if extras and potential.n_members < 2:
            raise ModelError(f"the model has one member, so there is no {extras[0]} to send; leave out --extras")
        self.pbc = atoms.pbc
        self.n_atoms = len(atoms)
        self._species = atoms.symbols.get_chemical_formula(mode="reduce")
        offset = potential.reference_energy(atoms.numbers) if subtract_reference else 0.0
        if subtract_reference:
            log.info("energies are sent minus the sum of the reference energies, %.17g eV", offset)
        self._results = WireResults(offset, extras)
        evaluator = potential.evaluator(atoms.numbers, atoms.pbc, n_threads=n_threads)
        self._compute = partial(evaluator.compute, members=True) if extras else evaluator.compute

    def serve(self, connection, silence=None):
        """Answer the server until it is done; see `comitia.protocol.client.serve`."""
        return serve(connection, self._compute, self._results, self.n_atoms, self.pbc, silence, self._species)
