"""lightgbm's estimators, as graphs, by the text that `model_to_string` gives. It compares x <= t in float64."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from mmensemble.converters.fallback.numbers import splits
from mmensemble.converters.linear import matrix
from mmensemble.converters.trees.ensemble import Link, Tree, boosted, raw_scores, rounded_down
from mmensemble.exceptions import ExportError
from mmensemble.graph import Outputs, Source, class_named, to_graph

__all__ = ["check_lightgbm"]

_LGBMModel = class_named("lightgbm.sklearn.LGBMModel")

_LINK_OF: dict[str, Link] = {
    "binary": "sigmoid",
    "multiclass": "softmax",
    "multiclassova": "sigmoid",
    "cross_entropy": "sigmoid",
    "cross_entropy_lambda": "softplus",
    "regression": "identity",
    "regression_l1": "identity",
    "huber": "identity",
    "fair": "identity",
    "quantile": "identity",
    "mape": "identity",
    "poisson": "exp",
    "gamma": "exp",
    "tweedie": "exp",
}
# Names of the objectives that are refused, and of parameters that lightgbm knows by several names.
_REFUSED = {
    "lambdarank",
    "rank_xendcg",
    "xendcg",
    "xe_ndcg",
    "xe_ndcg_mart",
    "xendcg_mart",
    "none",
    "null",
    "custom",
    "na",
}
_OBJECTIVE = ("objective", "objective_type", "app", "application", "loss")
_CATEGORICAL = ("categorical_feature", "cat_feature", "categorical_column", "cat_column", "categorical_features")
_CATEGORIES = (
    "{} has categorical features, whose splits have no ONNX form here; put an OrdinalEncoder or a OneHotEncoder "
    "before it, and give it no categorical_feature"
)
# The bits of a split's type.
_DEFAULT_LEFT, _MISSING_ZERO, _MISSING_NAN = 2, 4, 8
# What is no further from 0 is 0 to lightgbm.
_ZERO = float(np.float32(1e-35))


@dataclass(frozen=True)
class _Model:
    """A fitted model.

    Parameters
    ----------
    trees : list of Tree
    width : int
        The outputs that the trees add to, in turn.
    link : Link
    factor : float
        What the sums are multiplied by before the link; its `decision_function` gives them as they are.
    """

    trees: list[Tree]
    width: int
    link: Link
    factor: float


def check_lightgbm(estimator: Any) -> None:
    """Raise `ExportError` for parameters, of an estimator that need not be fitted, that have no ONNX form here."""
    name, parameters = type(estimator).__name__, estimator.get_params()
    objectives = [parameters[key] for key in _OBJECTIVE if parameters.get(key) is not None]
    if not objectives and any(base.__name__ == "LGBMRanker" for base in type(estimator).__mro__):
        objectives = ["lambdarank"]
    for objective in objectives:
        if callable(objective) or objective in _REFUSED:
            shown = getattr(objective, "__name__", type(objective).__name__) if callable(objective) else repr(objective)
            raise ExportError(f"{name}(objective={shown}) is not exported; {', '.join(_LINK_OF)} are")
    if parameters.get("linear_tree") or parameters.get("linear_trees"):
        raise ExportError(f"{name}(linear_tree=True) is not exported; leave linear_tree out")
    if parameters.get("zero_as_missing"):
        raise ExportError(f"{name}(zero_as_missing=True) is not exported; put NaN where a number is missing")
    if any(parameters.get(key) not in (None, "", []) for key in _CATEGORICAL):
        raise ExportError(_CATEGORIES.format(name))


@splits.register(_LGBMModel)
def _splits(estimator: Any) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for tree in _model(estimator).trees:
        yield tree.splits


@to_graph.register(_LGBMModel)
def _lightgbm(estimator: Any, source: Source | None = None) -> Outputs:
    model = _model(estimator)
    X = matrix(estimator, source)
    graph, trees = X.graph, model.trees
    if X.exact.dtype != ir.DataType.DOUBLE:
        trees = [replace(tree, threshold=rounded_down(tree.threshold)) for tree in trees]
    with graph.scope(type(estimator).__name__):
        raw = raw_scores(X, X.exact, trees, model.width, np.zeros((1, model.width)))
        logits = raw if model.factor == 1 else graph.op("Mul", raw, graph.constant(np.float32(model.factor)))
        return replace(boosted(estimator, X, logits, model.link, model.width), decision=raw)


def _model(estimator: Any) -> _Model:
    """Read the trees up to the best iteration, where fitting stopped early."""
    check_lightgbm(estimator)
    name = type(estimator).__name__
    text = estimator.booster_.model_to_string()
    head, *blocks = text.partition("\nend of trees")[0].split("\nTree=")
    fields = _fields(head)
    objective, *options = fields.get("objective", "none").split()
    if objective not in _LINK_OF:
        raise ExportError(f"{name}(objective={objective!r}) is not exported; {', '.join(_LINK_OF)} are")
    width = int(fields["num_tree_per_iteration"])
    parts = [_fields(block) for block in blocks]
    if any(part["num_cat"] != "0" for part in parts) or estimator.booster_.pandas_categorical:
        raise ExportError(_CATEGORIES.format(name))
    if any(part["is_linear"] != "0" for part in parts):
        raise ExportError(f"{name}(linear_tree=True) is not exported; leave linear_tree out")
    trees = [_tree(part, number % width) for number, part in enumerate(parts)]
    (steepness,) = [float(option.partition(":")[2]) for option in options if option.startswith("sigmoid:")] or [1.0]
    n_averaged = len(trees) / width if "average_output" in head.splitlines() else 1  # of random forests
    link: Link = "signed square" if "sqrt" in options else _LINK_OF[objective]
    return _Model(trees, width, link, steepness / n_averaged)


def _fields(text: str) -> dict[str, str]:
    """Read lines ``name=value``."""
    return {name: value for name, _, value in (line.partition("=") for line in text.splitlines())}


def _tree(fields: dict[str, str], output: int) -> Tree:
    """Read a tree, whose splits are numbered from 0, and whose leaves by what is left of them when inverted."""

    def numbers(name: str, dtype: Any, of_leaves: float = 0) -> np.ndarray:
        return np.append(np.asarray(fields[name].split(), dtype=dtype), np.full(n_leaves, of_leaves, dtype=dtype))

    n_leaves = int(fields["num_leaves"])
    n_splits = n_leaves - 1
    kinds, threshold = numbers("decision_type", np.int64), numbers("threshold", np.float64)
    if (kinds & _MISSING_ZERO).any():
        raise ExportError("lightgbm with zero_as_missing=True is not exported; put NaN where a number is missing")
    left, right = (numbers(f"{side}_child", np.int64) for side in ("left", "right"))
    left, right = (np.where(child < 0, n_splits + ~child, child) for child in (left, right))
    left[n_splits:] = right[n_splits:] = -1
    # Where NaN was not met in fit, it counts as 0.
    missing_left = np.where(kinds & _MISSING_NAN, (kinds & _DEFAULT_LEFT) > 0, threshold >= 0)
    threshold = np.where(np.abs(threshold) > _ZERO, threshold, np.where(threshold < 0, np.nextafter(-_ZERO, -1), _ZERO))
    value = np.append(np.zeros(n_splits), np.asarray(fields["leaf_value"].split(), dtype=np.float64))
    return Tree(numbers("split_feature", np.int64), threshold, left, right, missing_left, value[:, None], output)
