"""The Displays of `mmensemble.inspection`'s results: what is drawn is what was computed."""

from __future__ import annotations

import sys
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.svm import LinearSVC

from mmensemble import (
    ConfigurationError,
    MemberDisagreementDisplay,
    MissingDependencyError,
    MissingModalityDisplay,
    ModalityImportanceDisplay,
    ModalityShapleyDisplay,
    MultimodalClassifier,
    ReliabilityDisplay,
    expected_calibration_error,
    member_disagreement,
    missing_modality_curve,
    modality_importance,
    modality_shapley,
)
from mmensemble.plotting._pyplot import score_name

RNG = np.random.default_rng(0)
CODES = RNG.integers(0, 3, 60)
Y = np.array(["apple", "pear", "plum"])[CODES]
X = pd.DataFrame({"shape": CODES + RNG.normal(0, 0.5, 60), "size": RNG.normal(0, 1.0, 60) - CODES})


@pytest.fixture(autouse=True)
def _close_figures() -> Any:
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def model() -> MultimodalClassifier:
    members = [(name, LogisticRegression(), [name]) for name in X.columns]
    return MultimodalClassifier(members).fit(X, Y)


def draw(display: Any) -> None:
    """Draw for real, so that warnings of the layout are errors."""
    display.figure_.canvas.draw()


def test_importances_as_boxes(model: MultimodalClassifier) -> None:
    display = ModalityImportanceDisplay.from_estimator(model, X, Y, n_repeats=5, random_state=0)
    result = modality_importance(model, X, Y, n_repeats=5, random_state=0)
    order = np.argsort(result.importances_mean)
    medians = [line.get_xdata()[0] for line in display.boxes_["medians"]]
    np.testing.assert_allclose(medians, np.median(result.importances, axis=1)[order])
    assert [label.get_text() for label in display.ax_.get_yticklabels()] == [result.names[i] for i in order]
    assert display.ax_.get_xlabel() == "Decrease in accuracy when shuffled"
    assert display.figure_.axes == [display.ax_]
    draw(display)
    _, ax = plt.subplots()
    display = ModalityImportanceDisplay.from_estimator(model, X, Y, scoring="neg_log_loss", n_repeats=1, ax=ax)
    assert display.ax_ is ax
    assert ax.get_xlabel() == "Decrease in neg log loss when shuffled"


def test_names_of_scores() -> None:
    assert score_name(LinearRegression(), None) == "R²"
    assert score_name(LinearRegression(), len) == score_name(object(), len) == "score"


def test_shapley_values_as_bars(model: MultimodalClassifier) -> None:
    display = ModalityShapleyDisplay.from_estimator(model, X)
    result = modality_shapley(model, X)
    widths = [[bar.get_width() for bar in bars] for bars in display.bars_]
    np.testing.assert_allclose(widths, np.abs(result.shapley_values).mean(axis=0))
    assert [label.get_text() for label in display.ax_.get_yticklabels()] == ["apple", "pear", "plum"]
    assert [text.get_text() for text in display.ax_.get_legend().get_texts()] == ["shape", "size"]
    draw(display)
    display.plot(output="pear")
    assert [[bar.get_width() for bar in bars] for bars in display.bars_] == [[w[1]] for w in widths]


@pytest.mark.parametrize("output", [None, "plum", -1])
def test_shapley_values_as_points(model: MultimodalClassifier, output: Any) -> None:
    display = ModalityShapleyDisplay.from_estimator(model, X, kind="beeswarm", output=output)
    result = modality_shapley(model, X)
    chosen = result.predictions.argmax(axis=1) if output is None else np.full(len(X), 2)
    for number, points in enumerate(display.points_):
        drawn = points.get_offsets()
        np.testing.assert_allclose(drawn[:, 0], result.shapley_values[np.arange(len(X)), number, chosen])
        assert np.abs(drawn[:, 1] - number).max() < 0.4
        np.testing.assert_allclose(points.get_array(), result.predictions[np.arange(len(X)), chosen])
    draw(display)


def test_equal_shapley_values_lie_side_by_side() -> None:
    display = ModalityShapleyDisplay(np.zeros((50, 1, 1)), np.ones((50, 1)), ["text"], ["price"]).plot(kind="beeswarm")
    heights = display.points_[0].get_offsets()[:, 1]
    assert len(set(heights.round(6).tolist())) == 50
    draw(display)


def test_shapley_display_says_what_cannot_work() -> None:
    display = ModalityShapleyDisplay(np.zeros((2, 1, 1)), np.ones((2, 1)), ["text"], ["price"])
    with pytest.raises(ConfigurationError, match="kind"):
        display.plot(kind="violin")
    for output in ("weight", 1, -2):
        with pytest.raises(ConfigurationError, match="there is no output"):
            display.plot(output=output)


