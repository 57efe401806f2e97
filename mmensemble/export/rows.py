"""Rows that an export makes itself, and the comparison of a file with its estimator on them.

Texts, pictures, categories and the like come from the preprocessors, which know what they take. Numbers come from the
fitted estimator as well.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mmensemble.converters.fallback.numbers import numbers_for
from mmensemble.exceptions import DataError, ExportError, ParityError
from mmensemble.export.parity import (
    Answers,
    check_shapes,
    default_tolerance,
    differences,
    equal_labels,
    flat,
    has_answer,
    margins,
    of_rows,
)
from mmensemble.frames import is_missing, n_rows
from mmensemble.preprocessing import CategoryPreprocessor, TabularPreprocessor
from mmensemble.scoring.manifest import Feed
from mmensemble.scoring.predictor import OnnxPredictor
from mmensemble.tasks import Task

__all__ = ["check_made_rows", "made_rows"]

# Feeds whose absence is tried at most.
_MOST_MISSING = 8
# Rows that are made at most, and seconds that an estimator may take to score them.
_MADE_ROWS = 64
_MADE_SECONDS = 10.0
_SEED = 0
_TIED_SHARE = 0.25
_MOVED_ROWS = 64
_ROUNDING = 1e-12


def made_rows(estimator: Any, feeds: Sequence[Feed], n: int, rng: np.random.Generator) -> Iterator[Any]:
    """Yield rows for an estimator, in the form that it takes: first usual ones, then each unusual one by itself.

    Parameters
    ----------
    estimator : estimator
        Fitted.
    feeds : sequence of Feed
        What its file reads.
    n : int
        How many of the first.
    rng : Generator

    Yields
    ------
    DataFrame or list of cells
    """
    cells: dict[str, list[Any]] = {}
    for feed in feeds:
        for column, made in zip(feed.columns, feed.preprocessor.example_cells(n, rng), strict=False):
            cells.setdefault(column, made)
    numbers = numbers_for(estimator, _numeric(feeds), rng)
    for column, values in numbers.items():
        taken = rng.random(n) < 0.75
        cells[column] = np.where(taken, rng.choice(values, size=n), cells[column]).tolist()
    names = [str(name) for name in getattr(estimator, "feature_names_in_", [])]
    words = {column for feed in feeds for column in feed.columns}.difference(_numeric(feeds))

    def rows(columns: dict[str, list[Any]]) -> Any:
        if not names:
            if len(columns) == 1:
                return next(iter(columns.values()))
            return pd.DataFrame(columns)
        n_rows = len(next(iter(columns.values())))
        made = pd.DataFrame({name: columns.get(name, [None] * n_rows) for name in names})
        # What holds no number stays so where all cells are missing, as in the frame of many rows.
        return made.astype({name: object for name in names if name in words and made[name].dtype.kind == "f"})

    yield rows(cells)
    first = {column: made[:1] for column, made in cells.items()}
    for column in list(numbers)[:_MOST_MISSING]:
        for value in (np.nan, np.inf, -np.inf):
            yield rows({**first, column: [value]})
    absent = {column: [_missing(feed, column)] for feed in feeds for column in feed.columns}
    for columns in list(dict.fromkeys([*(feed.columns for feed in feeds), tuple(cells)]))[:_MOST_MISSING]:
        yield rows({**first, **{column: absent[column] for column in columns}})


def _missing(feed: Feed, column: str) -> Any:
    """Return what a frame holds where a cell of a column is missing."""
    preprocessor = feed.preprocessor
    if isinstance(preprocessor, TabularPreprocessor):
        return np.nan if preprocessor.columns[column] == "float" else None
    if isinstance(preprocessor, CategoryPreprocessor):
        known = preprocessor.categories[column]
        numbers = all(isinstance(value, (int, float)) for value in known if not is_missing(value))
        return next((value for value in known if is_missing(value)), np.nan if numbers else None)
    return None


def _numeric(feeds: Sequence[Feed]) -> list[str]:
    """Return the columns that are read as numbers."""
    return [
        column
        for feed in feeds
        if isinstance(feed.preprocessor, TabularPreprocessor)
        for column, kind in feed.preprocessor.columns.items()
        if kind == "float"
    ]


def check_made_rows(
    estimator: Any, task: Task, feeds: Sequence[Feed], path: Path, tolerance: float | None, *, may_tie: bool = False
) -> dict[str, Any]:
    """Compare a float32 file with its estimator on rows that the export makes itself.

    The usual ones are scored together, the first two by themselves too, and each unusual one alone. A row that the
    estimator refuses must be an error of the file. Where answers hang on which of several equal neighbours is taken, a
    quarter of the rows may differ, and so may a row to which the estimator itself answers as the file does if its
    numbers are moved by what rounding moves them; how many do is stored. Made rows lie there more often than others.

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
    tolerance = default_tolerance("fp32", None) if tolerance is None else tolerance
    predictor = OnnxPredictor(path, device="cpu")
    started = time.perf_counter()
    compared, worst, equal, tied = 0, 0.0, 0, 0
    refusal: Exception | None = None
    refused: list[tuple[Any, Exception]] = []
    usual, *unusual = made_rows(estimator, feeds, _MADE_ROWS, np.random.default_rng(_SEED))
    for X in _in_time(estimator, task, usual, unusual, started):
        try:
            X, expected = _answered(estimator, task, X)
        except Exception as error:  # whatever an estimator of the user's raises for a row that it does not take
            refusal = refusal or error
            if n_rows(X) == 1:
                refused.append((X, error))
            continue
        margin = margins(estimator, task, X, expected)
        finite = np.isfinite(flat(expected)).all(axis=1)
        if not finite.any():
            continue
        X, expected, margin = _rows(X, finite), of_rows(expected, finite), margin[finite]
        try:
            scored = Answers.of(predictor, task, X)
        except DataError as error:
            row = 0 if error.row is None else error.row
            raise ParityError(
                f"the file refuses a row that the estimator scores ({error}): {_cells(X, row)}"
            ) from error
        check_shapes(expected, scored)
        difference = differences(expected, scored, task)
        same = equal_labels(expected, scored) if task.classes is not None else np.ones(len(difference), dtype=bool)
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
    for X, reason in refused:
        _check_refusal(predictor, X, reason)
    measured = {"rows": "made", "n_rows": compared, "max_abs_difference": worst, "tolerance": tolerance}
    if tied:
        measured["tied_rows"] = tied
    return measured if task.classes is None else {**measured, "equal_labels": equal / compared}


