"""Where the wire ends: Hartree atomic units and transposed cells outside, eV, Å and rows inside."""

import numpy as np

from comitia._wire import JsonText, Units
from comitia.errors import ProtocolError
from comitia.protocol.messages import check_finite, check_results
from comitia.units import BOHR, HARTREE

INVERSE_TOLERANCE = 1e-6  # largest element of |h h^-1 - 1| that a server may send


def _inverse_mismatch(cell, inverse):
    """Largest element of h h⁻¹ h - h, relative to h: 0 for an inverse, and for the pseudo-inverse of a flat cell."""
    return np.abs(cell @ inverse @ cell - cell).max() / np.abs(cell).max()


def check_cell(cell, inverse, where):
    """Refuse a cell whose inverse, as sent, belongs to another cell.

    i-PI sends the inverse of h, ASE that of its transpose; either is taken. A server that leaves a direction
    without a cell vector sends the pseudo-inverse.

    Parameters
    ----------
    cell, inverse : (3, 3) arrays, bohr and 1/bohr, as they travel
    where : str, for the sentence

    Raises
    ------
    ProtocolError
        if the two differ by more than 1e-6.
    """
    if not cell.any():
        return
    mismatch = min(_inverse_mismatch(cell, inverse), _inverse_mismatch(cell, inverse.T))
    if not mismatch <= INVERSE_TOLERANCE:
        raise ProtocolError(
            f"the inverse cell of {where} does not belong to the cell (they differ by {mismatch:.1e}, allowed "
            f"{INVERSE_TOLERANCE:.0e}); the server's cell is transposed or stale"
        )


class WireStructures:
    """Turns what travels into what a potential computes; a cell that did not change is not looked at again.

    Parameters
    ----------
    pbc : three booleans, the directions in which the template repeats; the cell of the others is not looked at
    """

    def __init__(self, pbc):
        self.pbc = np.asarray(pbc, bool)
        self._sent = self._cells = None

    def __call__(self, client):
        """Positions and cells that a `ForceClient` asks for, in arrays that the next request uses again.

        Returns
        -------
        positions (B, n_atoms, 3) in Å, cells (B, 3, 3) in Å with lattice vectors in rows

        Raises
        ------
        NumericalError
            if a coordinate is not finite.
        ProtocolError
            if a cell has no volume where one is needed, or its inverse is another cell's.
        """
        positions = client.positions_in(BOHR)
        if positions is None:
            check_finite("the position received", client.request().positions * BOHR, ("structure", "atom", "component"))
        sent = client.cells_sent
        if sent != self._sent:
            self._cells, self._sent = self._rows(client.request()), sent
        return positions, self._cells

    def _rows(self, request):
        cells, last = np.zeros_like(request.cells), None
        if not self.pbc.any():
            return cells
        check_finite("the cell received", request.cells, ("structure", "row", "column"))
        for number, (cell, inverse) in enumerate(zip(request.cells, request.inverses, strict=True)):
            if last is None or not np.array_equal((cell, inverse), last):
                self._check(cell, inverse, f"structure {number}")
                last = cell, inverse
            cells[number] = cell.T * BOHR
        return cells

    def _check(self, cell, inverse, where):
        check_cell(cell, inverse, where)
        if np.linalg.matrix_rank(cell.T[self.pbc]) < np.count_nonzero(self.pbc):
            raise ProtocolError(
                f"the cell of {where} has no extent along a periodic direction of the template; "
                "give the server a cell, or the template pbc='F F F'"
            )


