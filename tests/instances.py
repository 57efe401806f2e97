"""One list of small estimators and compositions. The common checks, and whatever else holds for all, run over it.

Each network stands in it alone, and those that are the default in a few compositions too. Members of the others, which
are there for how they are joined, have networks that are fitted and exported in a fraction of the time.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier, StackingClassifier, VotingClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from torch import Tensor, nn
from transformers import (
    ASTConfig,
    ConvNextConfig,
    DistilBertConfig,
    TimesformerConfig,
    VideoMAEConfig,
    Wav2Vec2Config,
    WhisperConfig,
)

from mmensemble import (
    ColumnSelector,
    EnsembleSelection,
    HardVoting,
    LinearFusion,
    LogOpinionPool,
    MultimodalClassifier,
    MultimodalRegressor,
    ProductOfExperts,
    SoftVoting,
    Stacking,
    SuperLearner,
    on_column,
)
from mmensemble_estimators import (
    AttentionFusion,
    AudioClassifier,
    AudioRegressor,
    BilinearFusion,
    CausalLM,
    ConcatFusion,
    CrossAttentionFusion,
    GatedFusion,
    ImageCaptioner,
    ImageClassifier,
    ImageRegressor,
    Seq2SeqGenerator,
    TextClassifier,
    TextRegressor,
    VideoClassifier,
    VideoRegressor,
    ZeroShotImageClassifier,
    ZeroShotTextClassifier,
)
from tests.contrastive_folder import save_contrastive_folder
from tests.static_folder import save_static_folder

NUMBERS = ["length", "brightness"]

TargetKind = Literal["classes", "multilabel", "columns", "numbers", "number_table", "texts"]


def multilabel(labels: np.ndarray) -> np.ndarray:
    return np.column_stack([labels == "Flags", np.isin(labels, ["Flags", "Symbols"]), labels != "Symbols"]).astype(int)


def columns(labels: np.ndarray) -> np.ndarray:
    return np.column_stack([labels, np.where(np.isin(labels, ["Flags", "Symbols"]), "thing", "being")])


def numbers_of(labels: np.ndarray) -> np.ndarray:
    return 200.0 + 35.0 * np.unique(labels, return_inverse=True)[1]


def number_table(labels: np.ndarray) -> np.ndarray:
    return np.column_stack([numbers_of(labels), 0.01 * (labels == "Flags")])


# Labels of `items`, four classes of str → y.
TARGETS: dict[TargetKind, Callable[[np.ndarray], np.ndarray]] = {
    "classes": lambda labels: labels,
    "multilabel": multilabel,
    "columns": columns,
    "numbers": numbers_of,
    "number_table": number_table,
    "texts": lambda labels: labels,
}

# Folders that instances refer to, which are removed with it.
_places: list[tempfile.TemporaryDirectory[str]] = []

# Bytes of a text that are compared.
WRITTEN_BYTES = 32


@dataclass(frozen=True)
class Instance:
    """An estimator and what it takes.

    `columns` are the columns of `items` that it reads. A leaf takes the cells of its one column. `target` is the kind
    of `y` that it is fitted to. `not_exported` are the columns of members whose weight is 0. `expected_failures` maps
    the name of a common check to the reason why it fails.
    """

    id: str
    make: Callable[[], Any]
    columns: tuple[str, ...]
    takes: Literal["cells", "frame"] = "frame"
    target: TargetKind = "classes"
    not_exported: tuple[str, ...] = ()
    expected_failures: dict[str, str] = field(default_factory=dict)

    @property
    def exported_columns(self) -> list[str]:
        """The columns that the exported model reads."""
        return [column for column in self.columns if column not in self.not_exported]

    def of(self, items: Any) -> Any:
        """Return what the estimator takes of the items."""
        return items[self.columns[0]] if self.takes == "cells" else items

    def y(self, labels: np.ndarray) -> np.ndarray:
        """Return what the estimator is fitted to, made of the labels of the items."""
        return TARGETS[self.target](labels)

    @property
    def has_classes(self) -> bool:
        """Whether it predicts labels with probabilities."""
        return self.target in ("classes", "multilabel", "columns")

    def predict(self, model: Any, X: Any) -> np.ndarray:
        """Return what the estimator, or its exported model, predicts; of one that writes, greedy texts."""
        if self.target != "texts":
            predicted: np.ndarray = model.predict(X)
            return predicted
        texts: np.ndarray = model.generate(X, max_new_tokens=6, temperature=0)[:, 0]
        return texts

    def scores(self, model: Any, X: Any) -> np.ndarray:
        """Return what the estimator, or its exported model, predicts as (n, width) numbers.

        Those are probabilities, or the numbers that are predicted, or the bytes of what is written.
        """
        if self.target == "texts":
            written = ["\0" if text is None else text for text in self.predict(model, X)]
            padded = [text.encode()[:WRITTEN_BYTES].ljust(WRITTEN_BYTES) for text in written]
            return np.frombuffer(b"".join(padded), dtype=np.uint8).reshape(-1, WRITTEN_BYTES).astype(np.float64)
        if self.target in ("numbers", "number_table"):
            predicted = model.predict(X)
            assert predicted.ndim == 1 + (self.target == "number_table")
            return predicted if predicted.ndim == 2 else predicted[:, None]
        probabilities = model.predict_proba(X)
        assert isinstance(probabilities, list) == (self.target == "columns")
        return np.hstack(probabilities) if isinstance(probabilities, list) else probabilities


def text() -> TextClassifier:
    return TextClassifier(max_epochs=1, vocab_size=400, max_length=24, random_state=0)


def image() -> ImageClassifier:
    return ImageClassifier(image_size=32, max_epochs=1, random_state=0)


def audio() -> AudioClassifier:
    return AudioClassifier(max_epochs=1, max_seconds=0.6, random_state=0)


def video() -> VideoClassifier:
    return VideoClassifier(n_frames=4, image_size=32, max_epochs=1, random_state=0)


def language_model(**params: Any) -> CausalLM:
    settings = {"n_layers": 1, "embedding_size": 16, "vocab_size": 300, "max_length": 48}
    return CausalLM(max_epochs=1, random_state=0, **{**settings, **params})


def translator(**params: Any) -> Seq2SeqGenerator:
    settings = {"max_epochs": 1, "vocab_size": 300, "max_length": 48, "random_state": 0}
    return Seq2SeqGenerator(**{**settings, **params})


@cache
def fitted_translator() -> FrozenEstimator:
    return FrozenEstimator(
        translator().fit(pd.Series(["red apple", "green pear"] * 4, name="name"), ["roter Apfel", "grüne Birne"] * 4)
    )


def captioner(**params: Any) -> ImageCaptioner:
    settings = {"image_size": 32, "max_epochs": 1, "vocab_size": 300, "max_length": 16, "random_state": 0}
    return ImageCaptioner(**{**settings, **params})


@cache
def fitted_captioner() -> FrozenEstimator:
    pictures = [np.full((32, 32), shade, dtype=np.uint8) for shade in (0, 255)]
    return FrozenEstimator(captioner().fit(pd.Series(pictures * 4, name="picture"), ["black", "white"] * 4))


@cache
def fitted_language_model() -> FrozenEstimator:
    texts = ["flag: Germany", "red heart, a symbol", "a cat and other animals", "smiling people"] * 4
    return FrozenEstimator(language_model(learning_rate=1e-2, max_length=160).fit(texts))


def zero_shot(**params: Any) -> ZeroShotTextClassifier:
    return ZeroShotTextClassifier(
        fitted_language_model(), template="{text}: {label}", example_length=24, random_state=0, **params
    )


class WordVectors(nn.Module):
    """A text backbone of one's own: the mean of the tokens' vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.vectors = nn.Embedding(400, 12)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        real = attention_mask.unsqueeze(-1)
        return (self.vectors(input_ids) * real).sum(dim=1) / real.sum(dim=1)


