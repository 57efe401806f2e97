"""Scoring of exported models with ONNX Runtime: no torch, no scikit-learn, no onnx."""

from __future__ import annotations

from mmensemble.files.formats import FileFormat, register_format
from mmensemble.scoring.batching import ScoredWindow
from mmensemble.scoring.engines import Engine, register_engine
from mmensemble.scoring.engines.batch_scorer import BatchScorer
from mmensemble.scoring.engines.dataset import score_dataset
from mmensemble.scoring.file_to_file import generate_file, score_file
from mmensemble.scoring.generation import GenerationSettings
from mmensemble.scoring.manifest import Feed, Manifest
from mmensemble.scoring.predictor import OnnxPredictor
from mmensemble.scoring.report.score_report import ScoreReport

__all__ = [
    "BatchScorer",
    "Engine",
    "Feed",
    "FileFormat",
    "GenerationSettings",
    "Manifest",
    "OnnxPredictor",
    "ScoreReport",
    "ScoredWindow",
    "generate_file",
    "register_engine",
    "register_format",
    "score_dataset",
    "score_file",
]
