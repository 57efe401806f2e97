"""scikit-learn's nearest neighbours, as graphs: some matrix products with all fitting rows at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from sklearn.base import is_regressor
from sklearn.impute import KNNImputer
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

from mmensemble._sklearn import fitting_rows, fitting_targets, imputed_columns
from mmensemble.converters.fallback.skl2onnx import convert
from mmensemble.converters.linear import matrix
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
    graph.may_tie = True  # of rows equally far, scikit-learn takes any
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
    rows = np.asarray(rows.toarray() if hasattr(rows, "toarray") else rows)
    if X.exact.dtype != ir.DataType.DOUBLE:  # as rows come in: then equal rows are equal
        rows = rows.astype(np.float32)
    rows = rows.astype(np.float64)
    x = graph.double(X.exact)
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


@to_graph.register
def _imputer(estimator: KNNImputer, source: Source | None = None) -> Outputs:
    X = matrix(estimator, source)
    graph = X.graph
    if estimator.metric != "nan_euclidean" or estimator.weights not in ("uniform", "distance"):
        raise ExportError("KNNImputer has an ONNX form for Euclidean distances, and weights 'uniform' or 'distance'")
    if not np.isnan(estimator.missing_values):
        raise ExportError("KNNImputer has an ONNX form where NaN is what is missing")
    if estimator.add_indicator:
        raise ExportError("KNNImputer(add_indicator=True) has no ONNX form here; use a SimpleImputer's indicator")
    fitted = np.asarray(fitting_rows(estimator), dtype=np.float64)
    known = ~np.isnan(fitted)
    graph.may_tie = True  # of rows equally far, scikit-learn takes any
    with graph.scope("KNNImputer"):
        x = graph.double(X.exact)
        absent = graph.op("IsNaN", x)
        distance = _distances_of_what_is_known(graph, x, absent, fitted, known)
        kept = np.flatnonzero(imputed_columns(estimator))
        columns = []
        for column in kept:
            column_of_x, missing = (
                graph.op("Gather", value, graph.constant(np.asarray([column])), axis=1) for value in (x, absent)
            )
            donors = np.flatnonzero(known[:, column])
            filled = graph.constant(np.float64(0))  # of a column that was empty in fit
            if len(donors):
                filled = _from_donors(graph, estimator, distance, donors, fitted[donors, column])
            columns.append(graph.op("Where", missing, filled, column_of_x))
        return Outputs(graph, transformed=graph.op("Concat", *columns, axis=1), present=X.present)


def _distances_of_what_is_known(
    graph: Graph, x: ir.Value, absent: ir.Value, fitted: np.ndarray, known: np.ndarray
) -> ir.Value:
    """Return distances to the fitting rows over the columns that both have, scaled up to all; infinite where none."""
    there = graph.op("Sub", graph.constant(np.float64(1)), graph.op("Cast", absent, to=Graph.DOUBLE))
    x = graph.op("Where", absent, graph.constant(np.float64(0)), x)
    rows, mask = np.where(known, fitted, 0.0), known.astype(np.float64)

    def product(value: ir.Value, of_rows: np.ndarray) -> ir.Value:
        return graph.op("MatMul", value, graph.constant(np.ascontiguousarray(of_rows.T), "rows"))

    squares = graph.op("Sum", product(graph.op("Mul", x, x), mask), product(there, rows**2), product(x, -2 * rows))
    squares = graph.op("Max", squares, graph.constant(np.float64(0)))
    common = product(there, mask)
    none = graph.op("Equal", common, graph.constant(np.float64(0)))
    share = graph.op("Div", graph.constant(np.float64(fitted.shape[1])), common)
    return graph.op(
        "Where", none, graph.constant(np.float64(np.inf)), graph.op("Sqrt", graph.op("Mul", squares, share))
    )


def _from_donors(graph: Graph, estimator: Any, distance: ir.Value, donors: np.ndarray, values: np.ndarray) -> ir.Value:
    """Return the mean of a column over the nearest rows that have it, (batch, 1); of all where none can be compared."""
    nearest = graph.op("Gather", distance, graph.constant(donors), axis=1)
    k = graph.constant(np.asarray([min(estimator.n_neighbors, len(donors))]))
    distances, positions = graph.ops("TopK", nearest, k, n_outputs=2, axis=1, largest=0, sorted=1)
    infinite, one, zero = (graph.constant(np.float64(number)) for number in (np.inf, 1, 0))
    axis = graph.constant(np.asarray([1]))
    comparable = graph.op("Less", distances, infinite)
    weight = graph.op("Where", comparable, one, zero)
    if estimator.weights == "distance":
        same = graph.op("Where", graph.op("Equal", distances, zero), one, zero)
        any_same = graph.op("Greater", graph.op("ReduceMax", same, axis, keepdims=1), zero)
        weight = graph.op("Where", any_same, same, graph.op("Mul", weight, graph.op("Reciprocal", distances)))
    total = _sum(graph, weight)
    found = graph.op("Gather", graph.constant(values), positions, axis=0)
    mean = graph.op("Div", _sum(graph, graph.op("Mul", weight, found)), total)
    return graph.op("Where", graph.op("Greater", total, zero), mean, graph.constant(np.float64(values.mean())))
