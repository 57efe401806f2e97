"""The work that a search over fusion strategies would repeat, behind joblib's store.

Strategies differ in how members are joined; most of the time goes into fitting the members. Both functions here depend
on a member, its rows and its labels alone, so with a store they are computed once for all strategies that need them.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from joblib import Memory
from sklearn.base import clone
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import Pipeline

from mmensemble.exceptions import DataError

__all__ = ["as_memory", "fit_member", "out_of_fold"]


def as_memory(cache: Any) -> Memory:
    """Return the joblib store that a ``cache`` parameter means; None stores nothing."""
    return cache if isinstance(cache, Memory) else Memory(None if cache is None else os.fspath(cache), verbose=0)


def weight_name(estimator: Any) -> str:
    """Return the name by which `fit` takes sample weights; a pipeline takes them for its last step."""
    if isinstance(estimator, Pipeline):
        name, last = estimator.steps[-1]
        return f"{name}__{weight_name(last)}"
    return "sample_weight"


def fit_member(estimator: Any, X: Any, y: np.ndarray, sample_weight: np.ndarray | None) -> Any:
    """Fit a clone of a member.

    Parameters
    ----------
    estimator : estimator
    X : Series or DataFrame, n rows
        The member's columns.
    y : ndarray of shape (n,)
    sample_weight : ndarray of float, shape (n,), or None

    Returns
    -------
    estimator
        The fitted clone.
    """
    weights = {} if sample_weight is None else {weight_name(estimator): sample_weight}
    return clone(estimator).fit(X, y, **weights)


def out_of_fold(estimator: Any, X: Any, y: np.ndarray, cv: Any, sample_weight: np.ndarray | None) -> np.ndarray:
    """Predict each row's class probabilities by a clone that was fitted without it.

    Parameters
    ----------
    estimator : estimator
    X : Series or DataFrame, n rows
    y : ndarray of shape (n,)
    cv : int or splitter
        As in ``cross_val_predict``.
    sample_weight : ndarray of float, shape (n,), or None

    Returns
    -------
    ndarray of float, shape (n, n_classes)
        Columns in the order of ``np.unique(y)``.
    """
    params = None if sample_weight is None else {weight_name(estimator): sample_weight}
    try:
        proba = cross_val_predict(clone(estimator), X, y, cv=cv, method="predict_proba", params=params)
    except DataError as error:
        # The row is counted within a fold, which would mislead.
        raise DataError(error.message, column=error.column) from error
    return np.asarray(proba)
