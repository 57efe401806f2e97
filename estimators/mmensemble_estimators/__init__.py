"""Estimators that train neural networks with torch, and fusion strategies that are trained with them.

The half of mmensemble that needs torch. Fitted here, a model is exported by `mmensemble.export_onnx` and scored by
`mmensemble.OnnxPredictor` without it.
"""

from __future__ import annotations

import mmensemble
from mmensemble._moved import MovedModules
from mmensemble.exceptions import MissingDependencyError

if mmensemble.__file__ is None:
    # An editable install is asked after Python's own finders, to which any folder of that name is a package.
    raise ImportError(
        f"the folder {next(iter(mmensemble.__path__))} hides the package mmensemble from Python that is started beside "
        "it: start it elsewhere, or rename the folder"
    )

try:
    from mmensemble_estimators.audio import AudioClassifier, AudioRegressor
    from mmensemble_estimators.captioning import ImageCaptioner
    from mmensemble_estimators.fusion import (
        AttentionFusion,
        BilinearFusion,
        ConcatFusion,
        CrossAttentionFusion,
        GatedFusion,
    )
    from mmensemble_estimators.image import ImageClassifier, ImageRegressor
    from mmensemble_estimators.language_model import CausalLM
    from mmensemble_estimators.sequence_to_sequence import Seq2SeqGenerator
    from mmensemble_estimators.text import TextClassifier, TextRegressor
    from mmensemble_estimators.video import VideoClassifier, VideoRegressor
    from mmensemble_estimators.zero_shot import ZeroShotTextClassifier
    from mmensemble_estimators.zero_shot_image import ZeroShotImageClassifier

    # Last, for they register how all of these are exported, and what they are recommended for.
    from mmensemble_estimators import onnx as onnx  # isort: skip
    from mmensemble_estimators import recommended as recommended  # isort: skip
except ModuleNotFoundError as error:
    package = (error.name or "").partition(".")[0]
    if package not in {"torch", "transformers", "skorch", "sklearn", "joblib", "pandas"}:
        raise
    raise MissingDependencyError(package, "train") from error

__all__ = [
    "AttentionFusion",
    "AudioClassifier",
    "AudioRegressor",
    "BilinearFusion",
    "CausalLM",
    "ConcatFusion",
    "CrossAttentionFusion",
    "GatedFusion",
    "ImageCaptioner",
    "ImageClassifier",
    "ImageRegressor",
    "Seq2SeqGenerator",
    "TextClassifier",
    "TextRegressor",
    "VideoClassifier",
    "VideoRegressor",
    "ZeroShotImageClassifier",
    "ZeroShotTextClassifier",
]

# Of version 0.1.0.
MovedModules(
    __name__,
    {
        "_joint": "joint.network",
        "_likelihood": "backbones.writers.likelihood",
        "_members": "joint.members",
        "_network": "backbones.network",
        "_targets": "training.targets",
        "backbones.decoders": "backbones.writers.decoders",
        "backbones.generative": "backbones.writers.networks",
        "backbones.sequence_to_sequence": "backbones.writers.encoder_decoder",
    },
).install()
