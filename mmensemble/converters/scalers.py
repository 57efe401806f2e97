"""scikit-learn's scalers and its imputer of numbers, as graphs.

A scaler computes in float64 and gives it: in float32 a row that lies on a threshold of a tree behind it, as whole
numbers often do, could fall on the other side.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from sklearn.impute import MissingIndicator
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, Normalizer, PowerTransformer, RobustScaler, StandardScaler

from mmensemble._sklearn import power_scaler
from mmensemble.converters.fallback.skl2onnx import refusing_nan
from mmensemble.converters.linear import matrix
from mmensemble.converters.text import dense
from mmensemble.graph import Block, Graph, Outputs, Source, Tensor, Terms, to_graph

__all__ = ["impute"]


def _scaled(X: Tensor, shift: Any, scale: Any, *, multiply: bool = False, clip: Any = None) -> Outputs:
    """Subtract and then divide, or multiply and then add, each where there is something to do it with."""
    graph = X.graph
    if shift is None and not multiply and scale is not None and any(block.terms for block in X.blocks):
        return _scaled_terms(X, np.asarray(scale))
    value = graph.double(X.exact)
    numbers = [None if v is None else graph.constant(np.asarray(v, dtype=np.float64)[None]) for v in (shift, scale)]
    steps = [("Mul", numbers[1]), ("Add", numbers[0])] if multiply else [("Sub", numbers[0]), ("Div", numbers[1])]
    for operation, number in steps:
        if number is not None:
            value = graph.op(operation, value, number)
    if clip is not None:
        value = graph.op("Clip", value, *(graph.constant(np.float64(limit)) for limit in clip))
    return Outputs(graph, transformed=value, present=X.present, sparse=X.sparse)


def _scaled_terms(X: Tensor, scale: np.ndarray) -> Outputs:
    """Divide columns where 0 stays 0."""
    graph, blocks, start = X.graph, [], 0
    for block in X.blocks:
        divisor = graph.constant(scale[start : start + block.width].astype(np.float64), "scale")
        start += block.width
        if block.terms is None:
            blocks.append(Block(block.width, graph.op("Div", graph.double(block.value), divisor)))
        else:
            divisors = graph.op("Gather", divisor, block.terms.columns, axis=0)
            terms = Terms(block.terms.columns, graph.op("Div", graph.double(block.terms.values), divisors))
            blocks.append(dense(graph, terms, block.width))
    values = [block.value for block in blocks]
    value = values[0] if len(values) == 1 else graph.op("Concat", *values, axis=1)
    return Outputs(graph, transformed=value, present=X.present, blocks=tuple(blocks), sparse=X.sparse)


@to_graph.register
def _standard(estimator: StandardScaler, source: Source | None = None) -> Outputs:
    X = matrix(estimator, source)
    with X.graph.scope("StandardScaler"):
        return _scaled(X, estimator.mean_ if estimator.with_mean else None, estimator.scale_)


@to_graph.register
def _robust(estimator: RobustScaler, source: Source | None = None) -> Outputs:
    X = matrix(estimator, source)
    with X.graph.scope("RobustScaler"):
        scale = estimator.scale_ if estimator.with_scaling else None
        return _scaled(X, estimator.center_ if estimator.with_centering else None, scale)


@to_graph.register
def _max_abs(estimator: MaxAbsScaler, source: Source | None = None) -> Outputs:
    X = matrix(estimator, source)
    with X.graph.scope("MaxAbsScaler"):
        return _scaled(X, None, estimator.scale_, clip=(-1, 1) if getattr(estimator, "clip", False) else None)


@to_graph.register
def _min_max(estimator: MinMaxScaler, source: Source | None = None) -> Outputs:
    X = matrix(estimator, source)
    with X.graph.scope("MinMaxScaler"):
        clip = estimator.feature_range if estimator.clip else None
        return _scaled(X, estimator.min_, estimator.scale_, multiply=True, clip=clip)


@to_graph.register
def _power(estimator: PowerTransformer, source: Source | None = None) -> Outputs:
    X = matrix(estimator, source)
    graph = X.graph
    with graph.scope("PowerTransformer"):
        x, powers = graph.double(X.exact), np.asarray(estimator.lambdas_, dtype=np.float64)
        if estimator.method == "box-cox":
            value = _powered(graph, graph.op("Log", x), powers)
        else:
            zero, one = graph.constant(np.float64(0)), graph.constant(np.float64(1))
            above = graph.op("Log", graph.op("Add", graph.op("Max", x, zero), one))
            below = graph.op("Log", graph.op("Add", graph.op("Max", graph.op("Neg", x), zero), one))
            positive = graph.op("GreaterOrEqual", x, zero)
            negative = graph.op("Neg", _powered(graph, below, 2 - powers))
            value = graph.op("Where", positive, _powered(graph, above, powers), negative)
            value = graph.op("Where", graph.op("IsNaN", x), x, value)
        if not estimator.standardize:
            return Outputs(graph, transformed=value, present=X.present)
        scaler = power_scaler(estimator)
        return _scaled(Tensor(graph, value, X.present), scaler.mean_, scaler.scale_)


@to_graph.register
def _unit_rows(estimator: Normalizer, source: Source | None = None) -> Outputs:
    X = matrix(estimator, source)
    graph = X.graph
    with graph.scope("Normalizer"):
        x, axis = graph.double(X.exact), graph.constant(np.asarray([1]))
        if estimator.norm == "l2":
            norm = graph.op("Sqrt", graph.op("ReduceSum", graph.op("Mul", x, x), axis, keepdims=1))
        else:
            norm = graph.op(
                "ReduceSum" if estimator.norm == "l1" else "ReduceMax", graph.op("Abs", x), axis, keepdims=1
            )
        # Of an array, scikit-learn leaves rows as they are that are as good as 0; of a sparse matrix, those that are.
        least = np.finfo(np.float64).tiny if X.sparse else 10 * np.finfo(np.float64).eps
        nothing = graph.op("Less", norm, graph.constant(np.float64(least)))
        norm = graph.op("Where", nothing, graph.constant(np.float64(1)), norm)
        value = refusing_nan(X, graph.op("Div", x, norm))
        return Outputs(graph, transformed=value, present=X.present, sparse=X.sparse)


def _powered(graph: Graph, logarithm: ir.Value, powers: np.ndarray) -> ir.Value:
    """Return (exp(power * logarithm) - 1) / power by columns, and the logarithm itself where the power is 0."""
    near = np.abs(powers) < np.finfo(np.float64).eps
    power = graph.constant(np.where(near, 1.0, powers)[None])
    raised = graph.op("Sub", graph.op("Exp", graph.op("Mul", logarithm, power)), graph.constant(np.float64(1)))
    return graph.op("Where", graph.constant(near[None]), logarithm, graph.op("Div", raised, power))


@to_graph.register
def _indicator(estimator: MissingIndicator, source: Source | None = None) -> Outputs:
    X = matrix(estimator, source)
    graph = X.graph
    with graph.scope("MissingIndicator"):
        features = graph.constant(np.asarray(estimator.features_, dtype=np.int64))
        absent = graph.op("Gather", _absent(X, estimator.missing_values), features, axis=1)
        return Outputs(graph, transformed=graph.op("Cast", absent, to=Graph.FLOAT), present=X.present, sparse=X.sparse)


def _absent(X: Tensor, marker: Any) -> ir.Value:
    """Tell which numbers are missing: NaN, or what stands for it."""
    if marker is None or marker != marker:
        return X.graph.op("IsNaN", X.exact)
    return X.graph.op("Equal", X.exact, X.graph.number(marker, X.exact))


def impute(estimator: Any, X: Tensor) -> Outputs:
    """Add a fitted `SimpleImputer` of numbers."""
    graph = X.graph
    with graph.scope("SimpleImputer"):
        filled, statistics = X.exact, np.asarray(estimator.statistics_, dtype=np.float64)
        absent = _absent(X, estimator.missing_values)
        empty = np.isnan(statistics)  # in fit; such columns are left out
        dtype = np.float64 if X.exact.dtype == ir.DataType.DOUBLE else np.float32
        fill = np.where(empty, 0, statistics).astype(dtype)[None]
        filled = graph.op("Where", absent, graph.constant(fill), X.exact)
        if empty.any():
            filled = graph.op("Gather", filled, graph.constant(np.flatnonzero(~empty)), axis=1)
        if estimator.add_indicator and len(estimator.indicator_.features_):
            features = graph.constant(np.asarray(estimator.indicator_.features_, dtype=np.int64))
            indicator = graph.op("Cast", graph.op("Gather", absent, features, axis=1), to=Graph.FLOAT)
            filled = graph.op("Concat", *graph.alike(filled, indicator), axis=1)
        return Outputs(graph, transformed=filled, present=X.present, sparse=X.sparse)
