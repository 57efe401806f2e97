"""Compositions over the columns of a frame. Imports scikit-learn, no torch."""

from __future__ import annotations

from mmensemble.multimodal.estimators import MultimodalClassifier, MultimodalRegressor
from mmensemble.multimodal.inferring import InferredMembers, infer_members, recommends

__all__ = ["InferredMembers", "MultimodalClassifier", "MultimodalRegressor", "infer_members", "recommends"]
