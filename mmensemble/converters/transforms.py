"""scikit-learn's transformers of numbers that are neither scalers nor encoders, as graphs in float64."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx_ir as ir
from scipy.interpolate import BSpline
from sklearn.cluster import Birch, BisectingKMeans, KMeans, MiniBatchKMeans
from sklearn.feature_selection import SelectorMixin
from sklearn.kernel_approximation import Nystroem, RBFSampler
from sklearn.neural_network import BernoulliRBM
from sklearn.preprocessing import Binarizer, KBinsDiscretizer, SplineTransformer

from mmensemble.converters.fallback.skl2onnx import refusing_nan, takes_nan
from mmensemble.converters.linear import matrix, refuse_nan, sigmoid, squared_distances
from mmensemble.converters.svm import as_array, kernel_matrix
from mmensemble.graph import Graph, Outputs, Source, to_graph

__all__: list[str] = []


@to_graph.register
def _selected(estimator: SelectorMixin, source: Source | None = None) -> Outputs:
    X = matrix(estimator, source)
    if not takes_nan(estimator):
        refuse_nan(X)
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


@to_graph.register
def _splines(estimator: SplineTransformer, source: Source | None = None) -> Outputs:
    X = matrix(estimator, source)
    graph = X.graph
    zeros = getattr(estimator, "handle_missing", "error") == "zeros"
    with graph.scope("SplineTransformer"):
        x, columns = graph.double(X.exact), []
        for number, spline in enumerate(estimator.bsplines_):
            column = graph.op("Gather", x, graph.constant(np.asarray([number])), axis=1)
            value = _pieces(graph, column, spline, estimator.extrapolation)
            if zeros:
                value = graph.op("Where", graph.op("IsNaN", column), graph.constant(np.float64(0)), value)
            columns.append(value)
        value = graph.op("Concat", *columns, axis=1)
        n_splines = estimator.bsplines_[0].c.shape[1]
        if not estimator.include_bias:  # without the last one of each feature
            kept = np.flatnonzero((np.arange(len(columns) * n_splines) + 1) % n_splines)
            value = graph.op("Gather", value, graph.constant(kept), axis=1)
        value = value if zeros else refusing_nan(X, value)
        return Outputs(graph, transformed=value, present=X.present, sparse=estimator.sparse_output)


def _pieces(graph: Graph, x: ir.Value, spline: BSpline, extrapolation: str) -> ir.Value:
    """Evaluate splines (batch, n_splines) at a column: a polynomial between each two knots, and one beyond either end.

    NaN beyond the ends where rows that lie there are refused.
    """
    knots = spline.t[spline.k : len(spline.t) - spline.k]
    first, last = float(knots[0]), float(knots[-1])
    if extrapolation == "periodic":
        if last > first:
            first_knot, period = graph.constant(np.float64(first)), graph.constant(np.float64(last - first))
            turns = graph.op("Floor", graph.op("Div", graph.op("Sub", x, first_knot), period))
            x = graph.op("Sub", x, graph.op("Mul", turns, period))
        else:
            x = graph.op("Mul", x, graph.constant(np.float64(0)))
    # (n_pieces, degree + 1, n_splines): Taylor's series at the first knot of each piece, and at the ends beyond them.
    pieces = [_taylor(spline, knot) for knot in knots[:-1]]
    starts = list(knots[:-1])
    outer = {"constant": 0, "linear": 1}.get(extrapolation)
    if outer is not None:
        before, behind = _taylor(spline, first), _taylor(spline, last)
        before[outer + 1 :], behind[outer + 1 :] = 0.0, 0.0
        pieces, starts = [before, *pieces, behind], [first, *starts, last]
    elif extrapolation == "error":
        beyond = np.full_like(pieces[0], np.nan)
        pieces, starts = [beyond, *pieces, beyond], [first, *starts, last]
    reached = graph.op("GreaterOrEqual", x, graph.constant(np.asarray(knots[1:-1])[None]))
    axis = graph.constant(np.asarray([1]))
    piece = graph.op("ReduceSum", graph.op("Cast", reached, to=Graph.INT64), axis, keepdims=1)
    if len(pieces) > len(knots) - 1:
        within = graph.op("GreaterOrEqual", x, graph.constant(np.float64(first)))
        past = graph.op("Greater", x, graph.constant(np.float64(last)))
        for condition in (within, past):
            piece = graph.op("Add", piece, graph.op("Cast", condition, to=Graph.INT64))
    flat = graph.op("Squeeze", piece, axis)
    off = graph.op("Sub", x, graph.op("Gather", graph.constant(np.asarray(starts)[:, None]), flat, axis=0))
    degrees = graph.constant(np.arange(spline.k + 1, dtype=np.float64)[None])
    # 0 to the power of 0 is 1.
    powers = graph.op("Unsqueeze", graph.op("Pow", off, degrees), axis)
    chosen = graph.op("Gather", graph.constant(np.stack(pieces), "pieces"), flat, axis=0)
    return graph.op("Squeeze", graph.op("MatMul", powers, chosen), axis)


def _taylor(spline: BSpline, at: float) -> np.ndarray:
    """Return the coefficients of splines in powers of what x is off a knot, from its right, (degree + 1, n_splines)."""
    return np.stack([spline(at, nu=order) / math.factorial(order) for order in range(spline.k + 1)])


@to_graph.register(KMeans)
@to_graph.register(MiniBatchKMeans)
@to_graph.register(BisectingKMeans)
@to_graph.register(Birch)
def _distances_to_centres(estimator: Any, source: Source | None = None) -> Outputs:
    X = matrix(estimator, source)
    graph = X.graph
    centres = getattr(estimator, "subcluster_centers_", getattr(estimator, "cluster_centers_", None))
    with graph.scope(type(estimator).__name__):
        square = squared_distances(graph, graph.double(X.exact), np.asarray(centres, dtype=np.float64))
        distance = graph.op("Max", square, graph.constant(np.float64(0)))
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
        rows = as_array(estimator.components_).astype(np.float64)
        gamma = 1 / rows.shape[1] if estimator.gamma is None else estimator.gamma
        coef0 = 1 if estimator.coef0 is None else estimator.coef0
        kernel = kernel_matrix(X, estimator.kernel, rows, gamma, coef0, estimator.degree or 3)
        weight = graph.constant(np.asarray(estimator.normalization_, dtype=np.float64).T.copy(), "normalization")
        return Outputs(graph, transformed=refusing_nan(X, graph.op("MatMul", kernel, weight)), present=X.present)
