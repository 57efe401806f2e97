"""What the lower rooms ask of estimators, whose classes are made in higher ones."""

from __future__ import annotations

from typing import Any, Protocol

from mmensemble.preprocessing import TextPreprocessor

__all__ = ["EncoderFactory", "LanguageModel", "Leaf", "Predictor", "PromptClassifier", "TrainedLeaf", "Writer"]


class EncoderFactory(Protocol):
    """What a modality knows of networks; see `mmensemble_estimators.base.modality.Modality`."""

    @property
    def name(self) -> str:
        """What the modality is called."""

    def build_encoder(self, estimator: Any, preprocessor: Any) -> Any:
        """Return an untrained, or pretrained, encoder."""

    def rebuild_encoder(self, architecture: dict[str, Any], preprocessor: Any) -> Any:
        """Return an untrained encoder from its saved architecture."""


class Leaf(Protocol):
    """An estimator of one modality around a network."""

    module_: Any
    preprocessor_: Any
    n_features_in_: int
    feature_names_in_: Any
    history_: Any

    def __init__(self, **params: Any) -> None: ...

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters."""


class TrainedLeaf(Leaf, Protocol):
    """An estimator that trains an encoder, or starts from a pretrained one."""

    @property
    def modality(self) -> EncoderFactory:
        """What it reads."""

    backbone: Any
    pretrained: Any
    pooling: str | None

    def cache_stamp(self) -> Any:
        """Return what its encoder depends on beyond parameters; nothing where that is not known."""


class Predictor(TrainedLeaf, Protocol):
    """An estimator that predicts labels or numbers."""

    target_: Any


class Writer(TrainedLeaf, Protocol):
    """An estimator that reads a row and writes a text about it."""

    target_preprocessor_: TextPreprocessor
    start_ids_: Any
    end_ids_: list[int]


class LanguageModel(Leaf, Protocol):
    """An estimator that has learned texts."""

    pretrained: Any
    end_ids_: list[int]


class PromptClassifier(Leaf, Protocol):
    """An estimator that asks a language model for labels."""

    language_model: Any
    language_model_: Any
    classes_: Any
    class_prior_: Any
    bias_: Any
    examples_: list[str]
    label_ids_: list[list[int]]
    prefix_ids_: list[int]