class Convolution(nn.Module):
    """An image backbone of one's own, whose output is a map of 6 × 2 × 2."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 6, 8, stride=8), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2))

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.layers(pixel_values)


class Bands(nn.Module):
    """An audio backbone of one's own: the mean over the real frames."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 6)

    def forward(self, input_features: Tensor, attention_mask: Tensor) -> Tensor:
        real = attention_mask.unsqueeze(-1)
        return (self.layer(input_features).relu() * real).sum(dim=1) / real.sum(dim=1)


class Changes(nn.Module):
    """A video backbone of one's own: the mean of each quarter of the frames, and how much it changes."""

    def forward(self, pixel_values: Tensor) -> Tensor:
        quarters = pixel_values.unflatten(4, (2, -1)).unflatten(3, (2, -1)).mean(dim=(4, 6)).flatten(2)
        return torch.cat([quarters.mean(dim=1), quarters[:, -1] - quarters[:, 0]], dim=1)


def distilbert() -> DistilBertConfig:
    return DistilBertConfig(dim=16, hidden_dim=32, n_heads=2, n_layers=1, max_position_embeddings=24)


def convnext() -> ConvNextConfig:
    return ConvNextConfig(num_channels=3, hidden_sizes=[8, 12], depths=[1, 1], num_stages=2, image_size=32)


