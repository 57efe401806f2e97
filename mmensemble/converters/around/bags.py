"""scikit-learn's ensembles of one kind of estimator, as graphs: bagging, boosting by weights, pairs, codes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from sklearn.base import is_regressor
from sklearn.ensemble import AdaBoostClassifier, BaggingClassifier, BaggingRegressor
from sklearn.multiclass import OneVsOneClassifier, OutputCodeClassifier

from mmensemble.converters.linear import matrix, refuse_nan
from mmensemble.converters.svm import one_against_the_rest
from mmensemble.exceptions import ExportError
from mmensemble.graph import Graph, Outputs, Source, graph_labels, graph_outputs, refused_answers, to_graph
from mmensemble.tasks import Classification, Regression

__all__: list[str] = []


@to_graph.register(BaggingClassifier)
@to_graph.register(BaggingRegressor)
def _bagging(estimator: Any, source: Source | None = None) -> Outputs:
    """Average members over rows, and columns, of their own: probabilities, votes where there are none, or numbers."""
    X = matrix(estimator, source)
    graph, name = X.graph, type(estimator).__name__
    n_classes = None if is_regressor(estimator) else int(estimator.n_classes_)
    everything = np.arange(estimator.n_features_in_)
    total = None
    for number, (member, features) in enumerate(
        zip(estimator.estimators_, estimator.estimators_features_, strict=True)
    ):
        with graph.scope(f"{name}/estimator_{number}"):
            inner = X
            if not np.array_equal(features, everything):
                inner = X.some(features)
            value = _answer(member, to_graph(member, inner), n_classes)
            total = value if total is None else graph.op("Add", total, value)
    with graph.scope(name):
        mean = graph.op("Div", total, graph.constant(np.float32(len(estimator.estimators_))))
    if n_classes is not None:
        return Outputs(graph, probabilities=mean, present=X.present)
    first = np.zeros((1, len(estimator.estimators_features_[0])))
    width = np.asarray(estimator.estimators_[0].predict(first)).size
    return Outputs(graph, predictions=mean, present=X.present, task=Regression(width, one_dimensional=width == 1))


def _answer(member: Any, outputs: Outputs, n_classes: int | None) -> ir.Value:
    """Return a member's numbers, or its probabilities of all classes by their numbers, or else its one vote."""
    graph = outputs.graph
    if n_classes is None:
        if outputs.predictions is None:
            raise ExportError(f"{type(member).__name__} gives no predictions")
        return outputs.predictions
    wanted = Classification(np.arange(n_classes))
    if hasattr(member, "predict_proba"):
        return graph_outputs("a member", member, outputs, wanted)
    graph.refusals += refused_answers(outputs)
    ballots = (np.asarray(member.classes_)[:, None] == np.arange(n_classes)).astype(np.float32)
    labels = graph.op("Squeeze", graph_labels("a member", member, outputs), graph.constant(np.asarray([1])))
    return graph.op("Gather", graph.constant(ballots, "ballots"), labels, axis=0)


@to_graph.register
def _boosted_by_weights(estimator: AdaBoostClassifier, source: Source | None = None) -> Outputs:
    """Add up weighted votes, of which the probabilities are a softmax (Zhu et al. 2009)."""
    X = matrix(estimator, source)
    refuse_nan(X)
    graph, n_classes = X.graph, len(estimator.classes_)
    weights = np.asarray(estimator.estimator_weights_, dtype=np.float64)[: len(estimator.estimators_)]
    total = None
    for number, (member, weight) in enumerate(zip(estimator.estimators_, weights, strict=True)):
        with graph.scope(f"AdaBoostClassifier/estimator_{number}"):
            same = np.asarray(member.classes_)[:, None] == np.asarray(estimator.classes_)
            ballots = np.where(same, weight, -weight / (n_classes - 1))
            labels = graph_labels("a member", member, to_graph(member, X))
            flat = graph.op("Squeeze", labels, graph.constant(np.asarray([1])))
            votes = graph.op("Gather", graph.constant(ballots, "ballots"), flat, axis=0)
            total = votes if total is None else graph.op("Add", total, votes)
    with graph.scope("AdaBoostClassifier"):
        votes = graph.op("Div", total, graph.constant(np.float64(weights.sum())))
        if n_classes > 2:
            scaled = graph.single(graph.op("Div", votes, graph.constant(np.float64(n_classes - 1))))
            labels = graph.op("ArgMax", votes, axis=1, keepdims=1)
            return Outputs(
                graph,
                probabilities=graph.op("Softmax", scaled, axis=1),
                present=X.present,
                decision=votes,
                labels=labels,
            )
        decision = graph.op("MatMul", votes, graph.constant(np.asarray([[-1.0], [1.0]])))
        half = graph.op("Mul", decision, graph.constant(np.asarray([[-0.5, 0.5]])))
        above = graph.op("Cast", graph.op("Greater", decision, graph.constant(np.float64(0))), to=Graph.INT64)
        return Outputs(
            graph,
            probabilities=graph.op("Softmax", graph.single(half), axis=1),
            present=X.present,
            decision=decision,
            labels=above,
        )


