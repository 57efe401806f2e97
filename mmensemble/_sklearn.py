"""All that is used of scikit-learn without being public there, so that a change of its inside is met in one file.

The tests run with the versions of ``constraints.txt`` and of ``constraints-lowest.txt``.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
from sklearn.ensemble._forest import BaseForest
from sklearn.gaussian_process._gpc import COEFS, LAMBDAS
from sklearn.gaussian_process._gpc import _BinaryGaussianProcessClassifierLaplace as BinaryGaussianProcess
from sklearn.linear_model._base import LinearClassifierMixin, LinearModel
from sklearn.linear_model._stochastic_gradient import BaseSGDRegressor
from sklearn.model_selection._search import BaseSearchCV
from sklearn.utils import _safe_indexing as safe_indexing
from sklearn.utils._repr_html.estimator import _VisualBlock as VisualBlock
from sklearn.utils.metaestimators import _BaseComposition as BaseComposition
from sklearn.utils.validation import _check_sample_weight as check_sample_weight

try:
    from sklearn.callback import CallbackSupportMixin
    from sklearn.callback._callback_support import callback_management_context
except ImportError:  # scikit-learn 1.8: no estimator has callbacks

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Nothing to support."""

    callback_management_context = nullcontext

# Where an estimator keeps its callbacks.
CALLBACKS = "_skl_callbacks"

# The base classes are for `to_graph` and `isinstance`: without them, each estimator below them would have to be listed,
# and those of other packages were left out. `BaseComposition` gives `get_params` and `set_params` of members by name,
# `VisualBlock` the boxes of a notebook's diagram. `safe_indexing` takes rows of arrays, lists and any frame.
__all__ = [
    "CALLBACKS",
    "BaseComposition",
    "BaseForest",
    "BaseSGDRegressor",
    "BaseSearchCV",
    "BinaryGaussianProcess",
    "CallbackSupportMixin",
    "LinearClassifierMixin",
    "LinearModel",
    "VisualBlock",
    "baseline_scores",
    "callback_context",
    "callback_context_around",
    "callback_management_context",
    "check_sample_weight",
    "column_indices",
    "error_function_sum",
    "fitting_rows",
    "fitting_targets",
    "handed_down",
    "histogram_trees",
    "imputed_columns",
    "kernel_width",
    "positive_label",
    "power_scaler",
    "safe_indexing",
    "stacked_width",
]


def callback_context(estimator: Any, name: str) -> Any:
    """Return what an estimator that begins to be fitted tells its callbacks of that, and call their `setup`."""
    return estimator._init_callback_context(task_name=name, max_subtasks=None)


@contextmanager
def handed_down(context: Any, estimator: Any) -> Iterator[None]:
    """Hand callbacks down to an estimator that is fitted in this block; steps of pipelines need not support them."""
    with warnings.catch_warnings() if context._callbacks else nullcontext():
        if context._callbacks:
            warnings.filterwarnings("ignore", message=".* does not support callbacks", category=UserWarning)
        with context.propagate_callback_context(estimator):
            yield


def callback_context_around(estimator: Any) -> Any:
    """Return what an estimator that is being fitted is a part of, by an estimator of scikit-learn; None of nothing."""
    return getattr(estimator, "_parent_callback_ctx", None)


# Below are what fitted estimators keep to themselves. All are for export, which compares the file with the estimator:
# where one changes its meaning, `export_onnx` raises, and where it goes, AttributeError names it.


def column_indices(transformer: Any, name: str) -> list[int]:
    """Return which columns a part of a fitted `ColumnTransformer` takes; `transformers_` has them as given."""
    return list(transformer._transformer_to_input_indices[name])


def error_function_sum() -> tuple[np.ndarray, np.ndarray]:
    """Return the coefficients and the steepness of the error functions that stand for the logistic function."""
    return COEFS[:, 0], LAMBDAS[:, 0]


def stacked_width(stacking: Any) -> int:
    """Return how many columns the members of a fitted `StackingClassifier` or `StackingRegressor` make together."""
    return int(sum(stacking._n_feature_outs))


def positive_label(tuned: Any) -> Any:
    """Return the label to which the threshold of a fitted `TunedThresholdClassifierCV` belongs; None is the second."""
    return tuned._curve_scorer._get_pos_label()


def fitting_rows(neighbors: Any) -> Any:
    """Return the rows, (n_samples, n_features), among which a fitted estimator looks for neighbours."""
    return neighbors._fit_X


def fitting_targets(neighbors: Any) -> np.ndarray:
    """Return the targets of these rows, numbers of classes for a classifier, (n_samples,) or (n_samples, n_outputs)."""
    return np.asarray(neighbors._y)


def kernel_width(machine: Any) -> float:
    """Return what ``gamma="scale"`` or ``"auto"`` of a fitted support vector machine came to."""
    return float(machine._gamma)


def power_scaler(transformer: Any) -> Any:
    """Return the `StandardScaler` behind the powers of a fitted `PowerTransformer` that standardises."""
    return transformer._scaler


def imputed_columns(imputer: Any) -> np.ndarray:
    """Return which columns a fitted `KNNImputer` keeps, (n_features,) bool: those that were not empty in fit."""
    return np.asarray(imputer._valid_mask) | np.bool_(imputer.keep_empty_features)


def histogram_trees(boosting: Any) -> Any:
    """Return the trees of a fitted histogram gradient boosting: by iteration, one for each output."""
    return boosting._predictors


def baseline_scores(boosting: Any) -> np.ndarray:
    """Return the raw scores, (1, n_outputs), to which a fitted gradient boosting of either kind adds its trees."""
    if hasattr(boosting, "_baseline_prediction"):
        return np.asarray(boosting._baseline_prediction).reshape(1, -1)
    return np.asarray(boosting._raw_predict_init(np.zeros((1, boosting.n_features_in_), dtype=np.float32)))
