"""scikit-learn's kernel machines, as graphs: their decisions, of which probabilities can be made, and their numbers.

References
----------
Chang and Lin, "LIBSVM: a library for support vector machines", ACM TIST 2011: one decision for each pair of classes.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import onnx_ir as ir
from sklearn.kernel_ridge import KernelRidge
from sklearn.svm import SVC, SVR, NuSVC, NuSVR

from mmensemble._sklearn import kernel_width
from mmensemble.converters.fallback.skl2onnx import convert, refusing_nan
from mmensemble.converters.linear import matrix, squared_distances
from mmensemble.exceptions import ExportError
from mmensemble.graph import Graph, Outputs, Source, Tensor, to_graph
from mmensemble.tasks import Regression

__all__ = ["as_array", "kernel_matrix", "one_against_the_rest"]


@to_graph.register(NuSVC)
@to_graph.register(SVC)
def _svc(estimator: Any, source: Source | None = None) -> Outputs:
    X = matrix(estimator, source)
    graph = X.graph
    with graph.scope(type(estimator).__name__):
        kernel = _machine_kernel(estimator, X)
        if len(estimator.classes_) > 2:
            weight, pairs = _pairwise(estimator)
            products = _products(graph, kernel, weight, estimator.intercept_)
            decision, labels = one_against_the_rest(graph, products, pairs)
        else:
            products = _products(graph, kernel, as_array(estimator.dual_coef_).T, estimator.intercept_)
            above = graph.op("Greater", products, graph.constant(np.float64(0)))
            decision, labels = graph.single(products), graph.op("Cast", above, to=ir.DataType.INT64)
        # LIBSVM makes probabilities by an iteration that stops early, which ONNX Runtime repeats. It predicts by its
        # decisions all the same.
        probabilities = convert(estimator, X).probabilities if estimator.probability is True else None
        return Outputs(graph, probabilities=probabilities, present=X.present, decision=decision, labels=labels)


@to_graph.register(NuSVR)
@to_graph.register(SVR)
def _svr(estimator: Any, source: Source | None = None) -> Outputs:
    X = matrix(estimator, source)
    with X.graph.scope(type(estimator).__name__):
        kernel = _machine_kernel(estimator, X)
        predictions = _products(X.graph, kernel, as_array(estimator.dual_coef_).T, estimator.intercept_)
        task = Regression(1, one_dimensional=True)
        return Outputs(X.graph, predictions=refusing_nan(X, predictions), present=X.present, task=task)


@to_graph.register
def _kernel_ridge(estimator: KernelRidge, source: Source | None = None) -> Outputs:
    X = matrix(estimator, source)
    with X.graph.scope("KernelRidge"):
        rows = as_array(estimator.X_fit_).astype(np.float64)
        gamma = 1 / rows.shape[1] if estimator.gamma is None else estimator.gamma
        kernel = kernel_matrix(X, estimator.kernel, rows, gamma, estimator.coef0, estimator.degree)
        weight = np.asarray(estimator.dual_coef_, dtype=np.float64).reshape(len(rows), -1)
        predictions = _products(X.graph, kernel, weight, np.zeros(weight.shape[1]))
        task = Regression(weight.shape[1], one_dimensional=np.ndim(estimator.dual_coef_) == 1)
        return Outputs(X.graph, predictions=refusing_nan(X, predictions), present=X.present, task=task)


def _machine_kernel(estimator: Any, X: Tensor) -> ir.Value:
    vectors = as_array(estimator.support_vectors_).astype(np.float64)
    return kernel_matrix(X, estimator.kernel, vectors, kernel_width(estimator), estimator.coef0, estimator.degree)


def as_array(coefficients: Any) -> np.ndarray:
    """Return a matrix as an array, whether it is sparse or not."""
    return np.asarray(coefficients.toarray() if hasattr(coefficients, "toarray") else coefficients)


def kernel_matrix(X: Tensor, kind: Any, rows: np.ndarray, gamma: float, coef0: float, degree: float) -> ir.Value:
    """Compare each row with each row that was kept, (batch, n_kept), in float64."""
    graph = X.graph

    def number(value: float) -> ir.Value:
        return graph.constant(np.float64(value))

    x = graph.double(X.exact)
    if kind == "rbf":
        return graph.op("Exp", graph.op("Mul", squared_distances(graph, x, rows), number(-gamma)))
    product = graph.op("MatMul", x, graph.constant(np.ascontiguousarray(rows.T)))
    if kind == "linear":
        return product
    inner = graph.op("Add", graph.op("Mul", product, number(gamma)), number(coef0))
    if kind in ("poly", "polynomial"):
        return graph.op("Pow", inner, number(degree))
    if kind == "sigmoid":
        return graph.op("Tanh", inner)
    raise ExportError(f"the kernel {kind!r} has no ONNX form; 'linear', 'rbf', 'poly' and 'sigmoid' have")


def _products(graph: Graph, kernel: ir.Value, weight: np.ndarray, bias: np.ndarray) -> ir.Value:
    product = graph.op("MatMul", kernel, graph.constant(np.ascontiguousarray(weight, dtype=np.float64), "dual_coef"))
    return graph.op("Add", product, graph.constant(np.asarray(bias, dtype=np.float64)[None]))


def _pairwise(estimator: Any) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Return the coefficients of every pair's decision, (n_vectors, n_pairs), and the pairs."""
    coefficients = as_array(estimator.dual_coef_)
    ends = np.cumsum(estimator.n_support_)
    starts = ends - estimator.n_support_
    pairs = list(combinations(range(len(ends)), 2))
    weight = np.zeros((coefficients.shape[1], len(pairs)))
    for column, (one, other) in enumerate(pairs):
        of_one, of_other = slice(starts[one], ends[one]), slice(starts[other], ends[other])
        weight[of_one, column] = coefficients[other - 1, of_one]
        weight[of_other, column] = coefficients[one, of_other]
    return weight, pairs