def ast() -> ASTConfig:
    return ASTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_length=60,
        num_mel_bins=40,
        frequency_stride=12,
    )


def whisper() -> WhisperConfig:
    return WhisperConfig(
        d_model=16, encoder_layers=1, encoder_attention_heads=2, encoder_ffn_dim=32, num_mel_bins=40,
        max_source_positions=40, decoder_layers=1, decoder_attention_heads=2, decoder_ffn_dim=16,
    )  # fmt: skip


def wav2vec2() -> Wav2Vec2Config:
    return Wav2Vec2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, conv_dim=(8, 8),
        conv_kernel=(10, 4), conv_stride=(8, 8), num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2,
    )  # fmt: skip


def videomae() -> VideoMAEConfig:
    return VideoMAEConfig(
        image_size=32, patch_size=16, num_frames=4, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32,
    )  # fmt: skip


def timesformer() -> TimesformerConfig:
    return TimesformerConfig(
        image_size=32, patch_size=16, num_frames=4, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32,
    )  # fmt: skip


@cache
def static_folder() -> str:
    """A folder that is there until the process ends, in a place of its own."""
    place = tempfile.TemporaryDirectory(prefix="static-")
    _places.append(place)
    return save_static_folder(Path(place.name, "static"), "weights", "mapping", normalize=True)


@cache
def contrastive_folder(kind: str) -> str:
    """A folder of a tiny CLIP or SigLIP that is there until the process ends, in a place of its own."""
    place = tempfile.TemporaryDirectory(prefix="contrastive-")
    _places.append(place)
    return save_contrastive_folder(Path(place.name, kind), kind)


def text_of(backbone: Any, **params: Any) -> TextClassifier:
    return text().set_params(backbone=backbone, **params)


def small_text() -> TextClassifier:
    return text_of(WordVectors, learning_rate=0.1)


def image_of(backbone: Any, **params: Any) -> ImageClassifier:
    return image().set_params(backbone=backbone, **params)


def small_image(**params: Any) -> ImageClassifier:
    return image_of(Convolution, learning_rate=0.1, **params)


def audio_of(backbone: Any, **params: Any) -> AudioClassifier:
    return audio().set_params(backbone=backbone, **params)


def video_of(backbone: Any, **params: Any) -> VideoClassifier:
    return video().set_params(backbone=backbone, **params)


def text_regressor(**params: Any) -> TextRegressor:
    return TextRegressor(max_epochs=2, vocab_size=400, max_length=24, random_state=0, **params)


