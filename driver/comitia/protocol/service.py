"""A potential as a force client: one model, one set of atoms, any number of servers."""

import logging
from functools import partial

from comitia.errors import ModelError
from comitia.potential.mixing import pseudo_members
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
    extras : names among `committee_force` and `committee_virial`, sent besides `committee_pot`; or `pseudo_members`,
        two of these instead of all members, see `comitia.potential.mixing.pseudo_members`
    guard : function of positions, cells and predictions, called before anything is sent, which may raise; its
        `members` says whether it needs the forces of all members; or None
    keep_failed : function of positions, cells and the error for a number that is not finite, to a sentence that says
        where the structures are; or None
    """

    def __init__(
        self, potential, atoms, *, n_threads=None, subtract_reference=False, extras=(), guard=None, keep_failed=None
    ):
        if extras and potential.n_members < 2:
            raise ModelError(f"the model has one member, so there is no {extras[0]} to send; leave out --extras")
        self._pseudo = "pseudo_members" in extras
        if self._pseudo and not getattr(potential, "drives_with_weighted_mean", True):
            raise ModelError(
                "pseudo-members stand for a committee that drives with its mean; leave out `drive` and `baseline`, and "
                "`uncertainty_limit`: the baseline is i-PI's"
            )
        self.pbc = atoms.pbc
        self.n_atoms = len(atoms)
        self._species = atoms.symbols.get_chemical_formula(mode="reduce")
        offset = potential.reference_energy(atoms.numbers) if subtract_reference else 0.0
        if subtract_reference:
            log.info("energies are sent minus the sum of the reference energies, %.17g eV", offset)
        sent = ("committee_force", "committee_virial") if self._pseudo else extras
        self._results = WireResults(offset, sent, self._pseudo or getattr(potential, "drives_with_mean", True))
        self._evaluator = partial(potential.evaluator, atoms.numbers, atoms.pbc, n_threads)
        self._guard, self._keep_failed = guard, keep_failed
        members = bool(extras) and not self._pseudo
        self._asked = {"members": members or (guard is not None and guard.members)}
        if self._pseudo:
            self._asked["uncertainty_gradient"] = True

    def serve(self, connections, silence=None):
        """Answer the servers until each is done: a list of `comitia.protocol.client.Served`.

        Each has neighbour lists of its own; one of them is computed for at a time, with all threads.
        """
        return serve([self._session(connection, silence) for connection in connections])

    def _session(self, connection, silence):
        compute = partial(self._evaluator().compute, **self._asked)
        return Session(
            connection,
            partial(self._guarded, compute),
            self._results,
            self.n_atoms,
            self.pbc,
            silence,
            self._species,
            self._keep_failed,
        )

    def _guarded(self, compute, positions, cells):
        """Predictions that the guard has let pass."""
        predictions = compute(positions, cells)
        if self._guard is not None:
            self._guard(positions, cells, predictions)
        return pseudo_members(predictions) if self._pseudo else predictions
