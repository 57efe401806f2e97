"""Folds of the rows, and what members say of the rows that a fold holds out. Imports scikit-learn, no torch."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.model_selection import GroupKFold, check_cv

from mmensemble._sklearn import safe_indexing
from mmensemble.exceptions import ConfigurationError, DataError
from mmensemble.frames import column_cells, missing_cells
from mmensemble.learning.members import fit_member
from mmensemble.learning.outputs import outputs_of
from mmensemble.learning.targets import LearnedTask, for_members
from mmensemble.tasks import Task

__all__ = ["Fold", "column_groups", "member_fold", "numbered", "out_of_fold", "split_rows"]

# The numbers of the rows to fit, and of those that are held out.
Fold = tuple[np.ndarray, np.ndarray]

# As scikit-learn's.
N_FOLDS = 5


def split_rows(cv: Any, X: Any, target: LearnedTask, groups: np.ndarray | None) -> list[Fold]:
    """Split the rows of a composition, the same for all of its members.

    Parameters
    ----------
    cv : int, str, splitter, list of splits or None
        As in ``cross_val_predict``. A number of folds keeps groups together where there are some, and the name of a
        column of X makes the groups itself.
    X : DataFrame, n rows
    target : LearnedTask
    groups : ndarray, shape (n,), or None

    Raises
    ------
    ConfigurationError
        If it is no number of folds, or a row is left out not at all or twice.
    DataError
        If it is no column of X.
    """
    n = len(target.y)
    if isinstance(cv, Integral) and cv < 2:
        raise ConfigurationError(f"cv must be at least 2, not {cv}")
    if isinstance(cv, str):
        groups = column_groups(X, cv)
        cv = GroupKFold(min(N_FOLDS, len(np.unique(groups))))
    elif groups is not None and (cv is None or isinstance(cv, Integral)):
        cv = GroupKFold(N_FOLDS if cv is None else cv)
    splitter = check_cv(cv, for_members(target), classifier=bool(target.task.label_sets))
    rows = np.arange(n)
    with warnings.catch_warnings():
        # Folds without a class of few rows are foreseen; what cannot be learned then says so itself.
        warnings.filterwarnings("ignore", message="The least populated class")
        folds = [(rows[fitting], rows[held_out]) for fitting, held_out in splitter.split(X, target.y, groups)]
    if not np.array_equal(np.sort(np.concatenate([held_out for _, held_out in folds])), rows):
        raise ConfigurationError(
            f"cv must leave each row out once, as StratifiedKFold does; this {type(cv).__name__} does not"
        )
    return folds


def column_groups(X: Any, column: str) -> np.ndarray:
    """Return the cells of a column, each of which must name the group of its row, ndarray of shape (n,).

    Raises
    ------
    DataError
        If there is no such column, a cell of it is missing, or all are the same.
    """
    cells = column_cells(X, column)
    missing = missing_cells(cells)
    if missing.any():
        raise DataError("the group of the row is missing", row=int(missing.argmax()), column=column)
    groups = np.asarray(cells)
    if len(np.unique(groups)) < 2:
        raise DataError("all rows are of one group; cv needs at least 2", column=column)
    return groups


def member_fold(fold: Fold, present: np.ndarray) -> Fold:
    """Return a fold of all rows as one of those that are present, (n,) bool, by their numbers among these."""
    places = np.cumsum(present) - 1
    fitting, held_out = (places[rows[present[rows]]] for rows in fold)
    return fitting, held_out


def out_of_fold(
    estimator: Any,
    X: Any,
    y: np.ndarray,
    task: Task,
    fold: Fold,
    sample_weight: np.ndarray | None = None,
    groups: np.ndarray | None = None,
) -> np.ndarray:
    """Predict the rows that a fold holds out by a clone that was fitted without them.

    Parameters
    ----------
    estimator : estimator
    X : Series or DataFrame, n rows
    y : ndarray of shape (n,) or (n, n_columns)
        As `for_members` gives it.
    task : Task
    fold : Fold
    sample_weight : ndarray of float, shape (n,), default=None
    groups : ndarray, shape (n,), default=None
        For members that take them.

    Returns
    -------
    ndarray of float, shape (n_held_out, task.width)
    """
    fitting, held_out = fold
    weight, groups = (None if part is None else part[fitting] for part in (sample_weight, groups))
    with numbered(fitting):
        fitted, labels = fit_member(estimator, safe_indexing(X, fitting), y[fitting], task.label_sets, weight, groups)
    with numbered(held_out):
        return outputs_of(fitted, task, safe_indexing(X, held_out), labels)


@contextmanager
def numbered(rows: np.ndarray) -> Iterator[None]:
    """Give a bad row among some rows, as those of a fold, the number that it has in the whole.

    Parameters
    ----------
    rows : ndarray of int, shape (n_some,)
        The numbers of these rows in the whole.
    """
    try:
        yield
    except DataError as error:
        if error.row is None:
            raise
        raise error.renumbered(rows.tolist()) from error
