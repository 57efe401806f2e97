"""scikit-learn's Gaussian process classifier, as a graph in float64.

References
----------
Rasmussen and Williams, "Gaussian Processes for Machine Learning", MIT Press 2006, algorithm 3.2.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.polynomial import Chebyshev, chebyshev
from scipy.linalg import solve_triangular
from scipy.special import erfcx
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.gaussian_process import kernels as known

from mmensemble._sklearn import BinaryGaussianProcess, error_function_sum
from mmensemble.converters.fallback.skl2onnx import refusing_nan
from mmensemble.converters.linear import matrix, one_class_and_the_other, squared_distances
from mmensemble.exceptions import ExportError
from mmensemble.graph import Graph, Outputs, Source, Tensor, to_graph

__all__: list[str] = []

# Of the polynomial that stands for the error function; with more it gets no closer in float64.
_DEGREE = 24


@to_graph.register
def _classifier(estimator: GaussianProcessClassifier, source: Source | None = None) -> Outputs:
    X = matrix(estimator, source)
    with X.graph.scope("GaussianProcessClassifier"):
        outputs = to_graph(estimator.base_estimator_, X)
        if estimator.n_classes_ > 2 and estimator.multi_class == "one_vs_one":
            return replace(outputs, probabilities=None, decision=None)
        return replace(outputs, decision=None)


@to_graph.register
def _binary(estimator: BinaryGaussianProcess, source: Source | None = None) -> Outputs:
    X = matrix(estimator, source)
    graph, rows = X.graph, np.asarray(estimator.X_train_, dtype=np.float64)

    def product(value: ir.Value, weight: np.ndarray) -> ir.Value:
        return graph.op("MatMul", value, graph.constant(np.ascontiguousarray(weight), "rows"))

    between = _between(X, estimator.kernel_, rows)
    latent = product(between, (estimator.y_train_ - estimator.pi_)[:, None])
    to_unit = solve_triangular(estimator.L_, np.diag(estimator.W_sr_), lower=True)
    explained = product(between, to_unit.T)
    explained = graph.op(
        "ReduceSum", graph.op("Mul", explained, explained), graph.constant(np.asarray([1])), keepdims=1
    )
    variance = graph.op("Sub", _of_itself(X, estimator.kernel_), explained)
    coefficients, steepness = error_function_sum()
    # The logistic function as a sum of error functions, each of whose means over a normal distribution is one too.
    one, half = graph.constant(np.float64(1)), graph.constant(np.float64(0.5))
    spread = graph.op("Add", one, graph.op("Mul", variance, graph.constant(2 * steepness[None] ** 2)))
    argument = graph.op("Div", graph.op("Mul", latent, graph.constant(steepness[None])), graph.op("Sqrt", spread))
    second = graph.op("Mul", product(_error_function(graph, argument), coefficients[:, None]), half)
    second = graph.op("Add", second, graph.constant(np.float64(0.5 * coefficients.sum())))
    above = graph.op("Greater", latent, graph.constant(np.float64(0)))
    return Outputs(
        graph,
        probabilities=one_class_and_the_other(graph, graph.single(refusing_nan(X, second))),
        present=X.present,
        labels=graph.op("Cast", above, to=Graph.INT64),
    )


def _error_function(graph: Graph, x: ir.Value) -> ir.Value:
    """Return erf of float64, which ONNX Runtime has of float32 only, to 1e-15.

    ``erfc(z) = t exp(-z² + P(t))`` with ``t = 2 / (2 + z)`` for z of 0 and above, P a polynomial over 0 to 1.
    """
    nodes = (chebyshev.chebpts1(4 * _DEGREE) + 1) / 2
    nodes = nodes[nodes > 0]
    smooth = np.log(erfcx(2 / nodes - 2) / nodes)
    series = Chebyshev.fit(nodes, smooth, _DEGREE, domain=[0, 1]).coef
    one, two = (graph.constant(np.float64(number)) for number in (1, 2))
    size = graph.op("Abs", x)
    t = graph.op("Div", two, graph.op("Add", two, size))
    twice = graph.op("Sub", graph.op("Mul", t, graph.constant(np.float64(4))), two)  # 2 (2 t - 1)
    # Clenshaw's recurrence.
    later, latest = graph.constant(np.float64(0)), graph.constant(np.float64(series[-1]))
    for coefficient in series[-2:0:-1]:
        step = graph.op("Sub", graph.op("Mul", twice, latest), later)
        later, latest = latest, graph.op("Add", step, graph.constant(np.float64(coefficient)))
    polynomial = graph.op("Sub", graph.op("Mul", graph.op("Div", twice, two), latest), later)
    polynomial = graph.op("Add", polynomial, graph.constant(np.float64(series[0])))
    tail = graph.op("Mul", t, graph.op("Exp", graph.op("Sub", polynomial, graph.op("Mul", x, x))))
    return graph.op("Mul", graph.op("Sign", x), graph.op("Sub", one, tail))


def _between(X: Tensor, kernel: Any, rows: np.ndarray) -> ir.Value:
    """Compare each row with each fitting row, (batch, n_rows)."""
    graph = X.graph

    def number(value: float) -> ir.Value:
        return graph.constant(np.float64(value))

    if isinstance(kernel, (known.Sum, known.Product)):
        operator = "Add" if isinstance(kernel, known.Sum) else "Mul"
        return graph.op(operator, _between(X, kernel.k1, rows), _between(X, kernel.k2, rows))
    if isinstance(kernel, known.Exponentiation):
        return graph.op("Pow", _between(X, kernel.kernel, rows), number(kernel.exponent))
    if isinstance(kernel, (known.ConstantKernel, known.WhiteKernel)):
        value = kernel.constant_value if isinstance(kernel, known.ConstantKernel) else 0.0
        return graph.constant(np.full((1, len(rows)), value, dtype=np.float64))
    x = graph.double(X.exact)
    if isinstance(kernel, known.DotProduct):
        product = graph.op("MatMul", x, graph.constant(np.ascontiguousarray(rows.T), "rows"))
        return graph.op("Add", product, number(kernel.sigma_0**2))
    if type(kernel) not in (known.RBF, known.Matern, known.RationalQuadratic):
        raise ExportError(
            f"the kernel {type(kernel).__name__} has no ONNX form; RBF, Matern, RationalQuadratic, DotProduct, "
            "constants, white noise, and their sums, products and powers have"
        )
    length = np.broadcast_to(np.asarray(kernel.length_scale, dtype=np.float64), rows.shape[1:])
    scaled = graph.op("Div", x, graph.constant(np.ascontiguousarray(length)[None]))
    square = graph.op("Max", squared_distances(graph, scaled, rows / length), number(0))
    if isinstance(kernel, known.RationalQuadratic):
        base = graph.op("Add", number(1), graph.op("Div", square, number(2 * kernel.alpha)))
        return graph.op("Pow", base, number(-kernel.alpha))
    smoothness = kernel.nu if isinstance(kernel, known.Matern) else np.inf
    if smoothness == np.inf:
        return graph.op("Exp", graph.op("Mul", square, number(-0.5)))
    if smoothness not in (0.5, 1.5, 2.5):
        raise ExportError(f"the kernel Matern(nu={smoothness:g}) has no ONNX form; 0.5, 1.5, 2.5 and inf have")
    distance = graph.op("Mul", graph.op("Sqrt", square), number(math.sqrt(2 * smoothness)))
    factor = number(1)
    if smoothness > 1:
        factor = graph.op("Add", factor, distance)
    if smoothness > 2:
        factor = graph.op("Add", factor, graph.op("Div", graph.op("Mul", distance, distance), number(3)))
    return graph.op("Mul", factor, graph.op("Exp", graph.op("Neg", distance)))


def _of_itself(X: Tensor, kernel: Any) -> ir.Value:
    """Compare each row with itself, (batch, 1) or (1, 1)."""
    graph = X.graph
    if isinstance(kernel, (known.Sum, known.Product)):
        operator = "Add" if isinstance(kernel, known.Sum) else "Mul"
        return graph.op(operator, _of_itself(X, kernel.k1), _of_itself(X, kernel.k2))
    if isinstance(kernel, known.Exponentiation):
        return graph.op("Pow", _of_itself(X, kernel.kernel), graph.constant(np.float64(kernel.exponent)))
    if isinstance(kernel, known.DotProduct):
        x = graph.double(X.exact)
        square = graph.op("ReduceSum", graph.op("Mul", x, x), graph.constant(np.asarray([1])), keepdims=1)
        return graph.op("Add", square, graph.constant(np.float64(kernel.sigma_0**2)))
    # All others depend on distances alone.
    return graph.constant(kernel.diag(np.zeros((1, 1)))[None])
