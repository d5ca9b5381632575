"""The ensembles of the committee members, seen from frames sampled with one driving potential."""

import numpy as np

from comitia.errors import SeriesError, UsageError
from comitia.thermodynamics.time_series import as_series, error_of_mean
from comitia.thermodynamics.verdicts import judge_overlap
from comitia.units import KB


def driving_potential(member_energies, driving):
    """Driving potential of every frame, eV, from "mean", the index of a member, or an array.

    Parameters
    ----------
    member_energies : (n_frames, n_members) array, eV
    driving : "mean", int (counted from 0) or (n_frames,) array, eV

    Returns
    -------
    (n_frames,) array
    """
    n_frames, n_members = member_energies.shape
    if isinstance(driving, str):
        if driving != "mean":
            raise UsageError(f"driving is {driving!r}; it must be 'mean', the index of a member, or an array")
        return member_energies.mean(axis=1)
    if isinstance(driving, (int, np.integer)) and not isinstance(driving, bool):
        if not 0 <= driving < n_members:
            raise UsageError(f"driving is member {driving}; the committee has members 0 to {n_members - 1}")
        return member_energies[:, driving]
    driving = as_series(driving, "the driving potential")
    if driving.shape != (n_frames,):
        raise SeriesError(
            f"the driving potential has shape {driving.shape}, the member energies have {n_frames} frames; "
            "give one energy for each of the same frames"
        )
    return driving


class MemberEnsembles:
    r"""Weights that carry averages over the sampled frames to the ensemble of every member.

    With :math:`\delta_k = V_k - V_d` and weights :math:`w_t \propto e^{\beta B_t}` that undo a bias,
    :math:`W_{tk} \propto w_t\, e^{-\beta \delta_{tk}}`: exact, but few frames count where :math:`\beta\delta`
    varies by more than one. The weights of single frames are here; averages and their errors, of long series
    and by expansion too, come from `MemberMoments`.

    Each member energy is taken from its own mean first, so that constants between members do not matter.
    Energies of path integrals are averaged over beads before they come here.

    Parameters
    ----------
    member_energies : (n_frames, n_members) array, eV
    temperature : float, K
    driving : "mean", int or (n_frames,) array, eV
    bias : (n_frames,) array, eV, or None

    Attributes
    ----------
    beta : float, 1/eV
    frame_weights : (n_frames,) array, sum 1
    deviation : (n_frames, n_members) array, eV, weighted mean 0
    weights : (n_frames, n_members) array, every column has sum 1

    Torrie and Valleau, J. Comput. Phys. 23, 187 (1977), doi:10.1016/0021-9991(77)90121-8.
    """

    def __init__(self, member_energies, temperature, driving="mean", bias=None):
        if not (np.isfinite(temperature) and temperature > 0):
            raise UsageError(f"temperature is {temperature} K; it must be above 0")
        energies = as_series(member_energies, "the member energies")
        if energies.ndim == 1:
            energies = energies[:, None]
        energies = energies - energies.mean(axis=0)
        if not isinstance(driving, (str, int, np.integer)):
            driving = as_series(driving, "the driving potential")
            driving = driving - driving.mean()
        self.beta = 1 / (KB * temperature)
        self.n_frames, self.n_members = energies.shape
        self.frame_weights = self._frame_weights(bias)
        deviation = energies - driving_potential(energies, driving)[:, None]
        self.deviation = deviation - self.frame_weights @ deviation
        log_weights = np.log(self.frame_weights)[:, None] - self.beta * self.deviation
        weights = np.exp(log_weights - log_weights.max(axis=0))
        self.weights = weights / weights.sum(axis=0)

    def _frame_weights(self, bias):
        if bias is None:
            return np.full(self.n_frames, 1 / self.n_frames)
        bias = as_series(bias, "the bias")
        if bias.shape != (self.n_frames,):
            raise SeriesError(
                f"the bias has shape {bias.shape}, the member energies have {self.n_frames} frames; "
                "give one bias energy for each of the same frames"
            )
        exponent = self.beta * (bias - bias.max())
        weights = np.exp(np.maximum(exponent, -700.0))
        return weights / weights.sum()

    def averages(self, observable):
        r"""Average of an observable under every member, and what each frame contributes to it.

        Parameters
        ----------
        observable : (n_frames,) array, or (n_frames, n_members) member estimators, paired k = k

        Returns
        -------
        members : (n_members,) array, :math:`\sum_t W_{tk}\, a_{tk}`
        influence : (n_frames, n_members) array
            to first order, the change of the average when frame t weighs more; the standard error of its
            mean is that of the average, with the correlation between frames and between numerator and
            denominator included
        """
        if observable.ndim == 1:
            observable = observable[:, None]
        origin = self.frame_weights @ observable
        fluctuation = observable - origin
        shift = np.sum(self.weights * fluctuation, axis=0)
        influence = self.n_frames * self.weights * (fluctuation - shift)
        return origin + shift, influence

    def effective_sample_size(self, inefficiency=1.0):
        r""":math:`(\sum_t W_{tk})^2 / \sum_t W_{tk}^2 / g`, an (n_members,) array."""
        return self.weights.sum(axis=0) ** 2 / np.sum(self.weights**2, axis=0) / inefficiency

    def spread(self):
        r"""Standard deviation over frames of :math:`\beta\delta_k`, an (n_members,) array."""
        return self.beta * np.sqrt(self.frame_weights @ self.deviation**2)

    def exponential_average(self):
        r""":math:`\ln\langle e^{-\beta(\delta_k - \langle\delta_k\rangle)}\rangle`, and what each frame contributes.

        Returns
        -------
        logarithm : (n_members,) array
        influence : (n_frames, n_members) array, of the logarithm to first order
        """
        log_weights = np.log(self.frame_weights)[:, None] - self.beta * self.deviation
        largest = log_weights.max(axis=0)
        logarithm = largest + np.log(np.exp(log_weights - largest).sum(axis=0))
        share = self.n_frames * self.frame_weights[:, None]
        return logarithm, share * (np.exp(-self.beta * self.deviation - logarithm) - 1)

    def cumulants_agree(self):
        r"""Whether :math:`-\ln\langle e^{-\beta\delta}\rangle` equals its second cumulant within two errors.

        The error is that of the difference, as the two come from the same frames. Without agreement the
        tail that dominates the exponential average has not been sampled.

        Returns
        -------
        (n_members,) boolean array
        """
        reduced = self.beta * self.deviation
        variance = self.frame_weights @ reduced**2
        logarithm, exponential = self.exponential_average()
        share = self.n_frames * self.frame_weights[:, None]
        second = share * (reduced - (reduced**2 - variance) / 2)
        error = error_of_mean(-exponential - second)
        return np.abs(-logarithm + variance / 2) <= 2 * error + 1e-12

    def overlap_verdict(self, sample_size):
        """Verdict on weights that are exponentials, and its reason, from the (n_members,) effective sample sizes."""
        return judge_overlap(sample_size, self.spread(), lambda: self.cumulants_agree().all())
