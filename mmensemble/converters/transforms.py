"""scikit-learn's transformers of numbers that are neither scalers nor encoders, as graphs in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.cluster import Birch, BisectingKMeans, KMeans, MiniBatchKMeans
from sklearn.feature_selection import SelectorMixin
from sklearn.kernel_approximation import Nystroem, RBFSampler
from sklearn.neural_network import BernoulliRBM
from sklearn.preprocessing import Binarizer, KBinsDiscretizer

from mmensemble.converters.fallback.skl2onnx import refusing_nan
from mmensemble.converters.linear import matrix, sigmoid
from mmensemble.converters.svm import kernel_matrix
from mmensemble.graph import Graph, Outputs, Source, to_graph

__all__: list[str] = []


@to_graph.register
def _selected(estimator: SelectorMixin, source: Source | None = None) -> Outputs:
    X = matrix(estimator, source)
    return X.some(np.flatnonzero(estimator.get_support())).outputs()


@to_graph.register
def _binarizer(estimator: Binarizer, source: Source | None = None) -> Outputs:
    X = matrix(estimator, source)
    graph = X.graph
    with graph.scope("Binarizer"):
        above = graph.op("Greater", X.exact, graph.number(estimator.threshold, X.exact))
        value = refusing_nan(X, graph.op("Cast", above, to=Graph.FLOAT))
        return Outputs(graph, transformed=value, present=X.present, sparse=X.sparse)


@to_graph.register
def _bins(estimator: KBinsDiscretizer, source: Source | None = None) -> Outputs:
    X = matrix(estimator, source)
    graph = X.graph
    with graph.scope("KBinsDiscretizer"):
        x, axis = graph.double(X.exact), graph.constant(np.asarray([1]))
        columns = []
        for number, edges in enumerate(estimator.bin_edges_):
            column = graph.op("Gather", x, graph.constant(np.asarray([number])), axis=1)
            inner = np.asarray(edges, dtype=np.float64)[1:-1]
            if not len(inner):
                bins = graph.op("Mul", column, graph.constant(np.float64(0)))
            else:
                reached = graph.op("GreaterOrEqual", column, graph.constant(inner[None]))
                bins = graph.op("ReduceSum", graph.op("Cast", reached, to=Graph.DOUBLE), axis, keepdims=1)
            if estimator.encode != "ordinal":
                of_bin = graph.constant(np.arange(int(estimator.n_bins_[number]), dtype=np.float64)[None])
                bins = graph.op("Cast", graph.op("Equal", bins, of_bin), to=Graph.DOUBLE)
            columns.append(bins)
        value = refusing_nan(X, graph.op("Concat", *columns, axis=1))
        return Outputs(graph, transformed=value, present=X.present, sparse=estimator.encode == "onehot")


@to_graph.register(KMeans)
@to_graph.register(MiniBatchKMeans)
@to_graph.register(BisectingKMeans)
@to_graph.register(Birch)
def _distances_to_centres(estimator: Any, source: Source | None = None) -> Outputs:
    X = matrix(estimator, source)
    graph = X.graph
    centres = getattr(estimator, "subcluster_centers_", getattr(estimator, "cluster_centers_", None))
    with graph.scope(type(estimator).__name__):
        x, centres = graph.double(X.exact), np.asarray(centres, dtype=np.float64)
        axis = graph.constant(np.asarray([1]))
        squares = graph.op("ReduceSum", graph.op("Mul", x, x), axis, keepdims=1)
        squares = graph.op("Add", squares, graph.constant((centres**2).sum(axis=1)[None]))
        product = graph.op("MatMul", x, graph.constant(np.ascontiguousarray(-2 * centres.T), "centres"))
        distance = graph.op("Max", graph.op("Add", squares, product), graph.constant(np.float64(0)))
        return Outputs(graph, transformed=refusing_nan(X, graph.op("Sqrt", distance)), present=X.present)


@to_graph.register
def _hidden_units(estimator: BernoulliRBM, source: Source | None = None) -> Outputs:
    X = matrix(estimator, source)
    graph = X.graph
    with graph.scope("BernoulliRBM"):
        weight = graph.constant(np.asarray(estimator.components_, dtype=np.float64).T.copy())
        bias = graph.constant(np.asarray(estimator.intercept_hidden_, dtype=np.float64))
        value = graph.single(graph.op("Gemm", graph.double(X.exact), weight, bias))
        return Outputs(graph, transformed=sigmoid(graph, value), present=X.present)


@to_graph.register
def _random_features(estimator: RBFSampler, source: Source | None = None) -> Outputs:
    X = matrix(estimator, source)
    graph = X.graph
    with graph.scope("RBFSampler"):
        weight = graph.constant(np.asarray(estimator.random_weights_, dtype=np.float64))
        bias = graph.constant(np.asarray(estimator.random_offset_, dtype=np.float64))
        value = graph.op("Cos", graph.op("Gemm", graph.double(X.exact), weight, bias))
        scale = graph.constant(np.float64((2.0 / estimator.n_components) ** 0.5))
        return Outputs(graph, transformed=graph.op("Mul", value, scale), present=X.present)


@to_graph.register
def _landmarks(estimator: Nystroem, source: Source | None = None) -> Outputs:
    X = matrix(estimator, source)
    graph = X.graph
    with graph.scope("Nystroem"):
        rows = np.asarray(estimator.components_, dtype=np.float64)
        gamma = 1 / rows.shape[1] if estimator.gamma is None else estimator.gamma
        coef0 = 1 if estimator.coef0 is None else estimator.coef0
        kernel = kernel_matrix(X, estimator.kernel, rows, gamma, coef0, estimator.degree or 3)
        weight = graph.constant(np.asarray(estimator.normalization_, dtype=np.float64).T.copy(), "normalization")
        return Outputs(graph, transformed=refusing_nan(X, graph.op("MatMul", kernel, weight)), present=X.present)
