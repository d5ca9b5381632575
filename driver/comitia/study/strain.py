"""Free energy of a crystal in one cell relative to another, from samples of both."""

import numpy as np

from comitia.errors import SeriesError
from comitia.thermodynamics import perturb_both_ends
from comitia.thermodynamics.ensembles import MemberEnsembles
from comitia.thermodynamics.time_series import error_of_mean
from comitia.units import KB


def moved(positions, cells, other):
    """Positions of every frame in the cell `other`, with the same scaled coordinates.

    Parameters
    ----------
    positions : (n_frames, ..., 3) array, Å
    cells : (n_frames, 3, 3) array, Å, lattice vectors in rows
    other : (3, 3) array, Å
    """
    return np.einsum("f...a,fab->f...b", positions, np.linalg.inv(cells) @ other)


def strain_free_energy(run, origin, potential, where):
    r"""F of the cell of `run` less F of the cell of `origin`, from the dynamics of both.

    With the map :math:`r \to S r` of one cell onto the other, of determinant :math:`\Omega_1/\Omega_0`,

    .. math:: F_1 - F_0 = -N kT \ln\frac{\Omega_1}{\Omega_0} - kT \ln\langle e^{-\beta[V(S r) - V(r)]}\rangle_0

    taken from both ends at once (Bennett's acceptance ratio). The committee error is the spread over members of
    :math:`(F_k - F_{\bar V})_1 - (F_k - F_{\bar V})_0`, its sampling noise taken out.

    Parameters
    ----------
    run, origin : comitia.study.observables.SampledRun, classical, of the same atoms, each in a cell of its own
    potential : comitia.Potential
    where : str, for messages

    Returns
    -------
    value : float, eV
    statistical_error, committee_error : float, eV; the second is None with one member
    found : comitia.thermodynamics.FreeEnergyDifference, with the verdict

    Jarzynski, Phys. Rev. E 65, 046122 (2002), doi:10.1103/PhysRevE.65.046122; C. H. Bennett, J. Comput. Phys. 22,
    245 (1976), doi:10.1016/0021-9991(76)90078-4.
    """
    check_strain(run, origin, where)
    energies = []
    for sampled, other in ((origin, run), (run, origin)):
        target = other.cells[0]
        there = moved(sampled.positions[:, 0], sampled.cells, target)
        evaluator = potential.evaluator(sampled.numbers, sampled.pbc)
        cells = np.broadcast_to(target, sampled.cells.shape)
        energies.append(evaluator.compute(np.ascontiguousarray(there), np.ascontiguousarray(cells)).energies)
    mean_of_origin, mean_of_run = (sampled.member_energies.mean(axis=1) for sampled in (origin, run))
    found = perturb_both_ends((mean_of_origin, energies[0]), (energies[1], mean_of_run), run.temperature)
    volumes = [abs(np.linalg.det(sampled.cells[0])) for sampled in (run, origin)]
    ideal = -len(run.numbers) * KB * run.temperature * np.log(volumes[0] / volumes[1])
    return found.delta_f + ideal, found.error, _committee_error(run, origin), found


def check_strain(run, origin, where):
    """Refuse two samples whose free energies cannot be compared through their cells."""
    if run.n_beads != 1 or origin.n_beads != 1:
        raise SeriesError(f"{where}: a cell is compared with another by classical dynamics; sample with one bead")
    same = np.array_equal(run.numbers, origin.numbers) and run.temperature == origin.temperature
    if not same or not (run.pbc.all() and origin.pbc.all()):
        raise SeriesError(f"{where}: compare crystals of the same atoms at the same temperature")
    for sampled in (run, origin):
        if sampled.bias is not None:
            raise SeriesError(f"{where}: sample {sampled.name} is biased; sample it without the bias")
        if np.ptp(sampled.cells, axis=0).max() > 1e-9:
            raise SeriesError(f"{where}: the cell of sample {sampled.name} changes; sample at constant volume")


def _committee_error(run, origin):
    """Standard deviation over members of their shifts between the two cells, without sampling noise, or its level."""
    n_members = run.member_energies.shape[1]
    if n_members == 1:
        return None
    shifts, noise = [], 0.0
    for sampled in (run, origin):
        energies = sampled.member_energies
        ensembles = MemberEnsembles(energies, sampled.temperature)
        logarithm, influence = ensembles.exponential_average()
        first = (energies - energies.mean(axis=1, keepdims=True)).mean(axis=0)
        shifts.append(first - logarithm / ensembles.beta)
        influence = influence - influence.mean(axis=1, keepdims=True)
        noise += np.sum((error_of_mean(influence) / ensembles.beta) ** 2) / (n_members - 1)
    variance = (shifts[0] - shifts[1]).var(ddof=1)
    return float(np.sqrt(variance - noise if variance > noise else noise))
