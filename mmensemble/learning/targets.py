"""What a `y` is: its task, what its rows have on average, and its checked form. Imports scikit-learn, no torch.

The torch estimators and the compositions learn the same `LearnedTask`, so a `y` means the same to both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils import Tags, assert_all_finite
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import check_array, column_or_1d

from mmensemble.exceptions import DataError
from mmensemble.frames import missing_cells
from mmensemble.tasks import Classification, Multilabel, Multioutput, Regression, Task

__all__ = [
    "LabelsMixin",
    "LearnedTask",
    "classes_and_share",
    "exact_matches",
    "for_members",
    "label_columns",
    "learn_labels",
    "learn_numbers",
]


@dataclass(frozen=True)
class LearnedTask:
    """What was learned of a `y`.

    Parameters
    ----------
    task : Task
    prior : ndarray of float, shape (task.width,)
        What a row without any input gets: the classes' or labels' share, or the targets' mean, by sample weight.
    y : ndarray, shape (n,) or (n, n_columns)
        The `y`, checked.
    """

    task: Task
    prior: np.ndarray
    y: np.ndarray


def learn_labels(y: Any, weight: np.ndarray) -> LearnedTask:
    """Tell the kind of classification from `y`.

    Parameters
    ----------
    y : array-like, shape (n,) or (n, n_columns)
        One class per row: `Classification`. A 0/1 matrix: `Multilabel`. Several columns: `Multioutput`.
    weight : ndarray of float, shape (n,)

    Returns
    -------
    LearnedTask

    Raises
    ------
    ValueError
        If `y` is not made of labels, a column of it holds one class only, or all weights are 0.
    """
    _check_weight(weight)
    names = _column_names(y)
    if hasattr(y, "__array__"):
        table = np.asarray(y)
        _check_labelled(table)
        assert_all_finite(table, input_name="y")
        if table.dtype == object and table.ndim == 2 and table.shape[1] > 1:
            # Columns of several dtypes, as a frame has them, are more than scikit-learn's checks can compare.
            columns = label_columns(table)
            if len({column.dtype.kind for column in columns}) > 1:
                return _learn_columns(table, weight, names)
            y = np.column_stack(columns)
    check_classification_targets(y)
    kind = type_of_target(y, input_name="y")
    if kind == "multilabel-indicator":
        # scikit-learn calls any two integers so.
        y = np.asarray(check_array(y, dtype=np.int64, input_name="y"))
        if np.isin(y, (0, 1)).all():
            return LearnedTask(Multilabel(y.shape[1], names), np.average(y, axis=0, weights=weight), y)
        return _learn_columns(y, weight, names)
    if kind == "multiclass-multioutput":
        return _learn_columns(np.asarray(y), weight, names)
    y = np.asarray(column_or_1d(y, warn=True))
    classes, share = classes_and_share(y, weight)
    return LearnedTask(Classification(classes), share, y)


def _column_names(y: Any) -> list[str] | None:
    """Return the names of a frame's columns; None where they do not tell one from another."""
    columns = list(getattr(y, "columns", []))
    names = {str(column) for column in columns if isinstance(column, (str, int))}
    return [str(column) for column in columns] if columns and len(names) == len(columns) else None


def _learn_columns(y: np.ndarray, weight: np.ndarray, names: list[str] | None) -> LearnedTask:
    learned = [classes_and_share(column, weight) for column in label_columns(y)]
    task = Multioutput([Classification(classes) for classes, _ in learned], names)
    return LearnedTask(task, np.concatenate([share for _, share in learned]), y)


def classes_and_share(y: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the classes of one column of labels and their share of the weight.

    Raises
    ------
    DataError
        If there is one class only.
    """
    classes, codes = np.unique(y, return_inverse=True)
    if len(classes) < 2:
        raise DataError(f"y holds one class only ({classes.tolist()[0]!r}); at least two are needed to classify")
    return classes, np.bincount(codes, weights=weight) / weight.sum()


def label_columns(y: np.ndarray) -> list[np.ndarray]:
    """Return the columns of labels; out of a table of objects, each one with the dtype of its own values."""
    if y.dtype != object:
        return list(y.T)
    columns = [np.array(column.tolist()) for column in y.T]
    for number, column in enumerate(columns):
        check_classification_targets(column)
        if column.dtype.kind == "U" and not all(isinstance(label, str) for label in y[:, number]):
            raise DataError(f"Unknown label type: column {number} of y holds strings and something else")
    return columns


def for_members(learned: LearnedTask) -> np.ndarray:
    """Return `y` as numbers: for each label its place among the labels of its column.

    0/1 matrices and numbers stay as they are; of a single column of numbers, of which scikit-learn's estimators warn, a
    vector is made.

    Parameters
    ----------
    learned : LearnedTask

    Returns
    -------
    ndarray, shape (n,) or (n, n_columns)
    """
    task, y = learned.task, learned.y
    if isinstance(task, Regression) and task.width == 1:
        return y.reshape(-1)
    if not task.label_sets:
        return y
    columns = [y] if y.ndim == 1 else label_columns(y)
    places = [np.searchsorted(labels, column) for labels, column in zip(task.label_sets, columns, strict=True)]
    return np.column_stack(places).reshape(y.shape)


def _check_labelled(table: np.ndarray) -> None:
    """Raise a `DataError` for the first label of a table of objects that is missing."""
    missing = np.flatnonzero(missing_cells(table.ravel())) if table.dtype == object else np.array([])
    if len(missing):
        row = int(missing[0]) // (table.size // len(table))
        raise DataError("Input y contains NaN: the label is missing; leave such rows out", row=row)


def _check_weight(weight: np.ndarray) -> None:
    if len(weight) and not weight.any():
        raise DataError("all sample weights are 0; at least one row must count")


def learn_numbers(y: Any, weight: np.ndarray) -> LearnedTask:
    """Check the targets of a regression, float of shape (n,) or (n, n_targets), and learn their mean."""
    _check_weight(weight)
    names = _column_names(y)
    try:
        y = np.asarray(check_array(y, ensure_2d=False, dtype=np.float64, input_name="y"))
    except ValueError as error:
        if "could not convert" not in str(error):
            raise
        raise DataError(f"y must be numbers: {error}; labels are learned by a classifier") from error
    if y.ndim > 2:
        raise DataError(f"y must be of shape (n,) or (n, n_targets), not {y.shape}")
    table = y.reshape(len(y), -1)
    task = Regression(table.shape[1], one_dimensional=y.ndim == 1, names=names)
    return LearnedTask(task, np.average(table, axis=0, weights=weight), y)


def exact_matches(y: Any, predicted: np.ndarray, sample_weight: Any = None) -> float:
    """Return the share of rows of which every label is right; of one column of labels, the accuracy."""
    if predicted.ndim == 1:
        return float(accuracy_score(y, predicted, sample_weight=sample_weight))
    y = np.asarray(y)
    if y.shape != predicted.shape:
        raise DataError(f"y must be of shape {predicted.shape}, as the predictions, not {y.shape}")
    return float(np.average((y == predicted).all(axis=1), weights=sample_weight))


class LabelsMixin(ClassifierMixin):
    """What classifiers share whose rows may have several labels: their score and their tags."""

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the accuracy: the share of rows of which every label is right.

        Parameters
        ----------
        X : what `predict` takes, n_samples rows
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
        sample_weight : array-like of float, shape (n_samples,), default=None

        Returns
        -------
        float
        """
        return exact_matches(y, self.predict(X), sample_weight)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags
