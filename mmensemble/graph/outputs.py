"""Members' outputs in a graph, in the form of the composition's task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mmensemble.exceptions import ExportError
from mmensemble.learning.outputs import labels_known
from mmensemble.tasks import Classification, Multilabel, Multioutput, Regression, Task, Thresholded, placement

if TYPE_CHECKING:
    import onnx_ir as ir

    from mmensemble.graph.builder import Graph
    from mmensemble.graph.parts import Outputs

__all__ = ["graph_labels", "graph_outputs", "graph_votes", "refused_answers", "rows_not_finite"]


def graph_outputs(
    name: str, estimator: Any, outputs: Outputs, task: Task, labels: Sequence[np.ndarray] | None = None
) -> ir.Value:
    """Return a member's outputs in a graph in the order of the task, (batch, task.width).

    Parameters
    ----------
    name : str
        What an error calls the member.
    estimator : estimator
        Fitted.
    outputs : Outputs
        What it gives in the graph.
    task : Task
    labels : sequence of ndarray, default=None
        The labels that its classes number, as `fit_member` returns them; None where they are the labels themselves.

    Raises
    ------
    ExportError
        If the member gives something else.
    """
    value = outputs.predictions if isinstance(task, Regression) else outputs.probabilities
    known = outputs.task
    if known is None and outputs.probabilities is not None:
        known = Classification(np.asarray(estimator.classes_))
    if known is None and isinstance(task, Regression):
        known = task
    if isinstance(task, Multilabel) and isinstance(known, Multioutput) and value is not None:
        return _of_label_one(outputs, known, value)
    if isinstance(task, Multioutput) and isinstance(known, Multilabel) and value is not None:
        known, value = _both_labels(outputs, value, labels or [])
    if value is None or not isinstance(known, type(task)) or known.output != task.output:
        wanted = "predictions" if isinstance(task, Regression) else f"probabilities of a {task.name} task"
        raise ExportError(f"{name} ({type(estimator).__name__}) gives no {wanted}")
    if not task.label_sets:
        return value
    matrix = placement(labels_known(known.label_sets, labels), task.label_sets)
    if matrix is None:
        return value
    return outputs.graph.op("MatMul", value, outputs.graph.constant(matrix, "class_placement"))


def _of_label_one(outputs: Outputs, known: Multioutput, value: ir.Value) -> ir.Value:
    """Return the probabilities of label 1 out of those of columns of 0 and 1."""
    matrix = np.zeros((known.width, len(known.label_sets)), dtype=np.float32)
    start = 0
    for column, labels in enumerate(known.label_sets):
        matrix[start + np.flatnonzero(labels == 1), column] = 1
        start += len(labels)
    return outputs.graph.op("MatMul", value, outputs.graph.constant(matrix, "label_one"))


def _both_labels(outputs: Outputs, value: ir.Value, labels: Sequence[np.ndarray]) -> tuple[Multioutput, ir.Value]:
    """Return columns of two labels each out of the probabilities of the second ones, and these of both."""
    graph, known = outputs.graph, Multioutput([Classification(np.arange(len(names))) for names in labels])
    number, sizes = np.concatenate(known.label_sets), np.array([len(names) for names in labels])
    column = np.repeat(np.arange(len(labels)), sizes)
    # Of the first label 1 - p, of the second p; 1 of a label that all rows had.
    sign = np.where(sizes[column] == 1, 0, np.where(number, 1, -1))
    factor = (np.arange(len(labels))[:, None] == column) * sign
    matrix, offset = (graph.constant(part.astype(np.float32), "both_labels") for part in (factor, 1 - number))
    return known, graph.op("Gemm", value, matrix, offset)


def graph_labels(name: str, estimator: Any, outputs: Outputs) -> ir.Value:
    """Return the numbers of the classes that a classifier predicts, (batch, 1) int64.

    Raises
    ------
    ExportError
        If the member gives something else.
    """
    graph = outputs.graph
    if outputs.labels is not None:
        return outputs.labels
    if outputs.probabilities is None or not isinstance(outputs.task, (Classification, type(None))):
        raise ExportError(f"{name} ({type(estimator).__name__}) predicts no classes")
    task = outputs.task
    if not isinstance(task, Thresholded):
        return graph.op("ArgMax", outputs.probabilities, axis=1, keepdims=1)
    probability = graph.op("Gather", outputs.probabilities, graph.constant(np.asarray([task.positive])), axis=1)
    reached = graph.op("GreaterOrEqual", probability, graph.constant(np.float32(task.threshold)))
    positive, other = (graph.constant(np.asarray(number)) for number in (task.positive, 1 - task.positive))
    return graph.op("Where", reached, positive, other)


def refused_answers(outputs: Outputs) -> list[ir.Value]:
    """Return in which rows, (batch, 1) bool, an estimator's answers are NaN, which labels do not show."""
    graph = outputs.graph
    answers = (outputs.decision, outputs.probabilities, outputs.predictions)
    behind = next((value for value in answers if value is not None), None)
    return [] if behind is None else [rows_not_finite(graph, behind)]


def rows_not_finite(graph: Graph, value: ir.Value) -> ir.Value:
    """Return in which rows of a value (batch, k) something is NaN or infinite, (batch, 1) bool."""
    total = graph.op("ReduceSum", value, graph.constant(np.asarray([1])), keepdims=1)
    return graph.op("IsNaN", graph.op("Mul", total, graph.number(0, total)))


def graph_votes(graph: Graph, labels: ir.Value, n_classes: int) -> ir.Value:
    """Return 1 for the class of each number (batch, 1) and 0 for the others, (batch, n_classes) float32."""
    flat = graph.op("Squeeze", labels, graph.constant(np.asarray([1])))
    off_on = graph.constant(np.asarray([0, 1], dtype=np.float32))
    return graph.op("OneHot", flat, graph.constant(np.asarray(n_classes)), off_on, axis=-1)
