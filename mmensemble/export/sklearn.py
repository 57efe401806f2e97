"""scikit-learn's own compositions and linear models, as graphs.

skl2onnx gives every member of an ensemble the same one input; here each member brings its own columns. Linear
classifiers become a matrix product and a softmax, which run on any execution provider.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from sklearn.base import is_regressor
from sklearn.ensemble import StackingClassifier, VotingClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.linear_model._base import LinearModel
from sklearn.model_selection._search import BaseSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier, MultiOutputRegressor
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from mmensemble.compose import ColumnSelector
from mmensemble.exceptions import ExportError
from mmensemble.export.graph import Frame, Outputs, Source, Tensor, any_present, to_graph
from mmensemble.export.skl2onnx import as_tensor, convert
from mmensemble.outputs import graph_outputs
from mmensemble.scoring.tasks import Classification, Multilabel, Multioutput, Regression

__all__: list[str] = []


@to_graph.register
def _pipeline(estimator: Pipeline, source: Source | None = None) -> Outputs:
    source = Frame() if source is None else source
    check_is_fitted(estimator)
    outputs = None
    steps = [(name, step) for name, step in estimator.steps if step not in (None, "passthrough")]
    for position, (name, step) in enumerate(steps):
        if isinstance(step, ColumnSelector):
            if not isinstance(source, Frame):
                raise ExportError(f"step {name!r} selects columns behind a step that makes a matrix")
            label = source.name or "_".join([step.columns] if isinstance(step.columns, str) else step.columns)
            source = Frame(source.graph, label, step.columns, step.kinds_)
            continue
        outputs = to_graph(step, source)
        if position < len(steps) - 1:
            if outputs.transformed is None:
                raise ExportError(f"step {name!r} ({type(step).__name__}) has no ONNX form of its transform")
            source = Tensor(outputs.graph, outputs.transformed, outputs.present)
    if outputs is None:
        if not isinstance(source, Tensor):
            source = as_tensor(estimator, source)
        outputs = Outputs(source.graph, transformed=source.value, present=source.present)
    return outputs


@to_graph.register
def _search(estimator: BaseSearchCV, source: Source | None = None) -> Outputs:
    check_is_fitted(estimator, "best_estimator_")
    return to_graph(estimator.best_estimator_, source)


@to_graph.register
def _frozen(estimator: FrozenEstimator, source: Source | None = None) -> Outputs:
    return to_graph(estimator.estimator, source)


def _matrix(estimator: Any, source: Source | None) -> Tensor:
    """Return the matrix that a linear model takes."""
    check_is_fitted(estimator)
    return source if isinstance(source, Tensor) else as_tensor(estimator, Frame() if source is None else source)


def _gemm(source: Tensor, weight: np.ndarray, bias: np.ndarray) -> ir.Value:
    """Multiply by coefficients (n_features, n_outputs) and add intercepts (n_outputs,)."""
    graph = source.graph
    coefficients, intercepts = graph.constant(weight.astype(np.float32), "coef"), bias.astype(np.float32)
    return graph.op("Gemm", source.value, coefficients, graph.constant(intercepts, "intercept"))


@to_graph.register
def _logistic_regression(estimator: LogisticRegression, source: Source | None = None) -> Outputs:
    matrix = _matrix(estimator, source)
    graph = matrix.graph
    with graph.scope("LogisticRegression"):
        weight, bias = estimator.coef_.T, estimator.intercept_
        if len(estimator.classes_) == 2:
            # softmax([-z/2, z/2]) is [1 - sigmoid(z), sigmoid(z)].
            weight, bias = np.hstack([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
        decision = logits = _gemm(matrix, weight, bias)
        if len(estimator.classes_) == 2:
            half = graph.op("Gather", logits, graph.constant(np.asarray([1])), axis=1)
            decision = graph.op("Mul", half, graph.constant(np.float32(2)))
        return Outputs(
            graph,
            probabilities=graph.op("Softmax", logits, axis=1),
            present=matrix.present,
            decision=decision,
        )


@to_graph.register
def _linear_model(estimator: LinearModel, source: Source | None = None) -> Outputs:
    if not is_regressor(estimator):
        return convert(estimator, Frame() if source is None else source)
    matrix = _matrix(estimator, source)
    with matrix.graph.scope(type(estimator).__name__):
        weight = np.atleast_2d(estimator.coef_).T
        bias = np.broadcast_to(np.asarray(estimator.intercept_, dtype=float), weight.shape[1:])
        return Outputs(matrix.graph, predictions=_gemm(matrix, weight, bias), present=matrix.present)


@to_graph.register
def _one_vs_rest(estimator: OneVsRestClassifier, source: Source | None = None) -> Outputs:
    check_is_fitted(estimator)
    source = Frame() if source is None else source
    graph = source.graph
    columns: list[tuple[Any, Any]] = []
    present = None
    for number, (label, binary) in enumerate(zip(estimator.classes_, estimator.estimators_, strict=False)):
        with graph.scope(f"OneVsRest_{number}"):
            if hasattr(binary, "y_"):  # scikit-learn's stand-in for a label that all rows have, or none
                columns.append((label, float(binary.y_[0])))
                continue
            outputs = to_graph(binary, source)
            if outputs.probabilities is None:
                raise ExportError(f"OneVsRestClassifier over {type(binary).__name__} has no probabilities")
            present = outputs.present
            columns.append((label, graph.op("Gather", outputs.probabilities, graph.constant(np.asarray([1])), axis=1)))
    values = [value for _, value in columns if isinstance(value, ir.Value)]
    if not values:
        raise ExportError("OneVsRestClassifier has constant labels only; there is nothing to export")
    zero = graph.op("Mul", values[0], graph.constant(np.float32(0)))
    parts = [
        value if isinstance(value, ir.Value) else graph.op("Add", zero, graph.constant(np.float32(value)))
        for _, value in columns
    ]
    if len(parts) == 1:
        parts.insert(0, graph.op("Sub", graph.constant(np.float32(1)), parts[0]))
        return Outputs(graph, probabilities=graph.op("Concat", *parts, axis=1), present=present)
    probabilities = graph.op("Concat", *parts, axis=1)
    if estimator.multilabel_:
        return Outputs(graph, probabilities=probabilities, present=present, task=Multilabel(len(parts)))
    total = graph.op("ReduceSum", probabilities, graph.constant(np.asarray([1])), keepdims=1)
    total = graph.op("Max", total, graph.constant(np.finfo(np.float32).tiny))
    return Outputs(graph, probabilities=graph.op("Div", probabilities, total), present=present)


@to_graph.register
def _multi_output_classifier(estimator: MultiOutputClassifier, source: Source | None = None) -> Outputs:
    check_is_fitted(estimator)
    source = Frame() if source is None else source
    parts, present = [], None
    for number, (labels, member) in enumerate(zip(estimator.classes_, estimator.estimators_, strict=True)):
        with source.graph.scope(f"column_{number}"):
            outputs = to_graph(member, source)
            column = Classification(np.asarray(labels))
            parts.append(graph_outputs(f"column {number}", member, outputs, column))
            present = outputs.present
    task = Multioutput([Classification(np.asarray(labels)) for labels in estimator.classes_])
    return Outputs(source.graph, probabilities=source.graph.op("Concat", *parts, axis=1), present=present, task=task)


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
    return Outputs(source.graph, predictions=source.graph.op("Concat", *parts, axis=1), present=present)


@to_graph.register
def _voting(estimator: VotingClassifier, source: Source | None = None) -> Outputs:
    check_is_fitted(estimator)
    if estimator.voting != "soft":
        raise ExportError("VotingClassifier(voting='hard') has no probabilities; use voting='soft'")
    names = [name for name, member in estimator.estimators if member != "drop"]
    outputs, present = _members(estimator, names, Frame() if source is None else source)
    graph = outputs[0].graph
    weights = estimator._weights_not_none
    share = np.full(len(outputs), 1.0) if weights is None else np.asarray(weights, dtype=float)
    with graph.scope("VotingClassifier"):
        terms = [
            graph.op("Mul", _probabilities(name, output, estimator), graph.constant(np.float32(weight)))
            for name, output, weight in zip(names, outputs, share / share.sum(), strict=True)
        ]
        return Outputs(graph, probabilities=graph.op("Sum", *terms), present=present)


@to_graph.register
def _stacking(estimator: StackingClassifier, source: Source | None = None) -> Outputs:
    check_is_fitted(estimator)
    if estimator.passthrough:
        raise ExportError("StackingClassifier(passthrough=True) has no ONNX form here")
    methods = {method for method in estimator.stack_method_ if method != "drop"}
    if methods != {"predict_proba"}:
        raise ExportError(f"StackingClassifier is exported with stack_method 'predict_proba' only, not {methods}")
    names = [name for name, member in estimator.estimators if member != "drop"]
    outputs, present = _members(estimator, names, Frame() if source is None else source)
    graph = outputs[0].graph
    with graph.scope("StackingClassifier"):
        features = [_probabilities(name, output, estimator) for name, output in zip(names, outputs, strict=True)]
        if len(estimator.classes_) == 2:
            features = [graph.op("Gather", p, graph.constant(np.asarray([1])), axis=1) for p in features]
        stacked = graph.op("Concat", *features, axis=1)
        final = to_graph(estimator.final_estimator_, Tensor(graph, stacked, present))
    return final


def _members(estimator: Any, names: Sequence[str], source: Source) -> tuple[list[Outputs], ir.Value | None]:
    """Add the fitted members; return their outputs and which rows have any modality."""
    outputs = []
    for name, member in zip(names, estimator.estimators_, strict=True):
        inner = source.member(name, source.columns, source.kinds) if isinstance(source, Frame) else source
        with source.graph.scope(name):
            outputs.append(to_graph(member, inner))
    there = [output.present for output in outputs if output.present is not None]
    return outputs, any_present(source.graph, there) if there else None


def _probabilities(name: str, outputs: Outputs, estimator: Any) -> ir.Value:
    # scikit-learn's ensembles fit their members on encoded labels, except for prefit ones.
    member = estimator.named_estimators_[name]
    known = np.isin(member.classes_, estimator.classes_).all()
    classes = estimator.classes_ if known else np.arange(len(estimator.classes_))
    return graph_outputs(f"member {name!r}", member, outputs, Classification(np.asarray(classes)))