def one_against_the_rest(
    graph: Graph, decisions: ir.Value, pairs: list[tuple[int, int]], lost: ir.Value | None = None
) -> tuple[ir.Value, ir.Value]:
    """Make decisions per class of those per pair, as scikit-learn does, and the class with most votes.

    Parameters
    ----------
    graph : Graph
    decisions : Value
        (batch, n_pairs) float64, above 0 for the first class of a pair, or for the second one where `lost` is given.
    pairs : list of (int, int)
    lost : Value, default=None
        (batch, n_pairs) float64, 1 where the second class of a pair has its vote; None is where decisions are below 0.

    Returns
    -------
    decision : Value
        (batch, n_classes) float64.
    labels : Value
        (batch, 1) int64.
    """
    n_classes = pairs[-1][1] + 1
    first, second = (np.eye(n_classes)[[pair[end] for pair in pairs]] for end in (0, 1))
    towards_first = first - second if lost is None else second - first
    by_decision = lost is None
    if lost is None:
        lost = graph.op("Cast", graph.op("Less", decisions, graph.constant(np.float64(0))), to=Graph.DOUBLE)
    won = graph.op("Sub", graph.constant(np.float64(1)), lost)
    votes = graph.op(
        "Add",
        graph.op("MatMul", won, graph.constant(first)),
        graph.op("MatMul", lost, graph.constant(second)),
    )
    confidence = graph.op("MatMul", decisions, graph.constant(towards_first))
    bound = graph.op("Add", graph.op("Abs", confidence), graph.constant(np.float64(1)))
    part = graph.op("Div", confidence, graph.op("Mul", bound, graph.constant(np.float64(3))))
    decision = graph.op("Add", votes, part)
    # A kernel machine breaks no ties of votes by its decisions.
    return decision, graph.op("ArgMax", votes if by_decision else decision, axis=1, keepdims=1)
