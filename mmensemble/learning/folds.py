"""Out-of-fold outputs. Imports scikit-learn, no torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from sklearn.model_selection import check_cv

from mmensemble._sklearn import safe_indexing
from mmensemble.exceptions import ConfigurationError, DataError
from mmensemble.learning.members import fit_member
from mmensemble.learning.outputs import outputs_of
from mmensemble.tasks import Task

__all__ = ["out_of_fold"]


def out_of_fold(
    estimator: Any, X: Any, y: np.ndarray, task: Task, cv: Any, sample_weight: np.ndarray | None
) -> np.ndarray:
    """Predict each row by a clone that was fitted without it.

    Parameters
    ----------
    estimator : estimator
    X : Series or DataFrame, n rows
    y : ndarray of shape (n,) or (n, n_columns)
    task : Task
    cv : int or splitter
        As in ``cross_val_predict``; it must leave each row out once.
    sample_weight : ndarray of float, shape (n,), or None

    Returns
    -------
    ndarray of float, shape (n, task.width)
    """
    splitter = check_cv(cv, y, classifier=bool(task.label_sets))
    outputs, times = np.zeros((len(y), task.width)), np.zeros(len(y), dtype=int)
    for fitting, held_out in splitter.split(np.zeros(len(y)), y):
        weights = None if sample_weight is None else sample_weight[fitting]
        with _numbered(fitting):
            fitted = fit_member(estimator, safe_indexing(X, fitting), y[fitting], weights)
        with _numbered(held_out):
            outputs[held_out] = outputs_of(fitted, task, safe_indexing(X, held_out))
        times[held_out] += 1
    if (times != 1).any():
        raise ConfigurationError(f"cv must leave each row out once, as StratifiedKFold does; {cv!r} does not")
    return outputs


@contextmanager
def _numbered(rows: np.ndarray) -> Iterator[None]:
    """Give a bad row of a fold the number it has in the whole."""
    try:
        yield
    except DataError as error:
        if error.row is None:
            raise
        raise DataError(error.message, row=int(rows[error.row]), column=error.column) from error
