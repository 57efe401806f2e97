"""What a fitted composition makes of its modalities: importances, contributions, disagreement, calibration.

Functions that return arrays and frames; the figures of them are `mmensemble.plotting`'s Displays. What looks into a
network, token by token or pixel by pixel, is in `mmensemble_estimators.inspection`. Imports scikit-learn, no torch.
"""

from mmensemble.inspection.calibration import expected_calibration_error, reliability_curve
from mmensemble.inspection.disagreement import member_disagreement, pairwise_disagreement
from mmensemble.inspection.importance import modality_importance
from mmensemble.inspection.missing import missing_modality_curve
from mmensemble.inspection.shapley import modality_shapley

__all__ = [
    "expected_calibration_error",
    "member_disagreement",
    "missing_modality_curve",
    "modality_importance",
    "modality_shapley",
    "pairwise_disagreement",
    "reliability_curve",
]
