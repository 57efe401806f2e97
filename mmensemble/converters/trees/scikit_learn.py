"""scikit-learn's trees, forests and gradient boosting, as graphs.

Where scikit-learn compares in float32 the graph does so too, and a threshold is rounded so that every comparison falls
as there; where it compares in float64, so does the graph. Every split sends NaN where scikit-learn sends it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx_ir as ir
from sklearn.base import is_classifier, is_regressor
from sklearn.ensemble import (
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomTreesEmbedding,
)
from sklearn.tree import BaseDecisionTree

from mmensemble._sklearn import BaseForest, baseline_scores, histogram_trees
from mmensemble.converters.fallback.numbers import splits
from mmensemble.converters.fallback.skl2onnx import convert, refusing_nan
from mmensemble.converters.linear import matrix, one_class_and_the_other, refuse_infinity, sigmoid
from mmensemble.converters.trees.ensemble import Tree, add_trees, raw_scores, rounded_down
from mmensemble.exceptions import ExportError
from mmensemble.graph import Frame, Outputs, Source, Tensor, to_graph
from mmensemble.tasks import Classification, Multioutput, Regression

__all__: list[str] = []


def _grown(tree: Any, value: np.ndarray, first_output: int = 0) -> Tree:
    """Read scikit-learn's own tree, which casts its rows to float32 before it compares."""
    return Tree(
        tree.feature,
        rounded_down(tree.threshold),
        tree.children_left,
        tree.children_right,
        tree.missing_go_to_left,
        value,
        first_output,
    )


@splits.register
def _splits_of_tree(estimator: BaseDecisionTree) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    inner = estimator.tree_.children_left >= 0
    yield estimator.tree_.feature[inner], estimator.tree_.threshold[inner]


@to_graph.register(BaseDecisionTree)
@to_graph.register(BaseForest)
def _forest(estimator: Any, source: Source | None = None) -> Outputs:
    if not (is_classifier(estimator) or is_regressor(estimator)):
        return convert(estimator, Frame() if source is None else source)
    X = matrix(estimator, source)
    graph = X.graph
    if not any(block.terms for block in X.blocks):
        refuse_infinity(X)
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
        total = add_trees(graph, X.value, grown, grown[0].value.shape[1])
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


@to_graph.register
def _leaves(estimator: RandomTreesEmbedding, source: Source | None = None) -> Outputs:
    X = matrix(estimator, source)
    refuse_infinity(X)
    encoder = estimator.one_hot_encoder_
    grown, width = [], 0
    for tree, leaves in zip(estimator.estimators_, encoder.categories_, strict=True):
        one_hot = np.zeros((tree.tree_.node_count, len(leaves)))
        one_hot[np.asarray(leaves, dtype=int), np.arange(len(leaves))] = 1.0
        grown.append(_grown(tree.tree_, one_hot, width))
        width += len(leaves)
    with X.graph.scope("RandomTreesEmbedding"):
        value = add_trees(X.graph, X.value, grown, width)
        return Outputs(X.graph, transformed=value, present=X.present, sparse=estimator.sparse_output)


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
        raw = refusing_nan(X, raw_scores(X, X.value, grown, n_raw, base))
        if is_regressor(estimator):
            return Outputs(X.graph, predictions=raw, present=X.present)
        twice = estimator.loss == "exponential"
        return _boosted_classes(X, raw, X.graph.op("Add", raw, raw) if twice else raw, binary=n_raw == 1)


@splits.register(HistGradientBoostingClassifier)
@splits.register(HistGradientBoostingRegressor)
def _splits_of_histograms(estimator: Any) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for stage in histogram_trees(estimator):
        for predictor in stage:
            inner = predictor.nodes[predictor.nodes["is_leaf"] == 0]
            yield inner["feature_idx"].astype(int), inner["num_threshold"]


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
            grown.append(Tree(nodes["feature_idx"], threshold, left, right, nodes["missing_go_to_left"], value, output))
    with X.graph.scope(name):
        base = baseline_scores(estimator)
        raw = raw_scores(X, X.exact, grown, base.shape[1], base)
        if is_regressor(estimator):
            logarithmic = estimator.loss in ("poisson", "gamma")
            return Outputs(X.graph, predictions=X.graph.op("Exp", raw) if logarithmic else raw, present=X.present)
        return _boosted_classes(X, raw, raw, binary=base.shape[1] == 1)


def _boosted_classes(X: Tensor, raw: ir.Value, logits: ir.Value, *, binary: bool) -> Outputs:
    graph = X.graph
    if binary:
        probabilities = one_class_and_the_other(graph, sigmoid(graph, logits))
    else:
        probabilities = graph.op("Softmax", logits, axis=1)
    return Outputs(graph, probabilities=probabilities, present=X.present, decision=raw)
