r"""Chemical potentials and the melting temperature from a pinned interface, under every member of a committee.

A harmonic bias :math:`\frac\kappa2 (Q - a)^2` holds a cell that is half crystal, half melt. The difference of the
chemical potentials pulls at the interface, and the mean of Q says how much the bias has to pull back:

.. math:: \mu_s - \mu_l = -\kappa\, (\langle Q\rangle - a)\, \frac{Q_s - Q_l}{N}

where :math:`Q_s` and :math:`Q_l` are the means for N atoms that are all crystal, or all melt.

Pedersen, Hummel, Kresse, Kahl and Dellago, Phys. Rev. B 88, 094101 (2013), doi:10.1103/PhysRevB.88.094101.

The number of crystalline atoms diffuses, with a mobility D, against that pull. A run of duration t knows the pull to

.. math:: \sigma = k T \sqrt{2 / (D t)}

and no bias makes it better. A run that is not much longer than the interface takes to come back cannot see this in its
own fluctuations, the more so since those of Q in each phase are faster and larger: its error is that of the mobility of
long runs (which also gives the growth of crystals: Pedersen, Hummel and Dellago, J. Chem. Phys. 142, 044104, 2015).
"""

from dataclasses import dataclass

import numpy as np

from comitia.thermodynamics import error_of_mean, error_of_sum, reweight_all, statistical_inefficiency
from comitia.thermodynamics.verdicts import judge_sampling
from comitia.units import KB


@dataclass(frozen=True)
class Quantity:
    """A number with its errors.

    Attributes
    ----------
    members : (n_members,) array, under each member of the committee
    value : float, mean over members
    statistical_error : float
    committee_error : float, standard deviation over members without its sampling noise, or the level of that noise
        where it is larger; None for one potential
    """

    members: np.ndarray
    value: float
    statistical_error: float
    committee_error: float | None

    @property
    def total_error(self):
        return float(np.hypot(self.statistical_error, self.committee_error or 0.0))

    def as_dict(self, unit):
        return {
            "value": self.value,
            "unit": unit,
            "statistical_error": self.statistical_error,
            "committee_error": self.committee_error,
            "total_error": self.total_error,
        }


@dataclass(frozen=True)
class Averages:
    """Averages of one phase, under each member and, in the last column, under a reference where there is one.

    Attributes
    ----------
    found : list of comitia.thermodynamics.Average
    widening : float, by which their common error is larger than what their own fluctuations show
    """

    found: list
    widening: float = 1.0


def propagated(function, phases, n_members):
    """A function of averages that come from independent runs, under the same potential, to first order in their errors.

    Parameters
    ----------
    function : of all averages, in order, arrays (n_columns,), to such an array
    phases : list of Averages
    n_members : int; a column more is that of the reference

    Returns
    -------
    of_committee : Quantity
    of_reference : Quantity, its difference from the mean of the committee, with the statistical error that is left
        where both come from the same frames; None without a reference
    """
    values = [average.members for phase in phases for average in phase.found]
    columns = function(*values)
    statistical = noise = shifted = 0.0
    place = 0
    for phase in phases:
        deviation = 0.0
        for average in phase.found:
            step = 1e-4 * average.statistical_error
            moved = [value + step * (i == place) for i, value in enumerate(values)]
            deviation = deviation + (function(*moved) - columns) / step * average.contributions
            place += 1
        members = deviation[:, :n_members]
        shared = members.mean(axis=1, keepdims=True)
        statistical += (phase.widening * error_of_sum(shared[:, 0])) ** 2
        noise += np.sum(error_of_sum(members - shared, skewed=False) ** 2)
        shifted += error_of_sum(deviation[:, -1] - shared[:, 0]) ** 2
    members = columns[:n_members]
    committee = None
    if n_members > 1:
        noise /= n_members - 1
        remainder = members.var(ddof=1) - noise
        committee = float(np.sqrt(remainder if remainder > 0 else noise))
    of_committee = Quantity(members, float(members.mean()), float(np.sqrt(statistical)), committee)
    if len(columns) == n_members:
        return of_committee, None
    shift = columns[n_members:] - members.mean()
    return of_committee, Quantity(shift, float(shift[0]), float(np.sqrt(shifted)), None)