def image_regressor(**params: Any) -> ImageRegressor:
    return ImageRegressor(image_size=32, max_epochs=2, random_state=0, **params)


def small_image_regressor() -> ImageRegressor:
    return image_regressor(backbone=Convolution, learning_rate=0.1)


def audio_regressor(**params: Any) -> AudioRegressor:
    return AudioRegressor(max_epochs=2, max_seconds=0.6, random_state=0, **params)


def video_regressor(**params: Any) -> VideoRegressor:
    return VideoRegressor(max_epochs=2, n_frames=4, image_size=32, random_state=0, **params)


def numbers(final: Any = None) -> Pipeline:
    return make_pipeline(StandardScaler(), LogisticRegression() if final is None else final)


def imputed_numbers() -> Pipeline:
    return make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression())


def multimodal(fusion: Any = None) -> MultimodalClassifier:
    members = [("text", text(), "name"), ("image", image(), "picture"), ("facts", numbers(), NUMBERS)]
    return MultimodalClassifier(members, fusion=fusion)


def small_multimodal(fusion: Any) -> MultimodalClassifier:
    members = [("text", small_text(), "name"), ("image", small_image(), "picture"), ("facts", numbers(), NUMBERS)]
    return MultimodalClassifier(members, fusion=fusion)


def multimodal_of_labels(fusion: Any, linear: Any) -> MultimodalClassifier:
    """Two members that can learn several labels, or several columns of labels."""
    return MultimodalClassifier([("text", small_text(), "name"), ("facts", numbers(linear), NUMBERS)], fusion=fusion)


def pictures_and_facts() -> MultimodalClassifier:
    return MultimodalClassifier([("image", small_image(), "picture"), ("facts", numbers(), NUMBERS)])


def regressors(fusion: Any) -> MultimodalRegressor:
    members = [
        ("text", text_regressor(backbone=WordVectors, learning_rate=0.1), "name"),
        ("image", small_image_regressor(), "picture"),
        ("facts", numbers(Ridge()), NUMBERS),
    ]
    return MultimodalRegressor(members, fusion=fusion)


def nested() -> MultimodalClassifier:
    inner = pictures_and_facts()
    return MultimodalClassifier(
        [("inner", inner, ["picture", *NUMBERS]), ("forest", forest(), NUMBERS)], fusion=SoftVoting(weights=[3, 1])
    )


def forest() -> RandomForestClassifier:
    return RandomForestClassifier(n_estimators=5, max_depth=3, random_state=0)


def mixed_columns() -> Pipeline:
    columns = ColumnTransformer(
        [("initial", OneHotEncoder(handle_unknown="ignore"), ["initial"]), ("numbers", StandardScaler(), NUMBERS)]
    )
    return make_pipeline(columns, LogisticRegression())


ALL_COLUMNS = ("name", "picture", *NUMBERS)

_FROZEN = {
    "test_nested_parameters_are_set": "a frozen language model shows no parameters of its own",
    "test_fit_changes_neither_data_nor_parameters": "the language model is fitted before, and is a parameter",
}
_REFUSES_0_ROWS = {"test_no_rows": "scikit-learn's transformers and classifiers refuse 0 rows"}

_FROZEN_STEP = {"test_nested_parameters_are_set": "a frozen estimator shows no parameters of its own"}

