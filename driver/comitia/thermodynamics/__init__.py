"""Averages with their errors: reweighting to every committee member, correlated data, free energies."""

from comitia.thermodynamics.average import Average, averages
from comitia.thermodynamics.both_ends import perturb_both_ends
from comitia.thermodynamics.checks import check_sampling
from comitia.thermodynamics.corrected import (
    CalibrationTest,
    calibration_test,
    corrected_profile,
    difference,
    difference_of_states,
    reweight_to_reference,
)
from comitia.thermodynamics.moments import MemberMoments
from comitia.thermodynamics.multistate import MultistateEnsemble
from comitia.thermodynamics.observable_models import ModelAverage, combine_models, reweight_models
from comitia.thermodynamics.perturbation import FreeEnergyDifference, perturb
from comitia.thermodynamics.profiles import Profile, profile
from comitia.thermodynamics.resampling import Estimate, bootstrap, error_of_sum, estimate
from comitia.thermodynamics.reweighting import combine, heat_capacity, reweight, reweight_all
from comitia.thermodynamics.selection import stratified_frames, uncorrelated_frames
from comitia.thermodynamics.time_series import (
    block_sums,
    blocked_errors,
    equilibration,
    error_of_mean,
    statistical_inefficiency,
)

__all__ = [
    "Average",
    "CalibrationTest",
    "Estimate",
    "FreeEnergyDifference",
    "MemberMoments",
    "ModelAverage",
    "MultistateEnsemble",
    "Profile",
    "averages",
    "block_sums",
    "blocked_errors",
    "bootstrap",
    "calibration_test",
    "check_sampling",
    "combine",
    "combine_models",
    "corrected_profile",
    "difference",
    "difference_of_states",
    "equilibration",
    "error_of_mean",
    "error_of_sum",
    "estimate",
    "heat_capacity",
    "perturb",
    "perturb_both_ends",
    "profile",
    "reweight",
    "reweight_all",
    "reweight_models",
    "reweight_to_reference",
    "statistical_inefficiency",
    "stratified_frames",
    "uncorrelated_frames",
]
