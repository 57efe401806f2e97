"""scikit-learn's own checks of estimators, over the text, image, audio and video estimators.

The checks make numeric matrices, and skip an estimator whose tags say that it takes none. So they run on subclasses
whose cells are made of rows of numbers: texts, pictures, sounds, clips. How a matrix is validated (shapes, NaN,
names) is thereby checked of `validate_data`; all else of the estimators. test_common runs what needs no data.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.base import BaseEstimator, clone, is_classifier
from sklearn.utils import Tags, estimator_checks
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor, nn
from transformers import GPT2Config, GPT2Model

from mmensemble_estimators import (
    AudioClassifier,
    AudioRegressor,
    ImageClassifier,
    ImageRegressor,
    TextClassifier,
    TextRegressor,
    VideoClassifier,
    VideoRegressor,
    ZeroShotImageClassifier,
)
from mmensemble_estimators.backbones import network as _network
from mmensemble_estimators.backbones.text import TextEncoder
from tests.instances import Bands, Convolution, contrastive_folder


def texts_of(X: np.ndarray) -> list[str]:
    """Write each number as a letter for its column and its value, 1/2 apart: all texts are equally long."""
    bins = np.clip(np.rint(2 * np.asarray(X, dtype=float)) + 4, 0, 8).astype(int)
    letters = 33 + (9 * np.arange(X.shape[1]) + bins) % 94
    return ["".join(map(chr, row)) for row in letters]


def pictures_of(X: np.ndarray) -> list[np.ndarray]:
    """Draw each number as a grey stripe, -4 black and 4 white."""
    grey = (np.clip(np.asarray(X, dtype=float), -4, 4) * 31 + 127).astype(np.uint8)
    columns = np.arange(32) * X.shape[1] // 32
    return [np.tile(row[columns], (32, 1)) for row in grey]


def sounds_of(X: np.ndarray) -> list[np.ndarray]:
    """Play each number as the loudness of a tone, 4 ten thousand times that of -4."""
    loudness = 10 ** (np.clip(np.asarray(X, dtype=float), -4, 4) / 2) / 100
    pitches = np.geomspace(200, 4000, X.shape[1])[:, None]
    return list(loudness @ np.sin(2 * np.pi * pitches * np.arange(3200) / 16000 + pitches))


class FromNumbers:
    cells_of: Callable[[np.ndarray], list[Any]]

    def learn(self, fit: Callable[..., Any], X: Any, y: Any, *, reset: bool, **more: Any) -> Any:
        X = validate_data(self, X, reset=reset)
        names = getattr(self, "feature_names_in_", None)
        fit(type(self).cells_of(X), y, **more)
        self.n_features_in_ = X.shape[1]
        if names is not None:
            self.feature_names_in_ = names
        return self

    def cells(self, X: Any) -> list[Any]:
        check_is_fitted(self, "module_")
        return type(self).cells_of(validate_data(self, X, reset=False))

    def predict(self, X: Any) -> np.ndarray:
        return super().predict(self.cells(X))

    def transform(self, X: Any) -> np.ndarray:
        return super().transform(self.cells(X))

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = True
        tags.input_tags.one_d_array = False
        tags.input_tags.string = False
        tags.input_tags.allow_nan = False
        return tags


class Trained(FromNumbers):
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        return self.learn(super().fit, X, y, reset=True, sample_weight=sample_weight)

    def partial_fit(self, X: Any, y: Any, **more: Any) -> Any:
        return self.learn(super().partial_fit, X, y, reset=not hasattr(self, "module_"), **more)


class ClassesFromNumbers(FromNumbers):
    def predict_proba(self, X: Any) -> np.ndarray:
        return super().predict_proba(self.cells(X))


class TextClassifierFromNumbers(ClassesFromNumbers, Trained, TextClassifier):
    cells_of = staticmethod(texts_of)


class TextRegressorFromNumbers(Trained, TextRegressor):
    cells_of = staticmethod(texts_of)


class ImageClassifierFromNumbers(ClassesFromNumbers, Trained, ImageClassifier):
    cells_of = staticmethod(pictures_of)


class ImageRegressorFromNumbers(Trained, ImageRegressor):
    cells_of = staticmethod(pictures_of)


class AudioClassifierFromNumbers(ClassesFromNumbers, Trained, AudioClassifier):
    cells_of = staticmethod(sounds_of)


class AudioRegressorFromNumbers(Trained, AudioRegressor):
    cells_of = staticmethod(sounds_of)


def clips_of(X: np.ndarray) -> list[np.ndarray]:
    """Show each picture for two frames."""
    return [np.stack([picture, picture]) for picture in pictures_of(X)]


class VideoClassifierFromNumbers(ClassesFromNumbers, Trained, VideoClassifier):
    cells_of = staticmethod(clips_of)


class VideoRegressorFromNumbers(Trained, VideoRegressor):
    cells_of = staticmethod(clips_of)


class ZeroShotImageClassifierFromNumbers(ClassesFromNumbers, ZeroShotImageClassifier):
    cells_of = staticmethod(pictures_of)

    def __repr__(self, N_CHAR_MAX: int = 700) -> str:
        return f"{type(self).__name__}()"  # the names of tests must not hold a folder that each process draws

    def fit(self, X: Any, y: Any) -> Any:
        return self.learn(super().fit, X, y, reset=True)


class MeanOfFrames(Convolution):
    def forward(self, pixel_values: Tensor) -> Tensor:
        return super().forward(pixel_values.mean(dim=1))


class SmallGPT(TextEncoder):
    def __init__(self) -> None:
        config = GPT2Config(vocab_size=258, n_embd=32, n_layer=1, n_head=2, n_positions=24, use_cache=False)
        super().__init__(GPT2Model(config), 32, attention="causal", pooling="mean")


# The tokenizer's vocabulary is the bytes, so that a letter is a token.
TEXT = {
    "backbone": SmallGPT,
    "vocab_size": 258,
    "subword_dropout": 0.0,
    "max_length": 24,
    "max_epochs": 8,
    "batch_size": 16,
    "learning_rate": 2e-2,
    "random_state": 0,
}
IMAGE = {
    "backbone": Convolution,
    "image_size": 32,
    "augmentation": (),
    "max_epochs": 8,
    "batch_size": 16,
    "learning_rate": 2e-2,
    "random_state": 0,
}
AUDIO = {
    "backbone": Bands,
    "augmentation": (),
    "max_epochs": 8,
    "batch_size": 16,
    "learning_rate": 5e-2,
    "random_state": 0,
}
VIDEO = {**IMAGE, "backbone": MeanOfFrames, "n_frames": 2}
FROM_NUMBERS = [
    TextClassifierFromNumbers(**TEXT),
    TextRegressorFromNumbers(**TEXT),
    ImageClassifierFromNumbers(**IMAGE),
    ImageRegressorFromNumbers(**IMAGE),
    AudioClassifierFromNumbers(**AUDIO),
    AudioRegressorFromNumbers(**AUDIO),
    VideoClassifierFromNumbers(**VIDEO),
    VideoRegressorFromNumbers(**VIDEO),
]

NOT_TRAINED = [ZeroShotImageClassifierFromNumbers(contrastive_folder("clip"))]


def expected_failed_checks(estimator: BaseEstimator) -> dict[str, str]:
    if isinstance(estimator, ZeroShotImageClassifier):
        return {"check_classifiers_train": "nothing is trained, and the names of its classes are 0, 1 and 2"}
    return {
        "check_sample_weight_equivalence_on_dense_data": (
            "dropout and the shuffled batches draw other random numbers for other rows; "
            "test_weight_equals_repeated_rows runs this check without them"
        ),
    }


# They compare to 1e-7. A network computes in float32, and the last bits depend on the rows beside a row.
TO_FLOAT32 = [
    estimator_checks.check_methods_sample_order_invariance,
    estimator_checks.check_methods_subset_invariance,
]


def assert_close_in_float32(x: Any, y: Any, *args: Any, err_msg: str = "", **tolerances: Any) -> None:
    np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6, err_msg=err_msg)


# The multi-modal estimators take a frame of named columns, for which scikit-learn has no checks: see test_common.
@parametrize_with_checks(FROM_NUMBERS + NOT_TRAINED, expected_failed_checks=expected_failed_checks)
def test_check(estimator: BaseEstimator, check: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch) -> None:
    if check.func in TO_FLOAT32:  # type: ignore[attr-defined]
        for name in ("assert_allclose", "assert_allclose_dense_sparse"):
            monkeypatch.setattr(estimator_checks, name, assert_close_in_float32)
    check(estimator)


class WordSum(nn.Module):
    """Without dropout, and without statistics of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.vectors = nn.Embedding(258, 8)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return (self.vectors(input_ids) * attention_mask.unsqueeze(-1)).sum(dim=1)


