"""scikit-learn's kernel machines for classes, as graphs: their decisions, of which probabilities can be made.

References
----------
Chang and Lin, "LIBSVM: a library for support vector machines", ACM TIST 2011: one decision for each pair of classes.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import onnx_ir as ir
from sklearn.svm import SVC, NuSVC

from mmensemble._sklearn import kernel_width, platt_offset
from mmensemble.converters.linear import matrix
from mmensemble.converters.skl2onnx import convert
from mmensemble.exceptions import ExportError
from mmensemble.graph import Graph, Outputs, Source, Tensor, to_graph
from mmensemble.tasks import Thresholded

__all__: list[str] = []


@to_graph.register(NuSVC)
@to_graph.register(SVC)
def _svc(estimator: Any, source: Source | None = None) -> Outputs:
    X = matrix(estimator, source)
    name, graph = type(estimator).__name__, X.graph
    binary = len(estimator.classes_) == 2
    with graph.scope(name):
        kernel = _kernel(estimator, X)
        if not binary:
            if estimator.probability is True:
                raise ExportError(
                    f"{name}(probability=True) of several classes predicts by votes and not by its probabilities; "
                    f"use CalibratedClassifierCV({name}(), ensemble=False), which agrees with itself"
                )
            weight, pairs = _pairwise(estimator)
            decision, labels = _one_against_the_rest(
                graph, _products(graph, kernel, weight, estimator.intercept_), pairs
            )
            return Outputs(graph, present=X.present, decision=decision, labels=labels)
        coefficients = estimator.dual_coef_
        weight = (coefficients.toarray() if hasattr(coefficients, "toarray") else coefficients).T
        decision = graph.op("Cast", _products(graph, kernel, weight, estimator.intercept_), to=Graph.FLOAT)
        above = graph.op("Greater", decision, graph.constant(np.float32(0)))
        labels = graph.op("Cast", above, to=ir.DataType.INT64)
        if estimator.probability is not True:
            return Outputs(graph, present=X.present, decision=decision, labels=labels)
        # LIBSVM makes them by an iteration that stops early, which ONNX Runtime repeats.
        probabilities = convert(estimator, X).probabilities
        # It predicts by its decision, which is 0 at this probability.
        task = Thresholded(np.asarray(estimator.classes_), _coupled(1 / (1 + np.exp(-platt_offset(estimator)))))
        return Outputs(
            graph, probabilities=probabilities, present=X.present, task=task, decision=decision, labels=labels
        )


def _coupled(p: float) -> float:
    """Return the probability that LIBSVM's ``multiclass_probability`` makes of a pair's, for two classes."""
    pair = np.array([[0, 1 - p], [p, 0]])
    q = np.array([[pair[1, 0] ** 2, -pair[1, 0] * pair[0, 1]], [-pair[1, 0] * pair[0, 1], pair[0, 1] ** 2]])
    result = np.array([0.5, 0.5])
    for _ in range(100):
        qp = q @ result
        pqp = result @ qp
        if np.abs(qp - pqp).max() < 0.005 / 2:
            break
        for t in range(2):
            step = (pqp - qp[t]) / q[t, t]
            result[t] += step
            pqp = (pqp + step * (step * q[t, t] + 2 * qp[t])) / (1 + step) ** 2
            qp = (qp + step * q[t]) / (1 + step)
            result /= 1 + step
    return float(result[1])


def _kernel(estimator: Any, X: Tensor) -> ir.Value:
    """Compare each row with each support vector, (batch, n_vectors), in float64."""
    graph = X.graph
    vectors = estimator.support_vectors_
    vectors = np.asarray(vectors.toarray() if hasattr(vectors, "toarray") else vectors, dtype=np.float64)

    def number(value: float) -> ir.Value:
        return graph.constant(np.float64(value))

    x = graph.op("Cast", X.value, to=ir.DataType.DOUBLE)
    product = graph.op("MatMul", x, graph.constant(np.ascontiguousarray(vectors.T)))
    if estimator.kernel == "linear":
        return product
    if estimator.kernel == "rbf":
        axis = graph.constant(np.asarray([1]))
        squares = graph.op("ReduceSum", graph.op("Mul", x, x), axis, keepdims=1)
        squares = graph.op("Add", squares, graph.constant((vectors**2).sum(axis=1)[None]))
        distance = graph.op("Sub", squares, graph.op("Mul", product, number(2)))
        return graph.op("Exp", graph.op("Mul", distance, number(-kernel_width(estimator))))
    inner = graph.op("Add", graph.op("Mul", product, number(kernel_width(estimator))), number(estimator.coef0))
    if estimator.kernel == "poly":
        return graph.op("Pow", inner, number(estimator.degree))
    if estimator.kernel == "sigmoid":
        return graph.op("Tanh", inner)
    raise ExportError(f"{type(estimator).__name__}(kernel={estimator.kernel!r}) has no ONNX form")


def _products(graph: Graph, kernel: ir.Value, weight: np.ndarray, bias: np.ndarray) -> ir.Value:
    product = graph.op("MatMul", kernel, graph.constant(np.ascontiguousarray(weight, dtype=np.float64), "dual_coef"))
    return graph.op("Add", product, graph.constant(np.asarray(bias, dtype=np.float64)[None]))


def _pairwise(estimator: Any) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Return the coefficients of every pair's decision, (n_vectors, n_pairs), and the pairs."""
    coefficients = estimator.dual_coef_
    coefficients = coefficients.toarray() if hasattr(coefficients, "toarray") else np.asarray(coefficients)
    ends = np.cumsum(estimator.n_support_)
    starts = ends - estimator.n_support_
    pairs = list(combinations(range(len(ends)), 2))
    weight = np.zeros((coefficients.shape[1], len(pairs)))
    for column, (one, other) in enumerate(pairs):
        of_one, of_other = slice(starts[one], ends[one]), slice(starts[other], ends[other])
        weight[of_one, column] = coefficients[other - 1, of_one]
        weight[of_other, column] = coefficients[one, of_other]
    return weight, pairs


def _one_against_the_rest(graph: Graph, decisions: ir.Value, pairs: list[tuple[int, int]]) -> tuple[ir.Value, ir.Value]:
    """Make decisions per class of those per pair, as scikit-learn does, and the class with most votes."""
    n_classes = pairs[-1][1] + 1
    first, second = (np.eye(n_classes)[[pair[end] for pair in pairs]] for end in (0, 1))
    lost = graph.op("Less", decisions, graph.constant(np.float64(0)))
    lost = graph.op("Cast", lost, to=ir.DataType.DOUBLE)
    won = graph.op("Sub", graph.constant(np.float64(1)), lost)
    votes = graph.op(
        "Add",
        graph.op("MatMul", won, graph.constant(first)),
        graph.op("MatMul", lost, graph.constant(second)),
    )
    confidence = graph.op("MatMul", decisions, graph.constant(first - second))
    bound = graph.op("Add", graph.op("Abs", confidence), graph.constant(np.float64(1)))
    part = graph.op("Div", confidence, graph.op("Mul", bound, graph.constant(np.float64(3))))
    decision = graph.op("Cast", graph.op("Add", votes, part), to=Graph.FLOAT)
    return decision, graph.op("ArgMax", votes, axis=1, keepdims=1)
