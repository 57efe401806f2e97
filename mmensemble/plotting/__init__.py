"""Figures, as scikit-learn's Display classes: one to a file. They import matplotlib inside the methods."""

from mmensemble.plotting.disagreement import MemberDisagreementDisplay
from mmensemble.plotting.importance import ModalityImportanceDisplay
from mmensemble.plotting.missing import MissingModalityDisplay
from mmensemble.plotting.reliability import ReliabilityDisplay
from mmensemble.plotting.shapley import ModalityShapleyDisplay
from mmensemble.plotting.training import TrainingCurveDisplay

__all__ = [
    "MemberDisagreementDisplay",
    "MissingModalityDisplay",
    "ModalityImportanceDisplay",
    "ModalityShapleyDisplay",
    "ReliabilityDisplay",
    "TrainingCurveDisplay",
]