class Pixels(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 8, stride=8)

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.layer(pixel_values)


class Frames(Pixels):
    def forward(self, pixel_values: Tensor) -> Tensor:
        return super().forward(pixel_values.mean(dim=1))


@pytest.mark.parametrize("estimator", FROM_NUMBERS, ids=lambda estimator: type(estimator).__name__)
def test_weight_equals_repeated_rows(estimator: BaseEstimator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_network, "HEAD_DROPOUT", 0.0)
    # The head that a training starts from is solved with a penalty chosen on folds, which repeated rows fall into anew.
    monkeypatch.setattr(type(estimator), "_starts_solved", False)
    backbone = {"text": WordSum, "image": Pixels, "audio": Bands, "video": Frames}[estimator.modality.name]
    # One batch holds all rows. A high rate makes any difference plain.
    estimator = clone(estimator).set_params(backbone=backbone, batch_size=1000, learning_rate=0.1, warmup_fraction=0.0)
    rng = np.random.RandomState(0)
    X, y, weight = rng.randn(20, 5), rng.randint(0, 3, 20), rng.randint(0, 4, 20)
    weighted = clone(estimator).fit(X, y, sample_weight=weight)
    repeated = clone(estimator).fit(X.repeat(weight, axis=0), y.repeat(weight))
    unweighted = clone(estimator).fit(X, y)
    method = "predict_proba" if is_classifier(estimator) else "predict"
    expected = getattr(repeated, method)(X)
    np.testing.assert_allclose(getattr(weighted, method)(X), expected, rtol=1e-3, atol=1e-4)
    assert np.abs(getattr(unweighted, method)(X) - expected).max() > 0.02
