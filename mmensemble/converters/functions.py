"""numpy's functions, and the inverses of scikit-learn's transformers of targets, as graphs."""

from __future__ import annotations

from collections.abc import Callable
from functools import singledispatch
from typing import Any

import numpy as np
import onnx_ir as ir
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler

from mmensemble.exceptions import ExportError
from mmensemble.graph import Graph

__all__ = ["add_function", "add_inverse", "check_function"]


def _plus(graph: Graph, value: ir.Value, number: float) -> ir.Value:
    return graph.op("Add", value, graph.number(number, value))


def _log(base: float) -> Callable[[Graph, ir.Value], ir.Value]:
    return lambda graph, x: graph.op("Div", graph.op("Log", x), graph.number(np.log(base), x))


_FUNCTIONS: dict[Any, Callable[[Graph, ir.Value], ir.Value]] = {
    np.abs: lambda graph, x: graph.op("Abs", x),
    np.arcsinh: lambda graph, x: graph.op("Asinh", x),
    np.cbrt: lambda graph, x: graph.op(
        "Mul", graph.op("Sign", x), graph.op("Pow", graph.op("Abs", x), graph.number(1 / 3, x))
    ),
    np.cos: lambda graph, x: graph.op("Cos", x),
    np.exp: lambda graph, x: graph.op("Exp", x),
    np.exp2: lambda graph, x: graph.op("Pow", graph.number(2, x), x),
    np.expm1: lambda graph, x: _plus(graph, graph.op("Exp", x), -1),
    np.log: lambda graph, x: graph.op("Log", x),
    np.log10: _log(10),
    np.log1p: lambda graph, x: graph.op("Log", _plus(graph, x, 1)),
    np.log2: _log(2),
    np.negative: lambda graph, x: graph.op("Neg", x),
    np.reciprocal: lambda graph, x: graph.op("Reciprocal", x),
    np.sin: lambda graph, x: graph.op("Sin", x),
    np.sinh: lambda graph, x: graph.op("Sinh", x),
    np.sqrt: lambda graph, x: graph.op("Sqrt", x),
    np.square: lambda graph, x: graph.op("Mul", x, x),
    np.tanh: lambda graph, x: graph.op("Tanh", x),
}


def check_function(function: Any, parameter: str) -> None:
    """Raise `ExportError` for a function that is none of numpy's that have an ONNX form."""
    if not isinstance(function, np.ufunc) or function not in _FUNCTIONS:
        name = getattr(function, "__qualname__", None) or getattr(function, "__name__", repr(function))
        known = ", ".join(f"np.{known.__name__}" for known in _FUNCTIONS)
        raise ExportError(
            f"cannot convert FunctionTransformer({parameter}={name}), which is Python code; "
            f"functions that have an ONNX form are {known}"
        )


def add_function(graph: Graph, value: ir.Value, function: Any, parameter: str) -> ir.Value:
    """Apply one of numpy's functions.

    Raises
    ------
    ExportError
        If it is another function.
    """
    check_function(function, parameter)
    return _FUNCTIONS[function](graph, value)


@singledispatch
def add_inverse(transformer: Any, graph: Graph, value: ir.Value) -> ir.Value:
    """Add a fitted transformer's ``inverse_transform`` of predictions (batch, n_targets).

    Raises
    ------
    ExportError
        If it has no ONNX form.
    """
    raise ExportError(
        f"the inverse_transform of {type(transformer).__name__} has no ONNX form here; those of StandardScaler, "
        "MinMaxScaler, MaxAbsScaler, RobustScaler and of FunctionTransformers with functions of numpy have"
    )


def _times(graph: Graph, value: ir.Value, factor: Any) -> ir.Value:
    return value if factor is None else graph.op("Mul", value, _row(graph, factor))


def _added(graph: Graph, value: ir.Value, summand: Any) -> ir.Value:
    return value if summand is None else graph.op("Add", value, _row(graph, summand))


def _row(graph: Graph, numbers: Any) -> ir.Value:
    return graph.constant(np.asarray(numbers, dtype=np.float32).reshape(1, -1))


@add_inverse.register
def _standard(transformer: StandardScaler, graph: Graph, value: ir.Value) -> ir.Value:
    mean = transformer.mean_ if transformer.with_mean else None
    return _added(graph, _times(graph, value, transformer.scale_), mean)


@add_inverse.register
def _min_max(transformer: MinMaxScaler, graph: Graph, value: ir.Value) -> ir.Value:
    if transformer.clip:
        limits = (graph.constant(np.float32(limit)) for limit in transformer.feature_range)
        value = graph.op("Clip", value, *limits)
    return _times(graph, _added(graph, value, -transformer.min_), 1 / transformer.scale_)


@add_inverse.register
def _max_abs(transformer: MaxAbsScaler, graph: Graph, value: ir.Value) -> ir.Value:
    return _times(graph, value, transformer.scale_)


@add_inverse.register
def _robust(transformer: RobustScaler, graph: Graph, value: ir.Value) -> ir.Value:
    scale = transformer.scale_ if transformer.with_scaling else None
    return _added(graph, _times(graph, value, scale), transformer.center_ if transformer.with_centering else None)


@add_inverse.register
def _function(transformer: FunctionTransformer, graph: Graph, value: ir.Value) -> ir.Value:
    if transformer.inverse_func is None:
        return value
    if transformer.inv_kw_args:
        raise ExportError("FunctionTransformer(inv_kw_args=...) has no ONNX form here")
    return add_function(graph, value, transformer.inverse_func, "inverse_func")


@add_inverse.register
def _pipeline(transformer: Pipeline, graph: Graph, value: ir.Value) -> ir.Value:
    for _, step in reversed(transformer.steps):
        if step not in (None, "passthrough"):
            value = add_inverse(step, graph, value)
    return value
