"""Free-energy perturbation from the potential that was sampled to a reference method."""

from dataclasses import dataclass

import numpy as np

from comitia.errors import SeriesError
from comitia.thermodynamics.ensembles import MemberEnsembles
from comitia.thermodynamics.time_series import as_series, error_of_mean, statistical_inefficiency


@dataclass(frozen=True)
class FreeEnergyDifference:
    """F(reference) - F(model).

    Attributes
    ----------
    delta_f : float, eV
    error : float, eV, statistical
    cumulants : (2,) array, eV, first and second: mean of dV, and -beta/2 times its variance
    effective_sample_size : float
    verdict : "reliable", "doubtful" or "unreliable"
    reason : str, one sentence on the verdict
    """

    delta_f: float
    error: float
    cumulants: np.ndarray
    effective_sample_size: float
    verdict: str
    reason: str


def perturb(energy_model, energy_reference, temperature, bias=None):
    r"""Free-energy difference to a reference method, from frames sampled with the model.

    .. math:: \Delta F = -kT \ln \langle e^{-\beta (V_\mathrm{ref} - V_\mathrm{model})} \rangle_\mathrm{model}

    The largest exponent is taken out of the sum and the mean of the differences is added back, so that
    energies of any size lose no digits. Path integrals: give the bead averages of both energies. The same
    constant must be in the reference energies of everything that is compared.

    Parameters
    ----------
    energy_model : (n_frames,) array, eV, of the very coordinates given to the reference
    energy_reference : (n_frames,) array, eV
    temperature : float, K
    bias : (n_frames,) array, eV, or None

    Returns
    -------
    FreeEnergyDifference

    Zwanzig, J. Chem. Phys. 22, 1420 (1954), doi:10.1063/1.1740409.
    """
    model = as_series(energy_model, "the model energies")
    reference = as_series(energy_reference, "the reference energies")
    if model.ndim != 1 or model.shape != reference.shape:
        raise SeriesError(
            f"the model energies have shape {model.shape}, the reference energies {reference.shape}; "
            "give one of each for every frame"
        )
    difference = reference - model
    ensembles = MemberEnsembles(difference, temperature, "direct", np.zeros(len(difference)), bias)
    logarithm, influence = ensembles.exponential_average()
    first = float(ensembles.frame_weights @ difference)
    second = -0.5 * ensembles.beta * float(ensembles.frame_weights @ ensembles.deviation[:, 0] ** 2)
    sample_size = ensembles.effective_sample_size(statistical_inefficiency(influence))
    verdict, reason = ensembles.overlap_verdict(sample_size)
    return FreeEnergyDifference(
        delta_f=first - float(logarithm[0]) / ensembles.beta,
        error=float(error_of_mean(influence[:, 0])) / ensembles.beta,
        cumulants=np.array([first, second]),
        effective_sample_size=float(sample_size[0]),
        verdict=verdict,
        reason=reason,
    )
