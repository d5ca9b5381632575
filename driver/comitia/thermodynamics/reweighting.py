"""Averages of observables under every committee member, from one trajectory."""

from collections.abc import Mapping

import numpy as np

from comitia.errors import SeriesError, UsageError
from comitia.thermodynamics.average import averages
from comitia.thermodynamics.moments import MemberMoments
from comitia.thermodynamics.time_series import as_series
from comitia.units import KB


def gather_moments(
    observables, member_energies, temperature, method="cea", driving="mean", bias=None, sampled_temperature=None
):
    """Sums of a series that is in memory; the arguments are those of `reweight_all`, with a list of observables."""
    energies = as_series(member_energies, "the member energies")
    energies = energies.reshape(len(energies), -1)
    n_frames, n_members = energies.shape
    given = None
    if not isinstance(driving, (str, int, np.integer)):
        given, driving = _checked_length(driving, "the driving potential", n_frames), "given"
    elif driving == "given":
        raise UsageError("driving is 'given'; it must be 'mean', the index of a member, or an array")
    shared, estimators = [], []
    for observable in observables:
        observable = _checked_observable(observable, n_frames, n_members)
        (shared if observable.ndim == 1 else estimators).append(observable)
    moments = MemberMoments(temperature, method, driving, sampled_temperature)
    moments.add(
        energies,
        np.stack(shared, axis=1) if shared else None,
        np.stack(estimators, axis=1) if estimators else None,
        given,
        None if bias is None else _checked_length(bias, "the bias", n_frames),
    )
    return moments


def _checked_length(values, name, n_frames):
    values = as_series(values, name)
    if values.shape != (n_frames,):
        raise SeriesError(
            f"{name} has shape {values.shape}, the member energies have {n_frames} frames; "
            "give one energy for each of the same frames"
        )
    return values


def _checked_observable(observable, n_frames, n_members):
    observable = as_series(observable, "the observable")
    if len(observable) != n_frames:
        raise SeriesError(
            f"the observable has {len(observable)} frames, the member energies have {n_frames}; "
            "give both for the same frames"
        )
    if observable.ndim == 2 and observable.shape[1] == 1:
        observable = observable[:, 0]
    if observable.ndim == 2 and observable.shape[1] != n_members:
        raise SeriesError(
            f"the observable has {observable.shape[1]} columns for {n_members} members; give one column, "
            "or one member estimator for each member"
        )
    return observable


def reweight(
    observable,
    member_energies,
    temperature,
    method="cea",
    driving="mean",
    bias=None,
    sampled_temperature=None,
    findings=(),
):
    r"""Average of an observable under every member of a committee, from one trajectory.

    With :math:`\delta_k = V_k - V_d`, the first order of the cumulant expansion (`method="cea"`) is

    .. math:: \langle a \rangle_k \approx \langle a_k \rangle
              - \beta\,[\langle a_k\,\delta_k \rangle - \langle a_k \rangle \langle \delta_k \rangle]

    and direct reweighting weighs frames by :math:`e^{-\beta\delta_k}` (log-sum-exp). Where there is a bias
    B, all averages carry :math:`e^{+\beta B}`. Path integrals: average energies and observable over beads
    first.

    Parameters
    ----------
    observable : (n_frames,) array, or (n_frames, n_members) array
        An observable that contains the potential (energy, virial, centroid-virial kinetic energy) is
        another observable for each member: give its member estimators, paired k = k. The average of the
        driving estimator alone has even the wrong sign of the shift.
    member_energies : (n_frames, n_members) array, eV
    temperature : float, K
    method : "cea" or "direct"
    driving : "mean", int or (n_frames,) array, eV
        what drove the sampling: the mean of the members, one of them (counted from 0), or any other
        potential energy
    bias : (n_frames,) array, eV
        reweighting bias of the frames (for metadynamics `rbias`, after the transient)
    sampled_temperature : float, K
        where the frames were sampled at another temperature than that of the average
    findings : (verdict, sentence) pairs
        what else speaks against the average, as from `check_sampling`

    Returns
    -------
    Average
        Its statistical error is that of the mean over members, from leaving out one block of frames after
        the other; its committee error is the standard deviation over members (n - 1) with the sampling noise
        of the differences between members removed.

    Raises
    ------
    SeriesError
        if shapes do not fit each other, or there are too few frames.
    NumericalError
        if a number is not finite.
    UsageError
        if temperature, method or driving make no sense.

    Imbalzano et al., J. Chem. Phys. 154, 074102 (2021), doi:10.1063/5.0036522.
    """
    settings = (method, driving, bias, sampled_temperature)
    return averages(gather_moments([observable], member_energies, temperature, *settings), findings=findings)[0]


