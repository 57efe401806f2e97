"""The comparison of a file with the estimator that it was made of: its own predictions and its own probabilities."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import r2_score

from mmensemble._sklearn import safe_indexing
from mmensemble.exceptions import ConfigurationError, DataError, MmensembleError, ParityError
from mmensemble.export.precision import Precision
from mmensemble.frames import leaf_cells, n_rows
from mmensemble.learning.targets import exact_matches
from mmensemble.scoring.predictor import OnnxPredictor
from mmensemble.tasks import Classification, Regression, Task

__all__ = [
    "Answers",
    "ParityCheck",
    "check_shapes",
    "default_tolerance",
    "differences",
    "equal_labels",
    "flat",
    "has_answer",
    "margins",
    "of_rows",
]


# Rows at most for which an estimator gives NaN, and the file must have an error.
_MOST_WITHOUT_ANSWER = 8


@dataclass(frozen=True)
class Answers:
    """What a model says of rows: `predict`, and `predict_proba` side by side where it has it."""

    predicted: np.ndarray
    scores: np.ndarray | None
    # The shapes of the columns' probabilities where there are several.
    shapes: tuple[tuple[int, ...], ...] = ()

    @classmethod
    def of(cls, model: Any, task: Task, X: Any) -> Answers:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")  # of unknown categories, of logarithms of what is negative, ...
            return cls._of(model, task, X)

    @classmethod
    def _of(cls, model: Any, task: Task, X: Any) -> Answers:
        predicted = np.asarray(model.predict(X))
        if isinstance(task, Classification):
            predicted = predicted.reshape(len(predicted))  # of several classes, catboost gives a column
        if task.output != "probabilities":
            numbers = predicted.reshape(len(predicted), -1) if task.output == "predictions" else None
            return cls(predicted, numbers)
        proba = model.predict_proba(X)
        parts = proba if isinstance(proba, list) else [np.asarray(proba)]
        return cls(predicted, np.hstack(parts), tuple(part.shape for part in parts))


class ParityCheck:
    """The comparison of a file's answers with the estimator's on given rows.

    Rows for which the estimator gives NaN are left out; the file has an error for them.

    Parameters
    ----------
    estimator : estimator
        Fitted.
    task : Task
        What the file says that its outputs mean.
    precision : {"fp32", "fp16", "int8"}
    X : X, n rows
    y : array-like or None
        The truth, for the score of both.
    tolerance : float or None

    Raises
    ------
    ConfigurationError
        If there are no rows.
    DataError
        If the estimator cannot score them, or gives NaN for all.
    """

    def __init__(
        self, estimator: Any, task: Task, precision: Precision, X: Any, y: Any, tolerance: float | None
    ) -> None:
        if n_rows(X) == 0:
            raise ConfigurationError("verify has 0 rows; give it some to compare on")
        self.task, self.precision = task, precision
        self.tolerance = default_tolerance(precision, y) if tolerance is None else tolerance
        with _scoring("verify"):
            expected = Answers.of(estimator, task, X)
            margin = margins(estimator, task, X, expected)
        finite = np.isfinite(flat(expected)).all(axis=1)
        if not finite.any():
            raise DataError("the estimator gives NaN for every row of verify")
        self.rows = np.flatnonzero(finite)
        self.X, self.y = X, y
        undefined = np.flatnonzero(~finite)[:_MOST_WITHOUT_ANSWER].tolist()
        self.without_answer = [(row, safe_indexing(X, [row])) for row in undefined]
        if not finite.all():
            self.X, self.y = safe_indexing(X, self.rows), None if y is None else safe_indexing(y, self.rows)
        self.expected, self.margin = of_rows(expected, finite), margin[finite]
        y = self.y
        self.reference = None if y is None else _score(task, y, self.expected.predicted)

    @property
    def n_rows(self) -> int:
        """How many rows are compared."""
        return len(self.rows)

    def measure(self, path: Path) -> dict[str, Any]:
        """Score the rows with the file and compare."""
        predictor = OnnxPredictor(path, device="cpu")
        scored = Answers.of(predictor, self.task, self.X)
        check_shapes(self.expected, scored)
        difference = differences(self.expected, scored, self.task)
        worst = int(np.argmax(np.where(np.isnan(difference), np.inf, difference)))
        measured: dict[str, Any] = {
            "rows": "given",
            "n_rows": len(difference),
            "max_abs_difference": float(difference[worst]),
            "tolerance": self.tolerance,
        }
        reason = f"row {self.rows[worst]}: the exported scores differ from the estimator's"
        error = float(difference[worst])
        answered = [row for row, X in self.without_answer if has_answer(predictor, X)]
        if answered:
            reason = f"row {answered[0]}: the exported scores differ from the estimator's, which are NaN,"
            return {**measured, "error": float("nan"), "reason": reason}
        if self.task.classes is not None:
            equal = equal_labels(self.expected, scored)
            measured["equal_labels"] = float(equal.mean())
            wrong = np.flatnonzero(~equal & (self.margin > self.tolerance))
            if len(wrong) and error <= self.tolerance:
                row = int(wrong[0])
                expected, other = (np.asarray(answers.predicted[row]).tolist() for answers in (self.expected, scored))
                reason = (
                    f"row {self.rows[row]}: the file predicts {other!r} and the estimator {expected!r}; labels differ "
                    "in a share"
                )
                error = len(wrong) / len(equal) + self.tolerance
        if self.y is not None:
            score = _score(self.task, self.y, scored.predicted)
            measured |= {"score": score, "reference_score": self.reference}
        if self.precision == "int8":
            measured["judged_by"], error, reason = self._loss(measured, scored)
        return {**measured, "error": error, "reason": reason}

    def _loss(self, measured: dict[str, Any], scored: Answers) -> tuple[str, float, str]:
        """Return by what 8 bits are judged, how much of it is lost, and how that is said."""
        if self.y is not None:
            return "score", measured["reference_score"] - measured["score"], "int8 lowers the score"
        if "equal_labels" in measured:
            return "equal_labels", 1 - measured["equal_labels"], "int8 changes labels, in a share of rows"
        expected = self.expected.predicted.reshape(len(scored.predicted), -1)
        spread = np.maximum(expected.std(axis=0), np.finfo(np.float32).tiny)
        error = float((np.abs(expected - scored.predicted.reshape(expected.shape)) / spread).mean())
        return "predictions", error, "int8 moves the numbers, in standard deviations,"

    def accept(self, measured: dict[str, Any]) -> dict[str, Any]:
        """Return what is stored in the manifest, or raise `ParityError`."""
        error, reason = measured.pop("error"), measured.pop("reason")
        # NaN compares as False both ways, so ask for what is wanted.
        if not error <= self.tolerance:
            raise ParityError(f"{reason} by {error:.2g}, more than tolerance={self.tolerance:g}; nothing was written")
        return measured


@contextmanager
def _scoring(name: str) -> Iterator[None]:
    try:
        yield
    except MmensembleError:
        raise
    except (TypeError, ValueError) as error:
        raise DataError(f"the estimator cannot score the rows of {name}: {str(error).splitlines()[0]}") from error


def check_scores_rows(estimator: Any, X: Any, name: str) -> None:
    """Raise an error where an estimator cannot score rows of this form, before anything is exported, by the first one.

    Parameters
    ----------
    estimator : estimator
        Fitted; or one that writes texts.
    X : X
    name : str
        The parameter that they were given as.

    Raises
    ------
    ConfigurationError
        If there are no rows.
    DataError
        If a column is not there, or the row cannot be scored.
    """
    if n_rows(X) == 0:
        raise ConfigurationError(f"{name} has 0 rows; give it some")
    first = safe_indexing(X, [0, 0])  # twice, for scikit-learn's SparsePCA cannot transform a row alone
    with _scoring(name), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if hasattr(estimator, "predict"):
            estimator.predict(first)
        else:
            estimator.preprocessor_.encode(leaf_cells(first)).raise_for_errors()


def has_answer(predictor: OnnxPredictor, X: Any) -> bool:
    """Tell whether a file has an answer for rows, and no error."""
    try:
        predictor.predict(X)
    except DataError:
        return False
    return True


def of_rows(answers: Answers, chosen: np.ndarray) -> Answers:
    """Return the answers of some rows, by a mask."""
    scores = None if answers.scores is None else answers.scores[chosen]
    n = int(chosen.sum())
    return Answers(answers.predicted[chosen], scores, tuple((n, *shape[1:]) for shape in answers.shapes))


def flat(answers: Answers) -> np.ndarray:
    """Return the scores, or zeros where there are labels alone."""
    return np.zeros((len(answers.predicted), 1)) if answers.scores is None else answers.scores


def check_shapes(expected: Answers, scored: Answers) -> None:
    """Raise `ParityError` where answers differ in shape or kind."""
    if scored.predicted.shape != expected.predicted.shape or scored.shapes != expected.shapes:
        shapes = [(answers.predicted.shape, *answers.shapes) for answers in (scored, expected)]
        raise ParityError(
            f"the file's predictions and probabilities have the shapes {shapes[0]}, and the estimator's {shapes[1]}; "
            "nothing was written"
        )
    kinds = [_kind(answers.predicted) for answers in (scored, expected)]
    if kinds[0] != kinds[1]:
        raise ParityError(
            f"the file predicts {scored.predicted.dtype} and the estimator {expected.predicted.dtype}; "
            "nothing was written"
        )


def _kind(labels: np.ndarray) -> str:
    return "number" if labels.dtype.kind in "iuf" else "text" if labels.dtype.kind in "OUST" else labels.dtype.kind


def differences(expected: Answers, scored: Answers, task: Task) -> np.ndarray:
    """Return the largest difference of a probability in each row, or of a number relative to what it is about."""
    if expected.scores is None or scored.scores is None:
        return np.zeros(len(expected.predicted))
    difference = np.abs(expected.scores.astype(np.float64) - scored.scores)
    if isinstance(task, Regression):
        difference = difference / np.maximum(1.0, np.abs(expected.scores).max())
    return np.asarray(difference.max(axis=1))


def equal_labels(expected: Answers, scored: Answers) -> np.ndarray:
    """Tell in which rows all labels are equal."""
    equal = expected.predicted == scored.predicted
    return np.asarray(equal.reshape(len(equal), -1).all(axis=1))


def margins(estimator: Any, task: Task, X: Any, answers: Answers) -> np.ndarray:
    """Return by how much the estimator's label is ahead of the next one; a label that hangs on less may be either."""
    scores = answers.scores
    if hasattr(estimator, "decision_function") and task.label_sets and len(task.label_sets) == 1:
        decision = np.asarray(estimator.decision_function(X), dtype=np.float64)
        if decision.ndim == 1:
            scores = np.column_stack([-decision, decision])
        elif decision.shape[1:] == (len(task.label_sets[0]),):
            scores = decision
    if scores is None or task.classes is None:
        return np.full(len(answers.predicted), np.inf)
    if not task.label_sets:
        return np.asarray(np.abs(scores - 0.5).min(axis=1))
    widths = [len(labels) for labels in task.label_sets]
    if sum(widths) != scores.shape[1]:
        return np.full(len(scores), np.inf)
    parts = np.split(scores, np.cumsum(widths)[:-1], axis=1)
    threshold = getattr(task, "threshold", None)
    if threshold is not None:
        return np.abs(scores[:, getattr(task, "positive", 1)] - threshold)
    best = [np.sort(part, axis=1)[:, -2:] for part in parts]
    return np.asarray(np.min([pair[:, 1] - pair[:, 0] for pair in best], axis=0))


def default_tolerance(precision: Precision, y: Any) -> float:
    """Return the tolerance where nobody gives one."""
    if precision == "int8":
        return 0.05 if y is None else 0.01
    return 1e-4 if precision == "fp32" else 1e-2


def _score(task: Task, y: Any, predicted: np.ndarray) -> float:
    """Return the accuracy, or R²."""
    return float(r2_score(y, predicted)) if task.output == "predictions" else exact_matches(y, predicted)
