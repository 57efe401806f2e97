"""The comparison of a file with the estimator that it was made of: its own predictions and its own probabilities."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import r2_score

from mmensemble._sklearn import safe_indexing
from mmensemble.exceptions import ConfigurationError, DataError, ExportError, MmensembleError, ParityError
from mmensemble.export.precision import Precision
from mmensemble.export.rows import made_rows
from mmensemble.frames import n_rows
from mmensemble.learning.targets import exact_matches
from mmensemble.scoring.manifest import Feed
from mmensemble.scoring.predictor import OnnxPredictor
from mmensemble.tasks import Classification, Regression, Task

__all__ = ["ParityCheck", "check_made_rows"]

# Rows that are made at most, and seconds that an estimator may take to score them.
_MADE_ROWS = 64
_MADE_SECONDS = 10.0
_SEED = 0
_TIED_SHARE = 0.25
_MOVED_ROWS = 64
_ROUNDING = 1e-12


@dataclass(frozen=True)
class _Answers:
    """What a model says of rows: `predict`, and `predict_proba` side by side where it has it."""

    predicted: np.ndarray
    scores: np.ndarray | None
    # The shapes of the columns' probabilities where there are several.
    shapes: tuple[tuple[int, ...], ...] = ()

    @classmethod
    def of(cls, model: Any, task: Task, X: Any) -> _Answers:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")  # of unknown categories, of logarithms of what is negative, ...
            return cls._of(model, task, X)

    @classmethod
    def _of(cls, model: Any, task: Task, X: Any) -> _Answers:
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
        self.tolerance = _default_tolerance(precision, y) if tolerance is None else tolerance
        try:
            expected = _Answers.of(estimator, task, X)
            margin = _margin(estimator, task, X, expected)
        except MmensembleError:
            raise
        except (TypeError, ValueError) as error:
            raise DataError(f"the estimator cannot score the rows of verify: {str(error).splitlines()[0]}") from error
        finite = np.isfinite(_flat(expected)).all(axis=1)
        if not finite.any():
            raise DataError("the estimator gives NaN for every row of verify")
        self.rows = np.flatnonzero(finite)
        self.X, self.y = X, y
        if not finite.all():
            self.X, self.y = safe_indexing(X, self.rows), None if y is None else safe_indexing(y, self.rows)
        self.expected, self.margin = _of_rows(expected, finite), margin[finite]
        y = self.y
        self.reference = None if y is None else _score(task, y, self.expected.predicted)

    def measure(self, path: Path) -> dict[str, Any]:
        """Score the rows with the file and compare."""
        scored = _Answers.of(OnnxPredictor(path, device="cpu"), self.task, self.X)
        _check_shapes(self.expected, scored)
        difference = _difference(self.expected, scored, self.task)
        worst = int(np.argmax(np.where(np.isnan(difference), np.inf, difference)))
        measured: dict[str, Any] = {
            "rows": "given",
            "n_rows": len(difference),
            "max_abs_difference": float(difference[worst]),
            "tolerance": self.tolerance,
        }
        reason = f"row {self.rows[worst]}: the exported scores differ from the estimator's"
        error = float(difference[worst])
        if self.task.classes is not None:
            equal = _equal_labels(self.expected, scored)
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
            error, reason = self._loss(measured, scored)
        return {**measured, "error": error, "reason": reason}

    def _loss(self, measured: dict[str, Any], scored: _Answers) -> tuple[float, str]:
        if self.y is not None:
            return measured["reference_score"] - measured["score"], "int8 lowers the score"
        if "equal_labels" in measured:
            return 1 - measured["equal_labels"], "int8 changes labels, in a share of rows"
        expected = self.expected.predicted.reshape(len(scored.predicted), -1)
        spread = np.maximum(expected.std(axis=0), np.finfo(np.float32).tiny)
        error = float((np.abs(expected - scored.predicted.reshape(expected.shape)) / spread).mean())
        return error, "int8 moves the numbers, in standard deviations,"

    def accept(self, measured: dict[str, Any]) -> dict[str, Any]:
        """Return what is stored in the manifest, or raise `ParityError`."""
        error, reason = measured.pop("error"), measured.pop("reason")
        # NaN compares as False both ways, so ask for what is wanted.
        if not error <= self.tolerance:
            raise ParityError(f"{reason} by {error:.2g}, more than tolerance={self.tolerance:g}; nothing was written")
        return measured


def check_made_rows(
    estimator: Any, task: Task, feeds: Sequence[Feed], path: Path, tolerance: float | None, *, may_tie: bool = False
) -> dict[str, Any]:
    """Compare a float32 file with its estimator on rows that the export makes itself.

    Rows that the estimator refuses are left out. The usual ones are scored together, the first two by themselves too,
    and each unusual one alone. Where answers hang on which of several equal neighbours is taken, a quarter of the rows
    may differ, and so may a row to which the estimator itself answers as the file does if its numbers are moved by
    what rounding moves them; how many do is stored. Made rows lie in such places far more often than others.

    Returns
    -------
    dict
        What is stored in the manifest.

    Raises
    ------
    ParityError
        At the first row that differs; it names its cells.
    ExportError
        If the estimator refuses all rows.
    """
    tolerance = _default_tolerance("fp32", None) if tolerance is None else tolerance
    predictor = OnnxPredictor(path, device="cpu")
    started = time.perf_counter()
    compared, worst, equal, tied = 0, 0.0, 0, 0
    refusal: Exception | None = None
    usual, *unusual = made_rows(estimator, feeds, _MADE_ROWS, np.random.default_rng(_SEED))
    for X in _in_time(estimator, task, usual, unusual, started):
        try:
            expected = _Answers.of(estimator, task, X)
        except Exception as error:  # whatever an estimator of the user's raises for a row that it does not take
            refusal = refusal or error
            continue
        margin = _margin(estimator, task, X, expected)
        finite = np.isfinite(_flat(expected)).all(axis=1)
        if not finite.any():
            continue
        X, expected, margin = _rows(X, finite), _of_rows(expected, finite), margin[finite]
        try:
            scored = _Answers.of(predictor, task, X)
        except DataError as error:
            row = 0 if error.row is None else error.row
            raise ParityError(
                f"the file refuses a row that the estimator scores ({error}): {_cells(X, row)}"
            ) from error
        _check_shapes(expected, scored)
        difference = _difference(expected, scored, task)
        same = _equal_labels(expected, scored) if task.classes is not None else np.ones(len(difference), dtype=bool)
        wrong = np.flatnonzero(~(difference <= tolerance) | (~same & (margin > tolerance)))
        if may_tie and len(wrong) <= max(1, len(same) * _TIED_SHARE):
            on_edge = wrong
        else:
            on_edge = wrong[[_on_an_edge(estimator, task, X, int(row), scored, tolerance) for row in wrong]]
        tied += len(on_edge)
        difference[on_edge] = 0.0
        for row in np.setdiff1d(wrong, on_edge)[:1]:
            one, other = (np.asarray(answers.predicted[row]).tolist() for answers in (expected, scored))
            what = f"the scores differ by {difference[row]:.2g}, more than tolerance={tolerance:g}"
            if difference[row] <= tolerance:
                what = f"the file predicts {other!r} and the estimator {one!r}"
            raise ParityError(
                f"{what}, for the row {_cells(X, int(row))}, which the export has made; nothing was written. Compare "
                "on rows of your own, by verify=X, if no such row will come"
            )
        compared, equal, worst = compared + len(same), equal + int(same.sum()), max(worst, float(difference.max()))
    if not compared:
        raise ExportError(
            f"the estimator refuses every row that the export makes to compare on ({refusal}); give it some by "
            "verify=X, or leave the file unverified by verify=False"
        )
    measured = {"rows": "made", "n_rows": compared, "max_abs_difference": worst, "tolerance": tolerance}
    if tied:
        measured["tied_rows"] = tied
    return measured if task.classes is None else {**measured, "equal_labels": equal / compared}


def _in_time(estimator: Any, task: Task, usual: Any, unusual: Sequence[Any], started: float) -> Iterable[Any]:
    """Yield rows while there is time: two at first, which tell how many the estimator scores in it."""
    size = n_rows(usual)
    yield _rows(usual, np.arange(1))
    before = time.perf_counter()
    yield _rows(usual, np.arange(min(2, size)))
    seconds = (time.perf_counter() - before) / 2
    most = int(min(size, _MADE_SECONDS / 2 / max(seconds, 1e-6)))
    if most > 2:
        whole = _rows(usual, np.arange(most))
        try:
            _Answers.of(estimator, task, _rows(whole, np.arange(min(8, most))))
        except Exception:  # as above
            # One bad row among them must not cost the others.
            for row in range(2, most):
                yield _rows(whole, np.arange(row, row + 1))
        else:
            yield whole
    for X in unusual:
        if time.perf_counter() - started > _MADE_SECONDS:
            return
        yield X


def _on_an_edge(estimator: Any, task: Task, X: Any, row: int, scored: _Answers, tolerance: float) -> bool:
    """Tell whether the estimator gives the file's answer to a row whose numbers are moved by some 1e-12 of themselves.

    A row on the threshold of a tree that stands behind a logarithm falls to either side by its last digits.
    """
    if isinstance(X, list):
        return False
    moved = X.iloc[[row] * _MOVED_ROWS].reset_index(drop=True)
    rng = np.random.default_rng(_SEED)
    for column, cells in moved.items():
        if cells.dtype.kind == "f":
            moved[column] = cells * (1 + _ROUNDING * rng.uniform(-1, 1, size=_MOVED_ROWS))
    own = _Answers.of(estimator, task, moved)
    alone = np.zeros(len(scored.predicted), dtype=bool)
    alone[row] = True
    answer = _of_rows(scored, alone)
    repeated = _Answers(
        np.repeat(answer.predicted, _MOVED_ROWS, axis=0),
        None if answer.scores is None else np.repeat(answer.scores, _MOVED_ROWS, axis=0),
    )
    same = _equal_labels(own, repeated) if task.classes is not None else np.ones(_MOVED_ROWS, dtype=bool)
    return bool((same & (_difference(own, repeated, task) <= tolerance)).any())


def _rows(X: Any, chosen: np.ndarray) -> Any:
    positions = np.flatnonzero(chosen) if chosen.dtype == bool else chosen
    return [X[row] for row in positions] if isinstance(X, list) else X.iloc[positions]


def _of_rows(answers: _Answers, chosen: np.ndarray) -> _Answers:
    scores = None if answers.scores is None else answers.scores[chosen]
    n = int(chosen.sum())
    return _Answers(answers.predicted[chosen], scores, tuple((n, *shape[1:]) for shape in answers.shapes))


def _flat(answers: _Answers) -> np.ndarray:
    return np.zeros((len(answers.predicted), 1)) if answers.scores is None else answers.scores


def _cells(X: Any, row: int) -> str:
    """Show a row in one line."""
    cells = {"cell": X[row]} if isinstance(X, list) else X.iloc[row].to_dict()
    return "{" + ", ".join(f"{name!r}: {_short(cell)}" for name, cell in list(cells.items())[:20]) + "}"


def _short(cell: Any) -> str:
    if isinstance(cell, np.ndarray):
        return f"<{cell.dtype} {cell.shape}>"
    text = repr(cell)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _check_shapes(expected: _Answers, scored: _Answers) -> None:
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


def _difference(expected: _Answers, scored: _Answers, task: Task) -> np.ndarray:
    """Return the largest difference of a probability in each row, or of a number relative to what it is about."""
    if expected.scores is None or scored.scores is None:
        return np.zeros(len(expected.predicted))
    difference = np.abs(expected.scores.astype(np.float64) - scored.scores)
    if isinstance(task, Regression):
        difference = difference / np.maximum(1.0, np.abs(expected.scores).max())
    return np.asarray(difference.max(axis=1))


def _equal_labels(expected: _Answers, scored: _Answers) -> np.ndarray:
    equal = expected.predicted == scored.predicted
    return np.asarray(equal.reshape(len(equal), -1).all(axis=1))


def _margin(estimator: Any, task: Task, X: Any, answers: _Answers) -> np.ndarray:
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


def _default_tolerance(precision: Precision, y: Any) -> float:
    if precision == "int8":
        return 0.05 if y is None else 0.01
    return 1e-4 if precision == "fp32" else 1e-2


def _score(task: Task, y: Any, predicted: np.ndarray) -> float:
    """Return the accuracy, or R²."""
    return float(r2_score(y, predicted)) if task.output == "predictions" else exact_matches(y, predicted)
