"""The cell that an estimator of another library does not take, of which its error names no row. No scikit-learn."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from mmensemble.exceptions import DataError, MmensembleError
from mmensemble.frames import Cells, columns_of, leaf_cells, missing_cells

__all__ = ["refused_cell"]

# What numpy, scikit-learn and boosters say, in errors that know the table alone.
_MISSING = re.compile(r"\bnan\b|missing values", re.IGNORECASE)
_INFINITE = re.compile(r"\binf(inity|inite)?\b", re.IGNORECASE)
_NO_NUMBER = re.compile("could not convert string to float|invalid literal for|cannot be parsed as", re.IGNORECASE)
_UNKNOWN = re.compile(r"unknown categor(?:y|ies) (.+) in column", re.IGNORECASE | re.DOTALL)
_QUOTED = re.compile(r"""'[^']*'|"[^"]*"|[^\s\[\],'"]+""")
_NO_TEXT = re.compile(
    "has no attribute '(lower|encode|split|strip)'|expected string or bytes|str instance", re.IGNORECASE
)


def refused_cell(error: Exception, name: str, estimator: Any, X: Any) -> DataError | None:
    """Return an error that names the member, and the row and column of the first cell that is to blame.

    Parameters
    ----------
    error : Exception
        What the estimator raised.
    name : str
        The member.
    estimator : estimator
    X : Series or DataFrame, n rows
        What the estimator was given.

    Returns
    -------
    DataError or None
        None where no cell is to blame.
    """
    if isinstance(error, MmensembleError) or not isinstance(error, (ValueError, TypeError, AttributeError)):
        return None
    text, who = str(error), f"member {name!r} ({_kind(estimator)})"
    columns = {column: leaf_cells(series.to_native()) for column, series in columns_of(X).items()}
    if _MISSING.search(text) and (found := _first(columns, missing_cells)):
        row, column, n = found
        first = "" if n == 1 else f", and this is the first of {n} missing cells"
        remedy = "put a SimpleImputer before it, or leave such rows out"
        return DataError(f"{who} takes no NaN{first}; {remedy}", row=row, column=column)
    if _INFINITE.search(text) and (found := _first(columns, _infinite)):
        row, column, _ = found
        return DataError(f"{who} takes no infinite number; replace it, by NaN if it is unknown", row=row, column=column)
    if (unknown := _UNKNOWN.search(text)) and (found := _first(columns, partial(_quoted, unknown[1]))):
        row, column, _ = found
        cell = columns[column][row]
        cell = cell.item() if isinstance(cell, np.generic) else cell
        remedy = "fit it to rows that have it, or say handle_unknown='ignore'"
        return DataError(f"{who} does not know the category {cell!r}; {remedy}", row=row, column=column)
    # Of several cells that are no numbers, some may be meant for another step: the error says which one it means.
    if _NO_NUMBER.search(text) and (found := _first(columns, partial(_quoted, text)) or _first(columns, _no_numbers)):
        row, column, _ = found
        remedy = "mend the cell, or put a OneHotEncoder or a vectorizer before it"
        return DataError(f"{who} takes numbers, not {columns[column][row]!r}; {remedy}", row=row, column=column)
    if _NO_TEXT.search(text) and (found := _first(columns, _no_texts)):
        row, column, _ = found
        return DataError(f"{who} takes texts, not {columns[column][row]!r}", row=row, column=column)
    return None


def _kind(estimator: Any) -> str:
    """Return the name of an estimator's class, of a pipeline that of its last step."""
    steps = getattr(estimator, "steps", None)
    return _kind(steps[-1][1]) if steps else type(estimator).__name__


def _first(columns: Mapping[str, Cells], bad: Any) -> tuple[int, str, int] | None:
    """Return row and column of the first cell that is bad, and the number of all; None where there is none."""
    masks = {column: bad(cells) for column, cells in columns.items()}
    rows = np.flatnonzero(np.any(list(masks.values()), axis=0))
    if not len(rows):
        return None
    row = int(rows[0])
    return (
        row,
        next(column for column, mask in masks.items() if mask[row]),
        int(sum(mask.sum() for mask in masks.values())),
    )


def _infinite(cells: Cells) -> np.ndarray:
    numbers = np.asarray(cells)
    return np.isinf(numbers) if numbers.dtype.kind == "f" else np.zeros(len(cells), dtype=bool)


def _no_numbers(cells: Cells) -> np.ndarray:
    return np.fromiter((isinstance(cell, str) and not _is_number(cell) for cell in cells), bool, len(cells))


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _quoted(text: str, cells: Cells) -> np.ndarray:
    """Tell which cells a text quotes: strings in quotes, other values as they are written."""
    quoted = set(_QUOTED.findall(text))
    return np.fromiter((repr(cell) in quoted for cell in cells), bool, len(cells))


def _no_texts(cells: Cells) -> np.ndarray:
    """Tell which cells are no texts; of numbers alone none, for these may be meant for another step."""
    texts = np.fromiter((isinstance(cell, str) for cell in cells), bool, len(cells))
    return ~texts & ~missing_cells(cells) & texts.any()
