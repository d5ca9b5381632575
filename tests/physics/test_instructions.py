"""Every instruction set gives the same numbers: only the rounding of sums in another order differs."""

import os
import subprocess
import sys

import numpy as np
import pytest
import systems
from numpy.testing import assert_allclose

from comitia import _core
from comitia.errors import SettingsError

TOLERANCE = 1e-12  # relative to the largest number of each kind


@pytest.fixture(params=["avx2", "baseline"])
def instructions(request):
    """A set other than the fastest one; the fastest is in use outside of the test."""
    fastest = _core.instructions()
    if request.param not in _core.instruction_sets() or request.param == fastest:
        pytest.skip(f"{request.param} is not to be compared on this CPU: it has {_core.instruction_sets()}")
    yield request.param
    _core.use_instructions(fastest)


def quantities(potential, structures):
    """Everything that the kernels compute."""
    descriptor, kernel = potential.descriptor, potential.kernel
    batch = descriptor.batch(structures)
    found = kernel.evaluate(batch, potential.mean_weights, sums=True, features=True, n_threads=2)
    adjoint = np.random.default_rng(3).normal(size=(batch.n_atoms, descriptor.n_features))
    by_adjoint = kernel.evaluate(batch, adjoint=adjoint)
    found |= {f"{name} of an adjoint": value for name, value in by_adjoint.items()}
    found["tangent"] = kernel.tangent(batch, np.random.default_rng(4).normal(size=(batch.n_atoms, 3)))
    found["members"] = potential.compute(structures[0]).member_energies
    for name, rows in descriptor.design(structures[0])._asdict().items():
        found[f"design: {name}"] = rows
    return found


@pytest.mark.parametrize(
    "options",
    [{"n_max": [5, 3, 2]}, {"n_max": [12, 8, 0], "l_max": [0, 6, 0]}, {"n_max": [3, 2, 2], "radial": "gaussian"}],
    ids=["order 3", "order 2", "radial functions of each l"],
)
@pytest.mark.parametrize("numbers", [[14], [1, 8, 14]], ids=["1 species", "3 species"])
def test_instruction_sets_agree(instructions, numbers, options):
    potential = systems.potential(numbers, n_members=4, **options)
    structures = list(systems.structures(potential.species).values())
    expected = quantities(potential, structures)
    _core.use_instructions(instructions)
    found = quantities(potential, structures)
    for name, value in expected.items():
        assert_allclose(found[name], value, rtol=0, atol=TOLERANCE * np.abs(value).max(), err_msg=name)


def test_a_batch_may_change_the_instruction_set(instructions):
    potential = systems.potential([14], n_max=[4, 3, 2])
    atoms = systems.crystal(potential.species, 2, seed=5)
    batch = potential.descriptor.batch([atoms])
    first = potential.kernel.evaluate(batch, potential.mean_weights)["forces"]
    _core.use_instructions(instructions)
    second = potential.kernel.evaluate(batch, potential.mean_weights)["forces"]
    assert_allclose(second, first, rtol=0, atol=TOLERANCE * np.abs(first).max())


def test_unknown_instructions_are_refused():
    with pytest.raises(SettingsError, match=r"instructions mmx: there are no kernels of that name; it can run .*"):
        _core.use_instructions("mmx")


@pytest.mark.parametrize("name", _core.instruction_sets())
def test_the_environment_chooses(name):
    command = [sys.executable, "-c", "from comitia import _core; print(_core.instructions())"]
    result = subprocess.run(
        command, env=os.environ | {"COMITIA_INSTRUCTIONS": name}, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == name
