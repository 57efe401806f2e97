"""Numbers that matter to a fitted estimator, on which its graph is tried out.

Means and ranges of scalers, fitting rows of neighbours, and the thresholds of trees with what lies just beside them,
taken back through the scalers before them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.pipeline import Pipeline

from mmensemble._sklearn import histogram_trees
from mmensemble.learning.columns import ColumnSelector, as_list

__all__ = ["holds_trees", "numbers_for"]

# Rows of one kind at most: of a fitted array, and thresholds of one feature.
_MOST = 64

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


def holds_trees(estimator: Any) -> bool:
    """Tell whether an estimator is a tree or made of trees."""
    return hasattr(estimator, "tree_") or any(holds_trees(part) for part in _parts(estimator))


def _seen(estimator: Any, names: list[str], back: Back) -> Iterator[tuple[list[str], np.ndarray]]:
    """Yield rows of numbers that a fitted estimator holds about its features, as they were in X."""
    if isinstance(estimator, Pipeline):
        yield from _seen_in_steps([step for _, step in estimator.steps], names, back)
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
        with np.errstate(all="ignore"):
            try:
                raw = back(matrix[:_MOST])
            except (ValueError, LookupError, TypeError):  # no inverse of such numbers, as of an encoder's
                continue
        yield names, raw
    subsets = getattr(estimator, "estimators_features_", None)
    for number, part in enumerate(_parts(estimator)):
        features = names if subsets is None or number >= len(subsets) else [names[i] for i in subsets[number]]
        if len(features) == len(names):
            yield from _seen(part, features, back)


def _seen_in_steps(steps: Sequence[Any], names: list[str], back: Back) -> Iterator[tuple[list[str], np.ndarray]]:
    for step in steps:
        if isinstance(step, ColumnSelector):
            names = as_list(step.columns)
            continue
        if step in (None, "passthrough"):
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
    for name, value in vars(estimator).items() if hasattr(estimator, "__dict__") else ():
        if name.startswith("__") or name in ("estimator", "estimators", "base_estimator", "regressor", "transformer"):
            continue
        for part in islice(_flat(value), 8):
            part = getattr(part, "estimator", part)  # of scikit-learn's calibrated pairs
            if isinstance(part, BaseEstimator):
                yield part


def _flat(value: Any) -> Iterator[Any]:
    """Yield what lists, and arrays of objects, hold; as gradient boosting has its trees."""
    if isinstance(value, (list, tuple)) or (isinstance(value, np.ndarray) and value.dtype == object):
        for part in value:
            yield from _flat(part)
    else:
        yield value


def _matrices(estimator: Any, n_features: int) -> Iterator[np.ndarray]:
    """Yield arrays (n, n_features) of what an estimator has learned of each feature."""
    if not isinstance(estimator, BaseEstimator):
        return
    for name, value in vars(estimator).items():
        array = value.toarray() if hasattr(value, "toarray") else value
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu" or name.startswith(("coef", "feature_")):
            continue
        if array.shape == (n_features,) or (array.ndim == 2 and array.shape[1] == n_features):
            yield np.atleast_2d(array).astype(np.float64)
    tree = getattr(estimator, "tree_", None)
    if tree is not None:
        yield from _thresholds(np.asarray(tree.feature), np.asarray(tree.threshold), n_features)
    for stage in (histogram_trees(estimator) if hasattr(estimator, "_predictors") else [])[
        :8
    ]:  # of histogram gradient boosting
        for predictor in stage if isinstance(stage, list) else [stage]:
            split = predictor.nodes[predictor.nodes["is_leaf"] == 0]
            yield from _thresholds(split["feature_idx"].astype(int), split["num_threshold"], n_features)


def _first_trees(estimator: Any) -> Any:
    """Return trees of a histogram gradient boosting."""
    boosted = isinstance(estimator, (HistGradientBoostingClassifier, HistGradientBoostingRegressor))
    return histogram_trees(estimator)[:8] if boosted else []


def _thresholds(feature: np.ndarray, threshold: np.ndarray, n_features: int) -> Iterator[np.ndarray]:
    """Yield the thresholds of splits, in rows that hold NaN for every other feature."""
    splits = np.flatnonzero(feature >= 0)[:_MOST]
    if len(splits):
        matrix = np.full((len(splits), n_features), np.nan)
        matrix[np.arange(len(splits)), feature[splits]] = threshold[splits]
        yield matrix
