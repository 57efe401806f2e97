"""scikit-learn's estimators around another one, as graphs: one per class, per column or target, and thresholds."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx_ir as ir
from sklearn.compose import TransformedTargetRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import FixedThresholdClassifier, TunedThresholdClassifierCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier, MultiOutputRegressor
from sklearn.utils.validation import check_is_fitted

from mmensemble._sklearn import positive_label
from mmensemble.converters.functions import add_inverse
from mmensemble.converters.linear import normalised, one_class_and_the_other
from mmensemble.exceptions import ExportError
from mmensemble.graph import Frame, Outputs, Source, graph_outputs, to_graph
from mmensemble.tasks import Classification, Multilabel, Multioutput, Regression, Thresholded

__all__: list[str] = []


@to_graph.register
def _one_vs_rest(estimator: OneVsRestClassifier, source: Source | None = None) -> Outputs:
    check_is_fitted(estimator)
    source = Frame() if source is None else source
    graph = source.graph
    columns: list[ir.Value | float] = []
    decisions: list[ir.Value | None] = []
    present = None
    for label, binary in zip(estimator.classes_, estimator.estimators_, strict=False):
        with graph.scope(f"class_{label}"):
            if hasattr(binary, "y_"):  # scikit-learn's stand-in for a label that all rows have, or none
                columns.append(float(binary.y_[0]))
                decisions.append(None)
                continue
            outputs = to_graph(binary, source)
            if outputs.probabilities is None:
                raise ExportError(
                    f"OneVsRestClassifier over {type(binary).__name__}, which has no predict_proba, has no "
                    "probabilities; put a CalibratedClassifierCV around the inner estimator"
                )
            present = outputs.present
            columns.append(graph.op("Gather", outputs.probabilities, graph.constant(np.asarray([1])), axis=1))
            decisions.append(outputs.decision)
    values = [value for value in columns if not isinstance(value, float)]
    if not values:
        raise ExportError("OneVsRestClassifier has constant labels only; there is nothing to export")
    zero = graph.op("Mul", values[0], graph.constant(np.float32(0)))
    parts = [graph.op("Add", zero, graph.constant(np.float32(v))) if isinstance(v, float) else v for v in columns]
    known = [value for value in decisions if value is not None]
    decision = graph.op("Concat", *known, axis=1) if len(known) == len(columns) else None
    if len(parts) == 1:
        return Outputs(
            graph, probabilities=one_class_and_the_other(graph, parts[0]), present=present, decision=decision
        )
    probabilities = graph.op("Concat", *parts, axis=1)
    if estimator.multilabel_:
        return Outputs(graph, probabilities=probabilities, present=present, task=Multilabel(len(parts)))
    return Outputs(graph, probabilities=normalised(graph, probabilities), present=present, decision=decision)


@to_graph.register
def _multi_output_classifier(estimator: MultiOutputClassifier, source: Source | None = None) -> Outputs:
    check_is_fitted(estimator)
    source = Frame() if source is None else source
    parts, tasks, present = [], [], None
    for number, (labels, member) in enumerate(zip(estimator.classes_, estimator.estimators_, strict=True)):
        with source.graph.scope(f"column_{number}"):
            outputs = to_graph(member, source)
            column = Classification(np.asarray(labels))
            parts.append(graph_outputs(f"column {number}", member, outputs, column))
            tasks.append(outputs.task if isinstance(outputs.task, Thresholded) else column)
            present = outputs.present
    probabilities = source.graph.op("Concat", *parts, axis=1)
    return Outputs(source.graph, probabilities=probabilities, present=present, task=Multioutput(tasks))


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
