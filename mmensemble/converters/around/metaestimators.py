"""scikit-learn's estimators around another one, as graphs: one per class, per column or target, and thresholds."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir
from sklearn.compose import TransformedTargetRegressor
from sklearn.feature_selection import RFE
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import FixedThresholdClassifier, TunedThresholdClassifierCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier, MultiOutputRegressor
from sklearn.semi_supervised import SelfTrainingClassifier
from sklearn.utils.validation import check_is_fitted

from mmensemble._sklearn import positive_label
from mmensemble.converters.fallback.skl2onnx import takes_nan
from mmensemble.converters.functions import add_inverse
from mmensemble.converters.linear import matrix, normalised, one_class_and_the_other, refuse_nan
from mmensemble.exceptions import ExportError
from mmensemble.graph import (
    Frame,
    Graph,
    Outputs,
    Source,
    graph_labels,
    graph_outputs,
    graph_votes,
    refused_answers,
    to_graph,
)
from mmensemble.tasks import (
    Classification,
    Decided,
    Multilabel,
    MultilabelVotes,
    Multioutput,
    Regression,
    Thresholded,
    Votes,
)

__all__: list[str] = []


@to_graph.register
def _one_vs_rest(estimator: OneVsRestClassifier, source: Source | None = None) -> Outputs:
    check_is_fitted(estimator)
    source = Frame() if source is None else source
    graph = source.graph
    inner: list[Outputs | float] = []
    for label, binary in zip(estimator.classes_, estimator.estimators_, strict=False):
        with graph.scope(f"class_{label}"):
            # scikit-learn's stand-in for a label that all rows have, or none
            inner.append(float(binary.y_[0]) if hasattr(binary, "y_") else to_graph(binary, source))
    fitted = [outputs for outputs in inner if isinstance(outputs, Outputs)]
    if not fitted:
        raise ExportError("OneVsRestClassifier has constant labels only; there is nothing to export")
    present = fitted[0].present
    decisions = [outputs.decision for outputs in fitted if outputs.decision is not None]
    decision = graph.op("Concat", *decisions, axis=1) if len(decisions) == len(inner) else None
    if any(outputs.probabilities is None for outputs in fitted):
        if decision is None:
            raise ExportError(
                "OneVsRestClassifier over what gives neither probabilities nor decisions has no ONNX form; put a "
                "CalibratedClassifierCV around the inner estimator"
            )
        return _by_decisions(estimator, Outputs(graph, decision=decision, present=present))
    columns = [_second_column(graph, outputs, fitted[0]) for outputs in inner]
    if len(columns) == 1:
        return Outputs(
            graph, probabilities=one_class_and_the_other(graph, columns[0]), present=present, decision=decision
        )
    probabilities = graph.op("Concat", *columns, axis=1)
    if estimator.multilabel_:
        return Outputs(graph, probabilities=probabilities, present=present, task=Multilabel(len(columns)))
    # It predicts by the inner decisions where there are any, which tell classes apart whose sigmoids are all 1.
    by_decision = all(hasattr(binary, "decision_function") for binary in estimator.estimators_)
    labels = graph.op("ArgMax", decision, axis=1, keepdims=1) if by_decision and decision is not None else None
    shares = normalised(graph, probabilities)
    return Outputs(graph, probabilities=shares, present=present, decision=decision, labels=labels)


def _second_column(graph: Graph, outputs: Outputs | float, some: Outputs) -> ir.Value:
    """Return the probability of the second class, (batch, 1); a constant gets its rows from some other outputs."""
    if isinstance(outputs, float):
        first = graph.op("Gather", some.probabilities, graph.constant(np.asarray([0])), axis=1)
        nothing = graph.op("Mul", first, graph.constant(np.float32(0)))
        return graph.op("Add", nothing, graph.constant(np.float32(outputs)))
    return graph.op("Gather", outputs.probabilities, graph.constant(np.asarray([1])), axis=1)


def _by_decisions(estimator: OneVsRestClassifier, outputs: Outputs) -> Outputs:
    """Predict by decisions alone: the largest one's class, or each label whose decision is above 0."""
    graph, decision = outputs.graph, outputs.decision
    above = graph.op("Greater", decision, graph.constant(np.float32(0)))
    if estimator.multilabel_:
        votes = graph.op("Cast", above, to=Graph.FLOAT)
        return replace(outputs, probabilities=votes, task=MultilabelVotes(len(estimator.estimators_)))
    if len(estimator.estimators_) == 1:
        return replace(outputs, labels=graph.op("Cast", above, to=Graph.INT64))
    return replace(outputs, labels=graph.op("ArgMax", decision, axis=1, keepdims=1))


@to_graph.register(RFE)
def _selected_features(estimator: RFE, source: Source | None = None) -> Outputs:
    """Select columns for the estimator within, whose answers are its own."""
    X = matrix(estimator, source)
    if not takes_nan(estimator):
        refuse_nan(X)
    inner = X.some(np.flatnonzero(estimator.support_))
    outputs = to_graph(estimator.estimator_, inner)
    return replace(outputs, transformed=inner.exact, blocks=(), sparse=inner.sparse, frame=None)


