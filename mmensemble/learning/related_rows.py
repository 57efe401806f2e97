"""Rows that are related, though nobody said so: they must not be parted by folds. Imports scikit-learn."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

from mmensemble.frames import Cells, column_cells, column_names, missing_cells
from mmensemble.learning.folds import Fold
from mmensemble.tasks import Task

__all__ = ["grouped_split", "repeated_cells", "warn_of_related_rows"]

# Fewer rows tell too little.
LEAST_ROWS = 100
# Groups of more rows, on average, are kinds of things rather than things.
LARGEST_MEAN = 10
# At least so many of the rows have a relative in another fold.
LEAST_SHARE = 0.1
# As large is the intraclass correlation of y: 1 where all relatives have the same, 0 as if drawn at random.
LEAST_CORRELATION = 0.8
# Of the words of two texts that nearly repeat each other, so many stand in both.
LEAST_OVERLAP = 0.5


def warn_of_related_rows(X: Any, columns: Sequence[str], y: np.ndarray, task: Task, folds: Sequence[Fold]) -> None:
    """Warn of a column of X that looks as if it named groups of related rows, where folds part them.

    Rows are relatives if they have the same cell in that column. Half of them, at least, must nearly repeat each other:
    they have a text that shares half of its words.

    Parameters
    ----------
    X : DataFrame, n rows
    columns : sequence of str
        What the members see.
    y : ndarray of shape (n,) or (n, n_columns)
        As `for_members` gives it.
    task : Task
    folds : sequence of Fold
    """
    if len(y) < LEAST_ROWS:
        return
    fold_of = np.empty(len(y), dtype=int)
    for number, (_, held_out) in enumerate(folds):
        fold_of[held_out] = number
    texts = [cells for cells in (column_cells(X, column) for column in columns) if _are_texts(cells)]
    n_relatives = {}
    for column in column_names(X) or []:
        one, other = _relatives(column_cells(X, column), fold_of)
        if len(one) < LEAST_SHARE * len(y) or _correlation(y, task, one, other) < LEAST_CORRELATION:
            continue
        overlaps = [[_overlap(cells[i], cells[j]) for i, j in zip(one, other, strict=True)] for cells in texts]
        if any(np.median(of_column) >= LEAST_OVERLAP for of_column in overlaps):
            n_relatives[column] = len(one)
    if n_relatives:
        column = max(n_relatives, key=n_relatives.__getitem__)
        warnings.warn(
            f"column {column!r} of X looks as if it named groups of related rows, which the folds part: of rows whose "
            f"relatives they know, members say too much to learn from. Give the strategy cv={column!r}, or groups to "
            "fit; or, if the rows are not related, a splitter as cv",
            stacklevel=7,
        )


def _are_texts(cells: Cells) -> bool:
    return all(isinstance(cell, str) for cell, missing in zip(cells, missing_cells(cells), strict=True) if not missing)


def _relatives(cells: Cells, fold_of: np.ndarray) -> Fold:
    """Return pairs of rows in different folds, each with the next one of the same cell; none where many have it."""
    none = np.empty(0, dtype=int)
    integers = isinstance(cells, np.ndarray) and cells.dtype.kind in "iu"
    if not integers and not _are_texts(cells):
        return none, none
    rows = np.flatnonzero(~missing_cells(cells))
    groups = _numbered(cells, rows)
    if groups is None:
        return none, none
    order = np.argsort(groups, kind="stable")
    same = np.flatnonzero(np.diff(groups[order]) == 0)
    one, other = rows[order[same]], rows[order[same + 1]]
    parted = fold_of[one] != fold_of[other]
    return one[parted], other[parted]


def _numbered(cells: Cells, rows: np.ndarray) -> np.ndarray | None:
    """Return a number for each different cell, (n_rows,); None where none repeat, or they do too often for things."""
    numbers: dict[Any, int] = {}
    groups = np.array([numbers.setdefault(cells[row], len(numbers)) for row in rows.tolist()], dtype=np.int64)
    sizes = np.bincount(groups)
    return groups if (sizes > 1).any() and sizes[sizes > 1].mean() <= LARGEST_MEAN else None


def repeated_cells(cells: Cells) -> np.ndarray | None:
    """Return groups of rows with the same text, ndarray of int, shape (n,); None where there are none, or few rows.

    Parameters
    ----------
    cells : sequence of cells, n rows
    """
    if len(cells) < LEAST_ROWS or not _are_texts(cells):
        return None
    missing = missing_cells(cells)
    numbers = _numbered(cells, np.flatnonzero(~missing))
    if numbers is None:
        return None
    groups = -1 - np.arange(len(missing))
    groups[~missing] = numbers
    return groups


def grouped_split(
    groups: np.ndarray, share: float, rng: np.random.RandomState, strata: np.ndarray | None = None
) -> Fold:
    """Hold out about a share of the rows, in whole groups, drawn at random.

    Parameters
    ----------
    groups : ndarray, shape (n,)
    share : float
    rng : RandomState
    strata : ndarray, shape (n,), default=None
        Of which as equal shares as the groups allow are held out.

    Returns
    -------
    Fold
        The numbers of the rows that stay, and of those that are held out.

    Raises
    ------
    ValueError
        If there are fewer than 2 groups.
    """
    n_groups = len(np.unique(groups))
    n_folds = min(n_groups, max(2, round(1 / share))) if share else 0
    if n_folds < 2:
        raise ValueError(f"of {n_groups} groups none can be held out")
    splitter = GroupKFold if strata is None else StratifiedGroupKFold
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")  # it stays, or is held out
        folds = splitter(n_folds, shuffle=True, random_state=rng).split(groups, strata, groups)
        fitting, held_out = next(iter(folds))
    return fitting, held_out


def _correlation(y: np.ndarray, task: Task, one: np.ndarray, other: np.ndarray) -> float:
    """Return the intraclass correlation of `y`, of labels that of their indicators."""
    table = y.reshape(len(y), -1)
    if task.label_sets:
        columns = zip(task.label_sets, table.T, strict=True)
        table = np.hstack([np.eye(len(labels))[column] for labels, column in columns])
    spread = table.std(axis=0)
    scaled = table[:, spread > 0] / spread[spread > 0]
    return float(1 - np.mean((scaled[one] - scaled[other]) ** 2) / 2) if scaled.size else 0.0


def _overlap(one: Any, other: Any) -> float:
    """Return the share of words that two texts have in common (Jaccard 1901); 0 where one is missing."""
    words, others = (set(cell.lower().split()) if isinstance(cell, str) else set() for cell in (one, other))
    return len(words & others) / max(len(words | others), 1)
