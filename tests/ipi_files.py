"""Writers of files in the exact format of i-PI 3.3, for tests that need long or damaged ones."""

import numpy as np


def write_properties(path, columns, number="%24.16e"):
    """A property file; `columns` maps i-PI's label (`potential{electronvolt}`) to (n_frames,) or (n_frames, size)."""
    lines, first, rows = [], 1, []
    for label, values in columns.items():
        values = np.asarray(values, dtype=float).reshape(len(values), -1)
        size = values.shape[1]
        where = f"column {first:3d}    " if size == 1 else f"cols.  {first:3d}-{first + size - 1:<3d}"
        lines.append(f"# {where} --> {label} : What it is: in words.")
        first += size
        rows.append(values)
    lines += ["  " + "   ".join(number % value for value in row) for row in np.hstack(rows)]
    path.write_text("\n".join(lines) + "\n")


def write_extras(path, steps, values, number="%24.16e", quantity="committee_pot"):
    """One bead's extras: `values` (n_frames, n_members)."""
    with open(path, "w") as file:
        for step, row in zip(steps, values, strict=True):
            file.write(f" #EXTRAS({quantity})# Step:  {step:10d} \n")
            file.write(" ".join(number % value for value in row) + "\n")


def write_beads(folder, name, steps, values, **options):
    """Extras of all beads, `values` (n_frames, n_beads, n_members), under i-PI's zero-padded names."""
    n_beads = values.shape[1]
    paths = [folder / f"{name}_{bead:0{len(str(n_beads))}d}" for bead in range(n_beads)]
    for bead, path in enumerate(paths):
        write_extras(path, steps, values[:, bead], **options)
    return paths


def write_restart(folder, prefix="run", n_beads=1, temperature=300.0, extra=""):
    """The parts of a checkpoint that say what the run was."""
    (folder / "RESTART").write_text(
        f"<simulation>\n   <output prefix='{prefix}'>\n   </output>\n   {extra}\n   <system>\n      <ensemble>\n"
        f"         <temperature>  {temperature * 3.1668152e-06:.16e}</temperature>\n      </ensemble>\n"
        f"      <beads natoms='2' nbeads='{n_beads}'>\n      </beads>\n   </system>\n</simulation>\n"
    )


def write_positions(path, steps, frames, bead=0):
    """One bead's trajectory of `ase.Atoms`, with five decimals as i-PI writes it."""
    lines = []
    for step, atoms in zip(steps, frames, strict=True):
        cell = " ".join(f"{number:.5f}" for number in atoms.cell.cellpar())
        lines += [str(len(atoms)), f"# CELL(abcABC): {cell}  Step: {step}  Bead: {bead} positions{{angstrom}}  "]
        lines[-1] += "cell{angstrom}"
        rows = zip(atoms.symbols, atoms.positions, strict=True)
        lines += [f"{symbol} {x:.5e} {y:.5e} {z:.5e}" for symbol, (x, y, z) in rows]
    path.write_text("\n".join(lines) + "\n")


def write_exchange(folder, temperatures, swaps, n_beads=1):
    """Checkpoint and record of a replica exchange of `0_run`, `1_run`, …, which begin in the ensemble of their number.

    Parameters
    ----------
    folder : Path
    temperatures : of the ensembles, K
    swaps : list of [step, ensemble of replica 0, of replica 1, …], which hold from the next step on
    n_beads : int
    """
    (folder / "run.remd_idx").write_text("".join(" ".join(map(str, row)) + "\n" for row in swaps))
    now = swaps[-1][1:]
    systems = "".join(
        f"<system prefix='{replica}'><ensemble><temperature> {3.1668152e-06 * temperatures[now[replica]]:.16e} "
        f"</temperature></ensemble><beads natoms='2' nbeads='{n_beads}'></beads></system>\n"
        for replica in range(len(now))
    )
    (folder / "RESTART").write_text(
        f"<simulation>\n<output prefix='run'></output>\n{systems}<smotion mode='remd'><remd>"
        f"<repindex shape='({len(now)},)'> [ {', '.join(map(str, now))} ] </repindex></remd></smotion>\n</simulation>\n"
    )


def committee(n_frames=40, n_beads=4, n_members=3, seed=1):
    """Member energies of every bead around -17 hartree, (n_frames, n_beads, n_members)."""
    rng = np.random.default_rng(seed)
    return -17 + 1e-3 * rng.normal(size=(n_frames, n_beads, n_members))
