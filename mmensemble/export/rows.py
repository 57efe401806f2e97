"""Rows that an export makes itself, to compare a file with its estimator on. Imports scikit-learn and pandas.

Texts, pictures, categories and the like come from the preprocessors, which know what they take. Numbers come from the
fitted estimator as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mmensemble.converters.fallback.numbers import numbers_for
from mmensemble.frames import is_missing
from mmensemble.preprocessing import CategoryPreprocessor, TabularPreprocessor
from mmensemble.scoring.manifest import Feed

__all__ = ["made_rows"]

# Feeds whose absence is tried at most.
_MOST_MISSING = 8


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

    def rows(columns: dict[str, list[Any]]) -> Any:
        if not names:
            if len(columns) == 1:
                return next(iter(columns.values()))
            return pd.DataFrame(columns)
        n_rows = len(next(iter(columns.values())))
        return pd.DataFrame({name: columns.get(name, [None] * n_rows) for name in names})

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
