"""scikit-learn's nearest neighbours, as graphs: some matrix products with all fitting rows at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from sklearn.base import is_regressor
from sklearn.impute import KNNImputer
from sklearn.neighbors import (
    KNeighborsClassifier,
    KNeighborsRegressor,
    KNeighborsTransformer,
    RadiusNeighborsClassifier,
    RadiusNeighborsRegressor,
    RadiusNeighborsTransformer,
)

from mmensemble._sklearn import fitting_rows, fitting_targets, imputed_columns
from mmensemble.converters.fallback.skl2onnx import convert, refusing_nan
from mmensemble.converters.linear import matrix, squared_distances
from mmensemble.converters.text import dense
from mmensemble.exceptions import ExportError
from mmensemble.graph import Graph, Outputs, Source, Tensor, Terms, to_graph
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
        distance, neighbor = _nearest(X, estimator, estimator.n_neighbors)
        if estimator.weights == "distance":
            weight = _inverse(graph, distance)
        else:  # of the right shape, whatever the distances are
            weight = graph.op("Cast", graph.op("Equal", neighbor, neighbor), to=ir.DataType.DOUBLE)
        found = graph.op("Gather", graph.constant(_targets(estimator), "targets"), neighbor, axis=0)
        axis = graph.constant(np.asarray([1]))
        total = graph.op("Squeeze", graph.op("MatMul", graph.op("Unsqueeze", weight, axis), found), axis)
        return _answers(estimator, X, graph.op("Div", total, _sum(graph, weight)))


@to_graph.register(RadiusNeighborsClassifier)
@to_graph.register(RadiusNeighborsRegressor)
def _neighbors_within(estimator: Any, source: Source | None = None) -> Outputs:
    X = matrix(estimator, source)
    name, graph = type(estimator).__name__, X.graph
    if estimator.weights not in (None, "uniform", "distance"):
        raise ExportError(f"{name}(weights=...) is Python code, which no model file holds; use 'uniform' or 'distance'")
    targets = _targets(estimator)
    with graph.scope(name):
        distance, within = _within(X, estimator)
        weight = graph.op("Cast", within, to=ir.DataType.DOUBLE)
        if estimator.weights == "distance":
            none = graph.constant(np.float64(0))
            weight = graph.op("Where", within, _inverse(graph, distance), none)
        total = graph.op("MatMul", weight, graph.constant(targets, "targets"))
        mean = graph.op("Div", total, _sum(graph, weight))  # NaN without neighbours, as for scikit-learn's regressor
        lonely = None if is_regressor(estimator) else _of_lonely_rows(estimator)
        if lonely is not None:
            alone = graph.op("Equal", _sum(graph, weight), graph.constant(np.float64(0)))
            mean = graph.op("Where", alone, graph.constant(lonely[None]), mean)
        return _answers(estimator, X, mean)


def _of_lonely_rows(estimator: Any) -> np.ndarray | None:
    """Return the probabilities of rows without neighbours; None where scikit-learn refuses them."""
    if estimator.outlier_label_ is None:
        return None
    columns = estimator.classes_ if isinstance(estimator.classes_, list) else [estimator.classes_]
    shares = []
    for labels, label in zip(columns, estimator.outlier_label_, strict=True):
        share = (np.asarray(labels) == label).astype(np.float64)
        if not share.any():
            raise ExportError(
                f"{type(estimator).__name__}(outlier_label={label!r}) predicts a label that is none of its classes, "
                f"which a file cannot; take one of {np.asarray(labels).tolist()}"
            )
        shares.append(share)
    return np.concatenate(shares)


@to_graph.register
def _distances_to_nearest(estimator: KNeighborsTransformer, source: Source | None = None) -> Outputs:
    X = matrix(estimator, source)
    if estimator.effective_metric_ != "euclidean":
        raise ExportError("KNeighborsTransformer has an ONNX form for Euclidean distances only")
    graph, n_rows = X.graph, fitting_rows(estimator).shape[0]
    graph.may_tie = True  # of rows equally far, scikit-learn takes any
    with graph.scope("KNeighborsTransformer"):
        by_distance = estimator.mode == "distance"
        distance, neighbor = _nearest(X, estimator, estimator.n_neighbors + by_distance)
        if not by_distance:
            distance = graph.op("Cast", graph.op("Equal", neighbor, neighbor), to=ir.DataType.DOUBLE)
        value = dense(graph, Terms(neighbor, distance), n_rows).value
        return Outputs(graph, transformed=refusing_nan(X, value), present=X.present, sparse=True)


@to_graph.register
def _distances_within(estimator: RadiusNeighborsTransformer, source: Source | None = None) -> Outputs:
    X = matrix(estimator, source)
    graph = X.graph
    with graph.scope("RadiusNeighborsTransformer"):
        distance, within = _within(X, estimator)
        value = graph.op("Cast", within, to=ir.DataType.DOUBLE)
        if estimator.mode == "distance":
            value = graph.op("Where", within, distance, graph.constant(np.float64(0)))
        return Outputs(graph, transformed=refusing_nan(X, value), present=X.present, sparse=True)


def _within(X: Tensor, estimator: Any) -> tuple[ir.Value, ir.Value]:
    """Return the distances to all fitting rows, and which of these are near enough, (batch, n_rows)."""
    if estimator.effective_metric_ != "euclidean":
        raise ExportError(f"{type(estimator).__name__} has an ONNX form for Euclidean distances only")
    graph = X.graph
    graph.may_tie = True  # of rows as far as the radius, rounding decides
    distance = graph.op("Sqrt", _squares(X, estimator))
    return distance, graph.op("LessOrEqual", distance, graph.constant(np.float64(estimator.radius)))


def _targets(estimator: Any) -> np.ndarray:
    """Return what each fitting row adds to a mean: numbers, or a 1 for its class, float64 (n_rows, width)."""
    targets = fitting_targets(estimator)
    targets = targets.reshape(len(targets), -1)
    if not is_regressor(estimator):
        columns = estimator.classes_ if isinstance(estimator.classes_, list) else [estimator.classes_]
        targets = np.hstack([np.eye(len(labels))[column] for labels, column in zip(columns, targets.T, strict=True)])
    return targets.astype(np.float64)


def _answers(estimator: Any, X: Tensor, mean: ir.Value) -> Outputs:
    """Return means over neighbours as what an estimator predicts; NaN has none, and is refused."""
    graph, mean = X.graph, refusing_nan(X, mean)
    if is_regressor(estimator):
        targets = fitting_targets(estimator)
        task = Regression(targets.reshape(len(targets), -1).shape[1], one_dimensional=targets.ndim == 1)
        return Outputs(graph, predictions=mean, present=X.present, task=task)
    columns = None
    if isinstance(estimator.classes_, list):
        columns = Multioutput([Classification(np.asarray(labels)) for labels in estimator.classes_])
    return Outputs(graph, probabilities=mean, present=X.present, task=columns)


def _inverse(graph: Graph, distance: ir.Value) -> ir.Value:
    """Weigh neighbours by the inverse of their distances; of a row that equals some of them, only these count."""
    zero = graph.constant(np.float64(0))
    ones = graph.op("Cast", graph.op("Equal", distance, zero), to=ir.DataType.DOUBLE)
    largest = graph.op("ReduceMax", ones, graph.constant(np.asarray([1])), keepdims=1)
    return graph.op("Where", graph.op("Greater", largest, zero), ones, graph.op("Reciprocal", distance))


def _sum(graph: Graph, value: ir.Value) -> ir.Value:
    return graph.op("ReduceSum", value, graph.constant(np.asarray([1])), keepdims=1)


def _nearest(X: Tensor, estimator: Any, n_neighbors: int) -> tuple[ir.Value, ir.Value]:
    """Return the distances and the numbers of the nearest fitting rows, (batch, n_neighbors), in float64."""
    graph = X.graph
    k = graph.constant(np.asarray([n_neighbors]))
    values, neighbor = graph.ops("TopK", _squares(X, estimator), k, n_outputs=2, axis=1, largest=0, sorted=1)
    return graph.op("Sqrt", values), neighbor


def _squares(X: Tensor, estimator: Any) -> ir.Value:
    """Return the squared distances to all fitting rows, (batch, n_rows) float64; 0 to those that are equal."""
    graph, rows = X.graph, fitting_rows(estimator)
    rows = np.asarray(rows.toarray() if hasattr(rows, "toarray") else rows)
    if X.exact.dtype != ir.DataType.DOUBLE:  # as rows come in: then equal rows are equal
        rows = rows.astype(np.float32)
    rows = rows.astype(np.float64)
    x = graph.double(X.exact)
    squares = graph.op("Add", _sum(graph, graph.op("Mul", x, x)), graph.constant((rows**2).sum(axis=1)[None]))
    rounding = graph.op("Mul", squares, graph.constant(np.float64(_ROUNDING)))
    distance = squared_distances(graph, x, rows)
    return graph.op("Where", graph.op("LessOrEqual", distance, rounding), graph.constant(np.float64(0)), distance)


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
