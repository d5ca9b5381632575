"""Where the wire to workers ends: eV, Å and rows inside; Hartree atomic units and upper triangular cells outside."""

import msgspec
import numpy as np

from comitia.errors import ProtocolError, StructureError
from comitia.protocol.messages import PositionData, check_finite
from comitia.protocol.requests import Answer
from comitia.units import BOHR, HARTREE


def standard_orientation(cell):
    """Rotation to the orientation that every worker takes: first vector along x, second in the xy plane.

    LAMMPS and others read six of the nine numbers of a cell and take the others for zero.

    Parameters
    ----------
    cell : (3, 3) array, Å, vectors in rows

    Returns
    -------
    (3, 3) orthogonal array Q, improper where the cell is left-handed, so that `cell @ Q` is lower triangular with no
    negative diagonal; None where the cell is so already.
    """
    if not np.triu(cell, 1).any() and (np.diagonal(cell) >= 0).all():
        return None
    rotation, triangle = np.linalg.qr(cell.T)
    return rotation * np.where(np.diagonal(triangle) < 0, -1.0, 1.0)


def check_request(request, n_atoms):
    """Refuse a structure that cannot be sent.

    Raises
    ------
    StructureError
        if it does not have `n_atoms` atoms.
    NumericalError
        if a coordinate is not finite.
    """
    if np.shape(request.positions) != (n_atoms, 3):
        raise StructureError(f"a structure has {len(request.positions)} atoms, the workers were started for {n_atoms}")
    check_finite("the position", request.positions, ("atom", "component"))
    check_finite("the cell", request.cell, ("vector", "component"))


def encode_requests(requests):
    """Structures as they travel, and the rotations that were applied.

    Parameters
    ----------
    requests : list of Request, of one number of atoms

    Returns
    -------
    PositionData, list of (3, 3) array or None
    """
    rotations = [standard_orientation(request.cell) for request in requests]
    cells, positions = [], []
    for request, rotation in zip(requests, rotations, strict=True):
        turned = np.eye(3) if rotation is None else rotation
        rows = np.tril(request.cell @ turned)
        cells.append(rows.T / BOHR)
        positions.append((request.positions if rotation is None else request.positions @ rotation) / BOHR)
    cells = np.array(cells)
    return PositionData(cells, np.linalg.pinv(cells), np.array(positions)), rotations


def read_extras(text):
    """What a worker says besides energy, forces and virial: a dict; text that is no JSON object is under "raw"."""
    text = text.strip("\0 \t\r\n")
    if not text:
        return {}
    try:
        content = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return {"raw": text}
    return content if isinstance(content, dict) else {"raw": text}


def decode_forces(message, rotations, worker):
    """Answers of a worker, in our units and orientation; refused if a number is not finite.

    Parameters
    ----------
    message : ForceReady
    rotations : list of (3, 3) array or None, as `encode_requests` gave them
    worker : str, its name

    Returns
    -------
    list of Answer

    Raises
    ------
    ProtocolError
        for numbers that are not finite.
    """
    answers = []
    for s, rotation in enumerate(rotations):
        energy, forces = message.energies[s] * HARTREE, message.forces[s] * (HARTREE / BOHR)
        virial = whole_virial(message.virials[s].T * HARTREE)
        for quantity, value in (("energy", energy), ("force", forces), ("virial", virial)):
            if not np.isfinite(value).all():
                place = tuple(int(i) for i in np.argwhere(~np.isfinite(value))[0])
                where = f" of atom {place[0]}" if quantity == "force" else ""
                raise ProtocolError(f"the {quantity}{where} is {float(np.asarray(value)[place])}")
        if rotation is not None:
            forces, virial = forces @ rotation.T, rotation @ virial @ rotation.T
        answers.append(Answer(float(energy), forces, virial, read_extras(message.extras[s]), worker))
    return answers


def whole_virial(virial):
    """The virial of a worker that sends one triangle of it, as LAMMPS does, with the other filled in.

    Parameters
    ----------
    virial : (3, 3) array
    """
    for triangle in (virial, virial.T):
        if triangle[np.triu_indices(3, 1)].any() and not triangle[np.tril_indices(3, -1)].any():
            return triangle + np.triu(triangle, 1).T
    return virial
