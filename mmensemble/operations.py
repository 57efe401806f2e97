"""Operations in which a rule is written once, to be run on arrays and in a graph. Imports numpy and scipy only.

As in the array API standard, a function takes the namespace of its operations as ``xp``. `NumpyOperations` works on
float64 arrays; `mmensemble.graph.GraphOperations` adds float32 operators of ONNX to a graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any, Protocol, TypeAlias

import numpy as np
from scipy.special import expit, softmax

__all__ = ["NUMPY", "NumpyOperations", "Operations", "Value"]

# An array, or a value of a graph: what both have are + - * / < <= > >= & | and no shape.
Value: TypeAlias = Any


class Operations(Protocol):
    """What a rule is made of, beside the operators ``+ - * / < <= > >= & |`` of values.

    A value is an array of shape (n, ...) or what stands for one in a graph. Numbers and arrays of numpy, which are the
    same for all rows, stand beside values as they are. All functions broadcast; those that have an axis work along the
    last one.

    Attributes
    ----------
    finfo : numpy.finfo
        The limits of the values' floating point numbers.
    """

    finfo: np.finfo[Any]

    def constant(self, array: np.ndarray, name: str) -> Value:
        """Return an array of numpy as a value, which is stored by that name in a graph."""

    def where(self, condition: Value, x: Value, y: Value) -> Value:
        """Return x where a condition holds, else y."""

    def isnan(self, x: Value) -> Value:
        """Tell which elements are NaN."""

    def log(self, x: Value) -> Value:
        """Return the natural logarithm."""

    def sigmoid(self, x: Value) -> Value:
        """Return ``1 / (1 + exp(-x))``."""

    def softmax(self, x: Value) -> Value:
        """Return ``exp(x)``, divided by its sum along the last axis."""

    def add(self, *values: Value) -> Value:
        """Return the sum of one or more values, element by element."""

    def maximum(self, *values: Value) -> Value:
        """Return the largest of one or more values, element by element."""

    def minimum(self, *values: Value) -> Value:
        """Return the smallest of one or more values, element by element."""

    def linear(self, x: Value, coef: Value, intercept: Value) -> Value:
        """Return ``x @ coef + intercept`` of shapes (n, n_in), (n_in, n_out) and (n_out,)."""

    def argmax(self, x: Value) -> Value:
        """Return the places of the largest elements along the last axis, which is left out; of equals, the first."""

    def one_hot(self, indices: Value, size: int) -> Value:
        """Return a further axis of 0, with 1 in the places that `indices` name."""

    def take(self, x: Value, indices: int | np.ndarray) -> Value:
        """Return elements along the last axis; of a single number, that element without the axis."""

    def split(self, x: Value, sizes: Sequence[int]) -> list[Value]:
        """Return parts of these sizes along the last axis."""

    def concat(self, *values: Value) -> Value:
        """Join one or more values along the last axis."""

    def stack(self, *values: Value) -> Value:
        """Join values along a new last axis."""


class NumpyOperations:
    """`Operations` on arrays of numpy, in float64."""

    finfo: np.finfo[Any] = np.finfo(np.float64)

    def constant(self, array: np.ndarray, name: str) -> np.ndarray:
        return array

    def where(self, condition: Value, x: Value, y: Value) -> Value:
        return np.where(condition, x, y)

    def isnan(self, x: Value) -> Value:
        return np.isnan(x)

    def log(self, x: Value) -> Value:
        return np.log(x)

    def sigmoid(self, x: Value) -> Value:
        return expit(x)

    def softmax(self, x: Value) -> Value:
        return softmax(x, axis=-1)

    def add(self, *values: Value) -> Value:
        return reduce(np.add, values)

    def maximum(self, *values: Value) -> Value:
        return reduce(np.maximum, values)

    def minimum(self, *values: Value) -> Value:
        return reduce(np.minimum, values)

    def linear(self, x: Value, coef: Value, intercept: Value) -> Value:
        return x @ coef + intercept

    def argmax(self, x: Value) -> Value:
        return np.argmax(x, axis=-1)

    def one_hot(self, indices: Value, size: int) -> np.ndarray:
        return np.eye(size)[indices]

    def take(self, x: Value, indices: int | np.ndarray) -> Value:
        return np.take(x, indices, axis=-1)

    def split(self, x: Value, sizes: Sequence[int]) -> list[np.ndarray]:
        return np.split(x, np.cumsum(sizes)[:-1], axis=-1)

    def concat(self, *values: Value) -> np.ndarray:
        return np.concatenate(values, axis=-1)

    def stack(self, *values: Value) -> np.ndarray:
        return np.stack(values, axis=-1)


NUMPY = NumpyOperations()