def test_disagreement_as_a_heat_map(model: MultimodalClassifier) -> None:
    display = MemberDisagreementDisplay.from_estimator(model, X, Y, measure="q_statistic")
    pairwise = member_disagreement(model, X, Y).pairwise
    wanted = [f"{value:.2f}" for value in pairwise["q_statistic"]]
    assert [text.get_text() for text in display.text_] == wanted  # size-shape, ensemble-shape, ensemble-size
    assert [label.get_text() for label in display.ax_.get_xticklabels()] == ["shape", "size"]
    assert [label.get_text() for label in display.ax_.get_yticklabels()] == ["size", "ensemble"]
    draw(display)
    _, ax = plt.subplots()
    again = MemberDisagreementDisplay(pairwise).plot(ax, colorbar=False)
    assert ax.get_title() == "Disagreement"
    assert again.im_.get_array()[1, 0] == pairwise["disagreement"][1]
    with pytest.raises(ConfigurationError, match="those of errors need y"):
        MemberDisagreementDisplay.from_estimator(model, X, measure="q_statistic")


def test_a_measure_that_is_not_defined_is_drawn_as_such() -> None:
    display = MemberDisagreementDisplay.from_predictions(
        {"a rather long name": ["x", "y"], "b": ["x", "y"]}, ["x", "y"], measure="error_correlation"
    )
    assert [text.get_text() for text in display.text_] == ["n/a"]
    draw(display)


def test_reliability(model: MultimodalClassifier) -> None:
    display = ReliabilityDisplay.from_estimator(model, X, Y, n_bins=5)
    error = expected_calibration_error(Y, model.predict_proba(X), n_bins=5)
    assert display.line_.get_label() == f"MultimodalClassifier (ECE {error:.3f})"
    filled = display.curve.weight > 0
    np.testing.assert_array_equal(display.line_.get_xdata(), display.curve.confidence[filled])
    np.testing.assert_array_equal(display.line_.get_ydata(), display.curve.accuracy[filled])
    assert display.histogram_ax_ is not None
    heights, edges, _ = display.histogram_ax_.patches[0].get_data()
    np.testing.assert_array_equal(heights * len(X), display.curve.weight)
    np.testing.assert_array_equal(edges, display.curve.bin_edges)
    draw(display)


def test_reliability_of_two_models_in_one_figure(model: MultimodalClassifier) -> None:
    first = ReliabilityDisplay.from_estimator(model, X, Y, name="both")
    shape = model.named_estimators_["shape"]
    second = ReliabilityDisplay.from_predictions(
        Y,
        shape.predict_proba(X[["shape"]]),
        classes=model.classes_,
        name="shape",
        ax=first.ax_,
        histogram_ax=first.histogram_ax_,
        strategy="quantile",
    )
    labels = [text.get_text().split(" (")[0] for text in first.ax_.get_legend().get_texts()]
    assert labels == ["calibrated", "both", "shape"]
    assert first.histogram_ax_ is not None
    tallest = max(patch.get_data().values.max() for patch in first.histogram_ax_.patches)
    assert first.histogram_ax_.get_ylim()[1] > tallest
    assert len(plt.get_fignums()) == 1
    alone = second.plot(plt.subplots()[1], name="again")
    assert alone.histogram_ax_ is None
    assert alone.ax_.get_xlabel() == "Confidence"


def test_reliability_wants_probabilities_of_one_column() -> None:
    with pytest.raises(NotFittedError):
        ReliabilityDisplay.from_estimator(LogisticRegression(), X, Y)
    with pytest.raises(ConfigurationError, match="LinearSVC has no predict_proba"):
        ReliabilityDisplay.from_estimator(LinearSVC().fit(X, Y), X, Y)


def test_missing_modality_curve(model: MultimodalClassifier) -> None:
    display = MissingModalityDisplay.from_estimator(model, X, Y, fractions=[0, 0.5, 1], random_state=0)
    curve = missing_modality_curve(model, X, Y, fractions=[0, 0.5, 1], random_state=0)
    for line, scores in zip(display.lines_, curve.scores, strict=True):
        np.testing.assert_array_equal(line.get_xdata(), [0, 0.5, 1])
        np.testing.assert_allclose(line.get_ydata(), scores.mean(axis=1))
    assert [line.get_ydata()[0] for line in display.member_lines_] == list(curve.member_scores.values())
    legend = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert legend == ["without shape", "without size", "shape alone", "size alone"]
    assert display.ax_.get_ylabel() == "Accuracy"
    draw(display)


@pytest.mark.parametrize(
    "make",
    [
        lambda model: ModalityImportanceDisplay.from_estimator(model, X, Y),
        lambda model: ModalityShapleyDisplay.from_estimator(model, X),
        lambda model: MemberDisagreementDisplay.from_estimator(model, X),
        lambda model: ReliabilityDisplay.from_estimator(model, X, Y),
        lambda model: MissingModalityDisplay.from_estimator(model, X, Y),
    ],
)
def test_names_the_extra_that_is_missing(
    make: Any, model: MultimodalClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(MissingDependencyError, match=r"\[plot\]"):
        make(model)
