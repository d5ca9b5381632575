"""Averages with their errors: reweighting to every committee member, correlated data, free energies."""

from comitia.thermodynamics.perturbation import FreeEnergyDifference, perturb
from comitia.thermodynamics.profiles import Profile, profile
from comitia.thermodynamics.reweighting import Average, reweight
from comitia.thermodynamics.time_series import (
    blocked_errors,
    equilibration,
    error_of_mean,
    statistical_inefficiency,
)

__all__ = [
    "Average",
    "FreeEnergyDifference",
    "Profile",
    "blocked_errors",
    "equilibration",
    "error_of_mean",
    "perturb",
    "profile",
    "reweight",
    "statistical_inefficiency",
]
