"""What a member makes of its rows before anything predicts: embeddings, scaled numbers, counted terms."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import csr_array, issparse
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import Normalizer

from mmensemble.exceptions import ConfigurationError, DataError, MmensembleError

__all__ = ["feature_steps", "features_of", "fit_features", "makes_features"]


def feature_steps(estimator: Any) -> Pipeline:
    """Return the part of an estimator that makes features."""
    if hasattr(estimator, "transform") and not isinstance(estimator, Pipeline):
        return Pipeline([("features", estimator)])
    if not isinstance(estimator, Pipeline):
        return Pipeline([("features", "passthrough")])
    if hasattr(estimator[-1], "transform"):
        return estimator
    return Pipeline(estimator.steps[:-1] or [("features", "passthrough")])


def makes_features(estimator: Any) -> bool:
    """Tell whether the steps that make features learn nothing from `y`, as far as their kind tells."""
    for _, step in feature_steps(estimator).steps:
        if step is None or isinstance(step, (str, FrozenEstimator)):
            continue
        frozen = hasattr(step, "fit_embedding") and step.fine_tune == "head"
        if not frozen and (is_classifier(step) or is_regressor(step)):
            return False
    return True


def fit_features(estimator: Any, rows: Any, y: np.ndarray | None = None) -> tuple[Pipeline, Any] | None:
    """Fit a clone of the steps that make features.

    A frozen network is given no head, and its embeddings are normalised. All other steps are fitted without `y`, if
    that can be done.

    Parameters
    ----------
    estimator : estimator
    rows : Series or DataFrame, n rows
    y : ndarray, default=None

    Returns
    -------
    (Pipeline, features), or None where a step cannot be fitted without `y`, and `y` is None
    """
    fitted: list[tuple[str, Any]] = []
    embeds = False
    for name, step in feature_steps(estimator).steps:
        if step is None or step == "passthrough" or hasattr(step, "fit_resample"):
            continue
        step = clone(step)
        embeds = hasattr(step, "fit_embedding") and not isinstance(step, FrozenEstimator)
        if embeds:
            rows = step.fit_embedding(rows).transform(rows)
        elif y is not None:
            rows = step.fit_transform(rows, y) if hasattr(step, "fit_transform") else step.fit(rows, y).transform(rows)
        else:
            try:
                rows = step.fit_transform(rows) if hasattr(step, "fit_transform") else step.fit(rows).transform(rows)
            except MmensembleError:
                raise
            except (TypeError, ValueError):
                return None
        fitted.append((name, step))
    if embeds:
        rows = (normalizer := Normalizer()).fit_transform(rows)
        fitted.append(("norm", normalizer))
    return Pipeline(fitted or [("features", "passthrough")]), rows


def features_of(name: str, features: Any, present: np.ndarray) -> Any:
    """Return features as an array or a sparse array of float64, (n_present, n_features).

    Parameters
    ----------
    name : str
        The member, which errors call so.
    features : what a transformer gives
    present : ndarray of bool, shape (n,)
        Which rows they are of.

    Raises
    ------
    ConfigurationError
        If they are no numbers.
    DataError
        If one of them is NaN or infinite.
    """
    try:
        if issparse(features):
            features = csr_array(features, dtype=np.float64)
        else:
            features = np.asarray(features, dtype=np.float64)
            features = features.reshape(len(features), -1)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(
            f"member {name!r} gives the fusion no numbers but {type(features).__name__}: put a transformer "
            "(TfidfVectorizer, OneHotEncoder, ...) before its final estimator"
        ) from error
    numbers = features.data if issparse(features) else features
    if not np.isfinite(numbers).all():
        sums = np.asarray(features.sum(axis=1)).ravel()
        raise DataError(
            f"member {name!r} has NaN or infinite features; put a SimpleImputer into its pipeline",
            row=int(np.flatnonzero(present)[np.isfinite(sums).argmin()]),
        )
    return features
