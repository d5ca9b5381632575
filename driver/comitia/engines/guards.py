"""What is done where a committee is uncertain, and where a number is not finite: said, collected, stopped."""

import io
import logging
import time
from pathlib import Path

import numpy as np

from comitia.errors import ModelError, OutputError, UncertaintyError
from comitia.files import write_atomic

log = logging.getLogger(__name__)

ACTIONS = ("warn", "collect", "stop")
SAY_EVERY = 60.0  # s between two warnings
REMEMBERED = 200  # collected frames that a new one is compared with
CLOSEST = 0.1  # Å, root mean square distance per atom below which two frames say the same


def frame_text(atoms, positions, cell, **info):
    """Extended XYZ of one frame, numbers that are not finite included."""
    from ase.io.extxyz import write_xyz

    frame = atoms.copy()
    frame.calc = None
    frame.info = info
    frame.set_cell(cell)
    frame.arrays["positions"] = np.array(positions)
    text = io.StringIO()
    write_xyz(text, [frame], columns=["symbols", "positions"])
    return text.getvalue()


class FrameCollection:
    """Frames appended to an extended XYZ file, each as a whole, without near-duplicates.

    Parameters
    ----------
    path : path of the file, created with the first frame
    atoms : ase.Atoms, species and periodicity
    closest : float, Å, see `CLOSEST`
    """

    def __init__(self, path, atoms, closest=CLOSEST):
        self.path, self.atoms, self.closest = Path(path), atoms, closest
        self.n_frames = 0
        self._kept = []

    def add(self, positions, cell, **info):
        """Append a frame unless it is close to one that is there; whether it was appended."""
        if any(self._distance(positions, cell, *other) < self.closest for other in self._kept):
            return False
        text = frame_text(self.atoms, positions, cell, **info)
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written ({error.strerror}); make room for it") from error
        self._kept = [*self._kept[-REMEMBERED + 1 :], (np.array(positions), np.array(cell))]
        self.n_frames += 1
        return True

    def _distance(self, positions, cell, other, other_cell):
        """Root mean square distance per atom, each by its nearest image; infinite for cells that differ."""
        if len(positions) != len(other) or np.abs(cell - other_cell).max() > self.closest:
            return np.inf
        moved = positions - other
        if self.atoms.pbc.any():
            basis = np.where(self.atoms.pbc[:, None], cell, 0.0)
            inverse = np.linalg.pinv(basis)
            moved = moved - np.round(moved @ inverse) @ basis
        return float(np.sqrt((moved**2).sum(axis=1).mean()))


class UncertaintyGuard:
    """Compares the uncertainty of every structure with thresholds.

    Parameters
    ----------
    action : "warn", "collect" or "stop"
    atoms : ase.Atoms, species and periodicity
    energy : float or None, eV/atom
    forces : float or None, eV/Å, of the largest uncertainty of the force on an atom
    path : path of the extended XYZ file of what is collected
    force_uncertainty : function of member forces (n_members, n_atoms, 3) to (n_atoms, 3), eV/Å; needed with `forces`
    """

    def __init__(self, action, atoms, energy=None, forces=None, path="extrapolation.xyz", force_uncertainty=None):
        if energy is None and forces is None:
            raise ModelError("a guard without a threshold guards nothing; give one for the energy or the forces")
        if forces is not None and force_uncertainty is None:
            raise ModelError("this potential has no uncertainty of forces; give a threshold for the energy")
        self.action, self.energy, self.forces = action, energy, forces
        self.n_structures = self.n_passed = 0
        self._force_uncertainty = force_uncertainty
        self._collection = FrameCollection(path, atoms)
        self._said = -np.inf

    @property
    def members(self):
        """Whether the forces of all members are needed."""
        return self.forces is not None

    def __call__(self, positions, cells, predictions):
        """Look at a batch before anything of it is sent.

        Raises
        ------
        UncertaintyError
            where a threshold is passed and the action is "stop"; the frame is in the file.
        """
        if predictions.energy_uncertainties is None:
            raise ModelError("a model of one member has no uncertainty to guard; fit it with members: 16")
        for s, (position, cell) in enumerate(zip(positions, cells, strict=True)):
            self.n_structures += 1
            per_atom = float(predictions.energy_uncertainties[s]) / max(len(position), 1)
            largest, atom = self._largest(predictions, s)
            reasons = self._reasons(per_atom, largest, atom)
            if reasons:
                info = {"energy_uncertainty_per_atom": per_atom, "structure": self.n_structures}
                if largest is not None:
                    info |= {"largest_force_uncertainty": largest, "atom": atom}
                self._act(position, cell, reasons, info)

    def follow(self, atoms):
        """Go on with other species, as after a swap, or another number of atoms."""
        self._collection.atoms = atoms

    def _largest(self, predictions, s):
        if self.forces is None:
            return None, None
        norms = np.linalg.norm(self._force_uncertainty(predictions.member_forces[s]), axis=1)
        return float(norms.max()), int(norms.argmax())

    def _reasons(self, per_atom, largest, atom):
        reasons = []
        if self.energy is not None and per_atom > self.energy:
            reasons.append(f"sigma_E {1e3 * per_atom:.2f} meV/atom, allowed {1e3 * self.energy:.2f}")
        if self.forces is not None and largest > self.forces:
            reasons.append(f"sigma_F {largest:.3f} eV/Å on atom {atom}, allowed {self.forces:.3f}")
        return "; ".join(reasons)

    def _act(self, position, cell, reasons, info):
        self.n_passed += 1
        where = ""
        if self.action != "warn":
            self._collection.add(position, cell, **info)
            where = f"; {self._collection.n_frames} frames in {self._collection.path}"
        if self.action == "stop":
            raise UncertaintyError(f"structure {self.n_structures}: {reasons}{where}; label it and fit again")
        now = time.monotonic()
        if now - self._said >= SAY_EVERY:
            log.warning("structure %d: %s (%d so far%s)", self.n_structures, reasons, self.n_passed, where)
            self._said = now


def save_failed(path, atoms, positions, cells, error):
    """Keep the structures in which a number was not finite; the sentence that says where they are."""
    text = "".join(
        frame_text(atoms, position, cell, error=str(error)) for position, cell in zip(positions, cells, strict=True)
    )
    try:
        write_atomic(path, text)
    except OutputError as problem:
        return str(problem)
    atom = error.place.get("atom")
    species = "" if atom is None else f"atom {atom} is {atoms.symbols[atom]}, "
    return f"{species}the structure is in {path}"
