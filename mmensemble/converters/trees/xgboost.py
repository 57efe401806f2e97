"""xgboost's estimators, as graphs, by the JSON that `save_raw` gives. It compares x < t in float32."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from mmensemble.converters.fallback.numbers import splits
from mmensemble.converters.linear import matrix
from mmensemble.converters.trees.ensemble import Link, Tree, boosted, raw_scores
from mmensemble.exceptions import ExportError
from mmensemble.graph import Outputs, Source, Tensor, class_named, to_graph

__all__ = ["check_xgboost"]

_XGBModel = class_named("xgboost.sklearn.XGBModel")

_LINK_OF: dict[str, Link] = {
    "binary:logistic": "sigmoid",
    "multi:softmax": "softmax",
    "multi:softprob": "softmax",
    "reg:logistic": "sigmoid",
    "reg:squarederror": "identity",
    "reg:squaredlogerror": "identity",
    "reg:absoluteerror": "identity",
    "reg:pseudohubererror": "identity",
    "reg:quantileerror": "identity",
    "count:poisson": "exp",
    "reg:gamma": "exp",
    "reg:tweedie": "exp",
}
_CATEGORIES = (
    "{} has categorical features, whose splits have no ONNX form here; put an OrdinalEncoder or a OneHotEncoder "
    "before it"
)
# What xgboost lets a probability be at least before it takes the logarithm.
_EPSILON = 1e-6


def check_xgboost(estimator: Any) -> None:
    """Raise `ExportError` for parameters, of an estimator that need not be fitted, that have no ONNX form here."""
    name, objective = type(estimator).__name__, estimator.objective
    if callable(objective) or objective not in (None, *_LINK_OF):
        raise ExportError(f"{name}(objective={_named(objective)}) is not exported; {', '.join(_LINK_OF)} are")
    if estimator.booster == "gblinear":
        raise ExportError(f"{name}(booster='gblinear') is not exported; use a linear model of scikit-learn")
    if "c" in (estimator.feature_types or []):
        raise ExportError(_CATEGORIES.format(name))


def _named(objective: Any) -> str:
    return getattr(objective, "__name__", type(objective).__name__) if callable(objective) else repr(objective)


@splits.register(_XGBModel)
def _splits(estimator: Any) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for tree in _trees(estimator, _learner(estimator)):
        yield tree.splits


@to_graph.register(_XGBModel)
def _xgboost(estimator: Any, source: Source | None = None) -> Outputs:
    name = type(estimator).__name__
    learner = _learner(estimator)
    objective = learner["objective"]["name"]
    if objective not in _LINK_OF:
        raise ExportError(f"{name}(objective={objective!r}) is not exported; {', '.join(_LINK_OF)} are")
    link = _LINK_OF[objective]
    trees = _trees(estimator, learner)
    parameters = learner["learner_model_param"]
    width = max(1, int(parameters["num_class"]), int(parameters["num_target"]))
    X = _with_missing(estimator, matrix(estimator, source))
    with X.graph.scope(name):
        raw = raw_scores(X, X.value, trees, width, _margins(parameters["base_score"], link, width))
        return boosted(estimator, X, raw, link, width, multilabel=link == "sigmoid" and width > 1)


def _learner(estimator: Any) -> dict[str, Any]:
    check_xgboost(estimator)
    learner: dict[str, Any] = json.loads(estimator.get_booster().save_raw("json"))["learner"]
    if "c" in learner["feature_types"]:  # as columns of pandas' categories are
        raise ExportError(_CATEGORIES.format(type(estimator).__name__))
    return learner


def _trees(estimator: Any, learner: dict[str, Any]) -> list[Tree]:
    """Read the trees up to the best iteration, where fitting stopped early."""
    booster = learner["gradient_booster"]
    model = booster.get("gbtree", booster)["model"]
    weights = booster.get("weight_drop", [1.0] * len(model["trees"]))  # of dart
    starts = model["iteration_indptr"]
    n_trees = starts[min(getattr(estimator, "best_iteration", len(starts)) + 1, len(starts) - 1)]
    return [
        _tree(tree, output, weight)
        for tree, output, weight in zip(
            model["trees"][:n_trees], model["tree_info"][:n_trees], weights[:n_trees], strict=True
        )
    ]


def _tree(tree: dict[str, Any], output: int, weight: float) -> Tree:
    left = np.asarray(tree["left_children"])
    width = int(tree["tree_param"]["size_leaf_vector"])
    numbers = np.asarray(tree["split_conditions"], dtype=np.float32)  # a leaf's is its value
    value = numbers[:, None]
    if width > 1:
        value = np.zeros((len(left), width), dtype=np.float32)
        value[left < 0] = np.asarray(tree["leaf_weights"], dtype=np.float32).reshape(-1, width)
    return Tree(
        np.asarray(tree["split_indices"]),
        numbers,
        left,
        np.asarray(tree["right_children"]),
        np.asarray(tree["default_left"]),
        value * np.float32(weight),
        output if width == 1 else 0,
        "BRANCH_LT",
    )


def _margins(base_score: str, link: Link, width: int) -> np.ndarray:
    """Return what the sums start from, (1, width); the model holds what the objective makes of that."""
    base = np.atleast_1d(json.loads(base_score)).astype(np.float64)
    if link == "sigmoid":
        share = base.clip(_EPSILON, 1 - _EPSILON)
        base = np.log(share / (1 - share))
    elif link == "exp":
        base = np.log(base)
    return np.broadcast_to(base, (1, width))


def _with_missing(estimator: Any, X: Tensor) -> Tensor:
    """Let NaN stand for what xgboost reads as missing: a number of the user's, and what a sparse matrix leaves out."""
    graph, value = X.graph, X.value
    for number in {*([0.0] if X.sparse else []), *([] if np.isnan(estimator.missing) else [float(estimator.missing)])}:
        absent = graph.op("Equal", X.value, graph.constant(np.float32(number)))
        value = graph.op("Where", absent, graph.constant(np.float32(np.nan)), value)
    return replace(X, value=value)
