"""PySCF as an ASE calculator, for molecules and periodic systems; PySCF itself is imported when it first computes."""

import re

import numpy as np
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes

from comitia.errors import EngineError, SettingsError

HARTREE = 27.211386245988  # eV, CODATA 2018
BOHR = 0.529177210903  # Å, CODATA 2018

METHODS = ("hf", "ks", "mp2")


class ElectronicStructure(Calculator):
    """Energies, and forces where the method has them, from PySCF.

    Every structure is computed from the same start, so that its energy does not depend on what came before it. A
    calculation that does not converge is an error of its structure.

    Parameters
    ----------
    method : "hf", "ks" (with `xc`; the default where that is given) or "mp2"
    xc : str, functional of Kohn and Sham
    basis : str
    charge, spin : int; spin is the number of unpaired electrons, and orbitals are unrestricted where it is not 0
    density_fit : bool, of Coulomb and exchange; MP2 is always density fitted
    auxiliary_basis : str, of the density fitting of the mean field; by default PySCF's own choice
    mp2_auxiliary_basis : str, of the density fitting of MP2; likewise
    frozen_core : bool, whether MP2 leaves out the core
    grid_level : int, of the integration grid
    conv_tol : float, hartree
    max_cycle : int
    pseudo, ke_cutoff, kpts : of periodic systems: pseudopotential, cutoff of the grid (hartree), and the numbers of
        k-points as "2x2x2"
    multigrid : bool, of periodic systems: grids of several spacings, which forces need
    max_memory : float, MB
    """

    implemented_properties = ["energy", "forces"]  # noqa: RUF012 - as ASE has it

    def __init__(
        self,
        method=None,
        xc=None,
        basis="def2-svp",
        charge=0,
        spin=0,
        density_fit=True,
        auxiliary_basis=None,
        mp2_auxiliary_basis=None,
        frozen_core=True,
        grid_level=3,
        conv_tol=1e-10,
        max_cycle=100,
        pseudo=None,
        ke_cutoff=None,
        kpts="1x1x1",
        multigrid=False,
        max_memory=4000.0,
    ):
        super().__init__()
        self.method = str(method or ("ks" if xc else "hf")).lower().removeprefix("r").removeprefix("u")
        if self.method not in METHODS:
            raise SettingsError(f"pyscf: method is {method!r}; give one of {', '.join(METHODS)}")
        if (self.method == "ks") != (xc is not None):
            raise SettingsError("pyscf: a functional xc belongs to method=ks, and only there; correct one of them")
        if not re.fullmatch(r"\d+x\d+x\d+", str(kpts)):
            raise SettingsError(f"pyscf: kpts is {kpts!r}; give three numbers as 2x2x2")
        self.xc, self.basis, self.charge, self.spin = xc, basis, charge, spin
        self.density_fit, self.auxiliary_basis = density_fit, auxiliary_basis
        self.mp2_auxiliary_basis, self.frozen_core = mp2_auxiliary_basis, frozen_core
        self.grid_level, self.conv_tol, self.max_cycle = grid_level, conv_tol, max_cycle
        self.pseudo, self.ke_cutoff, self.multigrid, self.max_memory = pseudo, ke_cutoff, multigrid, max_memory
        self.kpts = [int(number) for number in str(kpts).split("x")]

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        """As ASE calls it."""
        super().calculate(atoms, properties, system_changes)
        _require_pyscf()
        periodic = bool(self.atoms.pbc.any())
        mean_field = self._periodic_mean_field() if periodic else self._molecular_mean_field()
        mean_field.conv_tol, mean_field.max_cycle = self.conv_tol, self.max_cycle
        energy = mean_field.kernel()
        if not mean_field.converged:
            raise EngineError(
                f"pyscf: the mean field did not converge to {self.conv_tol:g} hartree in {self.max_cycle} cycles; "
                "raise max_cycle, or leave the structure out"
            )
        if self.method == "mp2":
            energy = self._mp2(mean_field, periodic)
        self.results["energy"] = float(energy) * HARTREE
        if "forces" in properties:
            self.results["forces"] = -self._gradient(mean_field, periodic) * HARTREE / BOHR

    def _atoms(self):
        return [
            [symbol, position] for symbol, position in zip(self.atoms.symbols, self.atoms.positions / BOHR, strict=True)
        ]

    def _molecular_mean_field(self):
        from pyscf import dft, gto, scf

        molecule = gto.M(
            atom=self._atoms(),
            unit="Bohr",
            basis=self.basis,
            charge=self.charge,
            spin=self.spin,
            verbose=0,
            max_memory=self.max_memory,
        )
        if self.method == "ks":
            mean_field = (dft.UKS if self.spin else dft.RKS)(molecule, xc=self.xc)
            mean_field.grids.level = self.grid_level
        else:
            mean_field = (scf.UHF if self.spin else scf.RHF)(molecule)
        return mean_field.density_fit(auxbasis=self.auxiliary_basis) if self.density_fit else mean_field

    def _periodic_mean_field(self):
        from pyscf.pbc import dft, gto, scf

        if not self.atoms.pbc.all():
            raise EngineError("pyscf: the cell is periodic along some directions only; give a molecule or a crystal")
        cell = gto.M(
            a=self.atoms.cell.array / BOHR,
            atom=self._atoms(),
            unit="Bohr",
            basis=self.basis,
            pseudo=self.pseudo,
            ke_cutoff=self.ke_cutoff,
            charge=self.charge,
            spin=self.spin,
            verbose=0,
            max_memory=self.max_memory,
        )
        at_gamma = self.kpts == [1, 1, 1]
        points = () if at_gamma else (cell.make_kpts(self.kpts),)
        if self.method == "ks":
            kinds = (dft.UKS, dft.RKS) if at_gamma else (dft.KUKS, dft.KRKS)
            mean_field = kinds[0 if self.spin else 1](cell, *points)
            mean_field.xc = self.xc
        else:
            kinds = (scf.UHF, scf.RHF) if at_gamma else (scf.KUHF, scf.KRHF)
            mean_field = kinds[0 if self.spin else 1](cell, *points)
        if self.multigrid:
            from pyscf.pbc.dft.multigrid import MultiGridNumInt2

            mean_field._numint = MultiGridNumInt2(cell)
            return mean_field
        return mean_field.density_fit(auxbasis=self.auxiliary_basis) if self.density_fit else mean_field

    def _mp2(self, mean_field, periodic):
        """Total energy, hartree, of second-order perturbation theory with density fitting."""
        if periodic or self.spin:
            raise EngineError("pyscf: MP2 is there for molecules without unpaired electrons; choose another method")
        from pyscf import df
        from pyscf.data.elements import chemcore
        from pyscf.mp.dfmp2 import DFMP2

        correlation = DFMP2(mean_field, frozen=chemcore(mean_field.mol) if self.frozen_core else 0)
        if self.mp2_auxiliary_basis is not None:
            correlation.with_df = df.DF(mean_field.mol, auxbasis=self.mp2_auxiliary_basis)
        correlation.kernel(with_t2=False)
        return correlation.e_tot

    def _gradient(self, mean_field, periodic):
        """Hartree/bohr, (n_atoms, 3)."""
        if self.method == "mp2":
            raise PropertyNotImplementedError("pyscf: MP2 has no forces here; ask for energies alone")
        if periodic and not (self.method == "ks" and self.multigrid and self.kpts == [1, 1, 1]):
            raise PropertyNotImplementedError(
                "pyscf: periodic forces are there for method=ks at one k-point with multigrid=true"
            )
        gradient = mean_field.nuc_grad_method()
        if self.method == "ks" and not periodic:
            gradient.grid_response = True
        return np.asarray(gradient.kernel())


