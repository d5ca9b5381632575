"""Numbers as text: the bytes of `json.dumps`, which read back as the same numbers, and what is refused."""

import json

import numpy as np
import pytest

from comitia._wire import JsonText
from comitia.errors import NumericalError
from comitia.protocol.boundary import WireResults
from comitia.units import BOHR, HARTREE

EDGES = [
    0.0, -0.0, 5e-324, -5e-324, 2.225073858507201e-308, 2.2250738585072014e-308, 1.7976931348623157e308,
    1e15, 9999999999999998.0, 1e16, 1e17, 1e22, 1e23, 9007199254740993.0, 1e-4, 1e-5, 9.999e-5, 0.1, 1 / 3, 4.35,
    0.00012345678901234567, 12345.0, 123456789012345680.0,
]  # fmt: skip


def as_json(values):
    """What is written, compared with what json makes of the same numbers."""
    text = JsonText()
    text.numbers("values", values)
    assert bytes(text).decode() == str(text) == json.dumps({"values": values.tolist()})
    assert len(text) == len(str(text))
    return str(text)


def random_bits(n, seed):
    """Finite numbers of all sizes, subnormal ones among them, from random bits."""
    values = np.random.default_rng(seed).integers(0, 2**64, n, dtype=np.uint64).view(float)
    values[::8] = np.random.default_rng(seed).integers(0, 2**52, len(values[::8]), dtype=np.uint64).view(float)
    return values[np.isfinite(values)]


def test_numbers_at_the_edges():
    as_json(np.array(EDGES))
    powers = np.array([2.0**k for k in range(-1074, 1024)])
    tens = np.array([float(f"1e{k}") for k in range(-323, 309)])
    for values in (powers, tens, np.nextafter(powers, 0), np.nextafter(tens[1:-1], np.inf), -powers):
        as_json(values)
    as_json(np.arange(-500, 500) / 8)


def test_random_numbers_read_back_bit_for_bit():
    for values in (random_bits(100_000, 1), np.random.default_rng(2).normal(scale=0.02, size=100_000)):
        read = np.array(json.loads(as_json(values))["values"])
        assert read.tobytes() == values.tobytes()


@pytest.mark.long
def test_ten_million_random_numbers_read_back_bit_for_bit():
    for seed in range(100):
        values = random_bits(100_000, seed)
        read = np.array(json.loads(as_json(values))["values"])
        assert read.tobytes() == values.tobytes()


def test_members_are_flat_lists_whatever_their_strides():
    forces = np.random.default_rng(3).normal(size=(5, 4, 6, 3))
    text = JsonText()
    for values in (forces[2], forces.swapaxes(0, 1)[1], forces[:, 1, ::2], forces[0, :0], forces[:2, 0, :0]):
        text.clear()
        assert text.members("committee_force", values, 0.5)
        text.number("other", -1.5)
        flat = (values * 0.5).reshape(len(values), -1) if values.size else np.zeros((len(values), 0))
        assert str(text) == json.dumps({"committee_force": flat.tolist(), "other": -1.5})


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["committee_force", "committee_virial"])
def test_a_number_of_a_member_that_is_not_finite_is_refused_by_name(predictions, name, wrong):
    values = predictions.member_forces if name == "committee_force" else predictions.member_virials
    values[1, 2, 0, 1] = wrong
    where = "row 0, component 1" if name == "committee_force" else "row 1, component 0"  # virials travel transposed
    with pytest.raises(NumericalError, match=f"{name} is -?(nan|inf) at structure 1, member 2, {where}"):
        WireResults(extras=(name,))(predictions)


@pytest.fixture
def predictions():
    """A committee of four members and two structures of five atoms, with a baseline."""
    from types import SimpleNamespace

    rng = np.random.default_rng(4)
    members = rng.normal(size=(2, 4))
    return SimpleNamespace(
        energies=members.mean(axis=1), forces=rng.normal(size=(2, 5, 3)), virials=rng.normal(size=(2, 3, 3)),
        member_energies=members, energy_uncertainties=members.std(axis=1, ddof=1),
        member_forces=rng.normal(size=(2, 4, 5, 3)), member_virials=rng.normal(size=(2, 4, 3, 3)),
        mixing=rng.uniform(size=2), baseline_energies=rng.normal(size=2), all_member_energies=rng.normal(size=(2, 9)),
    )  # fmt: skip


def test_the_extras_of_a_committee_are_those_that_json_makes(predictions):
    results = WireResults(1.5, ("committee_force", "committee_virial"))
    for _ in range(2):  # the memory of the first is used again
        _, _, _, texts = results(predictions)
        for s, text in enumerate(texts):
            expected = {
                "committee_pot": ((predictions.member_energies[s] - 1.5) / HARTREE).tolist(),
                "committee_uncertainty": float(predictions.energy_uncertainties[s] / HARTREE),
                "committee_force": (predictions.member_forces[s] * (BOHR / HARTREE)).reshape(4, 15).tolist(),
                "committee_virial": (predictions.member_virials[s].swapaxes(1, 2) * (1 / HARTREE))
                .reshape(4, 9)
                .tolist(),
                "wb_mixing": float(predictions.mixing[s]),
                "baseline_pot": float(predictions.baseline_energies[s] / HARTREE),
                "member_energies": ((predictions.all_member_energies[s] - 1.5) / HARTREE).tolist(),
            }
            assert text == json.dumps(expected)
