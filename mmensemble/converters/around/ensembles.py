"""scikit-learn's voting and stacking, as graphs: members on columns of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from sklearn.base import is_classifier
from sklearn.ensemble import StackingClassifier, StackingRegressor, VotingClassifier, VotingRegressor
from sklearn.utils.validation import check_is_fitted

from mmensemble._sklearn import stacked_width
from mmensemble.converters.fallback.skl2onnx import as_tensor
from mmensemble.exceptions import ExportError
from mmensemble.graph import (
    Block,
    Frame,
    Graph,
    Outputs,
    Source,
    Tensor,
    any_present,
    graph_labels,
    graph_outputs,
    refused_answers,
    to_graph,
)
from mmensemble.tasks import Classification, Regression, Task, Thresholded, Votes

__all__: list[str] = []

_ONE_NUMBER = Regression(1, one_dimensional=True)


def _members(estimator: Any, source: Source) -> tuple[list[tuple[str, Any, Outputs]], ir.Value | None]:
    """Add the fitted members; return (name, member, outputs) of each, and which rows have any modality."""
    members = []
    names = [name for name, member in estimator.estimators if not isinstance(member, str)]
    for name, member in zip(names, estimator.estimators_, strict=True):
        inner = source.member(name, source.columns, source.kinds) if isinstance(source, Frame) else source
        with source.graph.scope(name):
            members.append((name, member, to_graph(member, inner)))
    present = [outputs.present for _, _, outputs in members if outputs.present is not None]
    return members, any_present(source.graph, present) if present else None


def _weights(estimator: Any) -> list[float] | None:
    """Return the weights of those members that are not left out."""
    if estimator.weights is None:
        return None
    pairs = zip(estimator.estimators, estimator.weights, strict=True)
    return [weight for (_, member), weight in pairs if not isinstance(member, str)]


def _average(graph: Graph, values: Sequence[ir.Value], weights: Any) -> ir.Value:
    share = np.ones(len(values)) if weights is None else np.asarray(weights, dtype=float)
    factors = (graph.constant(np.float32(weight)) for weight in share / share.sum())
    return graph.op("Sum", *(graph.op("Mul", v, factor) for v, factor in zip(values, factors, strict=True)))


@to_graph.register
def _voting_classifier(estimator: VotingClassifier, source: Source | None = None) -> Outputs:
    check_is_fitted(estimator)
    members, present = _members(estimator, Frame() if source is None else source)
    graph = members[0][2].graph
    weights = _weights(estimator)
    with graph.scope("VotingClassifier"):
        if estimator.voting == "hard":
            shares = _votes(graph, members, weights, len(estimator.classes_))
            said = [_feature(name, member, outputs, "predict", binary=False) for name, member, outputs in members]
            return Outputs(
                graph,
                probabilities=shares,
                transformed=graph.op("Concat", *said, axis=1),
                present=present,
                task=Votes(np.asarray(estimator.classes_)),
            )
        values = [_probabilities(name, member, outputs) for name, member, outputs in members]
        transformed = graph.op("Concat", *values, axis=1) if estimator.flatten_transform else None
        probabilities = _average(graph, values, weights)
        return Outputs(graph, probabilities=probabilities, present=present, transformed=transformed)


def _votes(graph: Graph, members: Sequence[tuple[str, Any, Outputs]], weights: Any, n_classes: int) -> ir.Value:
    """Return each class's share of the votes; the winner is scikit-learn's where votes are equal."""
    weights = np.ones(len(members)) if weights is None else np.asarray(weights, dtype=float)
    total = None
    for (name, member, outputs), weight in zip(members, weights, strict=True):
        graph.refusals += refused_answers(outputs)
        # In float64 and one after the other, as in scikit-learn: 0.1 + 0.2 is more than 0.3 there.
        ballots = (np.asarray(member.classes_)[:, None] == np.arange(n_classes)).astype(np.float64) * weight
        labels = graph.op("Squeeze", graph_labels(f"member {name!r}", member, outputs), graph.constant(np.asarray([1])))
        cast = graph.op("Gather", graph.constant(ballots, "ballots"), labels, axis=0)
        total = cast if total is None else graph.op("Add", total, cast)
    shares = graph.op("Cast", graph.op("Div", total, graph.constant(np.float64(weights.sum() or 1))), to=Graph.FLOAT)
    winner = graph.op("Equal", graph.op("ArgMax", total, axis=1, keepdims=1), graph.constant(np.arange(n_classes)))
    # What is only rounded to as many votes as the winner has stays below it.
    others = graph.op("Mul", shares, graph.constant(np.float32(1 - 2**-22)))
    return graph.op("Where", winner, shares, others)


@to_graph.register
def _voting_regressor(estimator: VotingRegressor, source: Source | None = None) -> Outputs:
    check_is_fitted(estimator)
    members, present = _members(estimator, Frame() if source is None else source)
    graph = members[0][2].graph
    with graph.scope("VotingRegressor"):
        values = [graph_outputs(f"member {name!r}", member, out, _ONE_NUMBER) for name, member, out in members]
        return Outputs(
            graph,
            predictions=_average(graph, values, _weights(estimator)),
            task=_ONE_NUMBER,
            present=present,
            transformed=graph.op("Concat", *values, axis=1),
        )


@to_graph.register
def _stacking_classifier(estimator: StackingClassifier, source: Source | None = None) -> Outputs:
    check_is_fitted(estimator)
    if isinstance(estimator.classes_, list):
        raise ExportError("StackingClassifier over several columns of labels has no ONNX form; use Stacking")
    stacked = _stacked(estimator, Frame() if source is None else source, binary=len(estimator.classes_) == 2)
    graph = stacked.graph
    with graph.scope("final_estimator"):
        final = to_graph(estimator.final_estimator_, stacked)
    return Outputs(
        graph,
        probabilities=final.probabilities,
        present=stacked.present,
        # The meta-learner was fitted on the classes' numbers.
        task=_renamed(final.task, np.asarray(estimator.classes_)),
        decision=final.decision,
        labels=final.labels,
        transformed=stacked.value,
        blocks=stacked.blocks,
    )


@to_graph.register
def _stacking_regressor(estimator: StackingRegressor, source: Source | None = None) -> Outputs:
    check_is_fitted(estimator)
    stacked = _stacked(estimator, Frame() if source is None else source, binary=False)
    with stacked.graph.scope("final_estimator"):
        final = to_graph(estimator.final_estimator_, stacked)
    return Outputs(
        stacked.graph,
        predictions=final.predictions,
        task=final.task,
        present=stacked.present,
        transformed=stacked.value,
        blocks=stacked.blocks,
    )


def _stacked(estimator: Any, source: Source, *, binary: bool) -> Tensor:
    """Put what the members say side by side, and before X itself where it is passed through."""
    # Before the members, which may take long: this may fail.
    X = None
    if estimator.passthrough:
        with source.graph.scope("passthrough"):
            X = as_tensor(estimator, source)
    members, present = _members(estimator, source)
    graph = source.graph
    with graph.scope(type(estimator).__name__):
        features = [
            _feature(name, member, outputs, method, binary=binary)
            for (name, member, outputs), method in zip(members, estimator.stack_method_, strict=True)
        ]
        stacked = features[0] if len(features) == 1 else graph.op("Concat", *features, axis=1)
        if X is None:
            return Tensor(graph, stacked, present)
        blocks = (Block(stacked_width(estimator), stacked), *X.blocks) if X.blocks else ()
        value = graph.op("Concat", *graph.alike(stacked, X.exact), axis=1)
        return Tensor(graph, value, present, blocks, X.sparse, X.refused)


def _feature(name: str, member: Any, outputs: Outputs, method: str, *, binary: bool) -> ir.Value:
    """Return what a member tells the meta-learner."""
    graph = outputs.graph
    if method == "predict_proba":
        value = _probabilities(name, member, outputs)
        return graph.op("Gather", value, graph.constant(np.asarray([1])), axis=1) if binary else value
    if method == "decision_function":
        if outputs.decision is None:
            raise ExportError(f"member {name!r} ({type(member).__name__}) has no ONNX form of its decision_function")
        return outputs.decision
    if not is_classifier(member):
        return graph_outputs(f"member {name!r}", member, outputs, _ONE_NUMBER)
    labels = graph_labels(f"member {name!r}", member, outputs)
    try:
        numbers = np.asarray(member.classes_).astype(np.float32)
    except ValueError as error:
        raise ExportError(f"member {name!r} predicts {member.classes_.tolist()}, which are no numbers") from error
    return graph.op("Gather", graph.constant(numbers), labels, axis=0)


def _probabilities(name: str, member: Any, outputs: Outputs) -> ir.Value:
    """Return a member's own probabilities, which scikit-learn's ensembles take as they come."""
    return graph_outputs(f"member {name!r}", member, outputs, Classification(np.asarray(member.classes_)))


def _renamed(task: Task | None, classes: np.ndarray) -> Task | None:
    if isinstance(task, Thresholded):
        return Thresholded(classes, task.threshold, task.positive)
    return None if task is None else type(task)(classes)  # type: ignore[call-arg]
