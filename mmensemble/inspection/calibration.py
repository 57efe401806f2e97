"""Whether a classifier is as often right as it says: the calibration of its most probable class."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils import Bunch, check_array, check_consistent_length
from sklearn.utils.validation import column_or_1d

from mmensemble._sklearn import check_sample_weight
from mmensemble.exceptions import ConfigurationError, DataError

__all__ = ["expected_calibration_error", "reliability_curve"]


def expected_calibration_error(
    y_true: Any,
    y_proba: Any,
    *,
    n_bins: int = 15,
    strategy: str = "uniform",
    classes: Any = None,
    sample_weight: Any = None,
) -> float:
    """Compute the expected calibration error of the most probable class (Guo et al. 2017).

    Rows are put into bins by the probability of their most probable class, the confidence. The error is the mean over
    bins, weighted by their rows, of the distance between the mean confidence and the accuracy.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        Labels.
    y_proba : array-like of float, shape (n_samples, n_classes) or (n_samples,)
        Probabilities; of two classes those of the second one are enough.
    n_bins : int, default=15
    strategy : {"uniform", "quantile"}, default="uniform"
        Bins of the same width, or of the same number of rows as nearly as ties allow (adaptive bins). The latter do not
        depend on where the confidences gather.
    classes : array-like of shape (n_classes,), default=None
        The labels in the order of the columns, as in ``classes_``. None takes the sorted labels of `y_true`.
    sample_weight : array-like of float, shape (n_samples,), default=None

    Returns
    -------
    float
        From 0, calibrated, to 1.

    Raises
    ------
    ConfigurationError
        If a parameter cannot work.
    DataError
        If the probabilities are none, or do not fit the classes.

    See Also
    --------
    reliability_curve : The bins.
    sklearn.calibration.CalibratedClassifierCV : Mends it.

    Notes
    -----
    The measure is biased: upwards, by the noise of the accuracy, with few rows in a bin, and downwards with wide bins.

    References
    ----------
    Guo, Pleiss, Sun, Weinberger (2017). On calibration of modern neural networks. ICML.

    Nixon, Dusenberry, Zhang, Jerfel, Tran (2019). Measuring calibration in deep learning. CVPR Workshops.

    Examples
    --------
    >>> from mmensemble import expected_calibration_error
    >>> y_proba = [[0.9, 0.1], [0.9, 0.1], [0.2, 0.8], [0.2, 0.8]]
    >>> round(expected_calibration_error(["cat", "cat", "dog", "cat"], y_proba, classes=["cat", "dog"]), 3)
    0.2
    """
    curve = reliability_curve(
        y_true, y_proba, n_bins=n_bins, strategy=strategy, classes=classes, sample_weight=sample_weight
    )
    return float(curve.expected_calibration_error)


def reliability_curve(
    y_true: Any,
    y_proba: Any,
    *,
    n_bins: int = 15,
    strategy: str = "uniform",
    classes: Any = None,
    sample_weight: Any = None,
) -> Bunch:
    """Put rows into bins by the probability of their most probable class, and compute how often it is the true one.

    ``sklearn.calibration.calibration_curve`` does so for the second one of two classes.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        Labels.
    y_proba : array-like of float, shape (n_samples, n_classes) or (n_samples,)
        Probabilities; of two classes those of the second one are enough.
    n_bins : int, default=15
    strategy : {"uniform", "quantile"}, default="uniform"
        As in `expected_calibration_error`.
    classes : array-like of shape (n_classes,), default=None
        The labels in the order of the columns, as in ``classes_``. None takes the sorted labels of `y_true`.
    sample_weight : array-like of float, shape (n_samples,), default=None

    Returns
    -------
    sklearn.utils.Bunch
        A dictionary-like object with these attributes.

        bin_edges : ndarray of float, shape (n_bins + 1,)
            A bin holds its upper edge, not its lower one. With ``"quantile"`` there are fewer bins where confidences
            tie.
        weight : ndarray of float, shape (n_bins,)
            The rows in each bin, or the sum of their weights.
        confidence, accuracy : ndarray of float, shape (n_bins,)
            Their mean in each bin; NaN in an empty one.
        expected_calibration_error : float
            From 0, calibrated, to 1.

    Raises
    ------
    ConfigurationError
        If a parameter cannot work.
    DataError
        If the probabilities are none, or do not fit the classes.

    Examples
    --------
    >>> y_proba = [[0.9, 0.1], [0.9, 0.1], [0.2, 0.8], [0.2, 0.8]]
    >>> curve = reliability_curve(["cat", "cat", "dog", "cat"], y_proba, n_bins=4)
    >>> curve.weight, curve.accuracy
    (array([0., 0., 0., 4.]), array([ nan,  nan,  nan, 0.75]))
    """
    y_true, y_proba, classes = _checked(y_true, y_proba, classes)
    if n_bins < 1:
        raise ConfigurationError(f"n_bins must be at least 1, not {n_bins}")
    weight = np.asarray(check_sample_weight(sample_weight, y_proba, dtype=np.float64, ensure_non_negative=True))
    if not weight.sum() > 0:
        raise DataError("every row has a sample_weight of 0")
    confidence = y_proba.max(axis=1)
    right = classes[y_proba.argmax(axis=1)] == y_true
    if strategy == "uniform":
        edges = np.linspace(0.0, 1.0, n_bins + 1)
    elif strategy == "quantile":
        edges = np.unique(np.quantile(confidence, np.linspace(0.0, 1.0, n_bins + 1)))
        edges = np.array([0.0, *edges]) if len(edges) == 1 else edges
    else:
        raise ConfigurationError(f"strategy must be 'uniform' or 'quantile', not {strategy!r}")
    number = np.searchsorted(edges[1:-1], confidence, side="left")
    total, confidences, rights = (
        np.bincount(number, weights=weight * values, minlength=len(edges) - 1)
        for values in (np.ones(len(weight)), confidence, right)
    )
    means = [np.divide(s, total, out=np.full(len(total), np.nan), where=total > 0) for s in (confidences, rights)]
    return Bunch(
        bin_edges=edges,
        weight=total,
        confidence=means[0],
        accuracy=means[1],
        expected_calibration_error=float(np.abs(confidences - rights).sum() / total.sum()),
    )


def _checked(y_true: Any, y_proba: Any, classes: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    if isinstance(y_proba, list) and y_proba and isinstance(y_proba[0], np.ndarray) and y_proba[0].ndim == 2:
        raise DataError("y_proba must be of one column of labels; take one of the list")
    y_proba = np.asarray(check_array(y_proba, ensure_2d=False, dtype=np.float64, input_name="y_proba"))
    if y_proba.ndim == 1:
        y_proba = np.column_stack([1.0 - y_proba, y_proba])
    if y_proba.min() < 0 or y_proba.max() > 1 + 1e-6 or not np.allclose(y_proba.sum(axis=1), 1.0, atol=1e-4):
        raise DataError("y_proba must hold probabilities: from 0 to 1, and each row's sum is 1")
    y_true = np.asarray(column_or_1d(y_true))
    check_consistent_length(y_true, y_proba)
    found = np.unique(y_true)
    classes = found if classes is None else np.asarray(classes)
    if len(classes) != y_proba.shape[1]:
        raise DataError(
            f"y_proba has {y_proba.shape[1]} columns for {len(classes)} classes; give classes in their order"
        )
    unknown = np.setdiff1d(found, classes).tolist()
    if unknown:
        raise DataError(f"y_true holds {unknown[0]!r}, which is not among the classes {classes.tolist()}")
    return y_true, y_proba, classes