def _answered(estimator: Any, task: Task, X: Any) -> tuple[Any, Answers]:
    """Return rows and what an estimator says of them; the one row twice where it fails at a row by itself."""
    try:
        return X, Answers.of(estimator, task, X)
    except Exception:
        if n_rows(X) != 1:
            raise
        X = _rows(X, np.zeros(2, dtype=int))
        return X, Answers.of(estimator, task, X)


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
            Answers.of(estimator, task, _rows(whole, np.arange(min(8, most))))
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


def _check_refusal(predictor: OnnxPredictor, X: Any, refusal: Exception) -> None:
    if not has_answer(predictor, X):
        return
    answer = predictor.predict(X)
    reason = (str(refusal) or repr(refusal)).splitlines()[0]
    raise ParityError(
        f"the file predicts {np.asarray(answer[0]).tolist()!r} for a row that the estimator refuses ({reason}): "
        f"{_cells(X, 0)}, which the export has made; nothing was written. If no such row will come, compare on rows of "
        "your own, by verify=X"
    )


def _on_an_edge(estimator: Any, task: Task, X: Any, row: int, scored: Answers, tolerance: float) -> bool:
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
    own = Answers.of(estimator, task, moved)
    alone = np.zeros(len(scored.predicted), dtype=bool)
    alone[row] = True
    answer = of_rows(scored, alone)
    repeated = Answers(
        np.repeat(answer.predicted, _MOVED_ROWS, axis=0),
        None if answer.scores is None else np.repeat(answer.scores, _MOVED_ROWS, axis=0),
    )
    same = equal_labels(own, repeated) if task.classes is not None else np.ones(_MOVED_ROWS, dtype=bool)
    return bool((same & (differences(own, repeated, task) <= tolerance)).any())


def _rows(X: Any, chosen: np.ndarray) -> Any:
    positions = np.flatnonzero(chosen) if chosen.dtype == bool else chosen
    return [X[row] for row in positions] if isinstance(X, list) else X.iloc[positions]


def _cells(X: Any, row: int) -> str:
    """Show a row in one line."""
    cells = {"cell": X[row]} if isinstance(X, list) else X.iloc[row].to_dict()
    return "{" + ", ".join(f"{name!r}: {_short(cell)}" for name, cell in list(cells.items())[:20]) + "}"


def _short(cell: Any) -> str:
    if isinstance(cell, np.ndarray):
        return f"<{cell.dtype} {cell.shape}>"
    text = repr(cell)
    return text if len(text) <= 60 else f"{text[:57]}…"
