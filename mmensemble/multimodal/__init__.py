"""Compositions over the columns of a frame. Imports scikit-learn, no torch."""

from __future__ import annotations

from mmensemble.multimodal.estimators import MultimodalClassifier, MultimodalRegressor

__all__ = ["MultimodalClassifier", "MultimodalRegressor"]
