"""Free-energy profiles of a collective variable, with a statistical and a committee band."""

from dataclasses import dataclass

import numpy as np

from comitia.errors import SeriesError, UsageError
from comitia.thermodynamics.resampling import error_of_sum
from comitia.thermodynamics.reweighting import gather_moments
from comitia.thermodynamics.time_series import as_series
from comitia.thermodynamics.verdicts import committee_error

_SHARE = 1e-3
"""Of a block left out at a time: a bin whose samples are all in one block keeps a logarithm without it."""


@dataclass(frozen=True)
class Profile:
    """A free-energy profile under every member of a committee; bins without a sample hold nan.

    Attributes
    ----------
    x : (n_bins,) array, centres of the bins
    value : (n_bins,) array, eV, mean over members, its minimum at 0
    statistical_error, committee_error, total_error : (n_bins,) arrays, eV; the committee error is None
        with one member
    members : (n_members, n_bins) array, eV, moved by the same constant as `value`
    density : (n_bins,) array, normalised probability density of the driving potential
    """

    x: np.ndarray
    value: np.ndarray
    statistical_error: np.ndarray
    committee_error: np.ndarray | None
    total_error: np.ndarray
    members: np.ndarray
    density: np.ndarray

    def as_dict(self, unit="eV"):
        """The profile as it stands in results.json; a bin without a sample is null."""

        def plain(values):
            if values is None:
                return None
            return [float(value) if np.isfinite(value) else None for value in values]

        return {
            "x": self.x.tolist(),
            "unit": unit,
            "value": plain(self.value),
            "statistical_error": plain(self.statistical_error),
            "committee_error": plain(self.committee_error),
        }


def _checked_edges(edges, symmetric):
    edges = np.asarray(edges, dtype=float)
    if edges.ndim != 1 or len(edges) < 2 or not np.isfinite(edges).all() or not (np.diff(edges) > 0).all():
        raise UsageError("edges of the bins must be at least two finite increasing numbers")
    if symmetric and not np.allclose(edges, -edges[::-1], rtol=0, atol=1e-9 * np.abs(edges).max()):
        raise UsageError("a symmetric profile needs edges that are symmetric about 0")
    return edges


def bin_fractions(samples, edges, symmetric=False):
    """Fraction of the samples of a frame that lies in each bin: the observable whose average is the profile.

    Parameters
    ----------
    samples : (n_frames,) or (n_frames, n_samples) array, all beads (or equivalent groups) of every frame
    edges : (n_bins + 1,) increasing array
    symmetric : bool, count every sample x also as -x, with half the weight each

    Returns
    -------
    (n_frames, n_bins) array
    """
    samples = as_series(samples, "the collective variable").reshape(len(samples), -1)
    n_frames, n_samples = samples.shape
    n_bins = len(edges) - 1
    fractions = np.zeros((n_frames, n_bins))
    images = (samples, -samples) if symmetric else (samples,)
    for image in images:
        index = np.searchsorted(edges, image, side="right") - 1
        index[image == edges[-1]] = n_bins - 1
        frame, sample = np.nonzero((index >= 0) & (index < n_bins))
        np.add.at(fractions, (frame, index[frame, sample]), 1 / (n_samples * len(images)))
    return fractions


def profile(
    samples,
    edges,
    member_energies,
    temperature,
    method="cea",
    driving="mean",
    bias=None,
    symmetric=False,
    sampled_temperature=None,
):
    r"""Free-energy profile of a collective variable under every member of a committee.

    .. math:: F_k(x) = -kT \ln p_k(x)

    where :math:`p_k` is the density of the samples in the bins, normalised to one for each member (with
    `method="cea"` to first order, which is taken in the exponent,
    :math:`F_k(x) = F(x) + \langle\delta_k\rangle_x - \langle\delta_k\rangle`, so that the density stays positive).
    All samples of a frame (the beads of a path integral) are pooled and carry the weight of the frame, which
    comes from the bead average of :math:`V_k`.

    One constant, the same for all members, puts the minimum of the mean over members at 0. The bands are
    those of :math:`-kT \ln p_k(x)` with normalised :math:`p_k`, so that they do not vanish anywhere by
    convention, and a bin is compared with the whole distribution, not with one other bin.

    Parameters
    ----------
    samples : (n_frames,) or (n_frames, n_samples) array
    edges : (n_bins + 1,) increasing array
    member_energies : (n_frames, n_members) array, eV, averaged over beads
    temperature : float, K
    method, driving, bias, sampled_temperature : as in `reweight`
    symmetric : bool
        the profile is known to be even: every sample x also counts as -x

    Returns
    -------
    Profile

    Imbalzano et al., J. Chem. Phys. 154, 074102 (2021), doi:10.1063/5.0036522.
    """
    edges = _checked_edges(edges, symmetric)
    fractions = bin_fractions(samples, edges, symmetric)
    inside = fractions.sum(axis=1)
    if not inside.any():
        raise SeriesError(f"no sample lies between {edges[0]:g} and {edges[-1]:g}; choose other edges for the bins")
    seen = fractions.any(axis=0)
    settings = (method, driving, bias, sampled_temperature)
    moments = gather_moments([*fractions[:, seen].T, inside], member_energies, temperature, *settings)
    width = np.diff(edges)[seen]
    kt = 1 / moments.beta

    def free_energy(logarithms):
        return -kt * (logarithms[:, :-1] - logarithms[:, -1:] - np.log(width)[:, None])

    found = moments.estimate(free_energy, share=_SHARE, logarithms=True)
    n_bins, n_members = len(seen), moments.n_members
    members = np.full((n_members, n_bins), np.nan)
    statistical = np.full(n_bins, np.nan)
    committee = np.full(n_bins, np.nan)
    density = np.zeros(n_bins)
    members[:, seen] = found.value.T
    statistical[seen] = error_of_sum(found.contributions.mean(axis=2))
    if n_members > 1:
        committee[seen] = [
            committee_error(found.value[i], found.contributions[:, i])[0] for i in range(len(found.value))
        ]
    density[seen] = moments.sampled_averages()[:-1] / moments.sampled_averages()[-1] / width
    value = members.mean(axis=0)
    lowest = np.nanmin(value)
    return Profile(
        x=(edges[1:] + edges[:-1]) / 2,
        value=value - lowest,
        statistical_error=statistical,
        committee_error=committee if n_members > 1 else None,
        total_error=np.hypot(statistical, committee) if n_members > 1 else statistical.copy(),
        members=members - lowest,
        density=density,
    )
