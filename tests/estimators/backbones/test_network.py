"""The head: what it makes of an embedding, on a trained backbone and on a frozen one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import softmax
from torch import Tensor, nn

from mmensemble import OnnxPredictor, export_onnx
from mmensemble_estimators import ImageClassifier, ImageRegressor, TextClassifier, TextRegressor
from mmensemble_estimators.backbones.network import Head
from tests.instances import Convolution, WordVectors

TEXTS = ["red apple", "green apple", "fast car", "slow car", "ripe apple", "old car"] * 2
KINDS = ["fruit", "fruit", "vehicle", "vehicle", "fruit", "vehicle"] * 2
PICTURES = [np.random.default_rng(i).integers(0, 256, (32, 32, 3), dtype=np.uint8) for i in range(12)]


class LoudWords(WordVectors):
    """The same features, 1,024 times as large."""

    loudness = 1024.0

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.loudness * super().forward(input_ids, attention_mask)


class QuietWords(LoudWords):
    loudness = 2.0**-10


class Silence(LoudWords):
    loudness = 0.0


def text(cls: Any = TextClassifier, **params: Any) -> Any:
    defaults = {"backbone": WordVectors, "fine_tune": "head", "vocab_size": 300, "max_epochs": 10, "random_state": 0}
    return cls(**{**defaults, **params})


def image(cls: Any = ImageClassifier, **params: Any) -> Any:
    return cls(**{"backbone": Convolution, "fine_tune": "head", "image_size": 32, "random_state": 0, **params})


def state_of(model: Any) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in model.module_.state_dict().items()}


def test_plain_head_is_linear() -> None:
    head = Head(5, 3).eval()
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(head(x), nn.functional.linear(x, head.linear.weight, head.linear.bias))


def test_normalised_head_forgets_how_long_an_embedding_is() -> None:
    head = Head(5, 3, normalised=True).eval()
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    unit = x / x.pow(2).mean(dim=1, keepdim=True).sqrt()
    torch.testing.assert_close(head(x), head.linear(unit))
    for factor in (1e-5, 1e5):
        torch.testing.assert_close(head(factor * x), head(x))
    torch.testing.assert_close(head(torch.zeros(1, 5))[0], head.linear.bias)


def test_head_on_a_frozen_backbone_is_normalised() -> None:
    model = text().fit(TEXTS, KINDS)
    state, embedding = state_of(model), model.transform(TEXTS).astype(float)
    unit = embedding / np.sqrt((embedding**2).mean(axis=1, keepdims=True))
    logits = unit @ state["head.linear.weight"].T + state["head.linear.bias"]
    np.testing.assert_allclose(model.predict_proba(TEXTS), softmax(logits, axis=1), atol=1e-6)


@pytest.mark.parametrize("fine_tune", ["all", "lora"])
def test_head_on_a_trained_backbone_is_not(fine_tune: str) -> None:
    model = text(fine_tune=fine_tune, backbone="gpt", max_epochs=1).fit(TEXTS, KINDS)
    state, embedding = state_of(model), model.transform(TEXTS).astype(float)
    logits = embedding @ state["head.linear.weight"].T + state["head.linear.bias"]
    np.testing.assert_allclose(model.predict_proba(TEXTS), softmax(logits, axis=1), atol=1e-6)


@pytest.mark.parametrize("backbone", [LoudWords, QuietWords])
def test_loud_and_quiet_features_are_learned_alike(backbone: type[nn.Module]) -> None:
    expected = text().fit(TEXTS, KINDS)
    model = text(backbone=backbone).fit(TEXTS, KINDS)
    np.testing.assert_allclose(model.predict_proba(TEXTS), expected.predict_proba(TEXTS), atol=1e-4)
    np.testing.assert_allclose(model.history_["penalty"], expected.history_["penalty"], rtol=1e-4)
    assert expected.predict(TEXTS).tolist() == KINDS


def test_learning_rate_of_a_frozen_backbone_falls_with_the_number_of_features() -> None:
    for make, X, size in ((text, TEXTS, 12), (image, PICTURES, 24)):
        chosen = make().partial_fit(X, KINDS)
        given = make(learning_rate=0.6 / size).partial_fit(X, KINDS)
        other = make(learning_rate=0.5 / size).partial_fit(X, KINDS)
        weights = [state_of(model)["head.linear.weight"] for model in (chosen, given, other)]
        np.testing.assert_array_equal(weights[0], weights[1])
        assert np.abs(weights[0] - weights[2]).max() > 1e-4


def test_head_stays_as_it_is_when_the_backbone_is_trained_afterwards() -> None:
    model = text(warm_start=True).fit(TEXTS, KINDS)
    before = model.predict_proba(TEXTS)
    model.set_params(fine_tune="all", max_epochs=1, learning_rate=1e-9, batch_size=12).fit(TEXTS, KINDS)
    np.testing.assert_allclose(model.predict_proba(TEXTS), before, atol=1e-5)


@pytest.mark.parametrize("backbone", [WordVectors, LoudWords, QuietWords, Silence])
def test_exported_texts(backbone: type[nn.Module], tmp_path: Path) -> None:
    model = text(backbone=backbone).fit(TEXTS, KINDS)
    export_onnx(model, tmp_path / "model.onnx", verify=TEXTS)
    cells = [*TEXTS, "", "another one", None]
    scored = OnnxPredictor(tmp_path / "model.onnx", device="cpu").predict_proba(cells)
    np.testing.assert_allclose(scored, model.predict_proba(cells), rtol=0, atol=1e-5)
    assert (np.ptp(scored[:-1], axis=0).max() > 0.01) == (backbone is not Silence)


NUMBERS = np.linspace(-300.0, 900.0, 12)


@pytest.mark.parametrize(
    ("model", "y"),
    [
        (image(), np.array(KINDS)),
        (image(ImageRegressor), NUMBERS),
        (image(ImageRegressor), np.column_stack([NUMBERS, NUMBERS > 0])),
        (image(), np.column_stack([NUMBERS > 0, NUMBERS > 500]).astype(int)),
        (image(), np.column_stack([KINDS, KINDS[::-1]])),
        (text(TextRegressor), NUMBERS),
    ],
    ids=["classes", "numbers", "number_table", "multilabel", "columns", "numbers_of_texts"],
)
def test_exported_tasks(model: Any, y: np.ndarray, tmp_path: Path) -> None:
    X = TEXTS if isinstance(model, TextRegressor) else PICTURES
    model.fit(X, y)
    export_onnx(model, tmp_path / "model.onnx", verify=X)
    predictor = OnnxPredictor(tmp_path / "model.onnx", device="cpu")
    method = "predict_proba" if hasattr(model, "predict_proba") else "predict"
    ours, theirs = (np.hstack(getattr(m, method)([*X, None])) for m in (predictor, model))
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
