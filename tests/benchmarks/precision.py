"""Forces of single precision against those of doubles: `python precision.py NAME…` prints the largest differences.

How far they are apart depends on the weights, as large ones cancel each other: those of random models say nothing.
Here the weights are fitted to the forces of `tersoff` on the atoms that are timed.
"""

import json
import subprocess
import sys

import numpy as np
from codes import descriptor_of, lammps
from samples import CUTOFF, silicon

RIDGE = 1e-8  # of the mean eigenvalue: below what a fit would choose


def ask(names):
    """Largest differences by name, eV/Å, from a process of its own; None without LAMMPS."""
    done = subprocess.run([sys.executable, __file__, *names], capture_output=True, text=True)
    return None if done.returncode else json.loads(done.stdout.splitlines()[-1])


def largest_difference(name, atoms, forces):
    """Largest difference of a force between the two precisions, eV/Å.

    Parameters
    ----------
    name : str, a model of codes.py
    atoms : ase.Atoms
    forces : (n_atoms, 3) array that the weights are fitted to, eV/Å
    """
    from comitia.potential import Potential

    descriptor = descriptor_of(name, atoms, CUTOFF["si512"])
    rows = descriptor.design(atoms).forces
    gram = rows.T @ rows
    gram += RIDGE * np.trace(gram) / len(gram) * np.eye(len(gram))
    weights = np.linalg.solve(gram, rows.T @ forces.ravel())[None]
    double, single = (
        Potential(descriptor, weights, [0.0], precision=precision).compute(atoms).forces
        for precision in ("float64", "float32")
    )
    return float(np.abs(double - single).max())


def main():
    atoms = silicon()
    atoms.wrap()
    forces = np.array(lammps("tersoff", atoms).gather_atoms("f", 1, 3)).reshape(-1, 3)
    print(json.dumps({name: largest_difference(name, atoms, forces) for name in sys.argv[1:]}))


if __name__ == "__main__":
    main()
