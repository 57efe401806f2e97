"""How a member is fitted. Imports scikit-learn, no torch."""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter, signature
from typing import Any

import numpy as np
from sklearn import config_context
from sklearn.base import clone
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import has_fit_parameter

from mmensemble.exceptions import ConfigurationError

__all__ = ["fit_member"]


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
    y : ndarray of shape (n,) or (n, n_columns)
    sample_weight : ndarray of float, shape (n,), or None

    Returns
    -------
    estimator
        The fitted clone.

    Raises
    ------
    ConfigurationError
        If the estimator takes no sample weights and there are some.
    """
    if sample_weight is None:
        return clone(estimator).fit(X, y)
    last = estimator.steps[-1][1] if isinstance(estimator, Pipeline) else estimator
    if not has_fit_parameter(last, "sample_weight") and not _takes_anything(last.fit):
        raise ConfigurationError(f"{type(last).__name__} takes no sample_weight")
    with config_context(enable_metadata_routing=False):  # the composition routes: every member gets the weights
        return clone(estimator).fit(X, y, **{weight_name(estimator): sample_weight})


def _takes_anything(function: Callable[..., Any]) -> bool:
    return any(p.kind is Parameter.VAR_KEYWORD for p in signature(function).parameters.values())
