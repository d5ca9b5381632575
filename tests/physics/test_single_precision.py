"""The kernel of single precision numbers against that of doubles."""

import numpy as np
import pytest
import systems
from numpy.testing import assert_allclose

import comitia
from comitia import _core
from comitia.density import Descriptor
from comitia.errors import SettingsError
from comitia.potential import Potential
from comitia.structures import Keys, read_structures

FORCES = 1e-4  # eV/Å
ENERGY = 1e-6  # eV per atom, and times the energies of the atoms, which are far from zero where only forces were fitted
FITS = {  # file, cutoff in Å, options of the basis, keys, frames
    "Si": ("mlearn/Si_train.xyz.xz", 5.0, {}, Keys(energy="REF_energy", forces="REF_forces", stress=None), 24),
    "water": (
        "water_deepmd_pbe0ts/water64_pbe0ts.xyz.xz",
        6.0,
        {"n_max": [8, 6, 3], "l_max": [0, 4, 3]},
        Keys(stress=None),
        8,
    ),
    "25 elements": (
        "hea25_subset/hea25_100.xyz.xz",
        5.0,
        {
            "n_max": [4, 2, 0],
            "l_max": [0, 3, 0],
            "pseudo_species": 3,
            "contraction": np.random.default_rng(1).normal(size=(3, 25)),
        },
        Keys(stress=None),
        20,
    ),
}


def in_both(potential, **options):
    """The same potential with kernels of both precisions."""
    return [
        Potential(
            potential.descriptor,
            potential.weights,
            potential.reference_energies,
            potential.core,
            potential.alpha_energy,
            potential.alpha_forces,
            precision=precision,
            **options,
        )
        for precision in ("float64", "float32")
    ]


def compare(double, single, structures):
    """Assert that two potentials are the same to single precision."""
    for expected, found in zip(double.compute(structures), single.compute(structures), strict=True):
        n_atoms = len(expected.forces)
        assert_allclose(found.forces, expected.forces, rtol=0, atol=FORCES)
        tolerance = ENERGY * (n_atoms + np.abs(expected.atomic_energies).sum())
        assert_allclose(found.energy, expected.energy, rtol=0, atol=tolerance)
        assert_allclose(found.virial, expected.virial, rtol=0, atol=FORCES * 10 * n_atoms)
        if double.n_members > 1:
            assert_allclose(found.member_energies, expected.member_energies, rtol=0, atol=tolerance)
            assert_allclose(found.energy_uncertainty, expected.energy_uncertainty, rtol=1e-3)


@pytest.fixture(params=_core.instruction_sets())
def instructions(request):
    before = _core.instructions()
    _core.use_instructions(request.param)
    yield request.param
    _core.use_instructions(before)


@pytest.mark.parametrize(
    "options",
    [{"n_max": [5, 3, 2]}, {"n_max": [12, 8, 0], "l_max": [0, 6, 0]}, {"n_max": [3, 2, 2], "radial": "gaussian"}],
    ids=["order 3", "order 2", "radial functions of each l"],
)
@pytest.mark.parametrize("numbers", [[14], [1, 8, 14]], ids=["1 species", "3 species"])
def test_forces_of_random_weights(instructions, numbers, options):
    potential = systems.potential(numbers, n_members=4, **options)
    compare(*in_both(potential), list(systems.structures(potential.species).values()))


def test_energies_of_many_atoms_do_not_drift():
    """Sums over atoms are double: the error of the summed features does not grow with their number."""
    potential = systems.potential([14], n_members=3, n_max=[4, 3, 2])
    atoms = systems.structures([14])["bulk"]
    double, single = in_both(potential)
    for repeat in (1, 8):
        many = atoms.repeat((repeat, repeat, 1))
        expected, found = double.compute(many), single.compute(many)
        assert_allclose(found.member_energies, expected.member_energies, rtol=0, atol=1e-6 * len(many))


def test_two_threads_are_one():
    _, single = in_both(systems.potential([1, 8], n_members=3, n_max=[4, 3, 2]))
    for atoms in systems.structures([1, 8]).values():
        one, two = single.compute(atoms, n_threads=1), single.compute(atoms, n_threads=2)
        assert_allclose(two.forces, one.forces, rtol=0, atol=1e-12)
        assert_allclose(two.energy, one.energy, rtol=1e-12)


def test_precision_is_chosen_when_a_model_is_loaded(tmp_path):
    potential = systems.potential([6, 14], n_members=3, n_max=[4, 3, 0])
    potential.save(tmp_path / "m.safetensors")
    double = comitia.load(tmp_path / "m.safetensors")
    single = comitia.load(tmp_path / "m.safetensors", precision="float32")
    atoms = systems.structures([6, 14])["triclinic"]
    assert single.precision == "float32"
    assert np.abs(single.compute(atoms).forces - double.compute(atoms).forces).max() > 1e-12
    compare(double, single, [atoms])
    with pytest.raises(SettingsError, match="float16"):
        comitia.load(tmp_path / "m.safetensors", precision="float16")


@pytest.mark.long
@pytest.mark.shared
@pytest.mark.parametrize("name", FITS)
def test_forces_of_fitted_weights(name, shared_data):
    """Weights as large as least squares makes them, with a ridge far below what a fit would choose."""
    path, cutoff, options, keys, n_frames = FITS[name]
    structures = [s for s in read_structures(shared_data / path, keys) if s.forces is not None][: n_frames + 4]
    train, test = structures[:n_frames], [s.atoms for s in structures[n_frames:]]
    species = sorted({z for s in structures for z in s.atoms.numbers.tolist()})
    descriptor = Descriptor.build(species, cutoff, **options)
    gram, right = 0.0, 0.0
    for structure in train:
        rows = descriptor.design(structure.atoms).forces
        gram, right = gram + rows.T @ rows, right + rows.T @ structure.forces.ravel()
    gram += 1e-8 * np.trace(gram) / len(gram) * np.eye(len(gram))
    fitted = Potential(descriptor, np.linalg.solve(gram, right), np.zeros(len(species)))
    double, single = in_both(fitted)
    compare(double, single, test)


def test_what_members_need_stays_double():
    """Member forces and the gradient of the uncertainty are made by the kernels of doubles."""
    potential = systems.potential([1, 8], n_members=3, n_max=[4, 3, 2])
    atoms = systems.structures([1, 8])["triclinic"]
    double, single = (
        p.evaluator(atoms.numbers, atoms.pbc).compute(
            atoms.positions[None], atoms.cell.array[None], members=True, uncertainty_gradient=True
        )
        for p in in_both(potential)
    )
    assert_allclose(single.member_forces, double.member_forces, rtol=0, atol=1e-12)
    assert_allclose(single.energies, double.energies, rtol=0, atol=1e-5)
