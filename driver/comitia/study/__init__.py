"""A whole study from one file: fit, sample, reweight, report; a stage is done again only when its inputs changed."""

from comitia.study.runner import run_study
from comitia.study.settings import read_study

__all__ = ["read_study", "run_study"]