def parse_settings(text):
    """Keywords of `ElectronicStructure` from `xc=pbe0,basis=def2-svp,charge=1`.

    Raises
    ------
    SettingsError
        if the text does not make sense.
    """
    import inspect

    known = inspect.signature(ElectronicStructure).parameters
    settings = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, separator, value = part.partition("=")
        if not separator or name not in known:
            raise SettingsError(f"pyscf: {part!r} is not understood; give NAME=VALUE of {', '.join(known)}")
        settings[name] = _value(name, value, known[name].default)
    return settings


def _value(name, text, default):
    """A value of the type of its default."""
    kind = float if name == "ke_cutoff" else type(default) if default is not None else str
    if kind is bool:
        if text.lower() not in ("true", "false", "yes", "no"):
            raise SettingsError(f"pyscf: {name} is {text!r}; give true or false")
        return text.lower() in ("true", "yes")
    try:
        return kind(text)
    except ValueError as error:
        raise SettingsError(f"pyscf: {name} is {text!r}; give a number") from error


def _require_pyscf():
    try:
        import pyscf  # noqa: F401 - that it is there
    except ImportError as error:
        raise SettingsError("PySCF is not installed; pip install 'comitia[reference]'") from error


def electronic_structure(text):
    """The calculator that `pyscf:TEXT` names, and what its energies depend on."""
    _require_pyscf()
    from importlib import metadata

    calculator = ElectronicStructure(**parse_settings(text))
    names = [name for name in vars(calculator) if name in _settings_names()]
    return calculator, {"pyscf": metadata.version("pyscf")} | {name: getattr(calculator, name) for name in names}


def _settings_names():
    import inspect

    return set(inspect.signature(ElectronicStructure).parameters) - {"max_memory"}
