r"""Regularisation by the evidence: how probable the data are, the weights integrated out.

Rows of kind k (energy, forces, virial) have noise variance σ²/ρ_k, weight j has prior variance σ²/λ_j. With A = Σ_k ρ_k
X_k^T X_k + Λ, b = Σ_k ρ_k X_k^T y_k, w = A⁻¹ b and S = Σ_k ρ_k y_k^T y_k − b^T w, and σ² at its maximum S/N,

.. math:: 2 \ln p(y) = -N \ln S + \sum_k N_k \ln \rho_k - \ln |A| + \ln |\Lambda| + \text{const}

The prior has few parameters: ln λ_j = θ[ν_j] + a ln(roughness_j²) + c ln(mean square of column j), one strength θ per
correlation order, and two exponents; factors that tell species apart add a constant. ρ_virial is chosen too, so that
virials of poor quality (too few plane waves, a kinetic part left in) lose their say. ρ_energy is not: what a linear
model cannot describe is no independent noise, and many forces would outvote the few energies. Only training structures
enter.

MacKay, Neural Computation 4, 415 (1992), doi:10.1162/neco.1992.4.3.415.
"""

import dataclasses

import numpy as np
import scipy.optimize

from comitia.errors import StructureError
from comitia.training.normal_equations import KINDS, Factor, Moments
from comitia.training.settings import LOG_DIFFERENCE, Prior
from comitia.training.sharing import Sharing

WEAKEST_PRIOR, STRONGEST_PRIOR = 1e-13, 1e2  # relative to the diagonal of the normal equations
FIRST_STRENGTHS = (1e-9, 1e-7, 1e-5, 1e-3)  # the search begins at the best of these
FIRST_EXPONENTS = (1.5, 0.1)  # of roughness² and of the mean square of a column
CHOSEN_KINDS = ("virial",)  # kinds of which the relative weight is chosen here


@dataclasses.dataclass
class PriorShape:
    """What is known of the columns before any fit.

    Attributes
    ----------
    order : (n,) int array, correlation order ν of each column; 0 for the constant feature, which is left free
    log_roughness : (n,) array, ln roughness², centred
    log_difference : (n,) array or None, what is added to ln λ for factors that tell species apart, see `of`
    sharing : Sharing or None, where weights of different species are alike
    """

    order: np.ndarray
    log_roughness: np.ndarray
    log_difference: np.ndarray | None = None
    sharing: Sharing | None = None

    @classmethod
    def of(cls, descriptor, columns=slice(None)):
        """From the features of a descriptor, for some columns of the design matrix.

        The channels of pseudo-species after the first are differences of species. Factors of these have smaller weights
        a priori, so that surroundings of species that the data do not show together are first those of the average
        species. The evidence of data that do not have such surroundings cannot tell.
        """
        order = np.tile(np.asarray(descriptor.features)[:, 0], len(descriptor.species))[columns]
        roughness = np.tile(np.asarray(descriptor.smoothness, dtype=float), len(descriptor.species))[columns]
        roughness = np.maximum(roughness, 1e-300)
        log_roughness = np.where(order > 0, 2 * np.log(roughness), 0.0)
        centre = log_roughness[order > 0].mean() if (order > 0).any() else 0.0
        difference = sharing = None
        if descriptor.pseudo_species is not None:
            q = np.asarray(descriptor.features)[:, 1:9:2]
            factors, n_species = (q >= descriptor.n_radial).sum(axis=1), len(descriptor.species)
            difference = LOG_DIFFERENCE * np.tile(factors, n_species)[columns]
            sharing = Sharing(np.tile(np.arange(len(q)), n_species)[columns], n_species)
        return cls(order, np.where(order > 0, log_roughness - centre, 0.0), difference, sharing)


@dataclasses.dataclass
class Regularisation:
    """Prior precisions and weights of the kinds.

    Attributes
    ----------
    penalty : (n,) array, λ_j
    kind_weights : {kind: ρ}
    strength : float, geometric mean of λ_j over the diagonal of the normal equations
    log_evidence : float or None when the strength was given
    noise : float, σ; residual of a row of forces in units of its scale
    parameters : dict, the fields of `Prior`, for the report
    found : (n_parameters,) array, all parameters in the order of `Evidence`
    sharing : Sharing or None, with which λ makes up Λ
    by_evidence : Regularisation of the evidence, where chemical systems that were left out chose another
    place : where on the grid of `Transfer` these found it
    left_out : dict, what they said, for the report
    """

    penalty: np.ndarray
    kind_weights: dict
    strength: float
    log_evidence: float | None
    noise: float
    parameters: dict
    found: np.ndarray | None = None
    sharing: Sharing | None = None
    by_evidence: "Regularisation | None" = None
    place: tuple | None = None
    left_out: dict | None = None

    def add_to(self, matrix):
        """Add Λ to the lower triangle of a matrix."""
        add_precision(matrix, self.penalty, self.sharing)

    def times(self, weights):
        """Λ w."""
        return self.penalty * weights if self.sharing is None else self.sharing.times(self.penalty, weights)


