"""The Display classes, on a made-up history and on a real one."""

from __future__ import annotations

import sys
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression

from mmensemble import ConfigurationError, MissingDependencyError, TrainingCurveDisplay
from mmensemble_estimators import TextClassifier


@pytest.fixture(autouse=True)
def _close_figures() -> Any:
    yield
    plt.close("all")


class Trained(LogisticRegression):
    """An estimator whose training is known."""

    def __init__(self, history: pd.DataFrame) -> None:
        super().__init__()
        self.history_ = history


HISTORY = pd.DataFrame({"epoch": [1, 2, 3], "train_loss": [3.0, 2.0, 1.0], "valid_loss": [3.0, 1.5, 2.0]})


def test_draws_both_losses_and_marks_the_best_epoch() -> None:
    display = TrainingCurveDisplay.from_estimator(Trained(HISTORY))
    assert display.line_.get_xydata().tolist() == [[1, 3], [2, 2], [3, 1]]
    assert display.valid_line_ is not None
    assert display.valid_line_.get_ydata().tolist() == [3.0, 1.5, 2.0]
    assert display.best_line_ is not None
    assert display.best_line_.get_xdata() == [2, 2]
    assert display.figure_.axes == [display.ax_]
    assert (display.ax_.get_xlabel(), display.ax_.get_ylabel()) == ("Epoch", "Loss")
    legend = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert legend == ["Trained, training", "Trained, validation"]


def test_without_a_validation_split_there_is_one_line() -> None:
    display = TrainingCurveDisplay.from_estimator(Trained(HISTORY.drop(columns="valid_loss")), name="small")
    assert display.valid_line_ is None
    assert display.best_line_ is None
    assert [line.get_label() for line in display.ax_.get_lines()] == ["small, training"]


def test_draws_where_and_how_it_is_told() -> None:
    _, ax = plt.subplots()
    first = TrainingCurveDisplay.from_estimator(Trained(HISTORY), ax, color="red")
    second = first.plot(ax=ax, name="again", color="blue")
    assert first.ax_ is second.ax_ is ax
    assert {line.get_color() for line in ax.get_lines()} == {"red", "blue"}
    assert len(plt.get_fignums()) == 1


def test_of_a_real_training() -> None:
    texts, labels = ["red apple", "fast car", "green apple", "slow car"] * 5, ["fruit", "vehicle"] * 10
    clf = TextClassifier(max_epochs=3, vocab_size=300, early_stopping=True, random_state=0).fit(texts, labels)
    display = TrainingCurveDisplay.from_estimator(clf)
    assert display.line_.get_ydata().tolist() == clf.history_["train_loss"].tolist()
    assert display.valid_line_ is not None


def test_wants_a_fitted_estimator_with_a_history() -> None:
    with pytest.raises(NotFittedError):
        TrainingCurveDisplay.from_estimator(TextClassifier())
    with pytest.raises(ConfigurationError, match="LogisticRegression has no history_"):
        TrainingCurveDisplay.from_estimator(LogisticRegression().fit([[0.0], [1.0]], [0, 1]))


def test_a_solved_head_had_no_epochs() -> None:
    clf = TextClassifier(fine_tune="head", vocab_size=300, random_state=0).fit(["red apple", "fast car"], [0, 1])
    with pytest.raises(ConfigurationError, match="the head of TextClassifier was solved, not trained"):
        TrainingCurveDisplay.from_estimator(clf)


def test_names_the_extra_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(MissingDependencyError, match=r"\[plot\]"):
        TrainingCurveDisplay([1], [1.0]).plot()
