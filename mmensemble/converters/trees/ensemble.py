"""The writer of tree ensembles, and what boosters make of the sums of their trees."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx_ir as ir
from sklearn.base import is_classifier

from mmensemble.converters.linear import one_class_and_the_other, sigmoid
from mmensemble.exceptions import ExportError
from mmensemble.graph import Graph, Outputs, Tensor
from mmensemble.tasks import Multilabel, Regression

__all__ = [
    "Link",
    "Tree",
    "add_trees",
    "boosted",
    "raw_scores",
    "rounded_down",
]

Link = Literal["identity", "exp", "sigmoid", "softmax", "softplus", "signed square"]


@dataclass
class Tree:
    """One tree: arrays over its nodes, a leaf's children being negative, and what each node adds (n_nodes, n_outputs).

    A row goes left where its feature is at most the threshold, or below it. `first_output` is the output that the
    tree's first column adds to.
    """

    feature: np.ndarray
    threshold: np.ndarray
    left: np.ndarray
    right: np.ndarray
    missing_left: np.ndarray
    value: np.ndarray
    first_output: int = 0
    comparison: Literal["BRANCH_LEQ", "BRANCH_LT"] = "BRANCH_LEQ"

    @property
    def splits(self) -> tuple[np.ndarray, np.ndarray]:
        """The features and the thresholds of the nodes that are no leaves."""
        inner = self.left >= 0
        return self.feature[inner], self.threshold[inner]


def rounded_down(thresholds: np.ndarray) -> np.ndarray:
    """Return the largest float32 that is not above each threshold: x <= t falls the same for every float32 x."""
    rounded = thresholds.astype(np.float32)
    return np.where(rounded > thresholds, np.nextafter(rounded, np.float32(-np.inf)), rounded)


def add_trees(graph: Graph, X: ir.Value, trees: Sequence[Tree], n_outputs: int) -> ir.Value:
    """Add up trees: (batch, n_outputs)."""
    leaves = [tree.left < 0 for tree in trees]
    ids = [np.arange(len(leaf)) for leaf in leaves]
    comparisons = [np.full(len(leaf), tree.comparison) for tree, leaf in zip(trees, leaves, strict=True)]
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
        nodes_modes=np.where(np.concatenate(leaves), "LEAF", np.concatenate(comparisons)).tolist(),
        nodes_truenodeids=integers(of_splits([tree.left for tree in trees])),
        nodes_falsenodeids=integers(of_splits([tree.right for tree in trees])),
        nodes_missing_value_tracks_true=integers(of_splits([tree.missing_left for tree in trees])),
        target_treeids=integers(np.concatenate(target_trees)),
        target_nodeids=integers(np.concatenate(target_nodes)),
        target_ids=integers(np.concatenate(targets)),
        **numbers,
    )


def raw_scores(X: Tensor, value: ir.Value, trees: Sequence[Tree], n_outputs: int, base: np.ndarray) -> ir.Value:
    """Add up trees over a value of X, and what they start from, (1, n_outputs), which is all where there are none."""
    start = X.graph.constant(base.astype(np.float32))
    if not trees:
        nothing = X.graph.op("ReduceSum", X.value, X.graph.constant(np.asarray([1])), keepdims=1)
        return X.graph.op("Add", X.graph.op("Mul", nothing, X.graph.constant(np.float32(0))), start)
    return X.graph.op("Add", add_trees(X.graph, value, trees, n_outputs), start)


def boosted(estimator: Any, X: Tensor, raw: ir.Value, link: Link, width: int, *, multilabel: bool = False) -> Outputs:
    """Return what a booster answers, given its trees' sums (batch, width).

    Raises
    ------
    ExportError
        If it is a classifier that knows one class only.
    """
    graph = X.graph
    values = _LINKS[link](graph, raw)
    if not is_classifier(estimator):
        return Outputs(graph, predictions=values, present=X.present, task=Regression(width, one_dimensional=width == 1))
    if multilabel:
        return Outputs(graph, probabilities=values, present=X.present, task=Multilabel(width))
    if len(estimator.classes_) < 2:
        raise ExportError(f"{type(estimator).__name__} was fitted on one class only; there is nothing to export")
    return Outputs(
        graph, probabilities=one_class_and_the_other(graph, values) if width == 1 else values, present=X.present
    )


# How an objective turns the sums of trees into answers.
_LINKS: dict[Link, Callable[[Graph, ir.Value], ir.Value]] = {
    "identity": lambda graph, raw: raw,
    "exp": lambda graph, raw: graph.op("Exp", raw),
    "sigmoid": sigmoid,
    "softmax": lambda graph, raw: graph.op("Softmax", raw, axis=1),
    "softplus": lambda graph, raw: graph.op("Softplus", raw),
    "signed square": lambda graph, raw: graph.op("Mul", raw, graph.op("Abs", raw)),
}
