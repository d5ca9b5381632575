"""Averages with their errors: reweighting to every committee member, correlated data, free energies."""

from comitia.thermodynamics.perturbation import FreeEnergyDifference, perturb
from comitia.thermodynamics.profiles import Profile, profile
from comitia.thermodynamics.resampling import Estimate, bootstrap, error_of_sum, estimate
from comitia.thermodynamics.reweighting import Average, reweight
from comitia.thermodynamics.time_series import (
    block_sums,
    blocked_errors,
    equilibration,
    error_of_mean,
    statistical_inefficiency,
)

__all__ = [
    "Average",
    "Estimate",
    "FreeEnergyDifference",
    "Profile",
    "block_sums",
    "blocked_errors",
    "bootstrap",
    "equilibration",
    "error_of_mean",
    "error_of_sum",
    "estimate",
    "perturb",
    "profile",
    "reweight",
    "statistical_inefficiency",
]
