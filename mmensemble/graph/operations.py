"""The operations of a rule as operators of a graph, in float32."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from mmensemble.graph.builder import Graph
from mmensemble.operations import Value

__all__ = ["GraphOperations", "GraphValue"]

_LAST = np.asarray([-1])


def _operator(op_type: str, *, reflected: bool = False) -> Callable[[GraphValue, Value], GraphValue]:
    def operate(self: GraphValue, other: Value) -> GraphValue:
        operands = (other, self) if reflected else (self, other)
        return GraphOperations(self.graph).op(op_type, *operands)

    return operate


@dataclass(frozen=True, eq=False)
class GraphValue:
    """A value of a graph in a formula.

    Parameters
    ----------
    graph : Graph
    value : onnx_ir.Value
    """

    graph: Graph
    value: ir.Value

    # An array of numpy on the left leaves the operator to the value.
    __array_ufunc__ = None

    __add__, __radd__ = _operator("Add"), _operator("Add", reflected=True)
    __sub__, __rsub__ = _operator("Sub"), _operator("Sub", reflected=True)
    __mul__, __rmul__ = _operator("Mul"), _operator("Mul", reflected=True)
    __truediv__, __rtruediv__ = _operator("Div"), _operator("Div", reflected=True)
    __lt__, __le__ = _operator("Less"), _operator("LessOrEqual")
    __gt__, __ge__ = _operator("Greater"), _operator("GreaterOrEqual")
    __and__, __or__ = _operator("And"), _operator("Or")


class GraphOperations:
    """`Operations` on values of a graph; numbers and arrays of numpy become float32 constants of it.

    Parameters
    ----------
    graph : Graph
    """

    finfo: np.finfo[Any] = np.finfo(np.float32)

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    def of(self, value: ir.Value) -> GraphValue:
        """Return a value of the graph as a formula takes it."""
        return GraphValue(self.graph, value)

    def op(self, op_type: str, *operands: Value, **attributes: Any) -> GraphValue:
        """Add an operator with one output."""
        return self.of(self.graph.op(op_type, *map(self._operand, operands), **attributes))

    def _operand(self, operand: Value) -> ir.Value:
        if isinstance(operand, GraphValue):
            return operand.value
        return self.graph.constant(np.asarray(operand, dtype=np.float32))

    def _integers(self, integers: Any) -> GraphValue:
        return self.of(self.graph.constant(np.asarray(integers, dtype=np.int64)))

    def _of_all(self, op_type: str, values: Sequence[Value], **attributes: Any) -> GraphValue:
        """Add an operator that takes any number of values, where there are several."""
        return self.op(op_type, *values, **attributes) if len(values) > 1 else values[0]

    def constant(self, array: np.ndarray, name: str) -> GraphValue:
        return self.of(self.graph.constant(array.astype(np.float32), name))

    def where(self, condition: Value, x: Value, y: Value) -> GraphValue:
        return self.op("Where", condition, x, y)

    def isnan(self, x: Value) -> GraphValue:
        return self.op("IsNaN", x)

    def log(self, x: Value) -> GraphValue:
        return self.op("Log", x)

    def sigmoid(self, x: Value) -> GraphValue:
        return self.op("Sigmoid", x)

    def softmax(self, x: Value) -> GraphValue:
        return self.op("Softmax", x, axis=-1)

    def add(self, *values: Value) -> GraphValue:
        return self._of_all("Sum", values)

    def maximum(self, *values: Value) -> GraphValue:
        return self._of_all("Max", values)

    def minimum(self, *values: Value) -> GraphValue:
        return self._of_all("Min", values)

    def linear(self, x: Value, coef: Value, intercept: Value) -> GraphValue:
        return self.op("Gemm", x, coef, intercept)

    def argmax(self, x: Value) -> GraphValue:
        return self.op("ArgMax", x, axis=-1, keepdims=0)

    def one_hot(self, indices: Value, size: int) -> GraphValue:
        return self.op("OneHot", indices, self._integers(size), np.asarray([0, 1]), axis=-1)

    def take(self, x: Value, indices: int | np.ndarray) -> GraphValue:
        return self.op("Gather", x, self._integers(indices), axis=-1)

    def split(self, x: Value, sizes: Sequence[int]) -> list[GraphValue]:
        if len(sizes) == 1:
            return [x]
        operands = (self._operand(x), self._integers(sizes).value)
        return [self.of(part) for part in self.graph.ops("Split", *operands, n_outputs=len(sizes), axis=-1)]

    def concat(self, *values: Value) -> GraphValue:
        return self._of_all("Concat", values, axis=-1)

    def stack(self, *values: Value) -> GraphValue:
        return self.concat(*(self.op("Unsqueeze", value, self._integers(_LAST)) for value in values))
