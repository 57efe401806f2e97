"""The meta-learner that stacking has by default: linear, with a penalty that cross-validation chose."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
from sklearn import config_context
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier
from sklearn.preprocessing import StandardScaler

from mmensemble.fusion.held_out import HeldOut, mean_loss
from mmensemble.learning.members import fit_member, member_target
from mmensemble.learning.outputs import outputs_of
from mmensemble.tasks import Multilabel, Multioutput, Regression, Task

__all__ = ["can_learn", "chosen_strength", "fit_default", "quiet"]

# Of two that are equally good, the first and stronger one. Of a ridge, per row and unit of a feature's variance.
C_OF_CLASSES = (0.03, 0.1, 0.3, 1.0, 3.0)
ALPHA_OF_NUMBERS = (1.0, 0.1, 0.01, 0.001, 0.0001)

# Where the search for the best one begins, and ends without two folds to choose by.
DEFAULT_C = 1.0
DEFAULT_ALPHA = 0.01


def chosen_strength(task: Task, features: np.ndarray, known: HeldOut) -> float:
    """Return the penalty's strength of the lowest loss over the folds.

    Parameters
    ----------
    task : Task
    features : ndarray of float, shape (n, n_features)
    known : HeldOut
        Of these rows: y, weights and folds.
    """
    strengths = ALPHA_OF_NUMBERS if isinstance(task, Regression) else C_OF_CLASSES
    best = strengths.index(DEFAULT_ALPHA if isinstance(task, Regression) else DEFAULT_C)
    told = np.zeros(len(known.y), dtype=bool)
    folds = [(fitting, held_out) for fitting, held_out in known.folds if can_learn(task, known, fitting)]
    for _, held_out in folds:
        told[held_out] = known.weight[held_out] > 0
    if len(folds) < 2 or not told.any():
        return strengths[best]

    @cache
    def loss(number: int) -> float:
        made = np.zeros((len(known.y), task.width))
        for fitting, held_out in folds:
            weight = None if known.sample_weight is None else known.sample_weight[fitting]
            estimator, labels = fit_default(task, features[fitting], known.y[fitting], weight, strengths[number])
            made[held_out] = outputs_of(estimator, task, features[held_out], labels)
        return mean_loss(task, made[told], known.y[told], known.weight[told])

    with quiet():
        for step in (-1, 1):
            while 0 <= best + step < len(strengths) and loss(best + step) < loss(best):
                best += step
    return strengths[best]


@contextmanager
def quiet() -> Iterator[None]:
    """Say nothing of labels that a fold's rows all have, or none of them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Label .* is present in all training examples")
        yield


def can_learn(task: Task, known: HeldOut, rows: np.ndarray) -> bool:
    """Tell whether some rows, by their numbers, have a weight, and two classes in each column of labels."""
    counted = known.y[rows][known.weight[rows] > 0]
    if not len(counted):
        return False
    return not task.label_sets or not bool((counted == counted[0]).all(axis=0).any())


def fit_default(
    task: Task, features: np.ndarray, y: np.ndarray, weight: np.ndarray | None, strength: float
) -> tuple[Any, list[np.ndarray] | None]:
    """Fit a linear meta-learner, and return the labels that its classes number beside it, as `fit_member` does."""
    if isinstance(task, Regression):
        return _ridge(features, y, weight, strength), None
    logistic = LogisticRegression(C=strength, max_iter=1000)
    if not isinstance(task, (Multilabel, Multioutput)):
        return fit_member(logistic, features, y, task.label_sets, weight)
    per_column = OneVsRestClassifier if isinstance(task, Multilabel) else MultiOutputClassifier
    if weight is None:
        return fit_member(per_column(logistic), features, y, task.label_sets)
    # OneVsRestClassifier hands weights on by metadata routing only.
    with config_context(enable_metadata_routing=True):
        final = per_column(logistic.set_fit_request(sample_weight=True))
        y, labels = member_target(final, y, task.label_sets)
        return final.fit(features, y, sample_weight=weight), labels


def _ridge(features: np.ndarray, y: np.ndarray, weight: np.ndarray | None, strength: float) -> Ridge:
    """Fit a ridge regression that is the same whatever the features' units are."""
    scaler = StandardScaler().fit(features, sample_weight=weight)
    alpha = strength * (len(y) if weight is None else weight.sum())
    ridge = Ridge(alpha).fit(scaler.transform(features), y, sample_weight=weight)
    ridge.coef_ = ridge.coef_ / scaler.scale_
    ridge.intercept_ = ridge.intercept_ - ridge.coef_ @ scaler.mean_
    return ridge