@dataclass(frozen=True)
class Interface:
    r"""How fast an interface moves.

    Attributes
    ----------
    mobility : float, D, atoms\ :sup:`2`/ps
    memory : float, ps of a run for each independent value of its energy, which goes with the interface
    """

    mobility: float
    memory: float


def moving_interface(orders, energies, duration, temperature, force_constant, slope):
    r"""The interface of runs that are long enough for it to come back many times.

    .. math:: D = \frac{2}{t} \left(\frac{kT}{\kappa\,\sigma_Q\,\mathrm dQ/\mathrm dn}\right)^2

    where :math:`\sigma_Q` is the error of the mean of Q, of the series or of the spread of the runs: the larger one.

    Parameters
    ----------
    orders : (n_runs, n_frames) array, order parameter
    energies : (n_runs, n_frames) array, eV
    duration : float, of all runs together, ps
    temperature : float, K
    force_constant : float, eV
    slope : float, change of the order parameter for each atom that crystallizes

    Returns
    -------
    Interface
    """
    error = max(error_of_mean(orders.ravel()), orders.mean(axis=1).std(ddof=1) / np.sqrt(len(orders)))
    mobility = 2 * (KB * temperature / (force_constant * slope * error)) ** 2 / duration
    return Interface(float(mobility), statistical_inefficiency(energies.ravel()) * duration / energies.size)


def coexistence(
    crystal, melt, pinned, temperature, force_constant, centre, n_atoms, duration, interface=None, reference=False
):
    r"""Difference of the chemical potentials, enthalpy of fusion and melting temperature.

    The last two hold :math:`h_l - h_s` fixed between T and the melting temperature:

    .. math:: T_m = T \Big/ \left(1 + \frac{\mu_s - \mu_l}{h_l - h_s}\right)

    Parameters
    ----------
    crystal, melt, pinned : (order parameter (n_frames,), potential energies (n_frames, n_members) in eV) of three runs
        of as many atoms at zero pressure
    temperature : float, K
    force_constant : float, eV
    centre : float, where the bias is zero
    n_atoms : int
    duration : float, of the pinned run, ps
    interface : Interface, what long runs say of it; None for what the pinned run shows by itself
    reference : bool, whether the last column of the energies is that of a potential that is no member of the committee

    Returns
    -------
    found : dict of (Quantity, its difference under the reference or None): `chemical_potential`, `fusion_enthalpy`
        (eV for an atom), `melting_temperature` (K)
    independent : float, places of the interface in the pinned run that are independent of each other
    verdict, reason : str, whether they are enough for errors that can be trusted
    """
    n_members = crystal[1].shape[1] - reference

    def averages(order, energies, *observables):
        driving = energies[:, :n_members].mean(axis=1)
        return reweight_all([order, *observables], energies, temperature, driving=driving)

    phases = [Averages(averages(*run, run[1])) for run in (crystal, melt)]
    order = averages(*pinned)[0]
    slope = (phases[0].found[0].mean - phases[1].found[0].mean) / n_atoms
    own = error_of_sum(order.contributions[:, :n_members].mean(axis=1))
    least, memory = 0.0, statistical_inefficiency(pinned[1][:, :n_members].mean(axis=1)) * duration / len(pinned[0])
    if interface is not None:
        least = KB * temperature * np.sqrt(2 / (interface.mobility * duration)) / (force_constant * slope)
        memory = max(memory, interface.memory)
    phases.append(Averages([order], max(1.0, least / own)))

    def chemical_potential(q_crystal, _v_crystal, q_melt, _v_melt, q_pinned):
        return -force_constant * (q_pinned - centre) * (q_crystal - q_melt) / n_atoms

    def fusion_enthalpy(_q_crystal, v_crystal, _q_melt, v_melt, _q_pinned):
        return (v_melt - v_crystal) / n_atoms

    def melting_temperature(*values):
        return temperature / (1 + chemical_potential(*values) / fusion_enthalpy(*values))

    functions = (chemical_potential, fusion_enthalpy, melting_temperature)
    found = {function.__name__: propagated(function, phases, n_members) for function in functions}
    return found, duration / memory, *judge_sampling(duration / memory)
