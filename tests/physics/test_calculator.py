"""The ASE calculator: the same numbers under ASE's names, signs and units."""

import numpy as np
import pytest
import systems
from ase import units
from ase.filters import FrechetCellFilter
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS
from ase.stress import voigt_6_to_full_3x3_stress
from numpy.testing import assert_allclose


@pytest.fixture(scope="module")
def potential():
    return systems.potential([14], n_members=4, n_max=[4, 3, 2], l_max=[0, 3, 2])


@pytest.fixture
def atoms(potential):
    atoms = systems.structures([14])["triclinic"]
    atoms.calc = potential.calculator()
    return atoms


def test_properties_equal_the_potential(potential, atoms):
    p = potential.compute(atoms)
    assert atoms.get_potential_energy() == pytest.approx(p.energy, rel=1e-13)
    assert atoms.get_potential_energy(force_consistent=True) == atoms.get_potential_energy()
    assert_allclose(atoms.get_forces(), p.forces, rtol=0, atol=1e-11)
    assert_allclose(atoms.get_stress(voigt=False), p.stress, rtol=0, atol=1e-12)
    assert_allclose(p.stress, -p.virial / atoms.get_volume(), rtol=1e-14)
    assert atoms.get_potential_energies().sum() == pytest.approx(p.energy, rel=1e-13)
    assert_allclose(atoms.calc.results["member_energies"], p.member_energies, rtol=1e-13)
    assert atoms.calc.results["energy_uncertainty"] == pytest.approx(p.energy_uncertainty, rel=1e-9)


def test_stress_is_the_derivative_by_strain_over_the_volume(potential, atoms):
    h = 5e-4
    stress = np.zeros((3, 3))
    for a in range(3):
        for b in range(3):
            energies = []
            for step in (-2, -1, 1, 2):
                deformation = np.eye(3)
                deformation[a, b] += step * h
                strained = atoms.copy()
                strained.set_cell(atoms.cell.array @ deformation.T, scale_atoms=True)
                strained.calc = atoms.calc
                energies.append(strained.get_potential_energy())
            stress[a, b] = np.array([1, -8, 8, -1]) @ energies / (12 * h) / atoms.get_volume()
    assert_allclose(voigt_6_to_full_3x3_stress(atoms.get_stress()), stress, rtol=0, atol=1e-9)


def test_a_compressed_crystal_has_negative_stress():
    """ASE's sign: positive in tension; checked with the repulsive core alone, which can only push."""
    from comitia.potential import Potential

    built = systems.potential([14], n_max=[2, 0, 0], l_max=[0, 0, 0])
    core = systems.core([14])
    pushing = Potential(built.descriptor, np.zeros_like(built.weights), [0.0], core)
    atoms = systems.crystal([14], 1, seed=1)
    atoms.set_cell(atoms.cell.array * 0.85, scale_atoms=True)
    atoms.calc = pushing.calculator()
    assert (atoms.get_stress()[:3] < 0).all()


def test_results_follow_changes_of_positions_cell_and_species(potential):
    both = systems.potential([6, 14], n_max=[4, 3, 2], l_max=[0, 3, 2])
    atoms = systems.structures([6, 14])["triclinic"]
    atoms.calc = both.calculator()
    for change in ("nothing", "positions", "cell", "species", "pbc", "length"):
        if change == "positions":
            atoms.positions[0] += 0.03
        elif change == "cell":
            atoms.set_cell(atoms.cell.array * 1.01, scale_atoms=True)
        elif change == "species":
            atoms.numbers[0] = 20 - atoms.numbers[0]
        elif change == "pbc":
            atoms.pbc = (True, True, False)
        elif change == "length":
            del atoms[0]
        assert atoms.get_potential_energy() == pytest.approx(both.compute(atoms).energy, rel=1e-13), change
        assert_allclose(atoms.get_forces(), both.compute(atoms).forces, rtol=0, atol=1e-11, err_msg=change)


def test_a_molecule_has_no_stress_but_energy_and_forces(potential):
    from ase.calculators.calculator import PropertyNotImplementedError

    atoms = systems.structures([14])["molecule"]
    atoms.calc = potential.calculator()
    assert np.isfinite(atoms.get_potential_energy())
    with pytest.raises((PropertyNotImplementedError, ValueError)):
        atoms.get_stress()
    with pytest.raises(ValueError, match="volume"):
        _ = potential.compute(atoms).stress


def test_constant_energy_dynamics_conserves_energy(potential):
    """Velocity Verlet: the error of the total energy goes with the square of the time step."""
    errors = []
    for time_step in (2.0, 1.0):
        atoms = systems.structures([14])["molecule"]
        atoms.calc = potential.calculator()
        dynamics = VelocityVerlet(atoms, timestep=time_step * units.fs)
        totals = []
        dynamics.attach(lambda a=atoms, t=totals: t.append(a.get_total_energy()))
        dynamics.run(int(40 / time_step))
        errors.append(np.std(totals))
        assert atoms.get_kinetic_energy() > 0.01
    assert 2.5 < errors[0] / errors[1] < 6


def test_relaxation_ends_with_small_forces(potential, atoms):
    energy = atoms.get_potential_energy()
    BFGS(FrechetCellFilter(atoms), logfile=None, maxstep=0.02).run(fmax=0.5, steps=15)
    assert atoms.get_potential_energy() < energy


def test_the_committee_says_its_uncertainties(potential, atoms):
    """Those of energies always, those of forces when they are asked for; ASE's own properties stay apart from them."""
    p = potential.compute(atoms, members=True)
    assert np.isfinite(atoms.get_forces()).all()
    assert "force_uncertainty" not in atoms.calc.results
    assert atoms.calc.get_property("energy_uncertainty", atoms) == pytest.approx(p.energy_uncertainty, rel=1e-9)
    assert_allclose(atoms.calc.get_property("force_uncertainty", atoms), p.force_uncertainty, rtol=1e-9)
    assert_allclose(atoms.calc.results["member_forces"], p.member_forces, rtol=0, atol=1e-11)
    atoms.calc = potential.calculator(members=True)
    assert atoms.get_potential_energy() == pytest.approx(p.energy, rel=1e-13)
    assert_allclose(atoms.calc.results["force_uncertainty"], p.force_uncertainty, rtol=1e-9)
    assert set(atoms.get_properties(["forces"])) == {"energy", "free_energy", "energies", "forces", "stress", "natoms"}


def test_a_single_member_has_no_uncertainty():
    from ase.calculators.calculator import PropertyNotImplementedError

    atoms = systems.structures([14])["triclinic"]
    atoms.calc = systems.potential([14], n_max=[2, 0, 0], l_max=[0, 0, 0]).calculator(members=True)
    assert np.isfinite(atoms.get_forces()).all()
    with pytest.raises(PropertyNotImplementedError):
        atoms.calc.get_property("force_uncertainty", atoms)