@to_graph.register
def _multi_output_classifier(estimator: MultiOutputClassifier, source: Source | None = None) -> Outputs:
    check_is_fitted(estimator)
    source = Frame() if source is None else source
    graph = source.graph
    inner = []
    for number, member in enumerate(estimator.estimators_):
        with graph.scope(f"column_{number}"):
            inner.append(to_graph(member, source))
    by_votes = any(outputs.probabilities is None or isinstance(outputs.task, Votes) for outputs in inner)
    parts, decided = [], []
    tasks: list[Classification] = []
    for number, (labels, member, outputs) in enumerate(
        zip(estimator.classes_, estimator.estimators_, inner, strict=True)
    ):
        name, column = f"column {number}", Classification(np.asarray(labels))
        if by_votes:
            graph.refusals += refused_answers(outputs)
            parts.append(graph_votes(graph, graph_labels(name, member, outputs), column.width))
            tasks.append(Votes(column.classes))
            continue
        parts.append(graph_outputs(name, member, outputs, column))
        if isinstance(outputs.task, Thresholded):
            column = outputs.task
        elif outputs.labels is not None:
            column = Decided(column.classes)
            decided.append(outputs.labels)
        tasks.append(column)
    return Outputs(
        graph,
        probabilities=graph.op("Concat", *parts, axis=1),
        present=inner[0].present,
        task=Multioutput(tasks),
        labels=graph.op("Concat", *decided, axis=1) if decided else None,
    )


@to_graph.register
def _multi_output_regressor(estimator: MultiOutputRegressor, source: Source | None = None) -> Outputs:
    check_is_fitted(estimator)
    source = Frame() if source is None else source
    parts, present = [], None
    for number, member in enumerate(estimator.estimators_):
        with source.graph.scope(f"target_{number}"):
            outputs = to_graph(member, source)
            parts.append(graph_outputs(f"target {number}", member, outputs, Regression(1, one_dimensional=True)))
            present = outputs.present
    task = Regression(len(parts), one_dimensional=False)
    predictions = source.graph.op("Concat", *parts, axis=1)
    return Outputs(source.graph, predictions=predictions, present=present, task=task)


@to_graph.register
def _transformed_target(estimator: TransformedTargetRegressor, source: Source | None = None) -> Outputs:
    check_is_fitted(estimator)
    source = Frame() if source is None else source
    graph = source.graph
    with graph.scope("regressor"):
        outputs = to_graph(estimator.regressor_, source)
        if outputs.predictions is None:
            raise ExportError(f"{type(estimator.regressor_).__name__} gives no predictions")
    with graph.scope("transformer"):
        predictions = add_inverse(estimator.transformer_, graph, outputs.predictions)
    return Outputs(graph, predictions=predictions, present=outputs.present, task=outputs.task)


@to_graph.register
def _self_training(estimator: SelfTrainingClassifier, source: Source | None = None) -> Outputs:
    return to_graph(estimator.estimator_, matrix(estimator, source))


@to_graph.register(FixedThresholdClassifier)
@to_graph.register(TunedThresholdClassifierCV)
def _threshold(estimator: Any, source: Source | None = None) -> Outputs:
    member = getattr(estimator, "estimator_", estimator.estimator)
    check_is_fitted(member)
    name = type(estimator).__name__
    if not hasattr(member, "predict_proba"):
        raise ExportError(
            f"{name} over {type(member).__name__}, which has no predict_proba, has no probabilities to export; "
            "put a CalibratedClassifierCV around the inner estimator"
        )
    by_decision = estimator.response_method == "decision_function"
    logistic = _innermost(member)
    if by_decision and not isinstance(logistic, LogisticRegression):
        raise ExportError(
            f"{name}(response_method='decision_function') over {type(logistic).__name__}: its threshold is no "
            "threshold of a probability; use response_method='predict_proba'"
        )
    threshold = estimator.best_threshold_ if isinstance(estimator, TunedThresholdClassifierCV) else estimator.threshold
    if isinstance(threshold, str):  # "auto"
        threshold = 0.0 if by_decision else 0.5
    if by_decision:  # the probability is the logistic function of the decision
        threshold = 1 / (1 + math.exp(-threshold)) if threshold > -700 else 0.0
    classes = np.asarray(estimator.classes_)
    label = estimator.pos_label if isinstance(estimator, FixedThresholdClassifier) else positive_label(estimator)
    positive = 1 if label is None else int(np.flatnonzero(classes == label)[0])
    outputs = to_graph(member, source)
    probabilities = graph_outputs("the thresholded estimator", member, outputs, Classification(classes))
    task = Thresholded(classes, float(threshold), positive)
    return Outputs(
        outputs.graph, probabilities=probabilities, present=outputs.present, task=task, decision=outputs.decision
    )


def _innermost(estimator: Any) -> Any:
    """Return what makes the decisions of a pipeline, of a search or of a frozen estimator."""
    while True:
        if hasattr(estimator, "steps"):
            estimator = estimator.steps[-1][1]
        elif hasattr(estimator, "best_estimator_"):
            estimator = estimator.best_estimator_
        elif type(estimator).__name__ == "FrozenEstimator":
            estimator = estimator.estimator
        else:
            return estimator