INSTANCES = [
    Instance("text", text, ("name",), "cells"),
    Instance("image", image, ("picture",), "cells"),
    Instance("text_bert", lambda: text_of("bert", pooling="max"), ("name",), "cells"),
    Instance("text_lstm", lambda: text_of("lstm", pooling="last"), ("name",), "cells", "columns"),
    Instance("text_config", lambda: text_of(distilbert(), pooling="cls"), ("name",), "cells", "multilabel"),
    Instance("text_callable", small_text, ("name",), "cells"),
    Instance(
        "text_static", lambda: text().set_params(pretrained=static_folder(), fine_tune="head"), ("name",), "cells"
    ),
    Instance("text_regressor", text_regressor, ("name",), "cells", "numbers"),
    Instance("text_regressor_of_two", lambda: text_regressor(backbone="lstm"), ("name",), "cells", "number_table"),
    Instance("image_vit", lambda: image_of("vit", pooling="cls"), ("picture",), "cells", "multilabel"),
    Instance("image_config", lambda: image_of(convnext(), pooling="max"), ("picture",), "cells", "columns"),
    Instance(
        "image_callable",
        lambda: small_image(augmentation=("flip", "shift", "crop", "colour")),
        ("picture",),
        "cells",
    ),
    Instance("image_regressor", small_image_regressor, ("picture",), "cells", "numbers"),
    Instance("image_regressor_of_two", lambda: image_regressor(pooling="max"), ("picture",), "cells", "number_table"),
    Instance("audio", audio, ("sound",), "cells"),
    Instance("audio_ast", lambda: audio_of(ast()), ("sound",), "cells", "multilabel"),
    Instance("audio_config", lambda: audio_of(whisper(), pooling="max"), ("sound",), "cells", "columns"),
    Instance(
        "audio_regressor_of_two", lambda: audio_regressor(backbone=wav2vec2()), ("sound",), "cells", "number_table"
    ),
    Instance("video", video, ("clip",), "cells"),
    Instance("video_vit", lambda: video_of("vit", pooling="max", n_frames=2), ("clip",), "cells", "multilabel"),
    Instance("video_config", lambda: video_of(videomae()), ("clip",), "cells", "columns"),
    Instance(
        "video_callable",
        lambda: video_of(Changes, learning_rate=0.1, augmentation=("flip", "shift", "crop", "colour")),
        ("clip",),
        "cells",
    ),
    Instance(
        "video_regressor", lambda: video_regressor(backbone=Changes, learning_rate=0.1), ("clip",), "cells", "numbers"
    ),
    Instance(
        "video_regressor_of_two",
        lambda: video_regressor(backbone=timesformer(), pooling="cls"),
        ("clip",),
        "cells",
        "number_table",
    ),
    Instance("text_on_column", lambda: on_column("name", small_text()), ("name",)),
    Instance("image_on_column", lambda: on_column("picture", small_image()), ("picture",)),
    Instance("soft_voting", lambda: multimodal(SoftVoting(weights=[2, 1, 0.5])), ALL_COLUMNS),
    Instance(
        "stacking",
        lambda: MultimodalClassifier(
            [("text", text(), "name"), ("facts", numbers(), NUMBERS)], fusion=Stacking(LogisticRegression(C=10), cv=2)
        ),
        ("name", *NUMBERS),
    ),
    Instance("concat_fusion", lambda: multimodal(ConcatFusion(random_state=0, modality_dropout=0.2)), ALL_COLUMNS),
    Instance("hard_voting", lambda: small_multimodal(HardVoting(weights=[1, 1.5, 1])), ALL_COLUMNS),
    Instance(
        "product_of_experts",
        lambda: multimodal_of_labels(ProductOfExperts(), OneVsRestClassifier(LogisticRegression())),
        ("name", *NUMBERS),
        target="multilabel",
    ),
    Instance(
        "ensemble_selection",
        lambda: multimodal_of_labels(EnsembleSelection(n_rounds=5, cv=2), MultiOutputClassifier(LogisticRegression())),
        ("name", *NUMBERS),
        target="columns",
    ),
    Instance(
        "stacking_of_labels",
        lambda: multimodal_of_labels(Stacking(cv=2), OneVsRestClassifier(LogisticRegression())),
        ("name", *NUMBERS),
        target="multilabel",
    ),
    Instance(
        "stacking_with_passthrough",
        lambda: regressors(Stacking(cv=2, passthrough=True)),
        ALL_COLUMNS,
        target="number_table",
    ),
    Instance(
        "log_opinion_pool",
        lambda: multimodal_of_labels(LogOpinionPool(cv=2), OneVsRestClassifier(LogisticRegression())),
        ("name", *NUMBERS),
        target="multilabel",
    ),
    Instance(
        "log_opinion_pool_of_columns",
        lambda: multimodal_of_labels(LogOpinionPool(cv=2), MultiOutputClassifier(LogisticRegression())),
        ("name", *NUMBERS),
        target="columns",
    ),
    Instance("log_opinion_pool_of_regressors", lambda: regressors(LogOpinionPool(cv=2)), ALL_COLUMNS, target="numbers"),
    Instance(
        "super_learner",
        lambda: small_multimodal(SuperLearner([SoftVoting(), LogOpinionPool(), Stacking()], cv=2)),
        ALL_COLUMNS,
    ),
    Instance("super_learner_of_regressors", lambda: regressors(SuperLearner(cv=2)), ALL_COLUMNS, target="number_table"),
    Instance(
        "linear_fusion",
        lambda: MultimodalClassifier(
            [
                ("text", text_of(WordVectors, fine_tune="head"), "name"),
                ("image", small_image(fine_tune="head"), "picture"),
                ("facts", numbers(), NUMBERS),
            ],
            fusion=LinearFusion(cv=2),
        ),
        ALL_COLUMNS,
    ),
    Instance("median_of_regressors", lambda: regressors(HardVoting()), ALL_COLUMNS, target="numbers"),
    Instance(
        "attention_fusion", lambda: small_multimodal(AttentionFusion(random_state=0, hidden_size=16)), ALL_COLUMNS
    ),
    Instance(
        "gated_fusion",
        lambda: multimodal_of_labels(GatedFusion(random_state=0), numbers()),
        ("name", *NUMBERS),
        target="columns",
    ),
    Instance("bilinear_fusion", lambda: regressors(BilinearFusion(random_state=0)), ALL_COLUMNS, target="number_table"),
    Instance(
        "cross_attention_fusion",
        lambda: multimodal(CrossAttentionFusion(random_state=0, hidden_size=16, modality_dropout=0.2)),
        ALL_COLUMNS,
    ),
    Instance(
        "cross_attention_fusion_of_sound_and_clip",
        lambda: MultimodalClassifier(
            [("audio", audio_of(whisper()), "sound"), ("video", video_of(videomae()), "clip")],
            fusion=CrossAttentionFusion(random_state=0, hidden_size=16, modality_dropout=0.2),
        ),
        ("sound", "clip"),
    ),
    Instance("nested_with_forest", nested, ("picture", *NUMBERS)),
    # Both members take the same pixels, so that the graph has one input for them.
    Instance(
        "same_column_twice",
        lambda: MultimodalClassifier(
            [("one", small_image(), "picture"), ("other", small_image(random_state=1), "picture")]
        ),
        ("picture",),
    ),
    Instance(
        "mixed_columns",
        lambda: MultimodalClassifier(
            [("mixed", mixed_columns(), ["initial", *NUMBERS]), ("forest", forest(), NUMBERS)], fusion=Stacking(cv=2)
        ),
        ("initial", *NUMBERS),
    ),
    Instance(
        "voting_classifier",
        lambda: VotingClassifier(
            [
                ("text", on_column("name", small_text())),
                ("image", on_column("picture", small_image())),
                ("facts", on_column(NUMBERS, imputed_numbers())),
            ],
            voting="soft",
            weights=[1, 2, 0.5],
        ),
        ALL_COLUMNS,
        expected_failures=_REFUSES_0_ROWS,
    ),
    Instance(
        "stacking_classifier",
        lambda: StackingClassifier(
            [("image", on_column("picture", small_image())), ("facts", on_column(NUMBERS, imputed_numbers()))], cv=2
        ),
        ("picture", *NUMBERS),
        expected_failures={
            **_REFUSES_0_ROWS,
            "test_not_fitted": "scikit-learn's StackingClassifier has no predict before fit: AttributeError",
        },
    ),
    Instance(
        "calibrated",
        lambda: CalibratedClassifierCV(
            pictures_and_facts(),
            cv=2,
        ),
        ("picture", *NUMBERS),
        expected_failures={"test_bad_cell_at_fit": "it fits on folds, whose row numbers are their own"},
    ),
    Instance(
        "pipeline_over_embedding",
        lambda: Pipeline(
            [
                ("column", ColumnSelector("picture")),
                ("embed", small_image()),
                ("scale", StandardScaler()),
                ("classify", LogisticRegression(C=0.1)),
            ]
        ),
        ("picture",),
        expected_failures=_REFUSES_0_ROWS,
    ),
    Instance(
        "pipeline_over_language_model",
        lambda: Pipeline(
            [
                ("column", ColumnSelector("name")),
                ("embed", language_model()),
                ("scale", StandardScaler()),
                ("classify", LogisticRegression(C=0.1)),
            ]
        ),
        ("name",),
        expected_failures=_REFUSES_0_ROWS,
    ),
    Instance(
        "pipeline_over_translator",
        lambda: Pipeline(
            [
                ("column", ColumnSelector("name")),
                ("embed", fitted_translator()),
                ("scale", StandardScaler()),
                ("classify", LogisticRegression(C=0.1)),
            ]
        ),
        ("name",),
        expected_failures={**_REFUSES_0_ROWS, **_FROZEN_STEP},
    ),
    Instance(
        "pipeline_over_captioner",
        lambda: Pipeline(
            [
                ("column", ColumnSelector("picture")),
                ("embed", fitted_captioner()),
                ("scale", StandardScaler()),
                ("classify", LogisticRegression(C=0.1)),
            ]
        ),
        ("picture",),
        expected_failures={**_REFUSES_0_ROWS, **_FROZEN_STEP},
    ),
    Instance("language_model", lambda: language_model(learning_rate=1e-2), ("name",), "cells", "texts"),
    Instance("translator", lambda: translator(max_epochs=6, learning_rate=1e-2), ("name",), "cells", "texts"),
    Instance("captioner", lambda: captioner(max_epochs=6, learning_rate=1e-2), ("picture",), "cells", "texts"),
    Instance(
        "zero_shot_image",
        lambda: ZeroShotImageClassifier(contrastive_folder("clip")),
        ("picture",),
        "cells",
        expected_failures={"test_nested_parameters_are_set": "it has no number to set"},
    ),
    Instance(
        "zero_shot_image_in_super_learner",
        lambda: MultimodalClassifier(
            [
                ("picture", ZeroShotImageClassifier(contrastive_folder("siglip")), "picture"),
                ("facts", numbers(forest()), NUMBERS),
            ],
            fusion=SuperLearner(cv=2),
        ),
        ("picture", *NUMBERS),
    ),
    Instance(
        "text_contrastive",
        lambda: text().set_params(pretrained=contrastive_folder("siglip"), fine_tune="head"),
        ("name",),
        "cells",
    ),
    Instance(
        "image_contrastive",
        lambda: ImageClassifier(pretrained=contrastive_folder("clip"), fine_tune="head", random_state=0),
        ("picture",),
        "cells",
    ),
    Instance("zero_shot", zero_shot, ("name",), "cells", expected_failures=_FROZEN),
    Instance(
        "zero_shot_in_stacking",
        lambda: MultimodalClassifier(
            [("text", zero_shot(n_examples=2), "name"), ("facts", numbers(), NUMBERS)], fusion=Stacking(cv=2)
        ),
        ("name", *NUMBERS),
        expected_failures=_FROZEN,
    ),
    Instance(
        "grid_search",
        lambda: GridSearchCV(
            pictures_and_facts(),
            {"fusion": [SoftVoting(), SoftVoting(weights=[1, 3])]},
            cv=2,
        ),
        ("picture", *NUMBERS),
    ),
]

BY_ID = {instance.id: instance for instance in INSTANCES}
