"""Averages with their errors: reweighting to every committee member, correlated data, free-energy profiles."""

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
    "Profile",
    "blocked_errors",
    "equilibration",
    "error_of_mean",
    "profile",
    "reweight",
    "statistical_inefficiency",
]
