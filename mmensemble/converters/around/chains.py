"""scikit-learn's chains, in which each estimator sees what those before it said, and its dummies, as graphs."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.multioutput import ClassifierChain, RegressorChain

from mmensemble.converters.linear import matrix
from mmensemble.exceptions import ExportError
from mmensemble.graph import Graph, Outputs, Source, Tensor, graph_labels, to_graph
from mmensemble.tasks import Classification, Multilabel, MultilabelVotes, Multioutput, Regression

__all__: list[str] = []


@to_graph.register
def _regressor_chain(estimator: RegressorChain, source: Source | None = None) -> Outputs:
    X = matrix(estimator, source)
    graph = X.graph
    values: list[ir.Value] = []
    for number, member in enumerate(estimator.estimators_):
        with graph.scope(f"target_{number}"):
            predictions = to_graph(member, _behind(X, values)).predictions
            if predictions is None:
                raise ExportError(f"{type(member).__name__} gives no predictions")
            values.append(predictions)
    in_order = [values[position] for position in np.argsort(estimator.order_)]
    task = Regression(len(values), one_dimensional=False)
    return Outputs(graph, predictions=graph.op("Concat", *in_order, axis=1), present=X.present, task=task)


@to_graph.register
def _classifier_chain(estimator: ClassifierChain, source: Source | None = None) -> Outputs:
    X = matrix(estimator, source)
    graph = X.graph
    if not all(np.array_equal(classes, [0, 1]) for classes in estimator.classes_):
        raise ExportError("ClassifierChain has an ONNX form over labels that are 0 or 1")
    passed_on: list[ir.Value] = []
    inner: list[tuple[Any, Outputs]] = []
    for number, member in enumerate(estimator.estimators_):
        with graph.scope(f"label_{number}"):
            outputs = to_graph(member, _behind(X, passed_on))
            passed_on.append(_passed_on(graph, member, outputs, estimator.chain_method_))
            inner.append((member, outputs))
    order = np.argsort(estimator.order_)
    labels = [inner[position] for position in order]
    if all(outputs.probabilities is not None for _, outputs in labels):
        second = graph.constant(np.asarray([1]))
        columns = [graph.op("Gather", outputs.probabilities, second, axis=1) for _, outputs in labels]
        task: Multilabel = Multilabel(len(columns))
    else:
        columns = [
            graph.op("Cast", graph_labels("a label", member, outputs), to=Graph.FLOAT) for member, outputs in labels
        ]
        task = MultilabelVotes(len(columns))
    return Outputs(graph, probabilities=graph.op("Concat", *columns, axis=1), present=X.present, task=task)


def _behind(X: Tensor, values: list[ir.Value]) -> Tensor:
    """Return a matrix with further columns behind it."""
    if not values:
        return X
    return Tensor(X.graph, X.graph.op("Concat", *X.graph.alike(X.exact, *values), axis=1), X.present)


def _passed_on(graph: Graph, member: Any, outputs: Outputs, method: str) -> ir.Value:
    """Return what the later members see of one."""
    if method == "decision_function":
        if outputs.decision is None:
            raise ExportError(f"{type(member).__name__} has no ONNX form of its decision_function")
        return outputs.decision
    if method == "predict_proba":
        if outputs.probabilities is None:
            raise ExportError(f"{type(member).__name__} gives no probabilities")
        return graph.op("Gather", outputs.probabilities, graph.constant(np.asarray([1])), axis=1)
    return graph.op("Cast", graph_labels("a label", member, outputs), to=Graph.FLOAT)


def _repeated(X: Tensor, numbers: np.ndarray) -> ir.Value:
    """Return the same numbers (1, width) for every row."""
    graph = X.graph
    rows = graph.op("Gather", graph.op("Shape", X.value), graph.constant(np.asarray([0])), axis=0)
    shape = graph.op("Concat", rows, graph.constant(np.asarray([numbers.size])), axis=0)
    return graph.op("Expand", graph.constant(numbers.reshape(1, -1).astype(np.float32), "answer"), shape)


@to_graph.register
def _dummy_regressor(estimator: DummyRegressor, source: Source | None = None) -> Outputs:
    X = matrix(estimator, source)
    with X.graph.scope("DummyRegressor"):
        width = int(estimator.n_outputs_)
        task = Regression(width, one_dimensional=width == 1)
        return Outputs(X.graph, predictions=_repeated(X, estimator.constant_), present=X.present, task=task)


@to_graph.register
def _dummy_classifier(estimator: DummyClassifier, source: Source | None = None) -> Outputs:
    X = matrix(estimator, source)
    if estimator.strategy not in ("prior", "most_frequent", "constant"):
        raise ExportError(f"DummyClassifier(strategy={estimator.strategy!r}) draws at random; use 'prior'")
    columns = estimator.classes_ if isinstance(estimator.classes_, list) else [estimator.classes_]
    answer = estimator.predict_proba(np.zeros((1, 1)))
    with X.graph.scope("DummyClassifier"):
        probabilities = _repeated(X, np.hstack(answer) if isinstance(answer, list) else answer)
        task = Multioutput([Classification(np.asarray(labels)) for labels in columns]) if len(columns) > 1 else None
        return Outputs(X.graph, probabilities=probabilities, present=X.present, task=task)
