"""How a member is fitted: which numbers stand for its labels, and what its `fit` takes. Imports scikit-learn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from inspect import Parameter, signature
from typing import Any

import numpy as np
from sklearn import config_context
from sklearn.base import clone, is_classifier
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils.metadata_routing import get_routing_for_object
from sklearn.utils.validation import has_fit_parameter

from mmensemble._sklearn import BaseSearchCV
from mmensemble.exceptions import ConfigurationError
from mmensemble.learning.targets import LabelsMixin
from mmensemble.progress import handing_down

__all__ = ["fit_member", "member_target", "named", "takes_groups"]


def fit_member(
    estimator: Any,
    X: Any,
    y: np.ndarray,
    label_sets: Sequence[np.ndarray],
    sample_weight: np.ndarray | None = None,
    groups: np.ndarray | None = None,
) -> tuple[Any, list[np.ndarray] | None]:
    """Fit a clone of a member.

    Parameters
    ----------
    estimator : estimator
    X : Series or DataFrame, n rows
        The member's columns.
    y : ndarray of shape (n,) or (n, n_columns)
        As `for_members` gives it.
    label_sets : sequence of ndarray
        The task's, whose labels `y` numbers.
    sample_weight : ndarray of float, shape (n,), default=None
    groups : ndarray, shape (n,), default=None
        For members that take them.

    Returns
    -------
    estimator
        The fitted clone.
    labels : list of ndarray, or None
        The labels that its classes number; see `member_target`.

    Raises
    ------
    ConfigurationError
        If the estimator takes no sample weights and there are some.
    """
    y, labels = member_target(estimator, y, label_sets)
    metadata = {}
    if sample_weight is not None:
        last = _last_step(estimator)
        if not has_fit_parameter(last, "sample_weight") and not _takes_anything(last.fit):
            raise ConfigurationError(f"{type(last).__name__} takes no sample_weight")
        metadata[_fit_parameter(estimator, "sample_weight")] = sample_weight
    if groups is not None:
        metadata[_fit_parameter(estimator, "groups")] = groups
    unfitted = clone(estimator)
    routing = config_context(enable_metadata_routing=False) if metadata else nullcontext()  # the composition routes
    with routing, handing_down(unfitted):
        return unfitted.fit(X, y, **metadata), labels


def member_target(
    estimator: Any, y: np.ndarray, label_sets: Sequence[np.ndarray]
) -> tuple[np.ndarray, list[np.ndarray] | None]:
    """Return `y` as a member learns it, and the labels that this numbers.

    As in scikit-learn's ensembles, a member learns numbers: 0, 1, ... of the labels that its rows hold, for some
    classifiers (xgboost's, skorch's) learn nothing else. An estimator that reads the labels gets the labels.

    Parameters
    ----------
    estimator : estimator
    y : ndarray of shape (n,) or (n, n_columns)
        As `for_members` gives it.
    label_sets : sequence of ndarray
        The task's, whose labels `y` numbers. None of independent labels and numbers, which are learned as they are.

    Returns
    -------
    y : ndarray of shape (n,) or (n, n_columns)
    labels : list of ndarray, or None
        By column, the label that each number stands for; None where the estimator learned no numbers of labels.
    """
    if not label_sets:
        return y, None
    if _reads_labels(estimator, {label for labels in label_sets for label in labels.tolist()}):
        return named(y, label_sets), None
    columns = y.reshape(len(y), -1).T
    known, numbers = zip(*(np.unique(column, return_inverse=True) for column in columns), strict=True)
    labels = [labels[places] for labels, places in zip(label_sets, known, strict=True)]
    numbered = np.column_stack(numbers).reshape(y.shape)
    if len(known) > 1 and all(len(column) == 2 for column in known) and _knows_independent_labels(estimator):
        numbered = numbered.astype(str)  # columns of 0 and 1 would be labels that need not be one of two
    return numbered, labels


def named(numbers: np.ndarray, labels: Sequence[np.ndarray]) -> np.ndarray:
    """Return the labels that numbers (n,) or (n, n_columns) stand for; an array of objects for several dtypes."""
    columns = zip(labels, numbers.reshape(len(numbers), -1).T, strict=True)
    names = [of_column[numbers_of_column] for of_column, numbers_of_column in columns]
    dtype = object if len({column.dtype.kind for column in names}) > 1 else None
    return np.stack(names, axis=-1, dtype=dtype, casting="unsafe").reshape(numbers.shape)


def _reads_labels(estimator: Any, labels: set[Any]) -> bool:
    """Tell whether numbers in place of the labels would change what an estimator learns.

    A parameter names labels (``class_weight={"spam": 5}``, ``pos_label="spam"``), a classifier was fitted before, or
    labels are words to it, of which it says so by ``reads_labels``.
    """
    parameters = estimator.get_params()
    for name, value in parameters.items():
        # For several columns of labels there is a list of class weights.
        mappings = value if isinstance(value, (list, tuple)) else [value]
        if any(isinstance(mapping, Mapping) and not labels.isdisjoint(mapping) for mapping in mappings):
            return True
        if name.rpartition("__")[2] == "pos_label" and value is not None:
            return True
    return any(
        getattr(part, "reads_labels", False) or (isinstance(part, FrozenEstimator) and is_classifier(part))
        for part in (estimator, *parameters.values())
    )


def _knows_independent_labels(estimator: Any) -> bool:
    """Tell whether an estimator, or one within it, is one of ours, to which a 0/1 matrix is multilabel."""
    return any(isinstance(part, LabelsMixin) for part in (estimator, *estimator.get_params().values()))


def takes_groups(estimator: Any) -> bool:
    """Tell whether groups are to be passed to an estimator: a composition, or a search by groups."""
    last = _last_step(estimator)
    if not isinstance(last, BaseSearchCV):
        return has_fit_parameter(last, "groups")
    return "groups" in get_routing_for_object(last.cv).consumes("split", ["groups"])


def _last_step(estimator: Any) -> Any:
    return _last_step(estimator.steps[-1][1]) if isinstance(estimator, Pipeline) else estimator


def _fit_parameter(estimator: Any, name: str) -> str:
    """Return the name by which `fit` takes a parameter of its last step."""
    if not isinstance(estimator, Pipeline):
        return name
    step, last = estimator.steps[-1]
    return f"{step}__{_fit_parameter(last, name)}"


def _takes_anything(function: Callable[..., Any]) -> bool:
    return any(p.kind is Parameter.VAR_KEYWORD for p in signature(function).parameters.values())
