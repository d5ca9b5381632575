"""PLUMED beside a potential, for engines that run in this process: LAMMPS through `fix external`, and ASE."""

from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from comitia.engines.ipi_rewind import rewind_plumed
from comitia.engines.plumed import (
    ELECTRONVOLT,
    INSTALL,
    refuse_no_kernels,
    require_kernel,
    skips_a_hill,
    time_unit,
    written_by,
)
from comitia.errors import EngineError, ModelError, NumericalError, SettingsError
from comitia.units import KB

SIGMA = "sigma"
"""What the uncertainty of the energy is called in the input of PLUMED: `s: EXTRACV NAME=sigma`, in eV."""


@dataclass(frozen=True, eq=False)
class Biased:
    """A potential and its bias in one structure; eV and Å.

    Attributes
    ----------
    energy : float, with the bias
    forces : (n_atoms, 3) array
    virial : (3, 3) array, −∂E/∂ε
    bias : float, the energy of the bias alone
    predictions : what the potential said, see `comitia.potential.evaluator.Predictions`
    """

    energy: float
    forces: np.ndarray
    virial: np.ndarray
    bias: float
    predictions: object = field(repr=False)


def import_plumed():
    """The class `Plumed` of PLUMED's Python interface, on the kernel that `find_kernel` finds.

    Raises
    ------
    SettingsError
        if one of the two is not there.
    """
    kernel = require_kernel()
    try:
        from plumed import Plumed
    except ImportError as error:
        raise SettingsError(f"PLUMED's Python interface cannot be loaded ({error}); {INSTALL}") from error
    return partial(Plumed, str(kernel))