class WireResults:
    """Turns what a potential computes into what travels.

    Parameters
    ----------
    offset : float, eV, subtracted from every energy that is sent (`serve --offset`)
    extras : names among `committee_force` and `committee_virial`, sent besides `committee_pot` and
        `committee_uncertainty`
    mean : bool, whether the energy is the mean of the members; otherwise what drives has its own
    """

    def __init__(self, offset=0.0, extras=(), mean=True):
        self.offset, self.mean = offset, mean
        self.extras = tuple(extras)
        self._units = Units(offset, HARTREE, BOHR / HARTREE, HARTREE)
        self._units_of_mean = Units(0.0, 1.0, BOHR / HARTREE, HARTREE)
        self._texts = []

    def __call__(self, predictions):
        """Energies, forces, virials and extras in hartree and bohr, as arrays and strings.

        Where the mean of the members drives, the energy sent is the mean of `committee_pot` as it is sent, so that
        i-PI, which takes one or the other, always drives with the same number.

        Parameters
        ----------
        predictions : with energies (B,) eV, forces (B, n_atoms, 3) eV/Å, virials (B, 3, 3) eV,
            member_energies (B, M) eV and energy_uncertainties (B,) eV, or None for both; where `extras` asks,
            member_forces (B, M, n_atoms, 3) eV/Å, member_virials (B, M, 3, 3) eV; with a baseline besides
            mixing (B,) and baseline_energies (B,) eV; with a limit uncertainty_biases (B,) eV; with pseudo-members
            all_member_energies (B, M) eV
        """
        energies, units, extras = self._said(predictions)
        numbers = units.converted(energies, predictions.forces, predictions.virials)
        check_results(*numbers)
        return *numbers, [str(text) for text in extras]

    def answer(self, client, predictions):
        """The same, straight into the message of a `ForceClient`."""
        energies, units, extras = self._said(predictions)
        client.answer(energies, predictions.forces, predictions.virials, extras, units)

    def _said(self, predictions):
        """Energies, what they, the forces and the virials are in, and the extras; kept until the next call."""
        if predictions.member_energies is None:
            return predictions.energies, self._units, [""] * len(predictions.energies)
        members = (np.asarray(predictions.member_energies) - self.offset) / HARTREE
        uncertainties = np.asarray(predictions.energy_uncertainties) / HARTREE
        self._texts.extend(JsonText() for _ in range(len(members) - len(self._texts)))
        texts = self._texts[: len(members)]
        for text in texts:
            text.clear()
        _add(texts, "committee_pot", members)
        _add(texts, "committee_uncertainty", uncertainties)
        if "committee_force" in self.extras:
            _add_members(texts, "committee_force", predictions.member_forces, BOHR / HARTREE)
        if "committee_virial" in self.extras:
            _add_members(texts, "committee_virial", np.swapaxes(predictions.member_virials, 2, 3), 1 / HARTREE)
        if getattr(predictions, "mixing", None) is not None:
            _add(texts, "wb_mixing", predictions.mixing)
            _add(texts, "baseline_pot", np.asarray(predictions.baseline_energies) / HARTREE)
        if getattr(predictions, "uncertainty_biases", None) is not None:
            _add(texts, "uncertainty_bias", np.asarray(predictions.uncertainty_biases) / HARTREE)
        if getattr(predictions, "all_member_energies", None) is not None:
            _add(texts, "member_energies", (np.asarray(predictions.all_member_energies) - self.offset) / HARTREE)
        if self.mean:
            check_finite("the energy computed", predictions.energies, ("structure",))
            return members.mean(axis=1), self._units_of_mean, texts
        return predictions.energies, self._units, texts


def _add(texts, name, values):
    """Put numbers (B,), or lists of them (B, M), into the extras."""
    for text, value in zip(texts, values, strict=True):
        if not (text.numbers(name, value) if values.ndim > 1 else text.number(name, value)):
            check_finite(name, values, ("structure", "member")[: values.ndim])


def _add_members(texts, name, values, factor):
    """Put the (B, M, rows, 3) values of the members, times a factor, into the extras, M flat lists for each."""
    for text, value in zip(texts, values, strict=True):
        if not text.members(name, value, factor):
            check_finite(name, np.asarray(values) * factor, ("structure", "member", "row", "component"))
