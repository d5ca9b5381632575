"""Where the wire ends: Hartree atomic units and transposed cells outside, eV, Å and rows inside."""

import json

import numpy as np

from comitia.errors import ProtocolError
from comitia.protocol.messages import check_finite
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
        self._last = None, None

    def __call__(self, event):
        """Positions and cells of an `Evaluate`.

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
        check_finite("the position received", event.positions, ("structure", "atom", "component"))
        cells = np.zeros_like(event.cells)
        if self.pbc.any():
            check_finite("the cell received", event.cells, ("structure", "row", "column"))
            for number, (cell, inverse) in enumerate(zip(event.cells, event.inverses, strict=True)):
                cells[number] = self._rows(cell, inverse, f"structure {number}")
        return event.positions * BOHR, cells

    def _rows(self, cell, inverse, where):
        sent = cell.tobytes() + inverse.tobytes()
        if sent != self._last[0]:
            check_cell(cell, inverse, where)
            if np.linalg.matrix_rank(cell.T[self.pbc]) < np.count_nonzero(self.pbc):
                raise ProtocolError(
                    f"the cell of {where} has no extent along a periodic direction of the template; "
                    "give the server a cell, or the template pbc='F F F'"
                )
            self._last = sent, cell.T * BOHR
        return self._last[1]


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

    def __call__(self, predictions):
        """Energies, forces, virials and extras in hartree and bohr.

        Where the mean of the members drives, the energy sent is the mean of `committee_pot` as it is sent, so that
        i-PI, which takes one or the other, always drives with the same number.

        Parameters
        ----------
        predictions : with energies (B,) eV, forces (B, n_atoms, 3) eV/Å, virials (B, 3, 3) eV,
            member_energies (B, M) eV and energy_uncertainties (B,) eV, or None for both; where `extras` asks,
            member_forces (B, M, n_atoms, 3) eV/Å, member_virials (B, M, 3, 3) eV; with a baseline besides
            mixing (B,) and baseline_energies (B,) eV; with pseudo-members all_member_energies (B, M) eV
        """
        check_finite("the energy computed", predictions.energies, ("structure",))
        energies = (np.asarray(predictions.energies) - self.offset) / HARTREE
        forces = np.asarray(predictions.forces) * (BOHR / HARTREE)
        virials = np.asarray(predictions.virials).transpose(0, 2, 1) / HARTREE
        if predictions.member_energies is None:
            return energies, forces, virials, [""] * len(energies)
        members = (np.asarray(predictions.member_energies) - self.offset) / HARTREE
        uncertainties = np.asarray(predictions.energy_uncertainties) / HARTREE
        check_finite("the energy of a member", members, ("structure", "member"))
        check_finite("the energy uncertainty", uncertainties, ("structure",))
        content = [
            {"committee_pot": member.tolist(), "committee_uncertainty": float(uncertainty)}
            for member, uncertainty in zip(members, uncertainties, strict=True)
        ]
        if "committee_force" in self.extras:
            _add(content, "committee_force", np.asarray(predictions.member_forces) * (BOHR / HARTREE))
        if "committee_virial" in self.extras:
            _add(content, "committee_virial", np.swapaxes(predictions.member_virials, 2, 3) / HARTREE)
        if getattr(predictions, "mixing", None) is not None:
            baselines = np.asarray(predictions.baseline_energies) / HARTREE
            for entry, weight, baseline in zip(content, predictions.mixing, baselines, strict=True):
                entry |= {"wb_mixing": float(weight), "baseline_pot": float(baseline)}
        if getattr(predictions, "all_member_energies", None) is not None:
            every = (np.asarray(predictions.all_member_energies) - self.offset) / HARTREE
            check_finite("the energy of a member", every, ("structure", "member"))
            for entry, energy in zip(content, every, strict=True):
                entry["member_energies"] = energy.tolist()
        energies = members.mean(axis=1) if self.mean else energies
        return energies, forces, virials, [json.dumps(entry, allow_nan=False) for entry in content]


def _add(content, name, values):
    """Put the (B, M, rows, 3) values of the members into the extras, M flat lists for each structure."""
    check_finite(name, values, ("structure", "member", "row", "component"))
    for entry, value in zip(content, values, strict=True):
        entry[name] = value.reshape(len(value), -1).tolist()
