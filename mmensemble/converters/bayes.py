"""scikit-learn's classifiers by a likelihood of each class, as graphs that compute it in float64."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.naive_bayes import BernoulliNB, ComplementNB, GaussianNB, MultinomialNB
from sklearn.neighbors import NearestCentroid
from sklearn.semi_supervised import LabelPropagation, LabelSpreading

from mmensemble.converters.fallback.skl2onnx import refusing_nan
from mmensemble.converters.linear import matrix, refuse_nan, squared_distances
from mmensemble.converters.svm import as_array, kernel_matrix
from mmensemble.exceptions import ExportError
from mmensemble.graph import Graph, Outputs, Source, Tensor, linear, to_graph

__all__: list[str] = []


def _of_likelihood(X: Tensor, likelihood: ir.Value, *, decisions: int = 0) -> Outputs:
    """Turn logarithms of likelihoods (batch, n_classes) into probabilities, and decisions between so many classes."""
    graph, decision = X.graph, likelihood if decisions else None
    if decisions == 2:
        columns = [graph.op("Gather", likelihood, graph.constant(np.asarray([k])), axis=1) for k in (1, 0)]
        decision = graph.op("Sub", *columns)
    # Before they are rounded: likelihoods are large numbers that differ little.
    largest = graph.op("ReduceMax", likelihood, graph.constant(np.asarray([1])), keepdims=1)
    relative = graph.single(graph.op("Sub", likelihood, largest))
    probabilities = refusing_nan(X, graph.op("Softmax", relative, axis=1))
    return Outputs(graph, probabilities=probabilities, present=X.present, decision=decision)


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
        return _of_likelihood(X, _minus_half(graph, distances, constant), decisions=len(parts))


@to_graph.register
def _nearest_centroid(estimator: NearestCentroid, source: Source | None = None) -> Outputs:
    X = matrix(estimator, source)
    graph = X.graph
    if estimator.metric not in ("euclidean", "manhattan"):
        raise ExportError(f"NearestCentroid(metric={estimator.metric!r}) has no ONNX form; 'euclidean' has")
    with graph.scope("NearestCentroid"):
        x, centres = graph.double(X.exact), np.asarray(estimator.centroids_, dtype=np.float64)
        spread = np.where(estimator.within_class_std_dev_ != 0, estimator.within_class_std_dev_, 1.0)
        scaled = graph.op("Div", x, graph.constant(spread[None]))
        squares = _squared_to_centres(graph, scaled, centres / spread, estimator.metric)
        prior = graph.constant(2.0 * np.log(np.asarray(estimator.class_prior_, dtype=np.float64))[None])
        likelihood = graph.op("Sub", prior, squares)
        labels = graph.op("ArgMax", likelihood, axis=1, keepdims=1)
        if np.isclose(estimator.class_prior_, 1 / len(centres)).all():  # it predicts by distances that are not scaled
            unscaled = _squared_to_centres(graph, x, centres, estimator.metric)
            labels = graph.op("ArgMin", unscaled, axis=1, keepdims=1)
        if estimator.metric == "manhattan":
            refuse_nan(X)
            return Outputs(graph, labels=labels, present=X.present)
        return replace(_of_likelihood(X, likelihood, decisions=len(centres)), labels=labels)


def _squared_to_centres(graph: Graph, x: ir.Value, centres: np.ndarray, metric: str) -> ir.Value:
    if metric == "euclidean":
        return squared_distances(graph, x, centres)
    axis = graph.constant(np.asarray([1]))
    off = [graph.op("Abs", graph.op("Sub", x, graph.constant(centre[None]))) for centre in centres]
    distance = graph.op("Concat", *(graph.op("ReduceSum", value, axis, keepdims=1) for value in off), axis=1)
    return graph.op("Mul", distance, distance)


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
        likelihood = linear(rows, (estimator.feature_log_prob_ - against).T, bias, large=True)
        return _of_likelihood(X, likelihood)


@to_graph.register(ComplementNB)
@to_graph.register(MultinomialNB)
def _naive_bayes_of_counts(estimator: Any, source: Source | None = None) -> Outputs:
    X = matrix(estimator, source)
    with X.graph.scope(type(estimator).__name__):
        # scikit-learn adds the prior of complement naive Bayes where there is one class only.
        prior = estimator.class_log_prior_
        bias = np.zeros_like(prior) if isinstance(estimator, ComplementNB) and len(prior) > 1 else prior
        return _of_likelihood(X, linear(X, estimator.feature_log_prob_.T, bias, large=True))


@to_graph.register(LabelPropagation)
@to_graph.register(LabelSpreading)
def _propagated(estimator: Any, source: Source | None = None) -> Outputs:
    X = matrix(estimator, source)
    graph, name = X.graph, type(estimator).__name__
    if estimator.kernel != "rbf":
        raise ExportError(f"{name}(kernel={estimator.kernel!r}) has no ONNX form; 'rbf' has")
    with graph.scope(name):
        rows = as_array(estimator.X_).astype(np.float64)
        weights = kernel_matrix(X, "rbf", rows, estimator.gamma, 0, 0)
        labels = graph.constant(np.asarray(estimator.label_distributions_, dtype=np.float64), "labels")
        mass = graph.op("MatMul", weights, labels)
        total = graph.op("ReduceSum", mass, graph.constant(np.asarray([1])), keepdims=1)
        return Outputs(graph, probabilities=refusing_nan(X, graph.op("Div", mass, total)), present=X.present)
