"""Potentials: a committee of linear heads on the correlations of a descriptor, and the file that keeps it."""

from comitia.potential.baselines import ZBL
from comitia.potential.evaluator import Evaluator, Predictions
from comitia.potential.model_file import load
from comitia.potential.potential import Potential, Prediction

__all__ = ["ZBL", "Evaluator", "Potential", "Prediction", "Predictions", "load"]
