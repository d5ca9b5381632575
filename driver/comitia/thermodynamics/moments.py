"""Averages under every member of a committee, from sums over blocks of frames."""

import numpy as np

from comitia.errors import SeriesError, UsageError
from comitia.thermodynamics.blocked_sums import BlockedSums
from comitia.thermodynamics.checks import CopiedFrames
from comitia.thermodynamics.resampling import error_of_sum, estimate
from comitia.thermodynamics.time_series import check_finite
from comitia.thermodynamics.verdicts import within_two_errors
from comitia.units import KB

METHODS = ("cea", "direct")
SMALLEST_LOGARITHM = -700.0
"""Of a weight beside the largest one; what lies below is zero in double precision."""

NUMBERS_AT_ONCE = 65536
"""Numbers of a chunk that go through all sums together: they stay in the cache."""


class MemberMoments:
    r"""Averages under every member, from sums of weights, observables and their products.

    With :math:`h_k = \beta' V_k - \beta V_d` and weights :math:`w_t \propto e^{\beta B_t}` that undo a bias,

    * direct: :math:`W_{tk} \propto w_t\, e^{-h_{tk}}`, exact, but few frames count where h varies by more
      than one;
    * cea: :math:`W_{tk} = w_t [1 - (h_{tk} - \langle h_k\rangle)]`, the first order of a cumulant
      expansion, whose statistical noise does not grow with the size of the system.

    :math:`\beta` is that of the sampling, :math:`\beta'` that of the averages. Everything is counted from its
    mean over the first frames, so that constants between members do not matter and no digits are lost.
    Energies of path integrals are averaged over beads before they come here.

    Parameters
    ----------
    temperature : float, K, of the averages
    method : "cea" or "direct"
    driving : "mean", the index of a member (from 0), or "given" with every chunk
    sampled_temperature : float, K, or None for that of the averages
    n_expected : int, frames that will be added: with it the sums take less time

    Imbalzano et al., J. Chem. Phys. 154, 074102 (2021), doi:10.1063/5.0036522;
    Torrie and Valleau, J. Comput. Phys. 23, 187 (1977), doi:10.1016/0021-9991(77)90121-8.
    """

    def __init__(self, temperature, method="cea", driving="mean", sampled_temperature=None, n_expected=0):
        if method not in METHODS:
            raise UsageError(f"method is {method!r}; it must be one of {', '.join(METHODS)}")
        if sampled_temperature is None:
            sampled_temperature = temperature
        for name, value in (("temperature", temperature), ("sampled temperature", sampled_temperature)):
            if not (np.isfinite(value) and value > 0):
                raise UsageError(f"{name} is {value} K; it must be above 0")
        if isinstance(driving, str) and driving not in ("mean", "given"):
            raise UsageError(f"driving is {driving!r}; it must be 'mean', the index of a member, or an array")
        self.method = method
        self.driving = driving
        self.beta = 1 / (KB * temperature)
        self.sampled_beta = 1 / (KB * sampled_temperature)
        self.n_members = None
        self._sums = BlockedSums(n_expected)
        self._copies = CopiedFrames()

    @property
    def n_frames(self):
        """Frames seen so far."""
        return self._sums.n_frames

    def add(self, member_energies, observables=None, estimators=None, driving=None, bias=None):
        """Add the next frames of the series.

        Parameters
        ----------
        member_energies : (n_frames, n_members) array, eV
        observables : (n_frames, n_observables) array
        estimators : (n_frames, n_estimators, n_members) array
            observables that contain the potential, one estimator for each member
        driving : (n_frames,) array, eV, where `driving` is "given"
        bias : (n_frames,) array, eV
        """
        if len(member_energies) == 0:
            return
        energies = self._checked(member_energies, "the member energies", (len(member_energies), -1))
        n_frames, n_members = energies.shape
        if observables is None:
            observables = np.empty((n_frames, 0))
        if estimators is None:
            estimators = np.empty((n_frames, 0, n_members))
        observables = self._checked(observables, "the observable", (n_frames, -1))
        estimators = self._checked(estimators, "the observable", (n_frames, -1, n_members))
        driving = self._driving(energies, driving)
        log_weight = None
        if bias is not None:
            log_weight = self.sampled_beta * self._checked(bias, "the bias", (n_frames,))
        if self.n_members is None:
            self._begin(energies, observables, estimators, driving, biased=bias is not None)
        elif bias is None and self._largest["w"] != 0:
            log_weight = np.zeros(n_frames)
        here = n_members, observables.shape[1], estimators.shape[1]
        before = self.n_members, len(self._origin_a), len(self._origin_e)
        if here != before:
            raise SeriesError(
                f"members, observables and estimators are {here} in number here, {before} in the frames before; "
                "give all chunks alike"
            )
        self._copies.add(energies, observables, estimators)
        n_columns = n_members * (1 + estimators.shape[1]) + observables.shape[1]
        if self.constant().any():  # what moved once is settled
            shared, own = (observables, self._origin_a, self._extent_a), (estimators, self._origin_e, self._extent_e)
            for values, origin, extent in (shared, own):
                np.maximum(extent, np.maximum(values.max(axis=0) - origin, origin - values.min(axis=0)), out=extent)
        for frames, block, n_blocks in self._sums.segments(n_frames, max(1, NUMBERS_AT_ONCE // n_columns)):
            reduced = self.beta * energies[frames]
            reduced -= (self.sampled_beta * driving[frames])[:, None]
            reduced -= self._origin_h
            a = observables[frames] - self._origin_a
            e = estimators[frames] - self._origin_e
            weight = None
            if log_weight is not None:
                weight = self._weights("w", log_weight[frames, None]).reshape(n_blocks, -1)
            reduced, a, e = (x.reshape(n_blocks, len(x) // n_blocks, *x.shape[1:]) for x in (reduced, a, e))
            sums = _expansion_sums(weight, reduced, a, e, products=self.method == "cea")
            if self.method == "direct":
                exponent = -reduced
                if log_weight is not None:
                    exponent += log_weight[frames].reshape(weight.shape)[:, :, None]
                sums |= _direct_sums(self._weights("k", exponent), a, e)
            self._sums.add(block, sums)

    @property
    def repeats(self):
        """Frames for every different one, at least 1: above it, frames that were given more than once."""
        return self._copies.repeats

    def _checked(self, values, name, shape):
        values = np.asarray(values, dtype=float)
        fits = values.ndim == len(shape) and all(
            wanted in (-1, found) for wanted, found in zip(shape, values.shape, strict=True)
        )
        if not fits:
            raise SeriesError(
                f"{name} has shape {values.shape}, which does not fit {shape[0]} frames of member energies; "
                "give one for each of the same frames"
            )
        check_finite(values, name, first=self.n_frames)
        return values

    def _driving(self, energies, driving):
        if isinstance(self.driving, (int, np.integer)) and not isinstance(self.driving, bool):
            if not 0 <= self.driving < energies.shape[1]:
                raise UsageError(
                    f"driving is member {self.driving}; the committee has members 0 to {energies.shape[1] - 1}"
                )
            return energies[:, self.driving]
        if self.driving == "mean":
            return energies.mean(axis=1)
        if driving is None:
            raise UsageError("driving is 'given', but these frames have no driving potential")
        return self._checked(driving, "the driving potential", (len(energies),))

    def _begin(self, energies, observables, estimators, driving, biased):
        self.n_members = energies.shape[1]
        self._origin_h = self.beta * energies.mean(axis=0) - self.sampled_beta * driving.mean()
        self._origin_a = observables.mean(axis=0)
        self._origin_e = estimators.mean(axis=0)
        self._extent_a, self._extent_e = np.zeros_like(self._origin_a), np.zeros_like(self._origin_e)
        self._largest = {"w": np.full(1, -np.inf if biased else 0.0), "k": np.full(self.n_members, -np.inf)}

    def _weights(self, kind, logarithms):
        """Exponentials beside the largest so far, by columns; the sums there are already are put on its scale."""
        largest = np.maximum(self._largest[kind], logarithms.reshape(-1, logarithms.shape[-1]).max(axis=0))
        if np.any(largest > self._largest[kind]):
            factor = np.exp(np.maximum(self._largest[kind] - largest, SMALLEST_LOGARITHM))
            self._sums.rescale(f"{kind}:", factor)
            self._sums.rescale(f"{kind}{kind}:", factor**2)
            self._largest[kind] = largest
        return np.exp(np.maximum(logarithms - largest, SMALLEST_LOGARITHM))

    def _origin(self):
        return np.concatenate([np.repeat(self._origin_a[:, None], self.n_members, axis=1), self._origin_e])

    def _averages(self, sums):
        """Averages (n_resamples, n_observables, n_members) from sums by name with a leading axis."""
        if self.method == "direct":
            total = sums["k:1"][:, None]
            return np.concatenate([sums["k:a"], sums["k:e"]], axis=1) / total + self._origin()
        total = sums["w:1"][:, None, None]
        energy = sums["w:h"][:, None] / total
        a, e = sums["w:a"][:, :, None] / total, sums["w:e"] / total
        a = a - (sums["w:ah"] / total - a * energy)
        e = e - (sums["w:eh"] / total - e * energy)
        return np.concatenate([a, e], axis=1) + self._origin()

    def _logarithms(self, sums):
        """Logarithms of the averages, in which the expansion is one of the exponent."""
        averages = self._averages(sums)
        if self.method == "direct":
            return np.log(averages)
        sampled = (sums["w:a"] / sums["w:1"][:, None] + self._origin_a)[:, :, None]
        return np.log(sampled) + averages[:, : len(self._origin_a)] / sampled - 1

    def estimate(self, quantity=None, share=1.0, logarithms=False):
        r"""A function of the averages under every member, with its error.

        Parameters
        ----------
        quantity : function of (n_resamples, n_observables, n_members) averages, observables before estimators,
            to an (n_resamples, ...) array; None for the averages themselves
        share : as in `resampling.estimate`
        logarithms : bool
            for positive observables without estimators: of :math:`\ln\langle a\rangle_k`, which the expansion
            makes :math:`\ln\langle a\rangle - \mathrm{cov}(a, h_k)/\langle a\rangle`

        Returns
        -------
        Estimate
        """
        blocks = self._sums.blocks()
        used = {name: blocks[name] for name in _NEEDED[self.method]}

        def of_sums(*sums):
            sums = dict(zip(used, sums, strict=True))
            averages = self._logarithms(sums) if logarithms else self._averages(sums)
            return averages if quantity is None else quantity(averages)

        return estimate(of_sums, blocks["w:1"], *used.values(), share=share)

    def sampled_averages(self):
        """Averages of the observables over the sampling itself, a bias undone, an (n_observables,) array."""
        sums = self.totals()
        return sums["w:a"] / sums["w:1"] + self._origin_a

    def totals(self):
        """Sums over all frames by name."""
        return {name: sums.sum(axis=0) for name, sums in self._sums.blocks().items()}

    def constant(self):
        """Whether each observable is the same in every frame and for every member, (n_observables,) booleans."""
        origin = self._origin()
        scale = np.abs(origin).max(axis=1)
        extent = np.concatenate([self._extent_a, self._extent_e.max(axis=1)])
        return (extent <= 1e-12 * scale) & (np.ptp(origin, axis=1) <= 1e-12 * scale)

    def block_averages(self):
        """Averages of single blocks over the sampling, to see where the approach to equilibrium ends.

        Returns
        -------
        averages : (n_blocks, n_observables) array, those of estimators over members too
        n_frames : int, in a block (the last one may hold fewer)
        """
        blocks = self._sums.blocks()
        values = np.concatenate([blocks["w:a"], blocks["w:e"].mean(axis=2)], axis=1) / blocks["w:1"][:, None]
        return values + self._origin().mean(axis=1), self._sums.length

    def second_order(self):
        r""":math:`\frac12\langle (a_k - \bar a_k)(h_k - \bar h_k)^2\rangle`, which the expansion leaves out.

        Returns
        -------
        (n_observables, n_members) array
        """
        sums = self.totals()
        h, hh = sums["w:h"] / sums["w:1"], sums["w:hh"] / sums["w:1"]
        terms = []
        for name in "ae":
            a, ah, ahh = (sums[f"w:{name}{power}"] / sums["w:1"] for power in ("", "h", "hh"))
            a = a[:, None] if name == "a" else a
            terms.append(0.5 * (ahh - 2 * ah * h + a * h**2 - a * (hh - h**2)))
        return np.concatenate(terms)

    def inefficiency(self):
        r"""Frames per independent frame of what each frame contributes to an average, at least 1.

        The contributions are :math:`W_{tk} (a_{tk} - \langle a\rangle_k)`; in the expansion, that of the mean over
        members, :math:`w_t (y_t - \bar y)` with :math:`y = \mathrm{mean}_k\, a_k (1 - h_k)`, serves for all.

        Returns
        -------
        (n_observables, n_members) array
        """
        blocks, sums = self._sums.blocks(), self.totals()
        parts = []
        for weight, names in (("k", "ae"),) if self.method == "direct" else (("w", "y"),):
            total, squares = sums[f"{weight}:1"], sums[f"{weight}{weight}:1"]
            for name in names:
                mean = sums[f"{weight}:{name}"] / total
                of_blocks = blocks[f"{weight}:{name}"] - mean * blocks[f"{weight}:1"].reshape(
                    -1, *[1] * (mean.ndim - total.ndim), *total.shape
                )
                independent = (
                    sums[f"{weight}{weight}:{name}{name}"]
                    - 2 * mean * sums[f"{weight}{weight}:{name}"]
                    + mean**2 * squares
                )
                moves = independent > 1e-14 * np.abs(sums[f"{weight}{weight}:{name}{name}"])
                ratio = np.where(moves, error_of_sum(of_blocks, skewed=False) ** 2, 1) / np.where(moves, independent, 1)
                parts.append(np.clip(ratio, 1, self.n_frames / 2))
        found = np.concatenate(parts)
        return found if found.ndim == 2 else np.repeat(found[:, None], self.n_members, axis=1)

    def sample_size(self):
        r""":math:`(\sum_t W_{tk})^2 / \sum_t W_{tk}^2` before correlation: of every member, and of the sampling.

        Returns
        -------
        members : (n_members,) array
        sampling : float
        """
        sums = self.totals()
        sampling = float(sums["w:1"] ** 2 / sums["ww:1"])
        if self.method == "direct":
            return sums["k:1"] ** 2 / sums["kk:1"], sampling
        shift = 1 + sums["w:h"] / sums["w:1"]
        square = shift**2 * sums["ww:1"] - 2 * shift * sums["ww:h"] + sums["ww:hh"]
        return sums["w:1"] ** 2 / square, sampling

    def spread(self):
        """Standard deviation of h over the sampled ensemble, an (n_members,) array."""
        sums = self.totals()
        return np.sqrt(np.maximum(sums["w:hh"] / sums["w:1"] - (sums["w:h"] / sums["w:1"]) ** 2, 0))

    def cumulants_agree(self):
        r"""Whether :math:`-\ln\langle e^{-h}\rangle` equals its second cumulant within two errors, rms over members.

        The errors are those of the differences, as the two come from the same frames. Without agreement the
        tail that dominates the exponential average has not been sampled.
        """
        blocks = self._sums.blocks()
        scale = self._largest["k"] - self._largest["w"]

        def difference(total, h, hh, exponential):
            total = total[:, None]
            logarithm = scale + np.log(exponential / total)
            return -logarithm - h / total + (hh / total - (h / total) ** 2) / 2

        names = ("w:1", "w:h", "w:hh", "k:1")
        found = estimate(difference, blocks["w:1"], *(blocks[name] for name in names))
        return within_two_errors(found.value, found.error)


_NEEDED = {"cea": ("w:1", "w:h", "w:a", "w:ah", "w:e", "w:eh"), "direct": ("k:1", "k:a", "k:e")}


def _expansion_sums(w, h, a, e, products):
    """Sums over the frames of blocks: w of weights, ww of their squares.

    Parameters
    ----------
    w : (n_blocks, n_frames) array, weights, or None where all are 1
    h : (n_blocks, n_frames, n_members) array, reduced energies
    a : (n_blocks, n_frames, n_observables) array
    e : (n_blocks, n_frames, n_estimators, n_members) array
    products : bool, whether those of observables and energies are needed
    """
    n_members, n_observables = h.shape[2], a.shape[2]
    powers = np.empty((*h.shape[:2], 2 * n_members))  # h and its square side by side: one product for both
    powers[:, :, :n_members] = h
    np.multiply(h, h, out=powers[:, :, n_members:])
    ones = np.ones(h.shape[:2]) if w is None else w
    wa, we = (a, e) if w is None else (w[:, :, None] * a, w[:, :, None, None] * e)
    of_powers = _weighted(ones, powers)
    sums = {"w:1": ones.sum(axis=1), "ww:1": np.einsum("bt,bt->b", ones, ones)}
    sums |= {"w:a": _weighted(ones, a), "w:e": we.sum(axis=1)}
    sums |= {"w:h": of_powers[:, :n_members], "w:hh": of_powers[:, n_members:]}
    if products:
        of_squares = of_powers if w is None else _weighted(w * w, powers)
        sums |= {"ww:h": of_squares[:, :n_members], "ww:hh": of_squares[:, n_members:]}
        of_observables = wa.swapaxes(1, 2) @ powers
        sums |= {"w:ah": of_observables[:, :, :n_members], "w:ahh": of_observables[:, :, n_members:]}
        hh = powers[:, :, n_members:]
        of_h = np.einsum("btik,btk->bti", we, h)
        sums |= {"w:eh": np.einsum("btik,btk->bik", we, h), "w:ehh": np.einsum("btik,btk->bik", we, hh)}
        wy = np.empty((*h.shape[:2], n_observables + e.shape[2]))
        np.multiply(wa, 1 - (h @ np.full((n_members, 1), 1 / n_members)), out=wy[:, :, :n_observables])
        np.divide(we.sum(axis=3) - of_h, n_members, out=wy[:, :, n_observables:])
        sums |= {"w:y": _weighted(np.ones(h.shape[:2]), wy), "ww:y": _weighted(ones, wy)}
        sums["ww:yy"] = np.einsum("bti,bti->bi", wy, wy)
    return sums


def _weighted(w, values):
    return (w[:, None] @ values)[:, 0]


def _direct_sums(k, a, e):
    """Sums over the frames of blocks: k of the weights (n_blocks, n_frames, n_members) of members, kk of squares."""
    kk, transposed = k * k, a.swapaxes(1, 2)
    return {
        "k:1": k.sum(axis=1),
        "kk:1": kk.sum(axis=1),
        "k:a": transposed @ k,
        "kk:a": transposed @ kk,
        "kk:aa": (transposed * transposed) @ kk,
        "k:e": np.einsum("btik,btk->bik", e, k),
        "kk:e": np.einsum("btik,btk->bik", e, kk),
        "kk:ee": np.einsum("btik,btik,btk->bik", e, e, kk),
    }
