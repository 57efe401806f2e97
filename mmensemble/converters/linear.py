"""Linear models and what else multiplies by a matrix, as graphs that run on any execution provider."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from sklearn.base import is_regressor
from sklearn.cross_decomposition import PLSCanonical
from sklearn.decomposition import TruncatedSVD
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, RidgeClassifier, RidgeClassifierCV, SGDClassifier
from sklearn.utils.validation import check_is_fitted

from mmensemble._sklearn import BaseSGDRegressor, LinearClassifierMixin, LinearModel
from mmensemble.converters.fallback.skl2onnx import as_tensor, convert
from mmensemble.graph import Frame, Outputs, Source, Tensor, linear, to_graph
from mmensemble.tasks import MultilabelVotes, Regression

__all__ = [
    "matrix",
    "normalised",
    "one_class_and_the_other",
    "refuse_infinity",
    "refuse_nan",
    "sigmoid",
    "squared_distances",
]


def matrix(estimator: Any, source: Source | None) -> Tensor:
    """Return the matrix that an estimator takes."""
    check_is_fitted(estimator)
    return as_tensor(estimator, source)


def refuse_infinity(X: Tensor) -> None:
    """Refuse rows with an infinite number, as scikit-learn does where it takes NaN."""
    graph = X.graph
    beyond = graph.op("Greater", graph.op("Abs", X.value), graph.constant(np.finfo(np.float32).max))
    count = graph.op("Cast", beyond, to=graph.FLOAT)
    total = graph.op("ReduceSum", count, graph.constant(np.asarray([1])), keepdims=1)
    graph.refusals.append(graph.op("Greater", total, graph.constant(np.float32(0))))


def refuse_nan(X: Tensor) -> None:
    """Refuse rows with NaN or an infinite number, where what an estimator answers does not show it."""
    graph = X.graph
    # A text that has no terms is refused by itself.
    parts = [graph.single(block.value) for block in X.blocks if not block.terms] if X.blocks else [X.value]
    for value in parts:
        total = graph.op("ReduceSum", value, graph.constant(np.asarray([1])), keepdims=1)
        nothing = graph.op("Mul", total, graph.constant(np.float32(0)))
        graph.refusals.append(graph.op("IsNaN", nothing))


def squared_distances(graph: Any, x: ir.Value, rows: np.ndarray) -> ir.Value:
    """Return the squared Euclidean distance of x (batch, n_features) float64 to each of some rows, (batch, n_rows).

    What is left of equal rows may be a little more or less than 0.
    """
    axis = graph.constant(np.asarray([1]))
    squares = graph.op("ReduceSum", graph.op("Mul", x, x), axis, keepdims=1)
    squares = graph.op("Add", squares, graph.constant((rows**2).sum(axis=1)[None]))
    product = graph.op("MatMul", x, graph.constant(np.ascontiguousarray(-2 * rows.T), "rows"))
    return graph.op("Add", squares, product)


def sigmoid(graph: Any, value: ir.Value) -> ir.Value:
    """Add 1 / (1 + exp(-x)), as exactly near 0 as near 1: ONNX Runtime's own is cut off at 1e-8."""
    return graph.op("Exp", graph.op("Neg", graph.op("Softplus", graph.op("Neg", value))))


def one_class_and_the_other(graph: Any, probability: ir.Value) -> ir.Value:
    """Put 1 - p before the second class's probability (batch, 1)."""
    return graph.op("Concat", graph.op("Sub", graph.constant(np.float32(1)), probability), probability, axis=1)


def normalised(graph: Any, values: ir.Value) -> ir.Value:
    """Let values (batch, n_classes) add up to 1 where any is not 0."""
    total = graph.op("ReduceSum", values, graph.constant(np.asarray([1])), keepdims=1)
    return graph.op("Div", values, graph.op("Max", total, graph.constant(np.finfo(np.float32).tiny)))


@to_graph.register
def _logistic_regression(estimator: LogisticRegression, source: Source | None = None) -> Outputs:
    X = matrix(estimator, source)
    graph = X.graph
    with graph.scope("LogisticRegression"):
        decision = linear(X, estimator.coef_.T, estimator.intercept_)
        if len(estimator.classes_) == 2:
            probabilities = one_class_and_the_other(graph, sigmoid(graph, decision))
        else:
            probabilities = graph.op("Softmax", decision, axis=1)
        return Outputs(graph, probabilities=probabilities, present=X.present, decision=decision)


