"""scikit-learn's nearest neighbours, as graphs: one matrix product with all fitting rows at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from sklearn.base import is_regressor
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

from mmensemble._sklearn import fitting_rows, fitting_targets
from mmensemble.converters.linear import matrix
from mmensemble.converters.skl2onnx import convert
from mmensemble.exceptions import ExportError
from mmensemble.graph import Graph, Outputs, Source, Tensor, to_graph
from mmensemble.tasks import Classification, Multioutput, Regression

__all__: list[str] = []

# Squared distances below this share of the squared lengths are what is left of equal rows.
_ROUNDING = 1e-14


@to_graph.register(KNeighborsClassifier)
@to_graph.register(KNeighborsRegressor)
def _neighbors(estimator: Any, source: Source | None = None) -> Outputs:
    X = matrix(estimator, source)
    name, graph = type(estimator).__name__, X.graph
    if estimator.weights not in (None, "uniform", "distance"):
        raise ExportError(f"{name}(weights=...) is Python code, which no model file holds; use 'uniform' or 'distance'")
    if estimator.effective_metric_ != "euclidean":
        if estimator.weights == "distance":  # which skl2onnx converts, and to other numbers
            raise ExportError(f"{name}(weights='distance') has an ONNX form for Euclidean distances only")
        return convert(estimator, X)
    with graph.scope(name):
        distance, neighbor = _nearest(X, estimator)
        if estimator.weights == "distance":
            equal = graph.op("Equal", distance, graph.constant(np.float64(0)))
            inverse = graph.op("Reciprocal", distance)
            axis = graph.constant(np.asarray([1]))
            ones = graph.op("Cast", equal, to=ir.DataType.DOUBLE)
            any_equal = graph.op(
                "Greater", graph.op("ReduceMax", ones, axis, keepdims=1), graph.constant(np.float64(0))
            )
            weight = graph.op("Where", any_equal, ones, inverse)
        else:  # of the right shape, whatever the distances are
            weight = graph.op("Cast", graph.op("Equal", neighbor, neighbor), to=ir.DataType.DOUBLE)
        targets = fitting_targets(estimator)
        one_dimensional = targets.ndim == 1
        targets = targets.reshape(len(targets), -1)
        sizes = []
        if not is_regressor(estimator):
            sizes = [
                len(c) for c in (estimator.classes_ if isinstance(estimator.classes_, list) else [estimator.classes_])
            ]
            targets = np.hstack([np.eye(size)[column] for size, column in zip(sizes, targets.T, strict=True)])
        mean = _weighted_mean(graph, targets.astype(np.float64), neighbor, weight)
        # scikit-learn refuses NaN, which has no neighbours.
        mean = graph.op("Add", mean, graph.op("Mul", _sum(graph, X.value), graph.constant(np.float32(0))))
        if is_regressor(estimator):
            task = Regression(targets.shape[1], one_dimensional=one_dimensional)
            return Outputs(graph, predictions=mean, present=X.present, task=task)
        columns = None
        if isinstance(estimator.classes_, list):
            columns = Multioutput([Classification(np.asarray(labels)) for labels in estimator.classes_])
        return Outputs(graph, probabilities=mean, present=X.present, task=columns)


def _sum(graph: Graph, value: ir.Value) -> ir.Value:
    return graph.op("ReduceSum", value, graph.constant(np.asarray([1])), keepdims=1)


def _nearest(X: Tensor, estimator: Any) -> tuple[ir.Value, ir.Value]:
    """Return the distances and the numbers of the nearest fitting rows, (batch, n_neighbors), in float64."""
    graph, rows = X.graph, fitting_rows(estimator)
    # As rows come in: then equal rows are equal.
    rows = np.asarray(rows.toarray() if hasattr(rows, "toarray") else rows).astype(np.float32).astype(np.float64)
    x = graph.op("Cast", X.value, to=ir.DataType.DOUBLE)
    squares = graph.op("Add", _sum(graph, graph.op("Mul", x, x)), graph.constant((rows**2).sum(axis=1)[None]))
    product = graph.op("MatMul", x, graph.constant(np.ascontiguousarray(-2 * rows.T), "rows"))
    distance = graph.op("Add", squares, product)
    rounding = graph.op("Mul", squares, graph.constant(np.float64(_ROUNDING)))
    zero = graph.constant(np.float64(0))
    distance = graph.op("Where", graph.op("LessOrEqual", distance, rounding), zero, distance)
    k = graph.constant(np.asarray([estimator.n_neighbors]))
    values, neighbor = graph.ops("TopK", distance, k, n_outputs=2, axis=1, largest=0, sorted=1)
    return graph.op("Sqrt", values), neighbor


def _weighted_mean(graph: Graph, targets: np.ndarray, neighbor: ir.Value, weight: ir.Value) -> ir.Value:
    found = graph.op("Gather", graph.constant(targets, "targets"), neighbor, axis=0)
    across = graph.op("Unsqueeze", weight, graph.constant(np.asarray([1])))
    total = graph.op("Squeeze", graph.op("MatMul", across, found), graph.constant(np.asarray([1])))
    return graph.op("Cast", graph.op("Div", total, _sum(graph, weight)), to=Graph.FLOAT)
