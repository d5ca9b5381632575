"""What workers are sent and what they send back: orientation, units, triangles, and text of any kind."""

import numpy as np
import pytest
from models import crystal, small_model
from numpy.testing import assert_allclose, assert_array_equal

from comitia.errors import NumericalError, ProtocolError, StructureError
from comitia.protocol.boundary import check_cell
from comitia.protocol.messages import ForceReady
from comitia.protocol.requests import Request
from comitia.protocol.worker_boundary import check_request, decode_forces, encode_requests, read_extras
from comitia.units import BOHR, HARTREE


def worked(atoms, request, triangle=False):
    """The answer of a worker that computes `small_model` for the atoms as they are sent."""
    message, rotations = encode_requests([request])
    there = atoms.copy()
    there.set_cell(message.cells[0].T * BOHR)
    there.positions = message.positions[0] * BOHR
    check_cell(message.cells[0], message.inverses[0], "what is sent")
    assert not np.tril(message.cells[0], -1).any()  # lattice vectors in columns
    found = small_model().compute(there)
    virial = found.virial.T / HARTREE
    if triangle:
        virial = np.triu(virial)
    reply = ForceReady(
        np.array([found.energy / HARTREE]), found.forces[None] * BOHR / HARTREE, virial[None], ('{"a": 1}',)
    )
    return decode_forces(reply, rotations, "worker 0")[0]


@pytest.mark.parametrize("triangle", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_any_cell_comes_back_in_its_own_orientation(seed, triangle):
    rng = np.random.default_rng(seed)
    atoms = crystal(repeats=(1, 1, 1), seed=seed)
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.1 * rng.normal(size=(3, 3))), scale_atoms=True)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    atoms.set_cell(atoms.cell.array @ turn, scale_atoms=True)
    if seed % 2:
        atoms.set_cell(atoms.cell.array[[1, 0, 2]])  # the other hand
    answer = worked(atoms, Request(atoms.positions, atoms.cell.array), triangle)
    expected = small_model().compute(atoms)
    assert_allclose(answer.energy, expected.energy, rtol=1e-12)
    assert_allclose(answer.forces, expected.forces, atol=1e-11)
    assert_allclose(answer.virial, expected.virial, atol=1e-10)
    assert answer.extras == {"a": 1}


def test_a_cell_in_the_orientation_of_all_workers_is_left_as_it_is():
    positions = np.random.default_rng(0).normal(size=(2, 3))
    for cell in (np.zeros((3, 3)), np.diag([3.0, 4.0, 0.0]), np.array([[3.0, 0, 0], [1.0, 4.0, 0], [-0.2, 0.3, 5.0]])):
        message, rotations = encode_requests([Request(positions, cell)])
        assert rotations == (None,)
        assert_array_equal(message.positions[0], positions / BOHR)
        assert_array_equal(message.cells[0], cell.T / BOHR)


@pytest.mark.parametrize("quantity", ["energy", "force of atom 1", "virial"])
def test_a_number_that_is_not_finite_is_refused_by_name(quantity):
    values = {"energy": np.zeros(1), "force of atom 1": np.zeros((1, 2, 3)), "virial": np.zeros((1, 3, 3))}
    values[quantity].flat[-1] = np.inf
    with pytest.raises(ProtocolError, match=f"the {quantity} is inf"):
        decode_forces(ForceReady(*values.values(), ("",)), [None], "worker 0")


def test_a_structure_that_cannot_be_sent_is_refused():
    with pytest.raises(StructureError, match="3 atoms, the workers were started for 2"):
        check_request(Request(np.zeros((3, 3)), np.eye(3)), 2)
    with pytest.raises(NumericalError, match="cell is nan at vector 0, component 1"):
        check_request(Request(np.zeros((2, 3)), np.array([[1, np.nan, 0], [0, 1, 0], [0, 0, 1]])), 2)


@pytest.mark.parametrize(
    ("text", "content"),
    [
        ("", {}),
        ("\0", {}),
        (" \n", {}),
        ('{"dipole": [1, 2.5]}', {"dipole": [1, 2.5]}),
        ("[1, 2]", {"raw": "[1, 2]"}),
        ("5", {"raw": "5"}),
        ('{"a": NaN}', {"raw": '{"a": NaN}'}),
        ("not JSON", {"raw": "not JSON"}),
        ('{"raw": 1}', {"raw": 1}),
        (20_000 * '{"a":', {"raw": 20_000 * '{"a":'}),
    ],
)
def test_extras_of_any_kind_are_kept(text, content):
    assert read_extras(text) == content
