"""Training: data set, least squares by group, regularisation, committee, calibration, errors."""

from comitia.training.fit import FitResult, fit
from comitia.training.settings import FitSettings
from comitia.training.validation import evaluate_dataset

__all__ = ["FitResult", "FitSettings", "evaluate_dataset", "fit"]
