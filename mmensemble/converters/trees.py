"""scikit-learn's trees, forests and gradient boosting, as graphs.

Where scikit-learn compares in float32 the graph does so too, and a threshold is rounded so that every comparison falls
as there; where it compares in float64, so does the graph. Every split sends NaN where scikit-learn sends it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from sklearn.base import is_classifier, is_regressor
from sklearn.ensemble import (
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
)
from sklearn.tree import BaseDecisionTree

from mmensemble._sklearn import BaseForest, baseline_scores, histogram_trees
from mmensemble.converters.fallback.skl2onnx import convert, refusing_nan
from mmensemble.converters.linear import matrix, one_class_and_the_other, sigmoid
from mmensemble.exceptions import ExportError
from mmensemble.graph import Frame, Graph, Outputs, Source, Tensor, to_graph
from mmensemble.tasks import Classification, Multioutput, Regression

__all__: list[str] = []


@dataclass
class _Tree:
    """One tree: arrays over its nodes, a leaf's children being negative, and what each node adds (n_nodes, n_outputs).

    `first_output` is the output that the tree's first column adds to.
    """

    feature: np.ndarray
    threshold: np.ndarray
    left: np.ndarray
    right: np.ndarray
    missing_left: np.ndarray
    value: np.ndarray
    first_output: int = 0


def _ensemble(graph: Graph, X: ir.Value, trees: Sequence[_Tree], n_outputs: int) -> ir.Value:
    """Add up trees: (batch, n_outputs)."""
    leaves = [tree.left < 0 for tree in trees]
    ids = [np.arange(len(leaf)) for leaf in leaves]
    of_tree = [np.full(len(leaf), number) for number, leaf in enumerate(leaves)]
    targets, weights, target_trees, target_nodes = [], [], [], []
    for number, (tree, leaf) in enumerate(zip(trees, leaves, strict=True)):
        nodes = np.flatnonzero(leaf)
        width = tree.value.shape[1]
        targets.append(np.tile(np.arange(width), len(nodes)) + tree.first_output)
        weights.append(tree.value[nodes].ravel())
        target_nodes.append(np.repeat(nodes, width))
        target_trees.append(np.full(len(nodes) * width, number))

    def of_splits(arrays: Sequence[np.ndarray]) -> np.ndarray:
        return np.where(np.concatenate(leaves), 0, np.concatenate(arrays))

    def integers(values: np.ndarray) -> list[int]:
        return values.astype(np.int64).tolist()

    thresholds, added = of_splits([tree.threshold for tree in trees]), np.concatenate(weights)
    if X.dtype == ir.DataType.DOUBLE:
        numbers: dict[str, Any] = {
            "nodes_values_as_tensor": ir.tensor(thresholds.astype(np.float64)),
            "target_weights_as_tensor": ir.tensor(added.astype(np.float64)),
        }
    else:
        numbers = {
            "nodes_values": thresholds.astype(np.float32).tolist(),
            "target_weights": added.astype(np.float32).tolist(),
        }
    return graph.op(
        "TreeEnsembleRegressor",
        X,
        domain="ai.onnx.ml",
        n_targets=n_outputs,
        aggregate_function="SUM",
        post_transform="NONE",
        nodes_treeids=integers(np.concatenate(of_tree)),
        nodes_nodeids=integers(np.concatenate(ids)),
        nodes_featureids=integers(of_splits([tree.feature for tree in trees])),
        nodes_modes=np.where(np.concatenate(leaves), "LEAF", "BRANCH_LEQ").tolist(),
        nodes_truenodeids=integers(of_splits([tree.left for tree in trees])),
        nodes_falsenodeids=integers(of_splits([tree.right for tree in trees])),
        nodes_missing_value_tracks_true=integers(of_splits([tree.missing_left for tree in trees])),
        target_treeids=integers(np.concatenate(target_trees)),
        target_nodeids=integers(np.concatenate(target_nodes)),
        target_ids=integers(np.concatenate(targets)),
        **numbers,
    )


def _rounded_down(thresholds: np.ndarray) -> np.ndarray:
    """Return the largest float32 that is not above each threshold: x <= t falls the same for every float32 x."""
    rounded = thresholds.astype(np.float32)
    return np.where(rounded > thresholds, np.nextafter(rounded, np.float32(-np.inf)), rounded)


def _grown(tree: Any, value: np.ndarray, first_output: int = 0) -> _Tree:
    """Read scikit-learn's own tree, which casts its rows to float32 before it compares."""
    return _Tree(
        tree.feature,
        _rounded_down(tree.threshold),
        tree.children_left,
        tree.children_right,
        tree.missing_go_to_left,
        value,
        first_output,
    )