class PlumedBias:
    """The bias that an input of PLUMED describes, with the uncertainty of a committee among its variables.

    Lengths, energies, masses and times are given to PLUMED in Å, eV, u and ps; the units of its input and of its files
    stay those of its line UNITS. `EXTRACV NAME=sigma` is the uncertainty of the energy, eV, and `ENERGY` the energy.

    Parameters
    ----------
    path : str or Path of the input; PLUMED writes its files into the current folder
    masses : (n_atoms,) array, u; PLUMED keeps those of its first step, and the charges
    time_step : float, ps
    temperature : float, K, or None: for actions that ask the engine for it
    charges : (n_atoms,) array, e, or None
    restart_step : int or None, the step of the saved state from which a run goes on, whenever it was killed: what
        PLUMED wrote of that step and later ones is cut off, the rest is read again and appended to
    log : str or Path, where PLUMED writes what it understood

    Raises
    ------
    SettingsError
        if there is no PLUMED, or it does not understand its input.
    """

    def __init__(self, path, masses, time_step, temperature=None, charges=None, restart_step=None, log="plumed.log"):
        create = import_plumed()
        if not Path(path).is_file():
            raise SettingsError(f"{path}: there is no such input of PLUMED; correct its path")
        self.path = Path(path)
        self._masses = np.array(masses, float)  # PLUMED keeps pointers to all of these
        self._charges = np.zeros_like(self._masses) if charges is None else np.array(charges, float)
        self._step, self._first_update = None, False
        self._positions = np.empty((len(self._masses), 3))
        self._cell, self._energy, self._sigma = np.zeros((3, 3)), np.zeros(1), np.zeros(1)
        self._forces, self._virial, self._sigma_force = np.empty_like(self._positions), np.empty((3, 3)), np.zeros(1)
        self._plumed = create()
        settings = {
            "setRealPrecision": 8, "setMDEnergyUnits": ELECTRONVOLT, "setMDLengthUnits": 0.1, "setMDTimeUnits": 1.0,
            "setMDMassUnits": 1.0, "setMDChargeUnits": 1.0, "setNatoms": len(self._masses), "setMDEngine": "comitia",
            "setTimestep": float(time_step), "setPlumedDat": str(path), "setLogFile": str(log),
        }  # fmt: skip
        if temperature is not None:
            settings["setKbT"] = KB * temperature
        if restart_step is not None:
            settings["setRestart"] = 1
            files, step = written_by(path), time_step / time_unit(path)
            self._first_update = restart_step > 0 and skips_a_hill(path) and any(Path(name).exists() for name in files)
            self._rewind = partial(rewind_plumed, Path.cwd(), restart_step * step, step, files, hills_again=True)
            self._rewind()
            refuse_no_kernels(path)
        with self._refused(SettingsError):
            for command, value in settings.items():
                self._plumed.cmd(command, value)
            self._plumed.cmd("init")
            self._plumed.cmd("readInputLine", "FLUSH STRIDE=1")  # a state is saved while its step goes on

    @contextmanager
    def _refused(self, kind=EngineError):
        """What PLUMED refuses is of this kind, and says which input it was."""
        try:
            yield
        except Exception as error:  # PLUMED has classes of its own
            reason = next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), "")
            raise kind(f"{self.path}: PLUMED: {reason}") from error

    def compute(self, step, positions, cell, evaluator, pbc=True):
        r"""Energy, forces and virial of a potential with the bias of a step.

        .. math:: f = -\nabla V - \nabla B - \frac{\partial B}{\partial \sigma} \nabla \sigma

        A step may be evaluated any number of times, by trial moves before it, or again by the run that goes on from
        it: hills are added, and files written, once, when the next step comes (or with `close`), from the last
        evaluation. Two runs of 50 steps are thus one of 100 to the last bit. Before a step begins, the files say on
        disk all of those before it.

        Parameters
        ----------
        step : int, of the dynamics
        positions : (n_atoms, 3) array, Å
        cell : (3, 3) array, Å, vectors in rows; zero where nothing repeats
        evaluator : object with `compute(positions, cells, uncertainty_gradient=...)`, as `Potential.evaluator` makes
        pbc : bool, or one for each vector: along the others distances are not folded

        Returns
        -------
        Biased

        Raises
        ------
        EngineError
            where PLUMED fails.
        ModelError
            where the bias needs the uncertainty of a potential of one member.
        NumericalError
            where the bias is not finite.
        """
        if self._step not in (None, step):
            self._finish_step()
        self._step = None  # until its bias is known there is nothing to finish
        self._positions[:], self._cell[:] = positions, _folding(positions, cell, pbc)
        sigma_needed = self._begin(step, evaluator.potential.n_members)
        gradient = {"uncertainty_gradient": True} if sigma_needed else {}
        found = evaluator.compute(self._positions[None], np.array(cell, float)[None], **gradient)
        energy, forces, virial = float(found.energies[0]), found.forces[0], found.virials[0]
        # PLUMED adds to forces and virial, of the other sign, and scales what is there where the energy is biased
        self._energy[0], self._forces[:], self._virial[:] = energy, forces, -virial
        self._sigma[0] = found.energy_uncertainties[0] if sigma_needed else 0.0
        bias = self._bias(sigma_needed)
        forces, virial = self._forces.copy(), -self._virial
        if sigma_needed:
            forces += self._sigma_force[0] * found.uncertainty_gradients[0]
            virial -= self._sigma_force[0] * found.uncertainty_virials[0]
        if not (np.isfinite(bias) and np.isfinite(forces).all() and np.isfinite(virial).all()):
            raise NumericalError(f"{self.path}: step {step}: the bias or its force is not finite")
        self._step = step
        if self._first_update:
            self._pass_first_update()
        return Biased(energy + bias, forces, virial, bias, found)

    def _begin(self, step, n_members):
        """Whether the bias of this step needs the uncertainty."""
        needed = np.zeros(1, np.intc)
        with self._refused():
            self._plumed.cmd("setStep", int(step))
            self._plumed.cmd("prepareDependencies")
            self._plumed.cmd(f"isExtraCVNeeded {SIGMA}", needed)
        if needed[0] and n_members < 2:
            raise ModelError(f"{self.path}: EXTRACV NAME={SIGMA}: a model of one member has no uncertainty")
        return bool(needed[0])

    def _bias(self, sigma_needed):
        """The bias, eV; its forces, virial and that on the uncertainty are in their arrays afterwards."""
        given = {
            "setMasses": self._masses, "setCharges": self._charges, "setBox": self._cell,
            "setPositions": self._positions, "setEnergy": self._energy, "setForces": self._forces,
            "setVirial": self._virial,
        }  # fmt: skip
        self._sigma_force[0] = 0.0
        if sigma_needed:
            given |= {f"setExtraCV {SIGMA}": self._sigma, f"setExtraCVForce {SIGMA}": self._sigma_force}
        bias = np.zeros(1)
        with self._refused():
            for command, array in given.items():
                self._plumed.cmd(command, array)
            self._plumed.cmd("shareData")
            self._plumed.cmd("performCalcNoUpdate")
            self._plumed.cmd("getBias", bias)
        return float(bias[0])

    def _pass_first_update(self):
        """Let the step of the restart, the hill of which was cut off, not be PLUMED's first, which adds no hill."""
        self._first_update = False
        self._finish_step()
        self._rewind()

    def _finish_step(self):
        """Let PLUMED write what belongs to the step, and add its hill."""
        with self._refused():
            self._plumed.cmd("update")

    def close(self):
        """Finish the last step and end PLUMED: its files are complete from here on."""
        if self._step is not None:
            self._finish_step()
            self._step = None
        self._plumed.finalize()


def _folding(positions, cell, pbc):
    """The cell for PLUMED, which folds along all vectors: longer than any distance along those that do not repeat."""
    pbc = np.broadcast_to(np.asarray(pbc, bool), 3)
    if not pbc.any():
        return np.zeros((3, 3))  # by which PLUMED knows that there is no cell
    if pbc.all():
        return cell
    longer = 3.0 * (1.0 + np.ptp(positions, axis=0).max()) / np.linalg.norm(cell, axis=1)
    return np.asarray(cell) * np.where(pbc, 1.0, np.maximum(1.0, longer))[:, None]
