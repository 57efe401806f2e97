"""A modality from elsewhere is one class: estimators read it, and are joined, exported and saved with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from torch import Tensor, nn

from mmensemble import ConfigurationError, MultimodalClassifier, OnnxPredictor, export_onnx
from mmensemble.preprocessing import AudioPreprocessor
from mmensemble_estimators import AudioClassifier, ConcatFusion, TextClassifier
from mmensemble_estimators.backbones.encoder import Encoder
from mmensemble_estimators.base.modality import EncodedModality

RATE = 4000
BEATS = [np.sin(2 * np.pi * pitch * np.arange(RATE // 4) / RATE) for pitch in np.linspace(50, 400, 16)]
KINDS = np.array(["calm"] * 8 + ["hasty"] * 8)


class BeatEncoder(Encoder):
    embedding_size = 8
    example_length = 40

    def __init__(self) -> None:
        super().__init__()
        self.filters = nn.Conv1d(1, self.embedding_size, 16, stride=8)

    def forward(self, input_values: Tensor, attention_mask: Tensor) -> Tensor:
        return self.filters(input_values[:, None]).relu().mean(dim=2)

    def architecture(self) -> dict[str, Any]:
        return {}


class Beats(EncodedModality):
    name = "beat"
    learning_rate = 0.02

    def check_parameters(self, estimator: Any) -> None:
        if estimator.sampling_rate != RATE:
            raise ConfigurationError(f"sampling_rate must be {RATE}")

    def fit_preprocessor(self, estimator: Any, cells: Any) -> AudioPreprocessor:
        return AudioPreprocessor(features="waveform", sampling_rate=RATE, max_seconds=0.25)

    def build_encoder(self, estimator: Any, preprocessor: Any) -> BeatEncoder:
        return BeatEncoder()

    def rebuild_encoder(self, architecture: dict[str, Any], preprocessor: Any) -> BeatEncoder:
        return BeatEncoder()


class BeatClassifier(AudioClassifier):
    modality = Beats()


def beats(**params: Any) -> BeatClassifier:
    return BeatClassifier(**{"sampling_rate": RATE, "max_epochs": 3, "random_state": 0, "device": "cpu", **params})


def test_from_fit_to_a_scored_file(tmp_path: Path) -> None:
    model = beats().fit(BEATS, KINDS)
    expected = model.predict_proba([*BEATS, None])
    np.testing.assert_array_equal(expected[-1], [0.5, 0.5])
    export_onnx(model, tmp_path / "model.onnx", verify=BEATS)
    predictor = OnnxPredictor(tmp_path / "model.onnx", device="cpu")
    assert predictor.manifest.columns == ["beat"]
    np.testing.assert_allclose(predictor.predict_proba([*BEATS, None]), expected, atol=1e-5)
    model.save(tmp_path / "model")
    np.testing.assert_array_equal(BeatClassifier.load(tmp_path / "model").predict_proba([*BEATS, None]), expected)


@pytest.mark.parametrize("fine_tune", ["all", "head"])
def test_in_a_joint_fusion(tmp_path: Path, fine_tune: str) -> None:
    X = pd.DataFrame({"beat": BEATS, "note": ["slow", None] * 4 + ["fast", "quick"] * 4})
    members = [
        ("beat", beats(fine_tune=fine_tune), "beat"),
        ("note", TextClassifier(backbone="lstm", vocab_size=300, max_epochs=1), "note"),
    ]
    model = MultimodalClassifier(members, fusion=ConcatFusion(max_epochs=2, random_state=0, device="cpu"))
    export_onnx(model.fit(X, KINDS), tmp_path / "model.onnx", verify=X)
    scored = OnnxPredictor(tmp_path / "model.onnx", device="cpu").predict_proba(X)
    np.testing.assert_allclose(scored, model.predict_proba(X), atol=1e-5)


def test_its_parameters_are_checked() -> None:
    with pytest.raises(ConfigurationError, match="sampling_rate must be 4000"):
        beats(sampling_rate=8000).fit(BEATS, KINDS)
