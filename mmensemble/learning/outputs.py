"""Members' outputs in the form of the composition's task; and what they are made of.

Every strategy works on outputs (n, task.width). Classes come as distributions: one of `n_classes` probabilities, one
per column of labels, or one of (1 - p, p) per independent label.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.base import is_regressor

from mmensemble.exceptions import ConfigurationError, DataError
from mmensemble.operations import Operations, Value
from mmensemble.tasks import Multilabel, Multioutput, Regression, Task, placement

__all__ = [
    "aligned_outputs",
    "check_can_answer",
    "distributions",
    "flat",
    "informative_columns",
    "labels_known",
    "output_names",
    "outputs_known",
    "outputs_of",
]


def check_can_answer(name: str, estimator: Any, task: Task, user: str) -> None:
    """Raise `ConfigurationError` where an estimator lacks the method that the task asks for."""
    method = "predict" if isinstance(task, Regression) else "predict_proba"
    if hasattr(estimator, method):
        return
    remedy = ""
    if hasattr(estimator, "__sklearn_tags__") and is_regressor(estimator):
        remedy = "; it is a regressor: give a classifier"
    elif method == "predict_proba":
        remedy = "; put a CalibratedClassifierCV around it"
    raise ConfigurationError(f"{name} ({type(estimator).__name__}) has no {method}, which {user} needs{remedy}")


def labels_known(classes: Sequence[np.ndarray], labels: Sequence[np.ndarray] | None) -> list[np.ndarray]:
    """Return the labels that an estimator tells apart, of each column.

    Parameters
    ----------
    classes : sequence of ndarray
        Its classes, by column.
    labels : sequence of ndarray, or None
        The labels that its classes number, as `fit_member` returns them; None where they are the labels themselves.
    """
    if labels is None:
        return [np.asarray(column) for column in classes]
    return [names[np.asarray(column, dtype=int)] for column, names in zip(classes, labels, strict=True)]


def outputs_known(estimator: Any, task: Task, labels: Sequence[np.ndarray] | None) -> np.ndarray:
    """Tell of which outputs a fitted estimator saw rows; the others are 0 whatever the row is.

    Parameters
    ----------
    estimator : estimator
    task : Task
    labels : sequence of ndarray, or None
        The labels that its classes number, as `fit_member` returns them; None where they are the labels themselves.

    Returns
    -------
    ndarray of bool, shape (task.width,)
        True where nothing is known about it.
    """
    classes = getattr(estimator, "classes_", None)
    if isinstance(task, Multilabel) and isinstance(classes, list):
        return np.array([np.isin((0, 1), of_label).all() for of_label in classes])
    if not task.label_sets or (labels is None and classes is None):
        return np.ones(task.width, dtype=bool)
    known = list(labels) if labels is not None else classes if isinstance(classes, list) else [np.asarray(classes)]
    matrix = placement(known, task.label_sets)
    return np.ones(task.width, dtype=bool) if matrix is None else np.asarray(matrix.any(axis=0))


def outputs_of(estimator: Any, task: Task, X: Any, labels: Sequence[np.ndarray] | None = None) -> np.ndarray:
    """Return a fitted estimator's probabilities or predictions in the order of the task.

    Parameters
    ----------
    estimator : estimator
    task : Task
    X : what the estimator takes, n rows
    labels : sequence of ndarray, default=None
        The labels that its classes number, as `fit_member` returns them; None where they are the labels themselves.

    Returns
    -------
    ndarray of float, shape (n, task.width)
        Classes that the estimator does not know have probability 0.
    """
    if isinstance(task, Regression):
        return np.asarray(estimator.predict(X), dtype=np.float64).reshape(-1, task.width)
    proba = estimator.predict_proba(X)
    if isinstance(task, Multilabel):
        if isinstance(proba, list):  # as scikit-learn's multi-output classifiers: (n, 2) per label, or (n, 1)
            return np.column_stack([_second(p, c) for p, c in zip(proba, estimator.classes_, strict=True)])
        return _of_width(np.asarray(proba), task.width)
    if not isinstance(task, Multioutput):
        proba, classes = [proba], [estimator.classes_]
    elif isinstance(proba, list):
        classes = estimator.classes_
    else:  # columns of two numbers each were a 0/1 matrix to the estimator
        classes = [np.arange(len(names)) for names in labels or []]
        proba = [np.column_stack([1 - p, p]) for p in proba.T]
    columns = [_adding_up(np.asarray(part), len(of_part)) for part, of_part in zip(proba, classes, strict=True)]
    return aligned_outputs(np.hstack(columns), labels_known(classes, labels), task)


def _adding_up(proba: np.ndarray, n_classes: int) -> np.ndarray:
    """Let rows of probabilities add up to 1 in float64.

    As closely as float32 can is too far off for scikit-learn's metrics, and a network whose user set the number of its
    outputs (skorch's) has some for classes that its rows do not hold.
    """
    if proba.dtype != np.float32 and proba.shape[1] == n_classes:
        return proba
    proba = proba[:, :n_classes].astype(np.float64)
    return proba / proba.sum(axis=1, keepdims=True)


def aligned_outputs(proba: np.ndarray, known: Sequence[np.ndarray], task: Task) -> np.ndarray:
    """Put probabilities over known labels into the order of the task's."""
    matrix = placement(known, task.label_sets)
    return proba if matrix is None else proba @ matrix


def _second(proba: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return the probability of label 1 out of those of the classes that were seen."""
    present = np.flatnonzero(np.asarray(classes) == 1)
    return proba[:, present[0]] if len(present) else np.zeros(len(proba))


def _of_width(outputs: np.ndarray, width: int) -> np.ndarray:
    if outputs.ndim != 2 or outputs.shape[1] != width:
        raise DataError(f"a member gave outputs of shape {outputs.shape}, not (n, {width})")
    return outputs


def distributions(xp: Operations, outputs: Value, task: Task) -> list[Value]:
    """Split outputs (n, width) into distributions along the last axis.

    Returns
    -------
    list of values, shape (n, n_classes)
        One per column of labels; of independent labels a single one, (n, n_labels, 2).
    """
    if isinstance(task, Multilabel):
        return [xp.stack(1 - outputs, outputs)]
    return xp.split(outputs, [len(labels) for labels in task.label_sets])


def flat(xp: Operations, parts: Sequence[Value], task: Task) -> Value:
    """Undo `distributions`."""
    return xp.take(parts[0], 1) if isinstance(task, Multilabel) else xp.concat(*parts)


def informative_columns(task: Task) -> np.ndarray:
    """Return the outputs that others do not give away: of two classes, as scikit-learn does, the second one's."""
    if not task.label_sets:
        return np.arange(task.width)
    keep: list[int] = []
    start = 0
    for labels in task.label_sets:
        keep += range(start + (len(labels) == 2), start + len(labels))
        start += len(labels)
    return np.asarray(keep)


def output_names(task: Task) -> list[str]:
    """Return a name per output: the label, with the name of its column where there are several, or the target."""
    if isinstance(task, Multioutput):
        columns = zip(task.names, task.label_sets, strict=True)
        return [f"{name}_{label}" for name, labels in columns for label in labels.tolist()]
    if isinstance(task, Regression):
        return task.prediction_columns()
    if isinstance(task, Multilabel):
        return task.names
    return [str(label) for label in task.classes.tolist()]
