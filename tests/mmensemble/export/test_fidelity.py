"""How near a file's scores are to the estimator's, on all 1,898 items of OpenMoji: batch sizes, lengths, precisions.

Equal labels means: equal but for rows whose two best classes the estimator itself holds to be as good as equal, within
twice the tolerance. There a difference that is allowed may change the label.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.utils import Bunch

from mmensemble import MultimodalClassifier, OnnxPredictor, SoftVoting, export_onnx
from mmensemble_estimators import ConcatFusion, ImageClassifier, TextClassifier

TOLERANCE = {"fp32": 1e-4, "fp16": 1e-2}
MAX_LENGTH = 24
N_TRAINED = 400


def members() -> list[tuple[str, Any, str]]:
    text = TextClassifier(max_epochs=3, vocab_size=800, max_length=MAX_LENGTH, random_state=0)
    return [("text", text, "name"), ("image", ImageClassifier(image_size=32, max_epochs=3, random_state=0), "picture")]


MODELS = ["text", "image", "late", "joint"]


def all_but_one_slow(fast: str) -> list[Any]:
    return [name if name == fast else pytest.param(name, marks=pytest.mark.slow) for name in MODELS]


@pytest.fixture(scope="module")
def trained(emoji: Bunch, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, Path]]:
    """Name → the estimator, fitted on the first rows of `shuffled`, and its file."""
    frame, target = shuffled(emoji)
    late, joint = (
        MultimodalClassifier(members(), fusion=fusion).fit(frame[:N_TRAINED], target[:N_TRAINED])
        for fusion in (SoftVoting(), ConcatFusion(max_epochs=3, random_state=0))
    )
    models = {"text": late.named_estimators_.text, "image": late.named_estimators_.image, "late": late, "joint": joint}
    folder = tmp_path_factory.mktemp("fidelity")
    for name, model in models.items():
        export_onnx(model, folder / f"{name}.onnx")
    return {name: (model, folder / f"{name}.onnx") for name, model in models.items()}


@pytest.fixture(scope="module")
def of_all_lengths(trained: dict[str, tuple[Any, Path]], emoji: Bunch) -> pd.DataFrame:
    """All rows of `shuffled`, the names cut to 1, 2, …, the most tokens that the model takes, and again."""
    text, _ = trained["text"]
    frame, _ = shuffled(emoji)
    frame["name"] = cut(frame["name"], text)
    lengths = set(text.preprocessor_.encode(frame["name"].tolist()).lengths.tolist())
    assert lengths >= set(range(1, MAX_LENGTH + 1))
    assert len(frame) == 1898
    return frame


def shuffled(emoji: Bunch) -> tuple[pd.DataFrame, np.ndarray]:
    order = np.random.default_rng(0).permutation(len(emoji.frame))
    return emoji.frame.iloc[order].reset_index(drop=True), emoji.target[order].astype(str)


def of(name: str, frame: pd.DataFrame) -> Any:
    return frame[{"text": "name", "image": "picture"}[name]] if name in ("text", "image") else frame


def cut(names: pd.Series, text: TextClassifier) -> pd.Series:
    cells = []
    for row, cell in enumerate(names):
        length, words = 1 + row % MAX_LENGTH, cell + " " + cell
        while text.preprocessor_.encode([words]).lengths[0] > length:
            words = words[: -max(1, len(words) // 20)]
        cells.append(words)
    return pd.Series(cells)


def assert_faithful(expected: np.ndarray, scored: np.ndarray, tolerance: float) -> None:
    np.testing.assert_allclose(scored, expected, rtol=0, atol=tolerance)
    best = np.sort(expected, axis=1)
    decided = best[:, -1] - best[:, -2] > 2 * tolerance
    assert decided.mean() > 0.9
    np.testing.assert_array_equal(scored.argmax(axis=1)[decided], expected.argmax(axis=1)[decided])


@pytest.mark.parametrize("name", MODELS)
def test_scores_and_labels_at_any_batch_size_and_length(
    trained: dict[str, tuple[Any, Path]], of_all_lengths: pd.DataFrame, name: str
) -> None:
    model, path = trained[name]
    X = of(name, of_all_lengths)
    expected = model.predict_proba(X)
    assert np.ptp(expected, axis=0).max() > 0.3, "the rows are told apart"
    for batch_size in (1, 7, 64):
        scored = OnnxPredictor(path, device="cpu", batch_size=batch_size).predict_proba(X)
        assert_faithful(expected, scored, TOLERANCE["fp32"])


@pytest.mark.parametrize("name", all_but_one_slow("joint"))
def test_half_precision(trained: dict[str, tuple[Any, Path]], emoji: Bunch, tmp_path: Path, name: str) -> None:
    model, _ = trained[name]
    X = of(name, shuffled(emoji)[0][:1000])
    manifest = export_onnx(model, tmp_path / "model.onnx", precision="fp16", verify=X)
    assert manifest.parity["n_rows"] == 1000
    assert 0 < manifest.parity["max_abs_difference"] <= TOLERANCE["fp16"] == manifest.parity["tolerance"]
    assert manifest.parity["equal_labels"] > 0.99


@pytest.mark.parametrize("name", all_but_one_slow("late"))
def test_int8_loses_less_than_a_point_on_rows_held_out(
    trained: dict[str, tuple[Any, Path]], emoji: Bunch, tmp_path: Path, name: str
) -> None:
    model, _ = trained[name]
    frame, target = shuffled(emoji)
    if name in ("text", "image"):  # a member has learned the labels' numbers
        target = np.unique(target, return_inverse=True)[1]
    # Which layers stay in float is decided on other rows than those that are counted here.
    held_out, known = slice(N_TRAINED + 400, None), slice(N_TRAINED, N_TRAINED + 400)
    X, y = of(name, frame[held_out]), target[held_out]
    assert len(y) > 1000
    export_onnx(
        model,
        tmp_path / "model.onnx",
        precision="int8",
        verify=of(name, frame[known]),
        verify_y=target[known],
        calibrate=of(name, frame[:200]),
    )
    accuracy = np.mean(OnnxPredictor(tmp_path / "model.onnx", device="cpu").predict(X) == y)
    assert accuracy > model.score(X, y) - 0.01
