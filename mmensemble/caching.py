"""The work that a search over fusion strategies would repeat, behind joblib's store.

Strategies differ in how members are joined; most of the time goes into fitting the members. Both functions here depend
on a member, its rows and its labels alone, so with a store they are computed once for all strategies that need them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from joblib import Memory
from sklearn.base import clone
from sklearn.model_selection import cross_val_predict

__all__ = ["as_memory", "fit_member", "out_of_fold"]


def as_memory(cache: Any) -> Memory:
    """Return the joblib store that a ``cache`` parameter means; None stores nothing."""
    return cache if isinstance(cache, Memory) else Memory(cache, verbose=0)


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
    weights = {} if sample_weight is None else {"sample_weight": sample_weight}
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
    params = None if sample_weight is None else {"sample_weight": sample_weight}
    return np.asarray(cross_val_predict(clone(estimator), X, y, cv=cv, method="predict_proba", params=params))