def reweight_all(
    observables,
    member_energies,
    temperature,
    method="cea",
    driving="mean",
    bias=None,
    sampled_temperature=None,
    findings=(),
):
    """Averages of several observables under every member, which share the weights of the frames.

    Parameters
    ----------
    observables : mapping from names to arrays, list of arrays, or (n_frames, n_observables) array
        the arrays of a mapping or a list are what `reweight` takes; a histogram or a radial distribution
        function is an observable for each of its bins
    member_energies, temperature, method, driving, bias, sampled_temperature, findings : as in `reweight`

    Returns
    -------
    dict of Average with the names of the mapping, or list of Average
    """
    if isinstance(observables, Mapping):
        values = list(observables.values())
    else:
        values = list(observables) if isinstance(observables, (list, tuple)) else list(np.asarray(observables).T)
    settings = (method, driving, bias, sampled_temperature)
    found = averages(gather_moments(values, member_energies, temperature, *settings), findings=findings)
    ordered = [found[place] for place in _places(values)]
    return dict(zip(observables, ordered, strict=True)) if isinstance(observables, Mapping) else ordered


def combine(
    function,
    observables,
    member_energies,
    temperature,
    method="cea",
    driving="mean",
    bias=None,
    sampled_temperature=None,
):
    """A function of several averages under the same member, with its errors: fluctuations, ratios, slopes.

    The moments are reweighted, then combined; a fluctuation is not the average of anything.

    Parameters
    ----------
    function : of as many arrays as there are observables, their averages, to an array of the same shape
    observables : list of arrays, each as in `reweight`
    member_energies, temperature, method, driving, bias, sampled_temperature : as in `reweight`

    Returns
    -------
    Average, of the function

    Examples
    --------
    The variance of x under every member::

        combine(lambda x, xx: xx - x**2, [x, x**2], member_energies, 300.0)
    """
    settings = (method, driving, bias, sampled_temperature)
    moments = gather_moments(observables, member_energies, temperature, *settings)
    places = _places(observables)
    return averages(moments, lambda found: function(*(found[:, place] for place in places))[:, None])[0]


def _places(observables):
    """Where each observable stands in the averages, in which those with member estimators come last."""
    paired = [np.ndim(values) == 2 and np.shape(values)[1] > 1 for values in observables]
    return np.argsort(np.argsort(paired, kind="stable"), kind="stable")


def heat_capacity(member_energies, temperature, method="cea", driving="mean", bias=None, sampled_temperature=None):
    r"""Configurational heat capacity of classical particles under every member, eV/K.

    .. math:: C_k = \frac{\langle V_k^2\rangle_k - \langle V_k\rangle_k^2}{k T^2}

    The momenta add k/2 for each degree of freedom, exactly. Each member's own energies are its estimators.

    Parameters
    ----------
    member_energies, temperature, method, driving, bias, sampled_temperature : as in `reweight`

    Returns
    -------
    Average
    """
    energies = as_series(member_energies, "the member energies")
    energies = energies.reshape(len(energies), -1)
    energies = energies - energies.mean(axis=0)
    if not isinstance(driving, (str, int, np.integer)):
        driving = as_series(driving, "the driving potential")
    settings = (method, driving, bias, sampled_temperature)
    scale = 1 / (KB * temperature**2)
    return combine(
        lambda first, second: scale * (second - first**2), [energies, energies**2], energies, temperature, *settings
    )
