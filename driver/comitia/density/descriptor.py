"""The descriptor: everything about a model but its weights, as plain arrays."""

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Literal, NamedTuple

import msgspec
import numpy as np

from comitia._core import Batch, Kernel, MemberKernel
from comitia.density import radial
from comitia.density.features import MAX_ORDER, describe, feature_list, roughness, total_degree
from comitia.density.member_program import arrange_members
from comitia.density.optimal import FactorPrior
from comitia.density.program import arrange
from comitia.errors import SettingsError, StructureError
from comitia.settings import convert
from comitia.threads import default_threads


def _one_for_each_order(number):
    return Annotated[list[number], msgspec.Meta(min_length=MAX_ORDER - 1, max_length=MAX_ORDER)]


Channels = Annotated[int, msgspec.Meta(ge=1)]


class Basis(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which radial functions and which features a descriptor has; lists have one entry for each of the orders 1 to 4.

    A list of three leaves order 4 off. What is null follows from the `accuracy` asked for.

    Attributes
    ----------
    radial : radial functions; `optimal` ones are learned from the training structures
    width : of the Gaussian basis, Å
    factors : what is expected of a factor, for `optimal` radial functions
    n_max : number of radial functions; 0 leaves the order out
    l_max : largest angular momentum
    degree : bound on the sum of n + l over the factors of a feature; where null, what `max_features` leaves room for
    max_features : per centre species: the degree of orders 2 to 4 is lowered until they fit
    shares : of `max_features` that orders 1 and 2, and orders 1 to 3, may take where there is a higher one
    pseudo_species : number of channels that the species are contracted to, for all orders or a list, one for each; each
        order takes the first so many rows of one contraction, learned from the training data; by default, and where it
        is not less than the number of species, every species is a channel
    """

    radial: Literal["optimal", "bessel", "gaussian"] | None = None
    width: Annotated[float, msgspec.Meta(gt=0)] = 0.5
    factors: FactorPrior = FactorPrior()
    n_max: _one_for_each_order(Annotated[int, msgspec.Meta(ge=0, le=64)]) | None = None
    l_max: _one_for_each_order(Annotated[int, msgspec.Meta(ge=0, le=8)]) | None = None
    degree: _one_for_each_order(Annotated[int, msgspec.Meta(ge=0)] | None) = msgspec.field(
        default_factory=lambda: [None] * MAX_ORDER
    )
    max_features: Annotated[int, msgspec.Meta(ge=1)] | None = None
    shares: Annotated[list[Annotated[float, msgspec.Meta(gt=0, lt=1)]], msgspec.Meta(max_length=2)] | None = None
    pseudo_species: Channels | _one_for_each_order(Channels) | None = None

    def completed(self, preset):
        """This basis with what is null taken from the preset, and one entry for each order in its lists."""
        given = {
            name: getattr(preset if getattr(self, name) is None else self, name)
            for name in ("radial", "n_max", "l_max", "max_features")
        }
        for name, rest in (("n_max", 0), ("l_max", 0), ("degree", None)):
            value = given.get(name, self.degree)
            given[name] = value + [rest] * (MAX_ORDER - len(value))
        if max(given["n_max"]) < 1:
            raise SettingsError(
                f"basis: n_max {given['n_max']} leaves no radial function; one of the orders must have some"
            )
        return msgspec.structs.replace(self, **given)

    def channels(self, n_species):
        """Number of channels of each order of a completed basis; the last of a short list counts for the rest."""
        asked = n_species if self.pseudo_species is None else self.pseudo_species
        asked = [asked] if isinstance(asked, int) else asked
        asked = asked + asked[-1:] * (MAX_ORDER - len(asked))
        return [min(k, n_species) if n else 0 for k, n in zip(asked, self.n_max, strict=True)]


WITHOUT_DATA = Basis(radial="bessel", n_max=[12, 8, 5, 0], l_max=[0, 6, 5, 3], max_features=700)

# highest order (0 for nu = 1) -> share of the budget that each order below it may take
SHARES = {0: {}, 1: {}, 2: {1: 0.4}, 3: {1: 0.25, 2: 0.35}}
SHARES_OPTIMAL = SHARES | {3: {1: 0.12, 2: 0.4}}  # with optimal radial functions


class Design(NamedTuple):
    """Rows of one structure: with weights w, energy = features @ w, forces = forces @ w, virial = virial @ w."""

    features: np.ndarray  # (n_species * n_features,)
    forces: np.ndarray | None  # (3 n_atoms, n_species * n_features)
    virial: np.ndarray | None  # (6, n_species * n_features), xx yy zz yz xz xy


def truncated(n_channels, n_max, l_max, degree, max_features, constant, factor_degree=None, shares=None):
    """The feature list within the budget.

    Order 1 is kept whole; orders 2 and 3 may fill the share of the budget that the list `shares`, by default `SHARES`,
    gives to all orders up to them where there is a higher order, and the highest what is left: the bound on the total
    degree of each falls until it fits. The degree of a factor is `factor_degree`, (n_channels, n_l, n_radial), by
    default n + l, and always so where `degree` is given.
    """
    n_radial, orders = max(n_max), range(len(n_max))
    highest = max(order for order in orders if n_max[order] > 0)
    if shares is None:
        shares = (SHARES if factor_degree is None else SHARES_OPTIMAL)[highest]
    else:
        shares = {order: share for order, share in enumerate(shares, 1) if order < highest}
    parts = [feature_list(n_channels, n_radial, [0] * len(n_max), l_max, degree, constant)]
    for order in orders:
        only = [n if o == order else 0 for o, n in enumerate(n_max)]

        def listed(bound, only=only, order=order):
            bounds = [bound if o == order else None for o in orders]
            factor = factor_degree if degree[order] is None else None
            return feature_list(n_channels, n_radial, only, l_max, bounds, False, factor)

        room = max_features - sum(len(part) for part in parts)
        if order in shares:
            room = min(room, int(shares[order] * max_features))
        bound, highest_degree = degree[order], (order + 1) * (n_max[order] - 1 + l_max[order])
        if order > 0 and bound is None:  # the smallest bound that already fills the room: few features to list
            bound = 0
            if factor_degree is not None:
                highest_degree = (order + 1) * factor_degree[:, : l_max[order] + 1, : n_max[order]].max(initial=0)
            while bound < highest_degree and len(listed(bound)) <= room:
                bound += 1
        part = listed(bound)
        if order > 0 and len(part) > room:  # all features of a degree, or none
            degrees = total_degree(part, n_radial, factor_degree if degree[order] is None else None)
            part = part[degrees < np.sort(degrees)[room] - 1e-9] if room >= 0 else part[:0]
            if len(part) == 0:
                raise SettingsError(
                    f"basis: max_features = {max_features} leaves no room for correlation order {order + 1} with "
                    f"{n_channels[order]} species; raise it, or set n_max of that order to 0"
                )
        parts.append(part)
    return np.concatenate(parts)


@dataclass(frozen=True)
class Descriptor:
    """Atom-density correlations: densities on contracted species, radial splines, and a list of features.

    Attributes
    ----------
    species : (n_species,) int array, atomic numbers, increasing
    cutoff : float, Å
    contraction : (n_channels, n_species) array u: pseudo-species from species
    spline : (n_intervals, 6, n_functions) array, quintic pieces of the radial functions on [0, cutoff]
    n_radial, l_max : int; q = k n_radial + n
    radial_offset : (l_max + 1,) int32 array: function of (n, l) is radial_offset[l] + n; or (n_species, l_max + 1),
        where the functions depend on the species of the neighbour
    features : (n_features, 10) int32 array, see `comitia.density.features.feature_list`
    factor_variance : (n_channels, n_l, n_radial) array or None; variance expected of a factor (k, l, n) with optimal
        radial functions, for the prior of a fit
    """

    species: np.ndarray
    cutoff: float
    contraction: np.ndarray
    spline: np.ndarray
    n_radial: int
    l_max: int
    radial_offset: np.ndarray
    features: np.ndarray
    factor_variance: np.ndarray | None = None

    @classmethod
    def build(cls, species, cutoff, *, constant=True, contraction=None, optimal=None, **options):
        """A descriptor for the given atomic numbers; `options` are those of `Basis`.

        Parameters
        ----------
        species : atomic numbers, in any order
        cutoff : float, Å
        constant : bool, whether the feature of order 0 is there
        contraction : (n_channels, n_species) array, species by increasing atomic number; the identity when absent
        optimal : OptimalRadial for `radial: optimal`

        Raises
        ------
        SettingsError
            for an unknown option, or one that makes no sense.
        """
        basis = convert(options, Basis, "basis").completed(WITHOUT_DATA)
        species = np.array(sorted({int(z) for z in species}), np.int64)
        n_max, l_max = basis.n_max, basis.l_max
        if not (cutoff > 0 and np.isfinite(cutoff)):
            raise SettingsError(f"cutoff is {cutoff} Å; it must be positive and finite")
        channels = basis.channels(len(species))
        contraction = np.eye(len(species)) if contraction is None else np.array(contraction, float)
        if contraction.shape != (max(channels), len(species)):
            raise SettingsError(
                f"basis: pseudo_species asks for {max(channels)} channels of {len(species)} species; the contraction "
                f"is of shape {contraction.shape}: learn it from data with `comitia fit`, or give one of that shape"
            )
        if (basis.radial == "optimal") != (optimal is not None):
            raise SettingsError("basis: radial: optimal is learned from training structures; use it in `comitia fit`")
        variance = None if optimal is None else optimal.variance
        factor_degree = None if optimal is None else -0.5 * np.log(variance)
        features = truncated(
            channels, n_max, l_max, basis.degree, basis.max_features, constant, factor_degree, basis.shares
        )
        used_l = int(max(features[:, [2, 4, 6, 8]].max(), 0))
        n_radial = max(n_max)
        offset = np.arange(used_l + 1, dtype=np.int32) * n_radial
        if basis.radial == "optimal":
            spline, variance = optimal.spline, variance[:, : used_l + 1]
            offset = np.ascontiguousarray(optimal.offset[:, : used_l + 1])
        elif basis.radial == "bessel":
            spline = radial.spline_table(lambda r: radial.bessel(r, n_radial, cutoff), cutoff)
            offset = np.zeros(used_l + 1, np.int32)
        else:
            spline = radial.spline_table(
                lambda r: radial.gaussian_soap(r, n_radial, used_l, cutoff, basis.width).reshape(len(r), -1), cutoff
            )
        return cls(species, float(cutoff), contraction, spline, n_radial, used_l, offset, features, variance)

    @property
    def n_species(self):
        return len(self.species)

    @property
    def pseudo_species(self):
        """{symbol: its column of the contraction, a list}, or None where every species is a channel of its own."""
        from ase.data import chemical_symbols

        if np.array_equal(self.contraction, np.eye(self.n_species)):
            return None
        return {chemical_symbols[z]: u.tolist() for z, u in zip(self.species, self.contraction.T, strict=True)}

    @property
    def n_features(self):
        """Features of each centre."""
        return len(self.features)

    @property
    def width(self):
        """Columns of the design matrix: features of every centre species, species by species."""
        return self.n_species * self.n_features

    @property
    def smoothness(self):
        """(n_features,) scale of the prior: the penalty of a weight goes with its square."""
        if self.factor_variance is None:
            return roughness(self.features, self.n_radial)
        return np.exp(total_degree(self.features, self.n_radial, -0.5 * np.log(self.factor_variance)))

    @property
    def orders(self):
        """Number of features of each correlation order."""
        return describe(self.features)

    @cached_property
    def _program(self):
        n_channels = len(self.contraction)
        offset = np.atleast_2d(self.radial_offset)
        l_dependent = bool(np.any(offset != offset[:, :1]))
        program = arrange(self.features, n_channels, self.n_radial, self.l_max, l_dependent)
        # the kernel reads its own padded copy of the splines: n_stride functions for each l, zero where unused
        stride, n_l = program["n_stride"], self.l_max + 1 if l_dependent else 1
        n = min(self.n_radial, stride)
        padded = np.zeros((len(offset), *self.spline.shape[:2], n_l * stride))
        for table, first in zip(padded, offset, strict=True):
            for l in range(n_l):
                table[:, :, l * stride : l * stride + n] = self.spline[:, :, first[l] : first[l] + n]
        return program, padded

    def kernel(self, core=None, single=False):
        """The compiled kernel of this descriptor, with the repulsive core given as (inner, outer, charge)."""
        program, spline = self._program
        return Kernel(self.cutoff, self.l_max, self.contraction, spline, program, self.n_features, core, single)

    def member_kernel(self, kernel, weights, core):
        """The compiled kernel of all members at once, see `MemberKernel`."""
        return MemberKernel(kernel, self._member_program, weights, core)

    @cached_property
    def _member_program(self):
        return arrange_members(self.features, self._program[0], self.contraction, self.l_max)

    @cached_property
    def _bare_kernel(self):
        return self.kernel()

    def batch(self, structures, skin=0.0, n_threads=1, first=0):
        """A batch of `ase.Atoms`, with its positions set; structures share the threads, and count from `first`.

        Raises
        ------
        StructureError
            for a species that the descriptor does not know.
        """
        batch = self.empty_batch([a.numbers for a in structures], [a.pbc for a in structures], skin)
        positions = np.concatenate([a.positions for a in structures]) if structures else np.zeros((0, 3))
        cells = np.array([a.cell.array for a in structures], float).reshape(-1, 3, 3)
        batch.update(np.ascontiguousarray(positions, float), cells, n_threads, first)
        return batch

    def species_index(self, numbers):
        """Index into `species` of atoms with these atomic numbers.

        Raises
        ------
        StructureError
            for a species that the descriptor does not know.
        """
        numbers = np.asarray(numbers, np.int64)
        index = np.searchsorted(self.species, numbers)
        known = index < self.n_species
        known[known] = self.species[index[known]] == numbers[known]
        if not np.all(known):
            from ase.data import chemical_symbols

            wrong = chemical_symbols[numbers[~known][0]]
            trained = ", ".join(chemical_symbols[z] for z in self.species)
            raise StructureError(
                f"species {wrong} is not in the model (trained on {trained}); retrain, or remove these atoms"
            )
        return index

    def empty_batch(self, numbers, pbc, skin=0.0):
        """A batch for the given atomic numbers and periodicities, one of each per structure, without positions."""
        sizes = np.array([len(z) for z in numbers], np.int64)
        flat = np.concatenate([np.asarray(z, np.int64) for z in numbers]) if len(numbers) else np.zeros(0, np.int64)
        index = self.species_index(flat)
        periodic = np.array([np.broadcast_to(p, 3) for p in pbc], np.int32).reshape(-1, 3)
        return Batch(sizes, index.astype(np.int32), periodic, self.cutoff, skin)

    def sums(self, structures, n_threads=None):
        """Features summed over the centres of each species: (n_structures, n_species * n_features)."""
        n_threads = n_threads or default_threads()
        batch = self.batch(structures, n_threads=n_threads)
        zero = np.zeros((self.n_species, self.n_features))
        found = self._bare_kernel.evaluate(batch, zero, forces=False, virials=False, sums=True, n_threads=n_threads)
        return found["sums"].reshape(len(structures), self.width)

    def design(self, atoms, forces=True, virial=True):
        """The rows of one structure; the interpreter lock is released while they are computed."""
        return Design(*self._bare_kernel.design(self.batch([atoms]), forces, virial))