class Evidence:
    """The log evidence of some training structures as a function of the parameters of the prior.

    Parameters
    ----------
    moments : {kind: Moments} of the training structures, handed over
    shape : PriorShape
    kinds : kinds of labels that are fitted to
    """

    def __init__(self, moments, shape, kinds=KINDS):
        self.shape = shape
        self.kinds = [kind for kind in kinds if kind in moments and moments[kind].square > 0]
        if not self.kinds:
            raise StructureError("every energy and force of the training set is what the fixed terms give already")
        self.reference = "forces" if "forces" in self.kinds else self.kinds[0]
        self.free_kinds = [kind for kind in self.kinds if kind != self.reference and kind in CHOSEN_KINDS]
        self.counts = {kind: moments[kind].count for kind in self.kinds}
        self.squares = {kind: moments[kind].square for kind in self.kinds}
        diagonal = sum(np.diag(moments[kind].gram) for kind in self.kinds)
        if shape.sharing is not None:
            diagonal = shape.sharing.pooled(diagonal)
        self.free = {kind: moments[kind] for kind in self.free_kinds}
        self.fixed = _added([moments[kind] for kind in self.kinds if kind not in self.free_kinds])
        self.diagonal = np.maximum(diagonal, 1e-12 * diagonal.max())
        self.orders = sorted(set(shape.order[shape.order > 0].tolist()))
        penalised = shape.order > 0
        log_diagonal = np.log(self.diagonal)
        self.diagonal_centre = log_diagonal[penalised].mean() if penalised.any() else 0.0
        self.columns = np.column_stack(
            [(shape.order == order).astype(float) for order in self.orders]
            + [shape.log_roughness, np.where(penalised, log_diagonal - self.diagonal_centre, 0.0)]
        )
        self.constant = np.where(penalised, 0.0, np.log(1e-8 * self.diagonal))
        self.factors = 0.0 if shape.log_difference is None else shape.log_difference / LOG_DIFFERENCE

    def start(self, strength, exponents=FIRST_EXPONENTS):
        """Parameters (ln ρ of the free kinds, θ of each order, a, c) for one strength, or one of each order."""
        given = np.atleast_1d(strength)
        theta = np.log([given[min(order, len(given)) - 1] for order in self.orders]) + self.diagonal_centre
        return np.array([0.0] * len(self.free_kinds) + list(theta) + list(exponents))

    def bounds(self):
        low, high = (np.log(x) + self.diagonal_centre for x in (WEAKEST_PRIOR, STRONGEST_PRIOR))
        return [(-7.0, 7.0)] * len(self.free_kinds) + [(low, high)] * len(self.orders) + [(0.0, 2.5), (0.0, 1.5)]

    def unpack(self, parameters, difference=LOG_DIFFERENCE):
        """{kind: ρ} and ln λ of every column; `difference` is ln λ of a factor that tells species apart."""
        n_free = len(self.free_kinds)
        kind_weights = dict.fromkeys(self.kinds, 1.0)
        kind_weights |= dict(zip(self.free_kinds, np.exp(parameters[:n_free]).tolist(), strict=True))
        log_penalty = self.constant + self.columns @ parameters[n_free:] + difference * self.factors
        return kind_weights, np.maximum(log_penalty, np.log(WEAKEST_PRIOR * self.diagonal))

    def __call__(self, parameters, gradient=True):
        """Log evidence and, where asked for, its gradient."""
        kind_weights, log_penalty = self.unpack(parameters)
        penalty = np.exp(log_penalty)
        factor, weights, square = self._solve(kind_weights, penalty)
        square, count = max(square, 1e-300), sum(self.counts.values())
        value = -count * np.log(square / count) - factor.log_determinant + log_penalty.sum()
        value += sum(self.counts[kind] * np.log(rho) for kind, rho in kind_weights.items())
        sharing = self.shape.sharing
        if sharing is not None:
            value += sharing.log_determinant
        if not gradient:
            return 0.5 * value, None
        inverse = factor.inverse() if self.free or sharing is not None else None
        diagonal = factor.inverse_diagonal() if inverse is None else np.diag(inverse)
        by_kind = []
        for kind, moments in self.free.items():
            rho = kind_weights[kind]
            misfit = rho * moments.residual_square(weights)
            trace = 2 * np.vdot(inverse, moments.gram) - diagonal @ np.diag(moments.gram)
            by_kind.append(moments.count - count * misfit / square - rho * trace)
        if sharing is None:
            traces, product = penalty * diagonal, penalty * weights
        else:
            traces, product = sharing.traces(penalty, inverse), sharing.times(penalty, weights)
        by_column = 1.0 - traces - count * weights * product / square
        return 0.5 * value, 0.5 * np.concatenate([by_kind, self.columns.T @ by_column])

    def _solve(self, kind_weights, penalty):
        """Factor of A, the weights, and S."""
        matrix, rhs = self.fixed.gram.copy(), self.fixed.rhs.copy()
        for kind, moments in self.free.items():
            matrix += kind_weights[kind] * moments.gram
            rhs += kind_weights[kind] * moments.rhs
        add_precision(matrix, penalty, self.shape.sharing)
        factor = Factor(matrix)
        weights = factor.solve(rhs)
        square = sum(rho * self.squares[kind] for kind, rho in kind_weights.items())
        return factor, weights, square - float(rhs @ weights)

    def maximise(self, tolerance=2.0, n_iterations=40, first=None, step=lambda: None):
        """`Regularisation` at the maximum, found by L-BFGS to about `tolerance` in the log evidence.

        The search begins at the parameters `first`, those of nearly the same data, or at the best of a few strengths;
        `step` is called before every evaluation, and may end it by raising.
        """
        starts = [self.start(strength) for strength in FIRST_STRENGTHS]
        if first is not None and len(first) == len(starts[0]):
            starts = [np.asarray(first)]
        values = [self(parameters, gradient=False)[0] for parameters in starts]
        start = starts[int(np.argmax(values))]
        # in units of the first gradient, so that the first step is of order 1 and not to the corner of the bounds
        scale = max(float(np.linalg.norm(self(start)[1])), 1.0)

        def negative(parameters):
            step()
            value, gradient = self(parameters)
            return -value / scale, -gradient / scale

        found = scipy.optimize.minimize(
            negative,
            start,
            jac=True,
            method="L-BFGS-B",
            bounds=self.bounds(),
            options={
                "maxiter": n_iterations,
                "maxfun": 2 * n_iterations,
                "ftol": tolerance / max(abs(max(values)), scale),
                "gtol": 1e-3 / scale,
            },
        )
        return self.regularisation(found.x)

    def regularisation(self, parameters, difference=LOG_DIFFERENCE, log_evidence=True):
        """`Regularisation` at the given parameters."""
        kind_weights, log_penalty = self.unpack(parameters, difference)
        penalty = np.exp(log_penalty)
        _, _, square = self._solve(kind_weights, penalty)
        count = sum(self.counts.values())
        penalised = self.shape.order > 0
        return Regularisation(
            penalty=penalty,
            kind_weights={kind: kind_weights.get(kind, 1.0) for kind in KINDS},
            strength=float(np.exp(np.mean((log_penalty - np.log(self.diagonal))[penalised])))
            if penalised.any()
            else 0.0,
            log_evidence=self(parameters, gradient=False)[0] if log_evidence else None,
            noise=float(np.sqrt(max(square, 0.0) / max(count, 1))),
            parameters=self._prior(parameters, difference),
            found=parameters,
            sharing=self.shape.sharing,
        )

    def _prior(self, parameters, difference=LOG_DIFFERENCE):
        """What `regularisation` of FIT.yaml may say for these parameters: the fields of `Prior`."""
        orders = range(1, max(self.orders, default=0) + 1)
        nearest = [int(np.argmin(np.abs(np.array(self.orders) - order))) for order in orders]
        theta = np.asarray(parameters)[len(self.free_kinds) + np.array(nearest, int)]
        strength = np.exp(theta - self.diagonal_centre).tolist()
        found = {
            "strength": strength,
            "roughness_exponent": float(parameters[-2]),
            "column_exponent": float(parameters[-1]),
        }
        return found if self.shape.log_difference is None else found | {"difference": difference}

    def given(self, strength):
        """`Regularisation` of a `Prior`, or of a strength: λ_j = strength × roughness² × diagonal_j."""
        exponents, difference = (1.0, 1.0), LOG_DIFFERENCE
        if isinstance(strength, Prior):
            exponents, difference = (strength.roughness_exponent, strength.column_exponent), strength.difference
            strength = strength.strength
        return self.regularisation(self.start(strength, exponents), difference, log_evidence=False)


def add_precision(matrix, penalty, sharing):
    """Add Λ of λ to the lower triangle of a matrix."""
    if sharing is None:
        matrix[np.diag_indices_from(matrix)] += penalty
    else:
        sharing.add_to(matrix, penalty)


def _added(parts):
    """Sum of moments, in the arrays of the first."""
    first, *rest = parts
    for part in rest:
        first.gram += part.gram
    rhs, square = sum(part.rhs for part in parts), sum(part.square for part in parts)
    return Moments(first.gram, rhs, square, sum(part.count for part in parts))