@to_graph.register
def _linear_classifier(estimator: LinearClassifierMixin, source: Source | None = None) -> Outputs:
    """Add a linear classifier; of most of them, decisions and labels are all there is."""
    X = matrix(estimator, source)
    graph, binary = X.graph, len(estimator.classes_) == 2
    with graph.scope(type(estimator).__name__):
        decision = linear(X, np.atleast_2d(estimator.coef_).T, np.atleast_1d(estimator.intercept_))
        if _predicts_several_labels(estimator):
            above = graph.op("Cast", graph.op("Greater", decision, graph.constant(np.float32(0))), to=graph.FLOAT)
            refuse_nan(X)
            votes = MultilabelVotes(len(np.atleast_1d(estimator.intercept_)))
            return Outputs(graph, probabilities=above, present=X.present, task=votes)
        if binary:
            above = graph.op("Greater", decision, graph.constant(np.float32(0)))
            labels = graph.op("Cast", above, to=ir.DataType.INT64)
        else:
            labels = graph.op("ArgMax", decision, axis=1, keepdims=1)
        probabilities = None
        if isinstance(estimator, LinearDiscriminantAnalysis) and not binary:
            probabilities = graph.op("Softmax", decision, axis=1)
        elif isinstance(estimator, LinearDiscriminantAnalysis):
            probabilities = one_class_and_the_other(graph, sigmoid(graph, decision))
        elif isinstance(estimator, SGDClassifier) and estimator.loss in ("log_loss", "modified_huber"):
            if estimator.loss == "log_loss" and not binary:
                probabilities = _sigmoids_that_add_up_to_one(graph, decision)
            elif estimator.loss == "log_loss":
                share = sigmoid(graph, decision)
            else:
                share = graph.op("Clip", decision, graph.constant(np.float32(-1)), graph.constant(np.float32(1)))
                half = graph.constant(np.float32(0.5))
                share = graph.op("Add", graph.op("Mul", share, half), half)
            if probabilities is None:
                probabilities = one_class_and_the_other(graph, share) if binary else _shares(graph, share)
        transformed = None
        if isinstance(estimator, LinearDiscriminantAnalysis):
            made = estimator.transform(
                np.vstack([np.zeros(estimator.n_features_in_), np.eye(estimator.n_features_in_)])
            )
            weight, bias = (graph.constant(np.ascontiguousarray(numbers)) for numbers in (made[1:] - made[0], made[0]))
            transformed = graph.op("Gemm", graph.double(X.exact), weight, bias)
        return Outputs(
            graph,
            probabilities=probabilities,
            transformed=transformed,
            present=X.present,
            decision=decision,
            labels=labels,
        )


def _predicts_several_labels(estimator: Any) -> bool:
    return (
        isinstance(estimator, (RidgeClassifier, RidgeClassifierCV))
        and estimator.predict(np.zeros((1, estimator.n_features_in_))).ndim == 2
    )


# Below this a sigmoid is 0 in float64.
_NO_SIGMOID = -745.2


def _sigmoids_that_add_up_to_one(graph: Any, decision: ir.Value) -> ir.Value:
    """Divide sigmoids by their sum, all alike where float64 has 0 for all; in the logarithm, which float32 holds."""
    logarithm = graph.op("Neg", graph.op("Softplus", graph.op("Neg", decision)))
    nothing = graph.op("Less", decision, graph.constant(np.float32(_NO_SIGMOID)))
    logarithm = graph.op("Where", nothing, graph.constant(np.float32(-1e30)), logarithm)
    return graph.op("Softmax", logarithm, axis=1)


def _shares(graph: Any, values: ir.Value) -> ir.Value:
    """Let values (batch, n_classes) add up to 1; all alike where all are 0."""
    total = graph.op("ReduceSum", values, graph.constant(np.asarray([1])), keepdims=1)
    nothing = graph.op("Equal", total, graph.constant(np.float32(0)))
    one = graph.constant(np.float32(1))
    values = graph.op("Where", nothing, one, values)
    return graph.op("Div", values, graph.op("ReduceSum", values, graph.constant(np.asarray([1])), keepdims=1))


def _linear_regressor(estimator: Any, source: Source | None = None) -> Outputs:
    X = matrix(estimator, source)
    with X.graph.scope(type(estimator).__name__):
        weight = np.atleast_2d(estimator.coef_).T
        bias = np.broadcast_to(np.asarray(estimator.intercept_, dtype=float), weight.shape[1:])
        task = Regression(weight.shape[1], one_dimensional=np.ndim(estimator.coef_) == 1)
        return Outputs(X.graph, predictions=linear(X, weight, bias), present=X.present, task=task)


@to_graph.register
def _partial_least_squares(estimator: PLSCanonical, source: Source | None = None) -> Outputs:
    X = matrix(estimator, source)
    with X.graph.scope("PLSCanonical"):
        made = estimator.predict(np.vstack([np.zeros(estimator.n_features_in_), np.eye(estimator.n_features_in_)]))
        made = np.asarray(made, dtype=np.float64)
        task = Regression(made.reshape(len(made), -1).shape[1], one_dimensional=made.ndim == 1)
        made = made.reshape(len(made), -1)
        predictions = linear(X, made[1:] - made[0], made[0])
        return Outputs(X.graph, predictions=predictions, present=X.present, task=task)


@to_graph.register
def _linear_model(estimator: LinearModel, source: Source | None = None) -> Outputs:
    return (_linear_regressor if is_regressor(estimator) else convert)(estimator, Frame() if source is None else source)


to_graph.register(BaseSGDRegressor, _linear_regressor)


@to_graph.register
def _truncated_svd(estimator: TruncatedSVD, source: Source | None = None) -> Outputs:
    X = matrix(estimator, source)
    with X.graph.scope("TruncatedSVD"):
        weight = estimator.components_.T
        return Outputs(X.graph, transformed=linear(X, weight, np.zeros(weight.shape[1])), present=X.present)
