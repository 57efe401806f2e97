"""Pretrained networks that installed packages carry in a form of their own. Nothing is downloaded."""

from __future__ import annotations

# Pickles of image classifiers name EfficientNetFeatures.
from mmensemble_estimators.packaged.weights import EfficientNetFeatures as EfficientNetFeatures
from mmensemble_estimators.packaged.weights import efficientnet_lite0, smollm2_folder, whisper_folder, wordllama_folder

__all__ = ["efficientnet_lite0", "smollm2_folder", "whisper_folder", "wordllama_folder"]
