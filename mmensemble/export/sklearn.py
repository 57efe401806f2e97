"""scikit-learn's own compositions and linear models, as graphs.

skl2onnx gives every member of an ensemble the same one input; here each member brings its own columns. Linear
classifiers become a matrix product and a softmax, which run on any execution provider.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from sklearn.ensemble import StackingClassifier, VotingClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection._search import BaseSearchCV
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from mmensemble.compose import ColumnSelector
from mmensemble.exceptions import ExportError
from mmensemble.export.graph import Frame, Outputs, Source, Tensor, align_classes, any_present, to_graph
from mmensemble.export.skl2onnx import as_tensor

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


@to_graph.register
def _logistic_regression(estimator: LogisticRegression, source: Source | None = None) -> Outputs:
    check_is_fitted(estimator)
    if not isinstance(source, Tensor):
        source = as_tensor(estimator, Frame() if source is None else source)
    graph = source.graph
    weight, bias = estimator.coef_.T, estimator.intercept_
    with graph.scope("LogisticRegression"):
        if len(estimator.classes_) == 2:
            # softmax([-z/2, z/2]) is [1 - sigmoid(z), sigmoid(z)].
            weight, bias = np.hstack([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
        logits = graph.op(
            "Gemm",
            source.value,
            graph.constant(weight.astype(np.float32), "coef"),
            graph.constant(bias.astype(np.float32), "intercept"),
        )
        return Outputs(graph, probabilities=graph.op("Softmax", logits, axis=1), present=source.present)


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
    if outputs.probabilities is None:
        raise ExportError(f"member {name!r} gives no probabilities")
    # scikit-learn's ensembles fit their members on encoded labels, except for prefit ones.
    member = estimator.named_estimators_[name]
    known = member.classes_
    classes = estimator.classes_ if np.isin(known, estimator.classes_).all() else np.arange(len(estimator.classes_))
    return align_classes(outputs, known, classes)
