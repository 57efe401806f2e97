"""scikit-learn's classifiers by a likelihood of each class, as graphs that compute it in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.naive_bayes import BernoulliNB, GaussianNB
from sklearn.semi_supervised import LabelPropagation, LabelSpreading

from mmensemble.converters.fallback.skl2onnx import refusing_nan
from mmensemble.converters.linear import matrix
from mmensemble.converters.svm import kernel_matrix
from mmensemble.exceptions import ExportError
from mmensemble.graph import Graph, Outputs, Source, Tensor, linear, to_graph

__all__: list[str] = []


def _of_likelihood(X: Tensor, likelihood: ir.Value, *, decides: bool = False) -> Outputs:
    """Turn logarithms of likelihoods (batch, n_classes) into probabilities."""
    graph = X.graph
    # Before they are rounded: likelihoods are large numbers that differ little.
    largest = graph.op("ReduceMax", likelihood, graph.constant(np.asarray([1])), keepdims=1)
    relative = graph.single(graph.op("Sub", likelihood, largest))
    probabilities = refusing_nan(X, graph.op("Softmax", relative, axis=1))
    return Outputs(graph, probabilities=probabilities, present=X.present, decision=likelihood if decides else None)


def _squared_distance(graph: Graph, x: ir.Value, centre: np.ndarray, to_unit: np.ndarray) -> ir.Value:
    """Return the squared length (batch, 1) of what rows are off a centre, multiplied by a matrix or by columns."""
    off = graph.op("Sub", x, graph.constant(centre[None]))
    operation = "MatMul" if to_unit.ndim == 2 else "Mul"
    scaled = graph.op(operation, off, graph.constant(np.ascontiguousarray(to_unit)))
    return graph.op("ReduceSum", graph.op("Mul", scaled, scaled), graph.constant(np.asarray([1])), keepdims=1)


@to_graph.register
def _gaussian_naive_bayes(estimator: GaussianNB, source: Source | None = None) -> Outputs:
    X = matrix(estimator, source)
    graph = X.graph
    with graph.scope("GaussianNB"):
        x = graph.double(X.exact)
        distances = [
            _squared_distance(graph, x, mean, variance**-0.5)
            for mean, variance in zip(estimator.theta_, estimator.var_, strict=True)
        ]
        constant = np.log(estimator.class_prior_) - 0.5 * np.log(2 * np.pi * estimator.var_).sum(axis=1)
        return _of_likelihood(X, _minus_half(graph, distances, constant))


@to_graph.register
def _quadratic(estimator: QuadraticDiscriminantAnalysis, source: Source | None = None) -> Outputs:
    X = matrix(estimator, source)
    graph = X.graph
    with graph.scope("QuadraticDiscriminantAnalysis"):
        x = graph.double(X.exact)
        parts = list(zip(estimator.means_, estimator.rotations_, estimator.scalings_, strict=True))
        distances = [_squared_distance(graph, x, mean, R * np.asarray(S) ** -0.5) for mean, R, S in parts]
        constant = np.log(estimator.priors_) - 0.5 * np.asarray([np.log(S).sum() for _, _, S in parts])
        outputs = _of_likelihood(X, likelihood := _minus_half(graph, distances, constant), decides=True)
        if len(parts) > 2:
            return outputs
        columns = [graph.op("Gather", likelihood, graph.constant(np.asarray([k])), axis=1) for k in (1, 0)]
        return Outputs(
            graph,
            probabilities=outputs.probabilities,
            present=X.present,
            decision=graph.op("Sub", *columns),
        )


def _minus_half(graph: Graph, distances: list[ir.Value], constant: np.ndarray) -> ir.Value:
    side_by_side = graph.op("Concat", *distances, axis=1)
    halved = graph.op("Mul", side_by_side, graph.constant(np.float64(-0.5)))
    return graph.op("Add", halved, graph.constant(np.asarray(constant, dtype=np.float64)[None]))


@to_graph.register
def _bernoulli_naive_bayes(estimator: BernoulliNB, source: Source | None = None) -> Outputs:
    X = matrix(estimator, source)
    graph = X.graph
    with graph.scope("BernoulliNB"):
        rows = X
        if estimator.binarize is not None:
            above = graph.op("Greater", X.exact, graph.number(estimator.binarize, X.exact))
            rows = Tensor(graph, graph.op("Cast", above, to=Graph.FLOAT), X.present)
        against = np.log(1 - np.exp(estimator.feature_log_prob_))
        bias = estimator.class_log_prior_ + against.sum(axis=1)
        likelihood = linear(rows, (estimator.feature_log_prob_ - against).T, bias)
        return _of_likelihood(X, likelihood)


@to_graph.register(LabelPropagation)
@to_graph.register(LabelSpreading)
def _propagated(estimator: Any, source: Source | None = None) -> Outputs:
    X = matrix(estimator, source)
    graph, name = X.graph, type(estimator).__name__
    if estimator.kernel != "rbf":
        raise ExportError(f"{name}(kernel={estimator.kernel!r}) has no ONNX form; 'rbf' has")
    with graph.scope(name):
        rows = np.asarray(estimator.X_, dtype=np.float64)
        weights = kernel_matrix(X, "rbf", rows, estimator.gamma, 0, 0)
        labels = graph.constant(np.asarray(estimator.label_distributions_, dtype=np.float64), "labels")
        mass = graph.op("MatMul", weights, labels)
        total = graph.op("ReduceSum", mass, graph.constant(np.asarray([1])), keepdims=1)
        return Outputs(graph, probabilities=refusing_nan(X, graph.op("Div", mass, total)), present=X.present)
