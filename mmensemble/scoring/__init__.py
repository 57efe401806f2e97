"""Scoring of exported models with ONNX Runtime: no torch, no scikit-learn, no onnx."""

from __future__ import annotations

from mmensemble.scoring.batching import ScoredWindow
from mmensemble.scoring.files import ScoreReport, generate_file, score_file
from mmensemble.scoring.generation import GenerationSettings
from mmensemble.scoring.manifest import Feed, Manifest
from mmensemble.scoring.predictor import OnnxPredictor

__all__ = [
    "Feed",
    "GenerationSettings",
    "Manifest",
    "OnnxPredictor",
    "ScoreReport",
    "ScoredWindow",
    "generate_file",
    "score_file",
]