@to_graph.register
def _one_vs_one(estimator: OneVsOneClassifier, source: Source | None = None) -> Outputs:
    X = matrix(estimator, source)
    graph, n_classes = X.graph, len(estimator.classes_)
    if estimator.pairwise_indices_ is not None:
        raise ExportError("OneVsOneClassifier over a precomputed kernel has no ONNX form")
    confidences, predicted = [], []
    for number, member in enumerate(estimator.estimators_):
        with graph.scope(f"pair_{number}"):
            outputs = to_graph(member, X)
            confidences.append(_confidence(member, outputs))
            predicted.append(graph.op("Cast", graph_labels("a pair", member, outputs), to=Graph.DOUBLE))
    pairs = [(one, other) for one in range(n_classes) for other in range(one + 1, n_classes)]
    with graph.scope("OneVsOneClassifier"):
        won_by_second = graph.op("Concat", *predicted, axis=1)
        decision, labels = one_against_the_rest(
            graph, graph.double(graph.op("Concat", *confidences, axis=1)), pairs, won_by_second
        )
        if n_classes == 2:
            decision = graph.op("Gather", decision, graph.constant(np.asarray([1])), axis=1)
            labels = graph.op("Cast", graph.op("Greater", decision, graph.number(0, decision)), to=Graph.INT64)
        return Outputs(graph, present=X.present, decision=decision, labels=labels)


def _confidence(member: Any, outputs: Outputs) -> ir.Value:
    """Return a binary classifier's decision, or else the probability of its second class, (batch, 1)."""
    graph = outputs.graph
    if hasattr(member, "decision_function"):
        if outputs.decision is None:
            raise ExportError(f"{type(member).__name__} has no ONNX form of its decision_function")
        return outputs.decision
    if outputs.probabilities is None:
        raise ExportError(f"{type(member).__name__} gives no probabilities")
    return graph.op("Gather", outputs.probabilities, graph.constant(np.asarray([1])), axis=1)


@to_graph.register
def _output_code(estimator: OutputCodeClassifier, source: Source | None = None) -> Outputs:
    """Take the class whose code is nearest to what the estimators of its digits say."""
    X = matrix(estimator, source)
    refuse_nan(X)
    graph = X.graph
    digits = []
    for number, member in enumerate(estimator.estimators_):
        with graph.scope(f"digit_{number}"):
            if hasattr(member, "y_"):  # scikit-learn's stand-in for a digit that all classes share
                nothing = graph.op("ReduceSum", X.value, graph.constant(np.asarray([1])), keepdims=1)
                nothing = graph.op("Mul", nothing, graph.constant(np.float32(0)))
                digits.append(graph.double(graph.op("Add", nothing, graph.constant(np.float32(member.y_[0])))))
                continue
            digits.append(graph.double(_confidence(member, to_graph(member, X))))
    with graph.scope("OutputCodeClassifier"):
        codes = np.asarray(estimator.code_book_, dtype=np.float64)
        product = graph.op("MatMul", graph.op("Concat", *digits, axis=1), graph.constant(-2 * codes.T))
        distance = graph.op("Add", product, graph.constant((codes**2).sum(axis=1)[None]))
        return Outputs(graph, present=X.present, labels=graph.op("ArgMin", distance, axis=1, keepdims=1))
