"""Averages of an observable that is itself a committee of models, under a committee of potentials."""

from dataclasses import dataclass, field

import numpy as np

from comitia.errors import SeriesError
from comitia.thermodynamics.average import averages, json_entry
from comitia.thermodynamics.resampling import error_of_sum
from comitia.thermodynamics.reweighting import gather_moments
from comitia.thermodynamics.time_series import as_series
from comitia.thermodynamics.verdicts import judge_committee, worst


@dataclass(frozen=True)
class ModelAverage:
    r"""Average of an observable with an error from its own models and one from the potentials.

    Attributes
    ----------
    table : (n_models, n_potentials) array, :math:`A_{ik} = \langle a_i\rangle_k`
    mean : float, over the table: the value to quote
    statistical_error : float, of the mean
    model_error : float, :math:`\sigma_a`, standard deviation over models of their means over potentials
    potential_error : float, :math:`\sigma_{aV}`, root of the mean over models of the variance over potentials
    committee_error : float, :math:`\sigma`, of both together; all three without their own sampling noise
    total_error : float, committee and statistical error in quadrature
    effective_sample_size : (n_potentials,) array, of the model where it is smallest
    verdict : "reliable", "doubtful" or "unreliable"
    reason : str, one sentence on the verdict
    """

    table: np.ndarray
    mean: float
    statistical_error: float
    model_error: float
    potential_error: float
    committee_error: float
    total_error: float
    effective_sample_size: np.ndarray
    verdict: str
    reason: str
    n_frames: int = field(repr=False)

    @property
    def members(self):
        """Mean over models under each potential, an (n_potentials,) array."""
        return self.table.mean(axis=0)

    def as_dict(self, unit):
        """The average as it stands in every JSON file, with the two parts of its committee error and the table."""
        parts = {"model_error": self.model_error, "potential_error": self.potential_error}
        return json_entry(self, unit) | parts | {"table": self.table.tolist()}


def committee_variances(table):
    r"""The variances of eqs. 26 to 28, from a table of averages, or of anything linear in them.

    .. math:: \sigma_a^2 = \mathrm{Var}_i(\mathrm{mean}_k A_{ik}), \quad
              \sigma_{aV}^2 = \mathrm{mean}_i \mathrm{Var}_k(A_{ik}), \quad
              \sigma^2 = \frac{M_V (M_a - 1)\,\sigma_a^2 + M_a (M_V - 1)\,\sigma_{aV}^2}{M_a M_V - 1}

    all with n − 1, so that the last one is the variance over the whole table.

    Parameters
    ----------
    table : (n_models, n_potentials) array, both at least 2

    Returns
    -------
    (3,) array: model, potential, both together

    Imbalzano et al., J. Chem. Phys. 154, 074102 (2021), doi:10.1063/5.0036522, eqs. 26 to 28.
    """
    n_models, n_potentials = table.shape
    model = table.mean(axis=1).var(ddof=1)
    potential = table.var(axis=1, ddof=1).mean()
    both = n_potentials * (n_models - 1) * model + n_models * (n_potentials - 1) * potential
    return np.array([model, potential, both / (n_models * n_potentials - 1)])


def _noise(contributions):
    """What sampling noise adds to the variances of `committee_variances`, from (n_blocks, n_models, n_potentials)."""
    _, n_models, n_potentials = contributions.shape
    of_models = contributions.mean(axis=2)
    models = error_of_sum(of_models - of_models.mean(axis=1, keepdims=True), skewed=False) ** 2
    potentials = error_of_sum(contributions - contributions.mean(axis=2, keepdims=True), skewed=False) ** 2
    both = error_of_sum(contributions - contributions.mean(axis=(1, 2), keepdims=True), skewed=False) ** 2
    return np.array(
        [
            models.sum() / (n_models - 1),
            potentials.sum() / (n_models * (n_potentials - 1)),
            both.sum() / (n_models * n_potentials - 1),
        ]
    )


def reweight_models(
    models, member_energies, temperature, method="cea", driving="mean", bias=None, sampled_temperature=None
):
    """Average of an observable predicted by several models, under every member of a committee of potentials.

    Parameters
    ----------
    models : (n_frames, n_models) array, the observable by each of its models, at least two
    member_energies : (n_frames, n_potentials) array, eV, at least two
    temperature, method, driving, bias, sampled_temperature : as in `reweight`

    Returns
    -------
    ModelAverage
        Where the spread is within its sampling noise, an error is the level of that noise, and the verdict
        is at best "doubtful".

    Imbalzano et al., J. Chem. Phys. 154, 074102 (2021), doi:10.1063/5.0036522, eqs. 26 to 28.
    """
    models = as_series(models, "the observable")
    if models.ndim != 2 or models.shape[1] < 2 or np.ndim(member_energies) != 2 or np.shape(member_energies)[1] < 2:
        raise SeriesError(
            f"the models of the observable have shape {models.shape}, the member energies {np.shape(member_energies)}; "
            "both need two columns or more, or take `reweight`"
        )
    moments = gather_moments(list(models.T), member_energies, temperature, method, driving, bias, sampled_temperature)
    return combine_models(averages(moments))


def combine_models(by_model):
    """One average with the errors of the models and of the potentials, from those of every model.

    Parameters
    ----------
    by_model : list of Average, of the same frames under at least two potentials, at least two of them

    Returns
    -------
    ModelAverage, as in `reweight_models`
    """
    if len(by_model) < 2 or len(by_model[0].members) < 2:
        raise SeriesError(
            f"{len(by_model)} models of the observable, {len(by_model[0].members)} members of the potential; "
            "their errors take two of each or more"
        )
    table = np.stack([average.members for average in by_model])
    contributions = np.stack([average.contributions for average in by_model], axis=1)
    variances, noise = committee_variances(table), _noise(contributions)
    resolved = variances - noise > (1e-12 * np.abs(table).max()) ** 2
    errors = np.sqrt(np.where(resolved, variances - noise, noise))
    statistical = error_of_sum(contributions.mean(axis=(1, 2)))
    judgements = [(average.verdict, average.reason) for average in by_model if average.verdict != "exact"]
    verdict, reason = worst([*judgements, judge_committee(errors[2], bool(resolved[2]))])
    return ModelAverage(
        table=table,
        mean=float(table.mean()),
        statistical_error=statistical,
        model_error=float(errors[0]),
        potential_error=float(errors[1]),
        committee_error=float(errors[2]),
        total_error=float(np.hypot(errors[2], statistical)),
        effective_sample_size=np.min([average.effective_sample_size for average in by_model], axis=0),
        verdict=verdict,
        reason=reason,
        n_frames=by_model[0].n_frames,
    )