@to_graph.register(BaseDecisionTree)
@to_graph.register(BaseForest)
def _forest(estimator: Any, source: Source | None = None) -> Outputs:
    if not (is_classifier(estimator) or is_regressor(estimator)):
        return convert(estimator, Frame() if source is None else source)
    X = matrix(estimator, source)
    graph = X.graph
    trees = [tree.tree_ for tree in getattr(estimator, "estimators_", [estimator])]
    with graph.scope(type(estimator).__name__):
        if is_regressor(estimator):
            grown = [_grown(tree, tree.value[:, :, 0]) for tree in trees]
        else:
            sizes = np.atleast_1d(estimator.n_classes_)
            grown = [
                _grown(tree, np.hstack([tree.value[:, output, :size] for output, size in enumerate(sizes)]))
                for tree in trees
            ]
        total = _ensemble(graph, X.value, grown, grown[0].value.shape[1])
        # Divided at the end, as in scikit-learn: sums of pure leaves stay exact, and ties stay ties.
        mean = graph.op("Div", total, graph.constant(np.float32(len(trees)))) if len(trees) > 1 else total
        if is_regressor(estimator):
            width = grown[0].value.shape[1]
            task = Regression(width, one_dimensional=width == 1)
            return Outputs(graph, predictions=mean, present=X.present, task=task)
        columns = None
        if isinstance(estimator.classes_, list):
            columns = Multioutput([Classification(np.asarray(labels)) for labels in estimator.classes_])
        return Outputs(graph, probabilities=mean, present=X.present, task=columns)


@to_graph.register(GradientBoostingClassifier)
@to_graph.register(GradientBoostingRegressor)
def _gradient_boosting(estimator: Any, source: Source | None = None) -> Outputs:
    X = matrix(estimator, source)
    if estimator.init_ != "zero" and estimator.init is not None:
        raise ExportError(
            f"{type(estimator).__name__}(init={estimator.init!r}) starts from an estimator's predictions, "
            "which are not exported; leave init out"
        )
    n_raw = estimator.estimators_.shape[1]
    grown = [
        _grown(tree.tree_, tree.tree_.value[:, 0] * estimator.learning_rate, output)
        for stage in estimator.estimators_
        for output, tree in enumerate(stage)
    ]
    base = baseline_scores(estimator)
    with X.graph.scope(type(estimator).__name__):
        raw = refusing_nan(X, _raw_scores(X, X.value, grown, n_raw, base))
        if is_regressor(estimator):
            return Outputs(X.graph, predictions=raw, present=X.present)
        twice = estimator.loss == "exponential"
        return _boosted_classes(X, raw, X.graph.op("Add", raw, raw) if twice else raw, binary=n_raw == 1)


@to_graph.register(HistGradientBoostingClassifier)
@to_graph.register(HistGradientBoostingRegressor)
def _hist_gradient_boosting(estimator: Any, source: Source | None = None) -> Outputs:
    X = matrix(estimator, source)
    name = type(estimator).__name__
    if estimator.is_categorical_ is not None and estimator.is_categorical_.any():
        raise ExportError(
            f"{name} has categorical features, whose splits have no ONNX form here; put an OrdinalEncoder before it "
            "and set categorical_features=None"
        )
    grown = []
    for stage in histogram_trees(estimator):
        for output, predictor in enumerate(stage):
            nodes = predictor.nodes
            leaf = nodes["is_leaf"].astype(bool)
            left, right = (np.where(leaf, -1, nodes[side].astype(np.int64)) for side in ("left", "right"))
            threshold = nodes["num_threshold"]
            if X.exact.dtype != ir.DataType.DOUBLE:
                # It compares in float64. What a row is rounded to keeps its side if the threshold is rounded alike.
                threshold = threshold.astype(np.float32)
            value = nodes["value"][:, None]
            grown.append(
                _Tree(nodes["feature_idx"], threshold, left, right, nodes["missing_go_to_left"], value, output)
            )
    with X.graph.scope(name):
        base = baseline_scores(estimator)
        raw = _raw_scores(X, X.exact, grown, base.shape[1], base)
        if is_regressor(estimator):
            logarithmic = estimator.loss in ("poisson", "gamma")
            return Outputs(X.graph, predictions=X.graph.op("Exp", raw) if logarithmic else raw, present=X.present)
        return _boosted_classes(X, raw, raw, binary=base.shape[1] == 1)


def _raw_scores(X: Tensor, value: ir.Value, trees: Sequence[_Tree], n_outputs: int, base: np.ndarray) -> ir.Value:
    start = X.graph.constant(base.astype(np.float32))
    if not trees:
        nothing = X.graph.op("ReduceSum", X.value, X.graph.constant(np.asarray([1])), keepdims=1)
        return X.graph.op("Add", X.graph.op("Mul", nothing, X.graph.constant(np.float32(0))), start)
    return X.graph.op("Add", _ensemble(X.graph, value, trees, n_outputs), start)


def _boosted_classes(X: Tensor, raw: ir.Value, logits: ir.Value, *, binary: bool) -> Outputs:
    graph = X.graph
    if binary:
        probabilities = one_class_and_the_other(graph, sigmoid(graph, logits))
    else:
        probabilities = graph.op("Softmax", logits, axis=1)
    return Outputs(graph, probabilities=probabilities, present=X.present, decision=raw)
