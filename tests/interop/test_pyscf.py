"""PySCF as a calculator: its own energies, and an error where it does not converge."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from numpy.testing import assert_allclose

from comitia.engines.electronic_structure import BOHR, HARTREE, ElectronicStructure, parse_settings
from comitia.engines.force_engines import EngineOptions
from comitia.engines.references import reference_energies
from comitia.errors import EngineError, SettingsError

pytest.importorskip("pyscf")


def water():
    atoms = molecule("H2O")
    atoms.rattle(0.05, seed=1)
    return atoms


def itself(atoms, charge=0, spin=0, basis="sto-3g"):
    from pyscf import gto

    places = [[symbol, position / BOHR] for symbol, position in zip(atoms.symbols, atoms.positions, strict=True)]
    return gto.M(atom=places, unit="Bohr", basis=basis, charge=charge, spin=spin, verbose=0)


def test_energies_are_those_of_pyscf(tmp_path):
    from pyscf import mp, scf

    atoms = water()
    mean_field = scf.RHF(itself(atoms, basis="6-31g")).run(conv_tol=1e-10)
    found = reference_energies([atoms], "pyscf:method=hf,basis=6-31g,density_fit=false", tmp_path / "hf")
    assert found.energies[0] == pytest.approx(mean_field.e_tot * HARTREE, abs=1e-6)
    assert found.identity["basis"] == "6-31g"
    exact = mp.MP2(mean_field, frozen=1).run().e_tot * HARTREE
    found = reference_energies([atoms], "pyscf:method=mp2,basis=6-31g,density_fit=false", tmp_path / "mp2")
    assert found.energies[0] == pytest.approx(exact, abs=0.02)  # the fit of the integrals


@pytest.mark.long
def test_functionals_and_unpaired_electrons(tmp_path):
    from pyscf import dft, scf

    atoms, radical = water(), Atoms("OH", [[0, 0, 0], [0, 0, 0.98]])
    cases = {
        "pyscf:method=hf,basis=sto-3g,density_fit=false,spin=1": (radical, scf.UHF(itself(radical, spin=1))),
        "pyscf:xc=pbe,basis=sto-3g": (atoms, dft.RKS(itself(atoms), xc="pbe").density_fit()),
    }
    for number, (specification, (structure, mean_field)) in enumerate(cases.items()):
        mean_field.conv_tol = 1e-10
        found = reference_energies([structure], specification, tmp_path / f"{number}")
        assert found.energies[0] == pytest.approx(mean_field.kernel() * HARTREE, abs=1e-6)


@pytest.mark.long
def test_forces_are_the_gradient():
    calculator = ElectronicStructure(xc="lda", basis="sto-3g")
    atoms = water()
    atoms.calc = calculator
    forces, h = atoms.get_forces(), 1e-3
    numbers = []
    for sign in (1, -1):
        other = atoms.copy()
        other.positions[1, 2] += sign * h
        other.calc = calculator
        numbers.append(other.get_potential_energy())
    assert forces[1, 2] == pytest.approx((numbers[1] - numbers[0]) / (2 * h), abs=2e-4)


@pytest.mark.long
def test_a_crystal_is_periodic(tmp_path):
    """Helium in a cell with a Gaussian basis: its energy per atom does not depend on the choice of the cell."""
    one = Atoms("He", cell=[3.0, 3.0, 3.0], pbc=True)
    two = one.repeat((2, 1, 1))
    settings = "pyscf:xc=lda,basis=gth-szv,pseudo=gth-pade,ke_cutoff=250,density_fit=false"
    finer = reference_energies([one], f"{settings},kpts=2x1x1", tmp_path / "one").energies[0]
    assert finer == pytest.approx(reference_energies([two], settings, tmp_path / "two").energies[0] / 2, abs=1e-4)
    slab = one.copy()
    slab.pbc = [True, True, False]
    with pytest.raises(EngineError, match="along some directions only"):
        reference_energies([slab], settings, tmp_path / "slab")


def test_what_does_not_converge_is_an_error_and_no_number(tmp_path):
    atoms = [water(), molecule("H2")]
    specification = "pyscf:method=hf,basis=6-31g,max_cycle=2"
    with pytest.raises(EngineError, match=r"structure 0: pyscf:.*did not converge to 1e-10 hartree in 2 cycles"):
        reference_energies(atoms, specification, tmp_path / "store", EngineOptions())
    found = reference_energies(atoms, specification, tmp_path / "store", skip_failed=2)
    assert np.isnan(found.energies[0])


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("xc=pbe,basos=x", "basos=x"),
        ("charge=one", "give a number"),
        ("density_fit=2", "true or false"),
        ("method=ccsd", "give one of"),
        ("method=mp2,xc=pbe", "belongs to method=ks"),
        ("kpts=2,xc=pbe", "2x2x2"),
    ],
)
def test_settings_that_make_no_sense_are_named(text, what):
    with pytest.raises(SettingsError, match=what):
        ElectronicStructure(**parse_settings(text))
    assert_allclose(BOHR, 0.529177, atol=1e-6)
