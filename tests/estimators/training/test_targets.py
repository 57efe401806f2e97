"""Kinds of `y`: their losses against formulas, their outputs in numpy and as a graph, and what cannot work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, r2_score
from sklearn.multioutput import MultiOutputClassifier

from mmensemble import ConfigurationError, DataError, MultimodalClassifier, MultimodalRegressor, export_onnx, score_file
from mmensemble.graph import Graph, GraphOperations
from mmensemble.learning.targets import learn_labels, learn_numbers
from mmensemble.preprocessing import TabularPreprocessor
from mmensemble_estimators import TextClassifier, TextRegressor
from mmensemble_estimators.training.loop import _WeightedLoss
from mmensemble_estimators.training.targets import Target, target_from_dict, target_of
from tests.instances import WordVectors

RNG = np.random.default_rng(0)
N = 12
ONES = np.ones(N)
TEXTS = ["red apple", "green apple", "fast car", "slow car"] * 3
KINDS = np.array(["fruit", "fruit", "vehicle", "vehicle"] * 3)
COLOURS = np.array(["red", "green", "none", "none"] * 3)
MATRIX = np.array([[1, 0], [1, 1], [0, 1], [0, 0]] * 3)
TABLE = np.column_stack([np.arange(12.0) + 100, np.tile([0.1, 0.2, 0.3, 0.4], 3)])


def classifier(**params: Any) -> TextClassifier:
    return TextClassifier(**{"backbone": WordVectors, "vocab_size": 300, "max_epochs": 1, "random_state": 0, **params})


def regressor(**params: Any) -> TextRegressor:
    return TextRegressor(**{"backbone": WordVectors, "vocab_size": 300, "max_epochs": 1, "random_state": 0, **params})


def log_softmax(raw: np.ndarray) -> np.ndarray:
    return raw - np.log(np.exp(raw).sum(axis=1, keepdims=True))


def cross_entropy(raw: np.ndarray, codes: np.ndarray, smoothing: float) -> np.ndarray:
    k = raw.shape[1]
    wanted = np.eye(k)[codes] * (1 - smoothing) + smoothing / k
    return -(wanted * log_softmax(raw)).sum(axis=1)


def binary_cross_entropy(raw: np.ndarray, labels: np.ndarray, smoothing: float) -> np.ndarray:
    wanted = np.where(labels == 1, 1 - smoothing / 2, smoothing / 2)
    p = 1 / (1 + np.exp(-raw))
    return -(wanted * np.log(p) + (1 - wanted) * np.log(1 - p)).mean(axis=1)


def class_target(y: Any, weight: np.ndarray) -> tuple[Target, np.ndarray]:
    learned = learn_labels(y, weight)
    return target_of(learned, weight), learned.y


def number_target(y: Any, weight: np.ndarray) -> tuple[Target, np.ndarray]:
    learned = learn_numbers(y, weight)
    return target_of(learned, weight), learned.y


def loss_of(target: Target, y: np.ndarray, raw: np.ndarray, smoothing: float = 0.0) -> np.ndarray:
    return target.loss(smoothing)(torch.tensor(raw), torch.as_tensor(target.encode(y))).numpy()


def targets() -> dict[str, Target]:
    return {
        "classes": class_target(KINDS, ONES)[0],
        "multilabel": class_target(MATRIX, ONES)[0],
        "columns": class_target(np.column_stack([KINDS, COLOURS]), ONES)[0],
        "numbers": number_target(TABLE[:, 0], ONES)[0],
        "number_table": number_target(TABLE, ONES)[0],
    }


every_kind = pytest.mark.parametrize("kind", list(targets()))


# Losses


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy(smoothing: float) -> None:
    target, y = class_target(COLOURS, ONES)
    raw = RNG.normal(size=(N, 3)).astype(np.float32)
    expected = cross_entropy(raw, np.array([2, 0, 1, 1] * 3), smoothing)
    np.testing.assert_allclose(loss_of(target, y, raw, smoothing), expected, rtol=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_binary_cross_entropy(smoothing: float) -> None:
    target, y = class_target(MATRIX, ONES)
    raw = RNG.normal(size=(N, 2)).astype(np.float32)
    np.testing.assert_allclose(loss_of(target, y, raw, smoothing), binary_cross_entropy(raw, MATRIX, smoothing), 1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_losses_of_label_columns_add_up(smoothing: float) -> None:
    target, y = class_target(np.column_stack([KINDS, COLOURS]), ONES)
    raw = RNG.normal(size=(N, 5)).astype(np.float32)
    first = cross_entropy(raw[:, :2], np.array([0, 0, 1, 1] * 3), smoothing)
    second = cross_entropy(raw[:, 2:], np.array([2, 0, 1, 1] * 3), smoothing)
    np.testing.assert_allclose(loss_of(target, y, raw, smoothing), first + second, rtol=1e-5)


def test_squared_error_of_standardised_numbers() -> None:
    weight = np.arange(1.0, N + 1)
    target, y = number_target(TABLE, weight)
    raw = RNG.normal(size=(N, 2)).astype(np.float32)
    mean = (TABLE * weight[:, None]).sum(axis=0) / weight.sum()
    deviation = np.sqrt(((TABLE - mean) ** 2 * weight[:, None]).sum(axis=0) / weight.sum())
    expected = ((raw - (TABLE - mean) / deviation) ** 2).mean(axis=1)
    np.testing.assert_allclose(loss_of(target, y, raw), expected, rtol=1e-4)


def test_weighted_loss() -> None:
    target, y = class_target(COLOURS, ONES)
    raw, weight = RNG.normal(size=(N, 3)).astype(np.float32), RNG.random(N).astype(np.float32)
    loss = _WeightedLoss(target.loss(0.1))(torch.tensor(raw), (torch.tensor(target.encode(y)), torch.tensor(weight)))
    expected = (cross_entropy(raw, target.encode(y), 0.1) * weight).sum() / weight.sum()
    np.testing.assert_allclose(loss.item(), expected, rtol=1e-5)


# Outputs


@every_kind
def test_graph_gives_the_outputs(kind: str) -> None:
    target = targets()[kind]
    raw = (3 * RNG.normal(size=(5, target.n_outputs))).astype(np.float32)
    graph, names = Graph(), [str(number) for number in range(target.n_outputs)]
    value = graph.feed("raw", names, TabularPreprocessor(dict.fromkeys(names, "float")))["features"]
    xp = GraphOperations(graph)
    model = graph.to_model({"scores": (target.activate(xp, xp.of(value)).value, target.n_outputs)})
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(
        session.run(["scores"], {"raw.features": raw})[0], target.outputs(raw), rtol=1e-5, atol=1e-7
    )


@every_kind
def test_dict_round_trip(kind: str) -> None:
    target = targets()[kind]
    again = target_from_dict(target.to_dict())
    raw = RNG.normal(size=(5, target.n_outputs)).astype(np.float32)
    assert type(again) is type(target)
    assert again.task == target.task
    np.testing.assert_array_equal(again.outputs(raw), target.outputs(raw))
    np.testing.assert_array_equal(again.fill, target.fill)


def test_outputs_of_numbers_undo_the_encoding() -> None:
    for y in (TABLE, TABLE[:, 0]):
        target, checked = number_target(y, ONES)
        decoded = target.task.predict(target.outputs(target.encode(checked)))
        assert decoded.shape == y.shape
        np.testing.assert_allclose(decoded, y, rtol=1e-6)


def test_fill_is_the_weighted_mean_of_what_was_fitted() -> None:
    weight = np.array([3.0, 1, 1, 1] * 3)
    np.testing.assert_allclose(class_target(KINDS, weight)[0].fill, [4 / 6, 2 / 6])
    np.testing.assert_allclose(class_target(MATRIX, weight)[0].fill, [4 / 6, 2 / 6])
    columns = np.column_stack([KINDS, COLOURS])
    np.testing.assert_allclose(class_target(columns, weight)[0].fill, [4 / 6, 2 / 6, 1 / 6, 2 / 6, 3 / 6])
    np.testing.assert_allclose(number_target(TABLE[:, 1], weight)[0].fill, [(0.3 + 0.2 + 0.3 + 0.4) / 6])


# Estimators of each kind


def test_probabilities_have_the_forms_of_scikit_learn() -> None:
    columns, numbers = np.column_stack([KINDS, COLOURS]), np.arange(N)[:, None]
    ours = classifier().fit(TEXTS, columns)
    theirs = MultiOutputClassifier(LogisticRegression()).fit(numbers, columns)
    assert [p.shape for p in ours.predict_proba(TEXTS)] == [p.shape for p in theirs.predict_proba(numbers)]
    assert [c.tolist() for c in ours.classes_] == [c.tolist() for c in theirs.classes_]
    assert ours.predict(TEXTS).shape == theirs.predict(numbers).shape
    assert ours.predict(TEXTS).dtype.kind == "U"
    for probabilities in ours.predict_proba(TEXTS):
        np.testing.assert_allclose(probabilities.sum(axis=1), 1)

    multilabel = classifier().fit(TEXTS, MATRIX)
    probabilities = multilabel.predict_proba(TEXTS)
    assert probabilities.shape == (N, 2)
    np.testing.assert_array_equal(multilabel.predict(TEXTS), (probabilities > 0.5).astype(int))


def test_each_kind_is_learned() -> None:
    params = {"max_epochs": 60, "learning_rate": 0.1, "label_smoothing": 0.0}
    for y in (KINDS, MATRIX, np.column_stack([KINDS, COLOURS])):
        assert classifier(**params).fit(TEXTS, y).score(TEXTS, y) == 1.0
    model = regressor(max_epochs=200, learning_rate=0.05)
    y = np.column_stack([np.tile([1e3, 1.1e3, 5e3, 4e3], 3), np.tile([1e-3, -1e-3, 2e-3, 0], 3)])
    assert model.fit(TEXTS, y).score(TEXTS, y) > 0.9
    assert model.fit(TEXTS, y[:, 1]).score(TEXTS, y[:, 1]) > 0.9


def test_score() -> None:
    weight = RNG.random(N)
    other = np.roll(KINDS, 1)
    model = classifier().fit(TEXTS, KINDS)
    assert model.score(TEXTS, other, weight) == accuracy_score(other, model.predict(TEXTS), sample_weight=weight)
    model = classifier().fit(TEXTS, MATRIX)
    right = (model.predict(TEXTS) == MATRIX).all(axis=1)
    assert model.score(TEXTS, MATRIX, weight) == pytest.approx((right * weight).sum() / weight.sum())
    columns = np.column_stack([KINDS, COLOURS])
    model = classifier(max_epochs=3, learning_rate=0.1).fit(TEXTS, columns)
    right = (model.predict(TEXTS) == columns).all(axis=1)
    assert model.score(TEXTS, columns, weight) == pytest.approx((right * weight).sum() / weight.sum())
    with pytest.raises(DataError, match=r"of shape \(12, 2\)"):
        model.score(TEXTS, KINDS)
    model = regressor().fit(TEXTS, TABLE)
    assert model.score(TEXTS, TABLE, weight) == r2_score(TABLE, model.predict(TEXTS), sample_weight=weight)


def test_label_columns_of_several_dtypes() -> None:
    y = pd.DataFrame({"kind": KINDS, "code": np.tile([7, 8, 9, 9], 3), "hot": KINDS == "fruit"})
    model = classifier(max_epochs=60, learning_rate=0.1).fit(TEXTS, y)
    assert [classes.tolist() for classes in model.classes_] == [["fruit", "vehicle"], [7, 8, 9], [False, True]]
    assert model.predict(TEXTS).tolist() == y.to_numpy().tolist()
    assert model.score(TEXTS, y) == 1.0


def test_missing_rows_get_what_the_fitting_rows_had_on_average() -> None:
    columns = classifier().fit(TEXTS, np.column_stack([KINDS, COLOURS])).predict_proba([None])
    np.testing.assert_allclose(columns[0], [[0.5, 0.5]])
    np.testing.assert_allclose(columns[1], [[0.25, 0.5, 0.25]])
    np.testing.assert_allclose(classifier().fit(TEXTS, MATRIX).predict_proba([None]), [[0.5, 0.5]])
    np.testing.assert_allclose(regressor().fit(TEXTS, TABLE).predict([None]), [[105.5, 0.25]])


def test_constant_number() -> None:
    y = np.column_stack([np.full(N, 3.25), np.arange(N)])
    predicted = regressor(max_epochs=60, learning_rate=0.1).fit(TEXTS, y).predict(TEXTS)
    np.testing.assert_allclose(predicted[:, 0], 3.25, atol=0.2)


# What cannot work


def test_one_class() -> None:
    with pytest.raises(DataError, match="one class only"):
        classifier().fit(TEXTS, np.column_stack([KINDS, ["same"] * N]))
    with pytest.raises(DataError, match="one class only"):
        classifier().fit(TEXTS, [True] * N)


@pytest.mark.parametrize(
    "y",
    [
        np.r_[np.nan, np.zeros(N - 1)],
        np.r_[np.inf, np.zeros(N - 1)],
        np.array([np.nan, *KINDS[1:]], dtype=object),
        np.array([[np.nan, "a"], *[["x", "b"]] * (N - 1)], dtype=object),
        pd.Series([np.nan, *range(N - 1)]),
    ],
)
def test_labels_that_are_not_finite(y: Any) -> None:
    with pytest.raises(ValueError, match=r"contains (NaN|infinity)"):
        classifier().fit(TEXTS, y)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_not_finite(value: float) -> None:
    y = TABLE.copy()
    y[3, 1] = value
    with pytest.raises(ValueError, match=r"contains (NaN|infinity)"):
        regressor().fit(TEXTS, y)
    with pytest.raises(ValueError, match=r"contains (NaN|infinity)"):
        regressor().fit(TEXTS, TABLE).partial_fit(TEXTS, y)


def test_labels_that_are_missing_or_of_mixed_types() -> None:
    with pytest.raises(ValueError, match="Unknown label type"):
        classifier().fit(TEXTS, np.array([1, *KINDS[1:]], dtype=object))
    with pytest.raises(DataError, match="row 0: Input y contains NaN"):
        classifier().fit(TEXTS, np.array([None, *KINDS[1:]], dtype=object))
    with pytest.raises(DataError, match="row 0: Input y contains NaN"):
        classifier().fit(TEXTS, np.array([[None, "a"], *[["x", "b"]] * (N - 1)], dtype=object))


@pytest.mark.parametrize("kind", ["labels", "columns", "numbers"])
def test_the_columns_of_a_frame_name_those_of_a_file_of_scores(kind: str, tmp_path: Path) -> None:
    place = np.arange(N)
    y, scores = {
        "labels": (
            pd.DataFrame({"funny": place % 2, "sad": (place % 3 == 0).astype(int)}),
            ["prediction_funny", "prediction_sad", "probability_funny", "probability_sad"],
        ),
        "columns": (
            pd.DataFrame({"colour": np.where(place % 2, "red", "blue"), "size": place % 2}),
            ["prediction_colour", "prediction_size"]
            + [f"probability_{name}" for name in ("colour_blue", "colour_red", "size_0", "size_1")],
        ),
        "numbers": (
            pd.DataFrame({"price": place / 2, "weight": 1.0 - place}),
            ["prediction_price", "prediction_weight"],
        ),
    }[kind]
    leaf = (regressor() if kind == "numbers" else classifier()).fit(TEXTS, y)
    leaf.save(tmp_path / "saved")
    X = pd.DataFrame({"text": TEXTS})
    composition = MultimodalRegressor if kind == "numbers" else MultimodalClassifier
    X.to_parquet(tmp_path / "texts.parquet")
    for model in (
        type(leaf).load(tmp_path / "saved", backbone=WordVectors),
        composition([("text", FrozenEstimator(leaf), "text")]).fit(X, y),
    ):
        export_onnx(model, tmp_path / "model.onnx")
        score_file(tmp_path / "model.onnx", tmp_path / "texts.parquet", tmp_path / "scores.parquet", overwrite=True)
        assert pq.read_table(tmp_path / "scores.parquet").column_names == [*scores, "error"]


def test_y_of_three_axes() -> None:
    with pytest.raises(ValueError, match="Unknown label type"):
        classifier().fit(TEXTS, np.zeros((N, 2, 2), dtype=int))
    with pytest.raises(ValueError, match="dim 3"):
        regressor().fit(TEXTS, np.zeros((N, 2, 2)))


def test_class_weight_is_for_one_column_of_labels() -> None:
    for y in (MATRIX, np.column_stack([KINDS, COLOURS])):
        with pytest.raises(ConfigurationError, match="class_weight"):
            classifier(class_weight="balanced").fit(TEXTS, y)


@pytest.mark.parametrize(
    ("fitted_to", "further", "message"),
    [
        (KINDS, ["robot"] * N, "'robot', which is not among the classes"),
        (KINDS, MATRIX, "1d array"),
        (MATRIX, np.ones((N, 3), dtype=int), "0/1 matrix of 2 columns"),
        (MATRIX, 2 * MATRIX, "0/1 matrix of 2 columns"),
        (np.column_stack([KINDS, COLOURS]), KINDS, "2 columns of labels"),
        (np.column_stack([KINDS, COLOURS]), np.column_stack([COLOURS, KINDS]), "not among the classes"),
    ],
)
def test_further_labels_of_another_form(fitted_to: np.ndarray, further: Any, message: str) -> None:
    model = classifier().fit(TEXTS, fitted_to)
    with pytest.raises(ValueError, match=message):
        model.partial_fit(TEXTS, further)


@pytest.mark.parametrize(("fitted_to", "further"), [(TABLE, TABLE[:, 0]), (TABLE[:, 0], TABLE), (TABLE, TABLE[:, :1])])
def test_further_numbers_of_another_form(fitted_to: np.ndarray, further: np.ndarray) -> None:
    model = regressor().fit(TEXTS, fitted_to)
    with pytest.raises(DataError, match="y must be of shape"):
        model.partial_fit(TEXTS, further)
