"""Values of a graph: its inputs, and which of the others are float64."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from mmensemble.preprocessing import TensorSpec

__all__ = ["gives_double", "graph_input"]

# Operators that give something else than numbers of the type that they take, or always float32.
_OTHER_TYPES = {
    "And",
    "ArgMax",
    "ArgMin",
    "Equal",
    "Greater",
    "GreaterOrEqual",
    "IsInf",
    "IsNaN",
    "Less",
    "LessOrEqual",
    "Not",
    "Or",
    "Shape",
    "TreeEnsembleRegressor",
    "TreeEnsembleClassifier",
}


def gives_double(op_type: str, inputs: Sequence[ir.Value | None], attributes: Mapping[str, Any]) -> bool:
    """Tell whether an operator's output is float64."""
    if op_type == "Cast":
        return bool(attributes["to"] == ir.DataType.DOUBLE)
    if op_type in _OTHER_TYPES:
        return False
    return any(value is not None and value.dtype == ir.DataType.DOUBLE for value in inputs)


def graph_input(feed: str, tensor: str, spec: TensorSpec) -> ir.Value:
    """Make a graph input; all feeds share the axis ``batch``, any other dynamic axis is the feed's own."""
    dtype = ir.DataType.STRING if spec.dtype == "object" else ir.DataType.from_numpy(np.dtype(spec.dtype))
    shape = [axis if isinstance(axis, int) or axis == "batch" else f"{feed}.{axis}" for axis in spec.shape]
    return ir.Value(name=f"{feed}.{tensor}", shape=ir.Shape(shape), type=ir.TensorType(dtype))
