"""Numbers that matter to a fitted estimator, on which its graph is tried out.

Means and ranges of scalers, fitting rows of neighbours, and the thresholds of trees with what lies just beside them,
taken back through the scalers before them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import singledispatch
from itertools import islice
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from mmensemble.learning.columns import ColumnSelector, as_list
from mmensemble.learning.pipelines import prediction_steps

__all__ = ["holds_trees", "numbers_for", "splits"]

# Rows of one kind at most: of a fitted array, and thresholds of one tree.
_MOST = 64
# Trees whose thresholds are tried.
_MOST_TREES = 8

Back = Callable[[np.ndarray], np.ndarray]


def numbers_for(estimator: Any, columns: Sequence[str], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Return numbers for some columns that matter to a fitted estimator, and what lies beside them.

    Parameters
    ----------
    estimator : estimator
    columns : sequence of str
        The numeric ones.
    rng : Generator

    Returns
    -------
    dict of str to ndarray of float64
        Of those columns of which the estimator holds numbers.
    """
    found: dict[str, list[np.ndarray]] = {column: [] for column in columns}
    names = [str(name) for name in getattr(estimator, "feature_names_in_", columns)]
    for features, matrix in _seen(estimator, names, lambda X: X):
        for column, values in zip(features, matrix.T, strict=True):
            if column in found:
                values = values[np.isfinite(values)]
                found[column].append(rng.permutation(values)[:_MOST])
    numbers = {}
    for column, arrays in found.items():
        values = np.concatenate(arrays) if arrays else np.zeros(0)
        if len(values):
            spread = float(np.ptp(values)) or max(1.0, abs(float(values[0])))
            beside = [np.nextafter(values, side) for side in (-np.inf, np.inf)]
            largest = float(np.finfo(np.float32).max)
            single = np.clip(values, -largest, largest).astype(np.float32)
            beyond = [values.min() - spread * rng.random(4), values.max() + spread * rng.random(4)]
            between = values.min() + spread * rng.random(len(values))
            numbers[column] = np.concatenate([values, single, *beside, *beyond, between, np.round(between, 2)])
    return numbers


@singledispatch
def splits(estimator: Any) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the features and the thresholds at which each tree of a fitted estimator splits rows; of most, none."""
    yield from ()


def holds_trees(estimator: Any) -> bool:
    """Tell whether an estimator is a tree or made of trees."""
    return hasattr(estimator, "tree_") or any(holds_trees(part) for part in _parts(estimator))


def _seen(estimator: Any, names: list[str], back: Back) -> Iterator[tuple[list[str], np.ndarray]]:
    """Yield rows of numbers that a fitted estimator holds about its features, as they were in X."""
    if isinstance(estimator, Pipeline):
        yield from _seen_in_steps([step for _, step in prediction_steps(estimator)], names, back)
        return
    if isinstance(estimator, ColumnTransformer):
        for _, transformer, columns in getattr(estimator, "transformers_", []):
            if isinstance(columns, (str, list)) and all(isinstance(name, str) for name in columns):
                yield from _seen(transformer, as_list(columns), back)
        return
    members = getattr(getattr(estimator, "fusion_", None), "members_", None)
    if members is not None:
        for member in members:
            yield from _seen(member.estimator, as_list(member.columns), back)
        return
    for matrix in _matrices(estimator, len(names)):
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of numbers that no inverse has
            try:
                raw = back(matrix[:_MOST])
            except (ValueError, LookupError, TypeError):  # no inverse of such numbers, as of an encoder's
                continue
        yield names, raw
    subsets = getattr(estimator, "estimators_features_", None)
    for number, part in enumerate(_parts(estimator)):
        features = names if subsets is None or number >= len(subsets) else [names[i] for i in subsets[number]]
        if len(features) == getattr(part, "n_features_in_", len(names)) == len(names):
            yield from _seen(part, features, back)


def _seen_in_steps(steps: Sequence[Any], names: list[str], back: Back) -> Iterator[tuple[list[str], np.ndarray]]:
    for step in steps:
        if isinstance(step, ColumnSelector):
            names = as_list(step.columns)
            continue
        yield from _seen(step, names, back)
        if getattr(step, "n_features_in_", None) != len(names) or not hasattr(step, "transform"):
            return
        inverse = getattr(step, "inverse_transform", None)
        if hasattr(step, "statistics_"):  # an imputer leaves what is not missing as it is
            continue
        if inverse is None or len(getattr(step, "get_feature_names_out", list)()) != len(names):
            return
        back = _through(inverse, back)


def _through(inverse: Back, back: Back) -> Back:
    return lambda X: back(inverse(X))


def _parts(estimator: Any) -> Iterator[Any]:
    """Yield the fitted estimators that an estimator is made of, of each kind some."""
    for value in vars(estimator).values() if hasattr(estimator, "__dict__") else ():
        for part in islice(_flat(value), 8):
            part = getattr(part, "estimator", part)  # of scikit-learn's calibrated pairs
            if hasattr(part, "fit") and _is_fitted(part):
                yield part


def _is_fitted(estimator: Any) -> bool:
    try:
        check_is_fitted(estimator)
    except (NotFittedError, TypeError):  # of a class
        return False
    return True


def _flat(value: Any) -> Iterator[Any]:
    """Yield what lists, and arrays of objects, hold; as gradient boosting has its trees."""
    if isinstance(value, (list, tuple)) or (isinstance(value, np.ndarray) and value.dtype == object):
        for part in value:
            yield from _flat(part)
    else:
        yield value


def _matrices(estimator: Any, n_features: int) -> Iterator[np.ndarray]:
    """Yield arrays (n, n_features) of what an estimator has learned of each feature."""
    learned = vars(estimator) if isinstance(estimator, BaseEstimator) else {}
    for name, value in learned.items():
        array = value.toarray() if hasattr(value, "toarray") else value
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu" or name.startswith(("coef", "feature_")):
            continue
        if array.shape == (n_features,) or (array.ndim == 2 and array.shape[1] == n_features):
            yield np.atleast_2d(array).astype(np.float64)
    for features, thresholds in islice(splits(estimator), _MOST_TREES):
        # One row for each, which holds NaN for every other feature.
        matrix = np.full((min(len(features), _MOST), n_features), np.nan)
        matrix[np.arange(len(matrix)), features[:_MOST]] = thresholds[:_MOST]
        yield matrix
