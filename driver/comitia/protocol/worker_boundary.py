"""Where the wire to workers ends: eV, Å and rows inside; Hartree atomic units and upper triangular cells outside."""

import functools

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
    PositionData, tuple of (3, 3) array or None
    """
    rotations, cells, inverses = zip(
        *(_wire_cell(np.asarray(request.cell, float).tobytes()) for request in requests), strict=True
    )
    positions = [
        (request.positions if rotation is None else request.positions @ rotation) / BOHR
        for request, rotation in zip(requests, rotations, strict=True)
    ]
    return PositionData(np.array(cells), np.array(inverses), np.array(positions)), rotations


@functools.lru_cache(maxsize=256)
def _wire_cell(content):
    """Rotation to the orientation of all workers, the cell and its inverse as they travel; most cells come again."""
    cell = np.frombuffer(content).reshape(3, 3)
    rotation = standard_orientation(cell)
    columns = np.tril(cell if rotation is None else cell @ rotation).T / BOHR
    return rotation, columns, np.linalg.pinv(columns)


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
        for quantity, value in (
            ("energy", message.energies[s]),
            ("force", message.forces[s]),
            ("virial", message.virials[s]),
        ):
            if not np.isfinite(value).all():
                place = tuple(int(i) for i in np.argwhere(~np.isfinite(value))[0])
                where = f" of atom {place[0]}" if quantity == "force" else ""
                raise ProtocolError(f"the {quantity}{where} is {float(np.asarray(value)[place])}")
        energy, forces = message.energies[s] * HARTREE, message.forces[s] * (HARTREE / BOHR)
        virial = whole_virial(message.virials[s].T * HARTREE)
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
    (_, xy, xz), (yx, _, yz), (zx, zy, _) = virial.tolist()
    if any((xy, xz, yz)) == any((yx, zx, zy)):
        return virial
    return virial + (virial - np.diag(np.diagonal(virial))).T
